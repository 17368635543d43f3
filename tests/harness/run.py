"""One managed folder: its environment, configuration, programs and engine.

The demo, the bars and the tests start programs under the library through this file.
Everything of a run (MODEL_DIR, configuration, log, audit) lies in one folder of its
own, so that its engine can be told from any other; no other process is touched.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.harness import paths
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, Endpoint

LINGER_SECS = 1
PROGRAM_SECS_MAX = 120.0
LOGGED_SECS_MAX = 5.0
_OWN_PREFIXES = ("OSS_", "OSSC_", "CONNECTOR_", "ALIBABA_CLOUD_")
_OWN_NAMES = ("ENABLE_CONNECTOR", "MODEL_DIR", "LD_PRELOAD", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")


def plain_env() -> dict[str, str]:
    """The caller's environment without anything that concerns the library."""
    return {
        name: value for name, value in os.environ.items()
        if not name.startswith(_OWN_PREFIXES) and name not in _OWN_NAMES
    }


def strike(pids: list[int], number: signal.Signals = signal.SIGKILL) -> list[int]:
    """Sends these processes a signal, those that are gone aside; gives the same list."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pids


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills the group that a program leads, and reaps the program."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


class Run:
    """A MODEL_DIR that mirrors one prefix of a bucket, in a folder `below` another one if that matters; `with Run(...)`
    cleans up and reaps its engine."""

    def __init__(
        self,
        endpoint: Endpoint,
        prefix: str,
        config: dict[str, Any] | None = None,
        io: str | None = None,
        below: Path | None = None,
        products: Path = paths.PRODUCTS,
    ) -> None:
        """`products` is another build's folder, which holds the library and `ossc`."""
        self.endpoint = endpoint
        self.products = products
        self.prefix = prefix.strip("/") + "/"
        self.dir = Path(tempfile.mkdtemp(prefix="ossc-run-", dir=below))
        self.model_dir = self.dir / "model"
        self.model_dir.mkdir()
        self.log_path = self.dir / "connector.log"
        self.audit_path = self.dir / "audit.log"
        self.config_path = self.dir / "config.json"
        settings: dict[str, Any] = {
            "logLevel": 1,
            "logPath": str(self.log_path),
            "auditPath": str(self.audit_path),
            "lingerSec": LINGER_SECS,
            # Bytes are counted, and a busy machine's answers may be slow. Who tests it sets it.
            "twicePercent": 0,
        }
        settings.update(config or {})
        self.linger_secs = float(settings["lingerSec"])
        self.config_path.write_text(json.dumps(settings, indent=1))
        # Tests that name no driver can all be run with one.
        self.io = io or os.environ.get("TEST_IO")
        self.leaks: list[int] = []

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def env(self, role: int | None = 1, /, **changes: str | None) -> dict[str, str]:
        """The page's variables; `changes` replace them, None removes one. `role` is no variable: it has no name."""
        assert "role" not in changes
        env = plain_env()
        env.update(
            OSS_ACCESS_KEY_ID=ACCESS_KEY_ID,
            OSS_ACCESS_KEY_SECRET=ACCESS_KEY_SECRET,
            OSS_ENDPOINT=self.endpoint.url,
            OSS_REGION=REGION,
            OSS_PATH=f"oss://{paths.BUCKET}/{self.prefix}",
            MODEL_DIR=str(self.model_dir),
            OSSC_CONFIG=str(self.config_path),
            LD_PRELOAD=str(self.products / paths.PRELOAD.name),
        )
        if role is not None:
            env["ENABLE_CONNECTOR"] = str(role)
        if self.io is not None:
            env["OSSC_IO"] = self.io
        for name, value in changes.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        return env

    def start(self, argv: list[str], env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen(argv, env=env or self.env(), **options)

    def call(
        self,
        argv: list[str],
        env: dict[str, str] | None = None,
        timeout: float = PROGRAM_SECS_MAX,
        **options: Any,
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a program to its end; kills it, and says so, when it takes too long."""
        process = self.start(argv, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{argv} hangs after {timeout} s\n{err.decode(errors='replace')}\n{self.log_tail()}") from None
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def engines(self) -> list[int]:
        """Processes of our `ossc` that have a file of this run open or on their command line."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit() and self._is_own_engine(entry):
                found.append(int(entry))
        return found

    def _is_own_engine(self, pid: str) -> bool:
        try:
            executable = os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)")
            if executable != str(self.products / paths.OSSC.name):
                return False
            if str(self.dir).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
            descriptors = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            return False
        for descriptor in descriptors:
            try:
                if os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(f"{self.dir}/"):
                    return True
            except OSError:
                continue
        return False

    def kill_engines(self) -> None:
        """Kills the engines of this run, and those that a program starts meanwhile."""
        while strike(self.engines()):
            time.sleep(0.005)

    def wait_engines_gone(self, secs_max: float) -> float | None:
        """Seconds until no engine of this run was left, or None when one outlived the limit."""
        begin = time.monotonic()
        while self.engines():
            if time.monotonic() - begin > secs_max:
                return None
            time.sleep(0.02)
        return time.monotonic() - begin

    def engine_starts(self) -> int:
        """How many engines said in the log that they started."""
        return sum("engine started" in line for line in self.log_lines())

    def log_lines(self) -> list[str]:
        return self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []

    def logged(self, *words: str, after: int = 0) -> list[str]:
        """Lines of the log beyond the first `after` that hold all of these words, waiting for the first of them:
        the engine's thread that writes them may be a little behind what programs see. Empty if there is none."""
        deadline = time.monotonic() + LOGGED_SECS_MAX
        while True:
            lines = [line for line in self.log_lines()[after:] if all(word in line for word in words)]
            if lines or time.monotonic() > deadline:
                return lines
            time.sleep(0.02)

    def log_tail(self, count: int = 20) -> str:
        return "\n".join(["connector log:"] + self.log_lines()[-count:])

    def audit_lines(self) -> list[str]:
        return self.audit_path.read_text(errors="replace").splitlines() if self.audit_path.exists() else []

    def close(self) -> None:
        """Waits for the engine to leave by itself; one that does not is killed and remembered in `leaks`."""
        if self.wait_engines_gone(self.linger_secs + 3) is None:
            self.leaks = strike(self.engines())
        shutil.rmtree(self.dir, ignore_errors=True)


def tree_state(folder: Path) -> dict[str, tuple[str, int, int, str]]:
    """Type, inode, size and hash of everything below a folder, to see whether anything changed."""
    state: dict[str, tuple[str, int, int, str]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        state[str(path.relative_to(folder))] = (oct(status.st_mode), status.st_ino, status.st_size, digest)
    return state
