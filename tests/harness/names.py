"""Host names that lead to 127.0.0.1 for one program and its children: /etc/hosts of a mount namespace.

Used by the bars and the tests that address a bucket by the host's name. The system's own file stays as it is.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.harness.run import plain_env

# What the endpoint's certificate is for, with its sub-domains (tests/endpoint/certificate.rs).
NAME = "localhost.test"


def prefix(hosts: Path, names: list[str]) -> list[str]:
    """Writes `hosts` and returns what to put before a command. RuntimeError where no namespace can be had."""
    hosts.write_text(f"127.0.0.1 localhost {' '.join(names)}\n")
    script = f'mount --bind "{hosts}" /etc/hosts && exec env "$@"'
    inside = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"]), "sh", "-c", script, "sh"]
    probe = subprocess.run([*inside, "true"], env=plain_env(), capture_output=True, check=False)
    if probe.returncode != 0:
        raise RuntimeError(f"no mount namespace here: {probe.stderr.decode().strip()}")
    return inside
