"""An OSS endpoint that signs every request again with the official Python SDKs and compares.

Started by the bar "wire 2" under target/venv-sdk with the command line of oss-endpoint, as far as
that is needed here. It shares nothing with the project's own endpoint or signer: signatures come
from alibabacloud-oss-v2 (V4) and oss2 (V1), checksums from oss2, the rest from the standard
library. Read-only, slow, and never bound to anything but what --listen names.
"""

from __future__ import annotations

import argparse
import base64
import ctypes
import datetime
import email.utils
import hashlib
import ipaddress
import itertools
import json
import os
import signal
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote_to_bytes
from xml.sax.saxutils import escape

import oss2
import oss2.auth
from alibabacloud_oss_v2.signer import SignerV4
from alibabacloud_oss_v2.types import Credentials, HttpRequest, SigningContext

SKEW_SECS_MAX = 15 * 60
PIECE_BYTES = 1 << 20
PR_SET_PDEATHSIG = 1
# oss2 takes the time of its signature from a function, which is led to the request's own Date.
V1_CLOCK = threading.Lock()


class Refused(Exception):
    """An answer other than the one asked for."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Keys:
    id: str
    secret: str
    token: str | None


@dataclass
class Incoming:
    """One request as it came. `query` holds decoded pairs, `raw_query` the text."""

    method: str
    target: str
    raw_query: str
    query: dict[str, str]
    headers: dict[str, str]
    bucket: str
    key: str


class Referee:
    """Decides by the official signers whether a request may pass."""

    def __init__(self, keys: Keys, region: str, version: str) -> None:
        self.keys = keys
        self.region = region
        self.version = version

    def check(self, request: Incoming) -> None:
        sent = request.headers.get("authorization")
        if sent is None:
            raise Refused(403, "AccessDenied", "the request is not signed")
        if sent.startswith("OSS4-HMAC-SHA256 ") != (self.version == "v4"):
            raise Refused(403, "AccessDenied", f"only {self.version} signatures are taken here")
        access_key_id = sent.split("Credential=")[-1].split("/")[0] if self.version == "v4" else sent[4:].split(":")[0]
        if access_key_id != self.keys.id:
            raise Refused(403, "InvalidAccessKeyId", "no such access key id")
        token = request.headers.get("x-oss-security-token")
        if token != self.keys.token:
            raise Refused(403, "InvalidAccessKeyId" if token is None else "InvalidSecurityToken", "another security token")
        when = self.signing_time(request)
        if abs((when - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) > SKEW_SECS_MAX:
            raise Refused(403, "RequestTimeTooSkewed", "the request's time is too far from this clock")
        expected = self.signed_v4(request, sent, when) if self.version == "v4" else self.signed_v1(request)
        # The two SDKs differ in the spaces after commas.
        if expected.replace(", ", ",") != sent.replace(", ", ","):
            raise Refused(403, "SignatureDoesNotMatch", f"the official SDK signs this request otherwise (region {self.region})")

    def signing_time(self, request: Incoming) -> datetime.datetime:
        try:
            if self.version == "v4":
                moment = datetime.datetime.strptime(request.headers.get("x-oss-date", ""), "%Y%m%dT%H%M%SZ")
                return moment.replace(tzinfo=datetime.timezone.utc)
            return email.utils.parsedate_to_datetime(request.headers.get("x-oss-date") or request.headers.get("date", ""))
        except (TypeError, ValueError) as error:
            raise Refused(403, "AccessDenied", f"no valid date: {error}") from None

    def signed_v4(self, request: Incoming, sent: str, when: datetime.datetime) -> str:
        """The whole Authorization header that alibabacloud-oss-v2 makes for this request."""
        additional = {name for part in sent.replace(" ", "").split(",") if part.startswith("AdditionalHeaders=") for name in part[18:].split(";")}
        again = HttpRequest(request.method, f"http://host{request.target}", headers=unsigned(request))
        context = SigningContext(
            product="oss", region=self.region, bucket=request.bucket or None, key=request.key or None, request=again,
            credentials=Credentials(self.keys.id, self.keys.secret, self.keys.token), signing_time=when,
            additional_headers=additional,
        )
        SignerV4().sign(context)
        return str(again.headers["Authorization"])

    def signed_v1(self, request: Incoming) -> str:
        """The whole Authorization header that oss2 makes for this request."""
        auth = oss2.StsAuth(self.keys.id, self.keys.secret, self.keys.token) if self.keys.token else oss2.Auth(self.keys.id, self.keys.secret)
        again = oss2.http.Request(request.method, "http://host/", params=dict(request.query), headers=unsigned(request))
        with V1_CLOCK:
            clock = oss2.auth.utils.http_date
            oss2.auth.utils.http_date = lambda *_: request.headers.get("date", "")
            try:
                auth._sign_request(again, request.bucket, request.key)
            finally:
                oss2.auth.utils.http_date = clock
        return str(again.headers["authorization"])


def unsigned(request: Incoming) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name != "authorization"}


class Bucket:
    """The files below a folder as objects; read once, at the start."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, tuple[Path, int, str, int, float]] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                data = path.read_bytes()
                crc = oss2.utils.Crc64()
                crc.update(data)
                etag = f'"{hashlib.md5(data).hexdigest().upper()}"'
                self.objects[str(path.relative_to(folder))] = (path, len(data), etag, crc.crc, path.stat().st_mtime)

    def page(self, query: dict[str, str]) -> str:
        """One page of ListObjectsV2."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        keys_max = int(query.get("max-keys", "100"))
        if not 1 <= keys_max <= 1000 or query.get("list-type") != "2":
            raise Refused(400, "InvalidArgument", "list-type must be 2 and max-keys 1 to 1000")
        after = query.get("start-after", "")
        if "continuation-token" in query:
            after = base64.b64decode(query["continuation-token"].encode()).decode()
        entries: list[tuple[str, bool]] = []
        for key in sorted(self.objects, key=lambda key: key.encode()):
            if not key.startswith(prefix):
                continue
            name, rest, found = key, key[len(prefix):], False
            if delimiter and delimiter in rest:
                name, found = prefix + rest[: rest.index(delimiter) + len(delimiter)], True
            if name.encode() > after.encode() and (name, found) not in entries[-1:]:
                entries.append((name, found))
        shown, truncated = entries[:keys_max], len(entries) > keys_max
        coded = query.get("encoding-type") == "url"

        def text(value: str) -> str:
            return quote(value, safe="") if coded else escape(value)

        parts = ['<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult>', f"<Prefix>{text(prefix)}</Prefix>"]
        parts += [f"<MaxKeys>{keys_max}</MaxKeys><Delimiter>{text(delimiter)}</Delimiter>"]
        parts += ["<EncodingType>url</EncodingType>"] if coded else []
        parts += [f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"]
        if truncated:
            token = base64.b64encode(shown[-1][0].encode()).decode()
            parts += [f"<NextContinuationToken>{text(token)}</NextContinuationToken>"]
        for name, is_prefix in shown:
            if is_prefix:
                parts.append(f"<CommonPrefixes><Prefix>{text(name)}</Prefix></CommonPrefixes>")
                continue
            _, size, etag, _, mtime = self.objects[name]
            when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(mtime))
            parts.append(
                f"<Contents><Key>{text(name)}</Key><LastModified>{when}</LastModified><ETag>{etag}</ETag>"
                f"<Type>Normal</Type><Size>{size}</Size><StorageClass>Standard</StorageClass></Contents>"
            )
        return "".join([*parts, f"<KeyCount>{len(shown)}</KeyCount></ListBucketResult>"])


class Log:
    """One JSON line per finished request, as oss-endpoint writes them."""

    def __init__(self, path: str | None) -> None:
        self._file = open(path, "a", buffering=1) if path else None  # noqa: SIM115 - open until the server ends
        self._lock = threading.Lock()

    def write(self, **fields: Any) -> None:
        if self._file:
            with self._lock:
                self._file.write(json.dumps(fields) + "\n")


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server
    numbers = itertools.count(1)

    def setup(self) -> None:
        super().setup()
        self.conn = next(self.numbers)
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
            self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        begin = time.time()
        request_id = f"{int(begin * 1e6):016X}{self.conn:08X}"
        status, code, sent, asked = 0, "", 0, None
        request = self.incoming()
        try:
            self.server.referee.check(request)
            status, headers, body, asked = self.answer(request)
        except Refused as refused:
            status, code = refused.status, refused.code
            headers, body = self.refusal(refused, request_id)
        self.send_response_only(status)
        head = {"Server": "AliyunOSS", "Date": self.date_time_string(), "x-oss-request-id": request_id, **headers}
        for name, value in head.items():
            self.send_header(name, value)
        self.end_headers()
        if request.method == "GET":
            sent = self.send_body(body)
        self.server.log.write(
            time=begin, conn=self.conn, method=request.method, bucket=request.bucket, key=request.key, path=self.path,
            query=request.raw_query, range=asked, status=status, code=code or None, request_id=request_id, bytes_sent=sent,
        )

    do_HEAD = do_GET

    def incoming(self) -> Incoming:
        path, _, raw_query = self.path.partition("?")
        host = self.headers.get("host", "").rsplit(":", 1)[0].strip("[]")
        name = unquote_to_bytes(path[1:]).decode()
        if is_plain_host(host):
            bucket, _, key = name.partition("/")
        else:
            bucket, key = host.split(".", 1)[0], name
        headers = {name.lower(): value for name, value in self.headers.items()}
        # oss2 sends a space as a plus and signs it as %20.
        raw_query = raw_query.replace("+", "%20")
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        return Incoming(self.command, f"{path}?{raw_query}", raw_query, query, headers, bucket, key)

    def refusal(self, refused: Refused, request_id: str) -> tuple[dict[str, str], tuple[Path | bytes, int, int]]:
        text = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{refused.code}</Code><Message>{escape(str(refused))}</Message>'
            f"<RequestId>{request_id}</RequestId><HostId>{escape(self.headers.get('host', ''))}</HostId></Error>"
        ).encode()
        if self.command == "HEAD":
            return {"Content-Length": "0", "x-oss-err": base64.b64encode(text).decode()}, (b"", 0, 0)
        return {"Content-Type": "application/xml", "Content-Length": str(len(text))}, (text, 0, len(text))

    def answer(self, request: Incoming) -> tuple[int, dict[str, str], tuple[Path | bytes, int, int], list[int] | None]:
        bucket = self.server.buckets.get(request.bucket)
        if bucket is None:
            raise Refused(404, "NoSuchBucket", "no such bucket")
        if not request.key:
            document = bucket.page(request.query).encode()
            return 200, {"Content-Type": "application/xml", "Content-Length": str(len(document))}, (document, 0, len(document)), None
        if request.key not in bucket.objects:
            raise Refused(404, "NoSuchKey", "no such key")
        path, size, etag, crc, mtime = bucket.objects[request.key]
        if request.headers.get("if-match", etag).strip('"') not in (etag.strip('"'), "*"):
            raise Refused(412, "PreconditionFailed", "If-Match")
        start, end = self.chosen(request, size)
        headers = {
            "Content-Length": str(end - start), "ETag": etag, "Last-Modified": email.utils.formatdate(mtime, usegmt=True),
            "Accept-Ranges": "bytes", "x-oss-hash-crc64ecma": str(crc), "x-oss-object-type": "Normal", "x-oss-storage-class": "Standard",
        }
        if (start, end) == (0, size) and "range" not in request.headers:
            return 200, headers, (path, 0, size), None
        if request.headers.get("x-oss-range-behavior") != "standard" and not self.inside(request, size):
            return 200, headers, (path, 0, size), None
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        return 206, headers, (path, start, end), [start, end]

    @staticmethod
    def inside(request: Incoming, size: int) -> bool:
        """Whether a range lies in the object as it is: else OSS ignores it, unless asked for standard behaviour."""
        first, _, last = request.headers.get("range", "").removeprefix("bytes=").partition("-")
        return first.isdigit() and int(first) < size and (not last or int(last) < size)

    def chosen(self, request: Incoming, size: int) -> tuple[int, int]:
        asked = request.headers.get("range")
        if request.method == "HEAD" or asked is None:
            return 0, size
        if request.headers.get("x-oss-range-behavior") != "standard" and not self.inside(request, size):
            return 0, size
        first, _, last = asked.removeprefix("bytes=").partition("-")
        start, end = (int(first), min(int(last) + 1 if last else size, size)) if first else (max(0, size - int(last)), size)
        if start >= size:
            raise Refused(416, "InvalidRange", "the range is outside the object")
        return start, end

    def send_body(self, body: tuple[Path | bytes, int, int]) -> int:
        source, start, end = body
        if isinstance(source, bytes):
            self.wfile.write(source)
            return len(source)
        sent = 0
        with open(source, "rb") as file:
            file.seek(start)
            while start + sent < end:
                piece = file.read(min(PIECE_BYTES, end - start - sent))
                self.request.sendall(piece)
                sent += len(piece)
        return sent


def is_plain_host(host: str) -> bool:
    """Addresses and localhost have no sub-domain for a bucket."""
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class Server(ThreadingHTTPServer):
    """The listening socket and what all connections share."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, options: argparse.Namespace) -> None:
        host, port = options.listen.rsplit(":", 1)
        self.log = Log(options.log)
        keys = Keys(options.access_key_id, options.access_key_secret, options.security_token)
        self.referee = Referee(keys, options.region, options.signature)
        self.buckets = {folder.name: Bucket(folder) for folder in Path(options.root).iterdir() if folder.is_dir()}
        self.tls: ssl.SSLContext | None = None
        if options.tls_cert:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(options.tls_cert, options.tls_key)
        super().__init__((host, int(port)), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Peers that go away are usual; anything else is told."""
        if not isinstance(sys.exception() if hasattr(sys, "exception") else sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("root", "access-key-id", "access-key-secret"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("ready-file", "log", "security-token", "tls-cert", "tls-key"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--listen", default="127.0.0.1:0")
    parser.add_argument("--region", default="cn-test")
    parser.add_argument("--signature", choices=["v4", "v1"], default="v4")
    parser.add_argument("--exit-with-parent", action="store_true")
    parser.add_argument("--hash-first", action="store_true", help="always so")
    options = parser.parse_args()
    if options.exit_with_parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    server = Server(options)
    url = f"{'https' if server.tls else 'http'}://127.0.0.1:{server.server_address[1]}"
    if options.ready_file:
        partial = f"{options.ready_file}.{os.getpid()}"
        Path(partial).write_text(url)
        os.rename(partial, options.ready_file)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    server.serve_forever()


if __name__ == "__main__":
    main()
