"""A program that cannot attach to the engine: what may be a placeholder is an error for it, never an empty file."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from tests.harness import paths
from tests.harness.run import plain_env

# The head of a packet of cache/wire.rs: magic, version, errno, value, length of the text.
HEAD = struct.Struct("<5I")
MAGIC = 0x6F737363
OTHER_VERSION = 0xFFFF
EIO = "5"
WAYS = {
    "open": "open(p, 'rb').read()",
    "stat": "os.stat(p)",
    "scandir": "[e.stat() for e in os.scandir(os.path.dirname(p)) if e.name == 'large.bin']",
    "inherited": "os.read(0, 1)",
    "inherited fstat": "os.fstat(0)",
    "fopen": "import ctypes; c = ctypes.CDLL(None, use_errno=True); c.fopen.restype = ctypes.c_void_p; "
             "c.fopen(p.encode(), b'r') or exit(str(ctypes.get_errno()))",
}


class Lost(unittest.TestCase):
    """The engine that answers is one of another version, as after an upgrade: it refuses."""

    def setUp(self) -> None:
        paths.require_products()
        self.scratch = Path(tempfile.mkdtemp(prefix="ossc-test-"))
        self.addCleanup(shutil.rmtree, self.scratch, ignore_errors=True)
        self.folder = self.scratch / "model"
        self.folder.mkdir()
        (self.folder / "large.bin").write_bytes(b"")
        (self.folder / "small.bin").write_bytes(b"small")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.socket.close)
        self.socket.bind(str(self.scratch / "socket"))
        self.socket.listen(16)
        self.asked = 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                conn, _ = self.socket.accept()
            except OSError:
                return
            with conn:
                conn.recv(8192)
                self.asked += 1
                conn.send(HEAD.pack(MAGIC, OTHER_VERSION, 0, 0, 0))

    def run_python(self, code: str, folder: Path, name: str) -> subprocess.CompletedProcess[str]:
        script = f"import os, sys\np = sys.argv[1]\ntry:\n    {code}\nexcept OSError as e:\n    exit(str(e.errno))\nprint('served')\n"
        env = {
            **plain_env(), "LD_PRELOAD": str(paths.PRELOAD), "ENABLE_CONNECTOR": "2", "MODEL_DIR": str(self.folder),
            "CONNECTOR_UDS_PATH": str(self.scratch / "socket"), "PYTHONDONTWRITEBYTECODE": "1",
        }
        with open(folder / name, "rb") as file:
            return subprocess.run(
                [str(paths.VENV_PYTHON), "-c", script, str(folder / name)], env=env, stdin=file, capture_output=True,
                text=True, timeout=30, check=False,
            )

    def test_what_may_be_a_placeholder_is_an_error(self) -> None:
        for name, code in WAYS.items():
            with self.subTest(name):
                done = self.run_python(code, self.folder, "large.bin")
                self.assertEqual((done.stdout, done.stderr.strip().splitlines()[-1:]), ("", [EIO]))
                self.assertIn("another version", done.stderr)
        self.assertGreater(self.asked, 0)

    def test_files_with_bytes_and_files_elsewhere_are_served(self) -> None:
        elsewhere = self.scratch / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "large.bin").write_bytes(b"")
        for folder, name in ((self.folder, "small.bin"), (elsewhere, "large.bin")):
            for way, code in WAYS.items():
                if way != "scandir":
                    with self.subTest(f"{folder.name}/{name} {way}"):
                        done = self.run_python(code, folder, name)
                        self.assertEqual((done.stdout, done.returncode), ("served\n", 0), done.stderr)

    def test_own_files_can_be_made(self) -> None:
        code = "f = os.open(p + way, os.O_RDWR | os.O_CREAT | os.O_EXCL); os.write(f, b'x'); os.close(f); open(p + way, 'rb').read() == b'x' or exit('other')"
        done = self.run_python(code.replace("way", "'.own'"), self.folder, "small.bin")
        self.assertEqual((done.stdout, done.returncode), ("served\n", 0), done.stderr)
        self.assertTrue(os.path.exists(self.folder / "small.bin.own"))


if __name__ == "__main__":
    unittest.main()
