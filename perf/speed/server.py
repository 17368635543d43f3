"""nginx (Debian) on loopback, on a core of its own, serving one object: the server that every row is measured against.

It knows no signatures and no listings, so that its own work is the same for every client. The same object comes by
http and by https (TLS 1.3, AES-128-GCM). Ends what it started.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.harness import paths
from tests.harness.certificate import Certificate

BUCKET = "perf"
KEY = "object.safetensors"
# The name under which the bucket is a virtual host: for clients that know no path style.
DOMAIN = "oss-perf.test"
START_SECS_MAX = 10.0
CONFIG = """
{user}
worker_processes 1;
daemon off;
pid {run}/nginx.pid;
error_log {run}/nginx.err;
events {{ worker_connections 2048; }}
http {{
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
  log_format one "$request_method $status $body_bytes_sent";
  access_log {run}/access.log one;
  server {{ listen 127.0.0.1:{port}; root {root}; }}
  server {{ listen 127.0.0.1:{port}; server_name {bucket}.{domain}; root {root}/{bucket}; }}
  server {{
    listen 127.0.0.1:{tls_port} ssl; root {root};
    ssl_certificate {certificate}/cert.pem; ssl_certificate_key {certificate}/key.pem;
    ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  }}
}}
"""
MAKE_OBJECT = """
import sys
import numpy as np
from safetensors.numpy import save_file
random, mib, count = np.random.default_rng(7), int(sys.argv[2]), 16
each = mib * 1024 * 1024 // count
save_file({f"layer.{n}.weight": np.frombuffer(random.bytes(each), np.float16).reshape(-1, 64) for n in range(count)}, sys.argv[1])
"""


def program() -> str:
    found = shutil.which("nginx") or next((p for p in ("/usr/sbin/nginx", "/sbin/nginx") if os.path.exists(p)), None)
    if found is None:
        raise RuntimeError("nginx is missing: run ci/setup perf")
    return found


def make_object(size_mib: int) -> Path:
    """A safetensors file of so many MiB of random numbers, made once."""
    path = paths.CACHE / "speed" / f"www-{size_mib}" / BUCKET / KEY
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_suffix(".making")
        subprocess.run([str(paths.VENV_PYTHON), "-c", MAKE_OBJECT, str(making), str(size_mib)], check=True)
        making.chmod(0o644)
        making.rename(path)
    # Into the page cache: the server's disk is not what is measured.
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
    return path


class Nginx:
    """`with Nginx(object, run_dir, core) as server:`"""

    def __init__(self, served: Path, run: Path, core: int | None) -> None:
        self.object, self.run, self.core = served, run, core
        self.port = self.tls_port = 0
        # What a client of https trusts.
        self.ca = run / "certificate" / "ca.pem"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def object_url(self) -> str:
        return f"{self.url}/{BUCKET}/{KEY}"

    @property
    def secure_object_url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}/{BUCKET}/{KEY}"

    def __enter__(self) -> Nginx:
        self.run.mkdir(parents=True, exist_ok=True)
        Certificate(self.ca.parent)
        with socket.socket() as one, socket.socket() as two:
            for probe in (one, two):
                probe.bind(("127.0.0.1", 0))
            self.port, self.tls_port = (probe.getsockname()[1] for probe in (one, two))
        config = self.run / "nginx.conf"
        user = "user root;" if os.getuid() == 0 else ""
        places = {"run": self.run, "root": self.object.parents[1], "certificate": self.ca.parent, "bucket": BUCKET, "domain": DOMAIN}
        config.write_text(CONFIG.format(user=user, port=self.port, tls_port=self.tls_port, **places))
        pin = [] if self.core is None else ["taskset", "-c", str(self.core)]
        argv = [*pin, program(), "-c", str(config)]
        self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_SECS_MAX
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if time.monotonic() > end or self._process.poll() is not None:
                    raise RuntimeError(f"nginx does not serve: {(self.run / 'nginx.err').read_text()}") from None
                time.sleep(0.02)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)

    def requests(self) -> int:
        """Requests so far."""
        log = self.run / "access.log"
        return log.read_bytes().count(b"\n") if log.exists() else 0
