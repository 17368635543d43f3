"""Starts the project's own OSS endpoint on loopback and reads its request log.

Used by the demo, the bars and the tests. Never binds anything but loopback addresses and
never ends a process that it did not start.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.harness import paths
from tests.harness.requestlog import Request, parse_line

ACCESS_KEY_ID = "LTAI-test-key-id"
ACCESS_KEY_SECRET = "test-key-secret-7f3a91"
REGION = "cn-test"
ANY_PORT = "127.0.0.1:0"

# Long enough to hash the largest model from a cold disk.
START_SECS_MAX = 60.0
STOP_SECS_MAX = 5.0


class Endpoint:
    """One endpoint process; `with Endpoint(...) as endpoint:` starts and stops it."""

    def __init__(
        self,
        root: Path,
        run_dir: Path,
        faults: list[dict[str, Any]] | None = None,
        options: list[str] | None = None,
        program: list[str] | None = None,
        region: str = REGION,
        listen: str = ANY_PORT,
    ) -> None:
        """`program` is another one with the same command line (tests/peers/resign.py)."""
        self.root = root
        self.run_dir = run_dir
        self.url = ""
        self._faults = faults
        self._options = options or []
        self._region = region
        self._program = program or [str(paths.ENDPOINT)]
        self._listen = listen
        self._process: subprocess.Popen[bytes] | None = None
        self._log = run_dir / "endpoint.log"
        self._rules = run_dir / "faults.json"
        self._offset = 0
        self._requests: list[Request] = []

    def __enter__(self) -> Endpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        ready = self.run_dir / "endpoint.ready"
        argv = [
            *self._program,
            "--root", str(self.root),
            "--listen", self._listen,
            "--access-key-id", ACCESS_KEY_ID,
            "--access-key-secret", ACCESS_KEY_SECRET,
            "--region", self._region,
            "--ready-file", str(ready),
            "--log", str(self._log),
            "--exit-with-parent",
            # The CRC header must be there from the first answer on, since verdicts depend on it.
            "--hash-first",
            *self._options,
        ]
        if self._faults:
            self.set_rules(self._faults)
            argv += ["--faults", str(self._rules)]
        errors = self.run_dir / "endpoint.err"
        with open(errors, "wb") as stderr:
            self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        deadline = time.monotonic() + START_SECS_MAX
        while True:
            text = ready.read_text().strip() if ready.exists() else ""
            if text:
                self.url = text
                return
            status = self._process.poll()
            if status is not None or time.monotonic() > deadline:
                self.stop()
                state = f"ended with status {status}" if status is not None else "was not ready in time"
                raise RuntimeError(f"the endpoint {state}: {errors.read_text().strip()}")
            time.sleep(0.01)

    def start_again(self) -> None:
        """After `stop`: at the same address."""
        self._listen = self.url.rpartition("/")[2]
        (self.run_dir / "endpoint.ready").unlink()
        self.start()

    def set_rules(self, faults: list[dict[str, Any]]) -> None:
        """From now on these things go wrong; an endpoint that was started without any does not look for them."""
        fresh = self._rules.with_suffix(".new")
        fresh.write_text(json.dumps(faults, indent=1))
        fresh.rename(self._rules)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def requests(self) -> list[Request]:
        """Everything served so far; reads only what is new in the log."""
        if self._log.exists():
            with open(self._log, "rb") as log:
                log.seek(self._offset)
                data = log.read()
            whole = data.rfind(b"\n") + 1
            self._offset += whole
            self._requests += [parse_line(line) for line in data[:whole].splitlines() if line.strip()]
        return self._requests

    def forget(self) -> None:
        """Starts the record anew: later `requests()` return only what comes from now on."""
        self.requests()
        self._requests = []
