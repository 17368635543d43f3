"""Stand-ins for the services that give temporary credentials, with their exact wire formats, on loopback.

Whatever is issued here is put into the file of keys that the endpoint accepts (`--keys`), with its end. Used by
the bars and the tests. Nothing here is the client's code: the formats are those of Alibaba Cloud's manuals and SDKs.
"""

from __future__ import annotations

import json
import re
import secrets
import ssl
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.harness.certificate import Certificate

ROLE = "model-loader"
ROLES = "/latest/meta-data/ram/security-credentials/"
ROLE_ARN = "acs:ram::123456789012:role/model-loader"
PROVIDER_ARN = "acs:ram::123456789012:oidc-provider/ack-rrsa-c1"


def utc(secs: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(secs))


class Issuer:
    """Makes keys that live for a while; `keys` is the endpoint's file, every issued key stays in it."""

    def __init__(self, keys: Path, life_secs: float) -> None:
        self.keys = keys
        self.life_secs = life_secs
        self.issued: list[dict[str, str]] = []
        # Set: nothing new is issued any more, each client gets the last one.
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._write()

    def _write(self) -> None:
        fresh = self.keys.with_suffix(".new")
        fresh.write_text(json.dumps(self.issued))
        fresh.rename(self.keys)

    def issue(self) -> dict[str, str]:
        with self._lock:
            if self.stopped.is_set() and self.issued:
                return self.issued[-1]
            # Ends are whole seconds: rounded up, so that a life is never shorter than said.
            key = {
                "AccessKeyId": f"STS.{secrets.token_hex(10)}",
                "AccessKeySecret": secrets.token_hex(20),
                "SecurityToken": f"CAIS{secrets.token_urlsafe(200)}",
                "Expiration": utc(time.time() + self.life_secs + 0.999),
            }
            self.issued.append(key)
            self._write()
            return key

    def withdraw_all(self) -> None:
        """The endpoint knows none of the keys so far any more."""
        with self._lock:
            self.issued = []
            self._write()


class KeyFile:
    """A file as of OSS_AUTHORIZATION_FILE_PATH that a thread renews every few seconds; `with` starts and stops it."""

    def __init__(self, issuer: Issuer, path: Path, every_secs: float) -> None:
        self.issuer, self.path, self.every_secs = issuer, path, every_secs
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def put(self) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.issuer.issue()))
        fresh.rename(self.path)

    def _keep(self) -> None:
        while not self._stop.wait(self.every_secs):
            self.put()

    def __enter__(self) -> KeyFile:
        self.put()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Service:
    """An HTTP server of a test; `url` is where it is."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, text: str, kind: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Metadata(Service):
    """The metadata service of an ECS instance; a version that is not among `versions` is refused."""

    def __init__(self, issuer: Issuer, versions: tuple[int, ...] = (1, 2)) -> None:
        tokens: set[str] = set()
        current: dict[str, str] = {}
        asked: list[tuple[str, str, bool]] = []
        # (method, path, with a token) of each request.
        self.asked = asked

        class Handler(_Handler):
            def do_PUT(self) -> None:
                asked.append(("PUT", self.path, False))
                life = self.headers.get("X-aliyun-ecs-metadata-token-ttl-seconds", "")
                if 2 not in versions or self.path != "/latest/api/token":
                    return self.answer(404, "Not Found", "text/html")
                if not life.isdigit() or not 1 <= int(life) <= 21600:
                    return self.answer(400, "Bad Request", "text/html")
                token = secrets.token_urlsafe(32)
                tokens.add(token)
                self.answer(200, token, "text/plain")

            def do_GET(self) -> None:
                token = self.headers.get("X-aliyun-ecs-metadata-token")
                asked.append(("GET", self.path, token is not None))
                if token not in tokens if token is not None else 1 not in versions:
                    return self.answer(403, "Forbidden", "text/html")
                if self.path == ROLES:
                    return self.answer(200, ROLE, "text/plain")
                if self.path != ROLES + ROLE:
                    return self.answer(404, "Not Found", "text/html")
                self.answer(200, json.dumps(self.credentials(), indent=2), "application/json")

            def credentials(self) -> dict[str, str]:
                # Like the real one, the same until half of their life is over.
                if not current or current["Expiration"] < utc(time.time() + issuer.life_secs / 2):
                    current.update(issuer.issue())
                return {**current, "LastUpdated": utc(time.time()), "Code": "Success"}

        super().__init__(Handler)


class TokenService(Service):
    """AssumeRoleWithOIDC of the Security Token Service; `token` is the file that holds the only token it takes."""

    def __init__(self, issuer: Issuer, token: Path, certificate: Certificate) -> None:
        refusals: list[str] = []
        self.refusals = refusals

        class Handler(_Handler):
            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                path, _, query = self.path.partition("?")
                asked = dict(urllib.parse.parse_qsl(query, strict_parsing=True))
                asked.update(urllib.parse.parse_qsl(self.rfile.read(length).decode(), strict_parsing=True))
                wrong = self.wrong(path, asked)
                if wrong:
                    refusals.append(wrong)
                    text: dict[str, object] = {"RequestId": "0A1B2C3D", "HostId": "sts.aliyuncs.com", "Code": wrong, "Message": "refused"}
                    return self.answer(400, json.dumps(text), "application/json")
                user = {"AssumedRoleId": "3", "Arn": f"{ROLE_ARN}/{asked['RoleSessionName']}"}
                text = {"RequestId": "0A1B2C3D", "AssumedRoleUser": user, "Credentials": issuer.issue()}
                self.answer(200, json.dumps(text), "application/json")

            def wrong(self, path: str, asked: dict[str, str]) -> str:
                if path != "/" or "Signature" in asked or "Authorization" in self.headers:
                    return "InvalidParameter"
                if (asked.get("Action"), asked.get("Version"), asked.get("Format")) != ("AssumeRoleWithOIDC", "2015-04-01", "JSON"):
                    return "InvalidAction.NotFound"
                stamp = asked.get("Timestamp", "")
                if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp) or abs(time.mktime(time.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ")) - time.timezone - time.time()) > 900:
                    return "InvalidTimeStamp.Expired"
                if not asked.get("DurationSeconds", "").isdigit() or int(asked["DurationSeconds"]) < 900:
                    return "InvalidParameter.DurationSeconds"
                if not re.fullmatch(r"[\w.@-]{2,64}", asked.get("RoleSessionName", "")):
                    return "InvalidParameter.RoleSessionName"
                if (asked.get("RoleArn"), asked.get("OIDCProviderArn")) != (ROLE_ARN, PROVIDER_ARN):
                    return "EntityNotExist.Role"
                if asked.get("OIDCToken") != token.read_text().strip():
                    return "AuthenticationFail.OIDCToken.Invalid"
                return ""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.ca.with_name("cert.pem"), certificate.ca.with_name("key.pem"))
        super().__init__(Handler, context)


def pod_env(service: TokenService, token: Path) -> dict[str, str]:
    """What ACK gives to a pod, and where its token service is."""
    return {
        "ALIBABA_CLOUD_ROLE_ARN": ROLE_ARN,
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN": PROVIDER_ARN,
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE": str(token),
        "OSSC_STS_URL": service.url,
    }
