"""A CA and a certificate for loopback names, for runs over https; the endpoint's program makes them.

Used by the bars and the tests. Everything lies in one folder of the caller's.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness import paths


class Certificate:
    """`ca` is what a client trusts; `options` make the endpoint speak https."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([str(paths.ENDPOINT), "--make-cert", str(folder)], check=True, timeout=20)
        self.ca = folder / "ca.pem"
        self.options = ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
