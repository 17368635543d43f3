"""The library's lines go to descriptor 2 only while that is what it was when the program started."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.e2e import test_lost
from tests.harness import paths
from tests.harness.run import plain_env

SAID = "oss connector: the running engine is of another version"
# `%` is how descriptor 2 comes to be the program's own file.
OWN = """
import os, socket, sys
data, managed = sys.argv[1:]
%
assert fd == 2, fd
os.write(2, b"HEADER--")
try: os.stat(managed)
except OSError as error: os.write(2, b"%d" % error.errno)
os.write(2, b"--TRAILER")
"""
WAYS = {
    "closed and opened": "os.close(2); fd = os.open(data, os.O_RDWR | os.O_CREAT)",
    "daemon": "[os.close(n) for n in (0, 1, 2)]; os.open('/dev/null', 2); os.open('/dev/null', 2); fd = os.open(data, os.O_RDWR | os.O_CREAT)",
    "dup2": "fd = os.dup2(os.open(data, os.O_RDWR | os.O_CREAT), 2)",
    "closed at the start": "fd = os.open(data, os.O_RDWR | os.O_CREAT)",
}
# A socket in the place of standard error gets nothing either.
SOCKET = """
import os, socket, sys
one, other = socket.socketpair()
other.settimeout(1)
os.dup2(one.fileno(), 2)
try: os.stat(sys.argv[2])
except OSError: pass
try: print(other.recv(1000))
except TimeoutError: print("nothing")
"""


class Stderr(unittest.TestCase):
    def setUp(self) -> None:
        paths.require_products()
        self.scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        # An engine of another version makes the library say so.
        self.other = test_lost.Lost("serve")
        self.other.setUp()
        self.addCleanup(self.other.doCleanups)

    def call(self, code: str, closed: bool = False) -> subprocess.CompletedProcess[str]:
        argv = [str(paths.VENV_PYTHON), "-c", code, str(self.scratch / "data"), str(self.other.folder / "large.bin")]
        if closed:
            argv = ["bash", "-c", 'exec "$@" 2>&-', "bash", *argv]
        env = {
            **plain_env(), "LD_PRELOAD": str(paths.PRELOAD), "ENABLE_CONNECTOR": "2", "MODEL_DIR": str(self.other.folder),
            "CONNECTOR_UDS_PATH": str(self.other.scratch / "socket"),
        }
        return subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)

    def test_a_file_that_took_the_number_over_is_left_alone(self) -> None:
        for name, way in WAYS.items():
            with self.subTest(name):
                (self.scratch / "data").unlink(missing_ok=True)
                done = self.call(OWN.replace("%\n", way + "\n"), closed=name == "closed at the start")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual((self.scratch / "data").read_bytes(), b"HEADER--5--TRAILER")

    def test_a_socket_that_took_the_number_over_gets_nothing(self) -> None:
        self.assertEqual(self.call(SOCKET).stdout, "nothing\n")

    def test_what_it_was_at_the_start_gets_the_line(self) -> None:
        for how in ("", "os.dup2(2, 9); os.close(2); os.dup2(9, 2)\n"):
            done = self.call(f"import os, sys\n{how}try: os.stat(sys.argv[2])\nexcept OSError: pass\n")
            self.assertIn(SAID, done.stderr)


if __name__ == "__main__":
    unittest.main()
