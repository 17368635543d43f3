"""One managed folder in a peculiar place, and programs that read it: each gets the right bytes, or an error with a word.

Called by the bar "bytes 1" (tests/checks/identity*.py), which says what is peculiar. Knows the product by its public
face only. Every process that a world starts, engines included, ends with it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import blocks, faults, paths
from tests.harness import compile as compiler
from tests.harness.endpoint import Endpoint
from tests.harness.run import Run, plain_env
from tests.harness.space import Space

KIB = 1 << 10
MATERIALIZE_BYTES = 64 * KIB
SETTINGS = {"materializeBytes": MATERIALIZE_BYTES, "partBytes": 64 * KIB, "listAgainSec": 1, "lingerSec": 1, "reviveSec": 2, "prefetch": {"vcpus": 2, "workers": 4}}
# Number and size of each object: placeholders, real files, and one that is empty indeed.
OBJECTS = {"big.bin": (1, 1000 * KIB + 139), "config.json": (2, 600), "sub/part.bin": (3, 200 * KIB), "sub/x.json": (4, 333), "empty.bin": (5, 0)}
LARGE = ("big.bin", "sub/part.bin")
FEW = ("cat", "map", "stat")
PROGRAM_SECS_MAX = 40.0
PYTHON = os.path.realpath(paths.VENV_PYTHON)
READ = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
MAP = "import mmap, os, sys; f = os.open(sys.argv[1], 0); n = os.fstat(f).st_size; sys.stdout.buffer.write(mmap.mmap(f, 0, access=1)[:] if n else b'')"
# How a program reads one file; what it prints is compared with what it would print of the object.
WAYS = ("cat", "python", "python map", "cp", "sha256sum", "stat", "wc", "map", "pread", "stdio", "sendfile")


@dataclass
class Done:
    """A program's end; `status` is -1 where it had to be killed for its time."""

    status: int
    out: bytes
    err: str

    def said(self) -> str:
        return " ".join(self.err.split())[-160:]


@dataclass
class Tally:
    """What programs got: right bytes, an error with a word, or what must not be."""

    right: int = 0
    loud: int = 0
    silent: list[str] = field(default_factory=list)
    # An error where the bytes had to come.
    refused: list[str] = field(default_factory=list)

    def problems(self) -> list[str]:
        return self.silent + self.refused


def argv_of(way: str, path: str, copy: str) -> list[str]:
    if way in ("map", "pread", "stdio", "sendfile"):
        return [str(compiler.program("version_reader.c")), way, path]
    return {
        "cat": ["cat", path], "python": [PYTHON, "-c", READ, path], "python map": [PYTHON, "-c", MAP, path],
        "cp": ["cp", path, copy], "sha256sum": ["sha256sum", path], "stat": ["stat", "-L", "-c", "%s", path], "wc": ["wc", "-c", path],
    }[way]


def is_right(way: str, out: bytes, expected: bytes) -> bool:
    if way in ("cat", "python", "python map", "cp"):
        return out == expected
    if way in ("stat", "wc"):
        return out.split()[:1] == [str(len(expected)).encode()]
    if way == "sha256sum":
        return out.split()[:1] == [hashlib.sha256(expected).hexdigest().encode()]
    word = int.from_bytes(expected[:8], "little")
    counted = [str(number).encode() for number in (word >> 56, word >> 32 & 0xFFFFFF, len(expected), len(expected))]
    return any(line.split()[5:] == counted for line in out.splitlines() if line.startswith(b"got "))


class Rig:
    """An endpoint that all worlds of a bar's run share, and what is refused to every program."""

    def __init__(self, scratch: Path, refused: tuple[str, str] | None = None, products: Path = paths.PRODUCTS) -> None:
        self.scratch, self.products = scratch, products
        self.root = scratch / "root"
        (self.root / paths.BUCKET).mkdir(parents=True)
        scratch.chmod(0o755)
        self.wrap = [str(compiler.program("refuse.c")), *refused] if refused else []
        self.tally = Tally()
        self.missing: list[str] = []
        self._numbers = itertools.count(1)
        self._stack = ExitStack()
        self.endpoint = self._stack.enter_context(Endpoint(self.root, scratch / "endpoint"))

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def folder(self) -> Path:
        """A new folder of this rig."""
        made = self.scratch / f"f{next(self._numbers)}"
        made.mkdir()
        return made

    def world(self, what: str, **options: Any) -> World:
        return World(self, what, **options)


class World:
    """A MODEL_DIR with objects of its own; `what` names it in what is found wrong."""

    def __init__(
        self, rig: Rig, what: str, setup: str = "", model: Path | None = None, config: dict[str, Any] | None = None,
        objects: dict[str, tuple[int, int]] | None = None, endpoint: Endpoint | None = None, wrap: list[str] | None = None,
    ) -> None:
        self.rig, self.what, self.tally = rig, what, rig.tally
        self.prefix = rig.folder().name
        self.objects = OBJECTS if objects is None else objects
        self.versions: dict[str, int] = {}
        self.endpoint = endpoint or rig.endpoint
        self.base = self.endpoint.root / paths.BUCKET / self.prefix
        for name in self.objects:
            self.put(name, 1)
        self.run = Run(self.endpoint, self.prefix, config={**SETTINGS, **(config or {})}, below=rig.scratch, products=rig.products)
        self.run.dir.chmod(0o755)
        if model is not None:
            self.run.model_dir = model
        self.space = Space(setup) if setup else None
        self.wrap = rig.wrap + (wrap or [])
        self._anchors: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for anchor in self._anchors:
            anchor.kill()
            anchor.wait()
        self.end_engines()
        if self.space:
            self.space.close()
        shutil.rmtree(self.run.dir, ignore_errors=True)

    @property
    def model(self) -> Path:
        return self.run.model_dir

    def put(self, name: str, version: int, size: int | None = None) -> None:
        number, first = self.objects[name]
        self.versions[name] = version
        blocks.put(self.endpoint.root, self.base / name, blocks.content(number, version, first if size is None else size))

    def remove(self, name: str) -> None:
        path = self.base / name
        path.unlink()
        while path.parent != self.base.parent and not any(path.parent.iterdir()):
            path = path.parent
            path.rmdir()

    def content(self, name: str) -> bytes:
        return (self.base / name).read_bytes()

    def argv(self, argv: list[str], env: dict[str, str], wrap: list[str], space: Space | None) -> list[str]:
        """The whole command; the library is for its last program alone."""
        plain = plain_env()
        changes = [f"{name}={value}" for name, value in env.items() if plain.get(name) != value]
        space = space or self.space
        return [*(space.prefix if space else []), *self.wrap, *wrap, "env", *changes, *argv]

    def call(
        self, argv: list[str], role: int | None = 1, wrap: list[str] | None = None, space: Space | None = None,
        secs_max: float = PROGRAM_SECS_MAX, cwd: Path | None = None, **changes: str | None,
    ) -> Done:
        env = self.run.env(role, **changes)
        # The folder is entered before the library is there.
        enter = [] if cwd is None else ["env", f"--chdir={cwd}"]
        whole = self.argv(argv, env, [*(wrap or []), *enter], space)
        process = subprocess.Popen(whole, env=plain_env(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        try:
            out, err = process.communicate(timeout=secs_max)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Done(-1, out, f"killed after {secs_max:.0f} s {err.decode(errors='replace')}")
        return Done(process.returncode, out, err.decode(errors="replace"))

    def native(self, script: str, *arguments: str) -> Done:
        """A shell script without the library, where the programs are."""
        argv = [*(self.space.prefix if self.space else []), "sh", "-c", script, "sh", *arguments]
        done = subprocess.run(argv, env=plain_env(), stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PROGRAM_SECS_MAX)
        return Done(done.returncode, done.stdout, done.stderr.decode(errors="replace"))

    def anchor(self, path: str = "config.json", **changes: Any) -> subprocess.Popen[bytes]:
        """A program that has read one file, and stays until the world ends."""
        argv = [str(compiler.program("version_reader.c")), "-w", "read", str(self.model / path)]
        space, role = changes.pop("space", None), changes.pop("role", 1)
        whole = self.argv(argv, self.run.env(role, **changes), [], space)
        process = subprocess.Popen(whole, env=plain_env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._anchors.append(process)
        assert process.stdout is not None
        while (line := process.stdout.readline()) and not line.startswith(b"end "):
            pass
        return process

    def judge(self, what: str, done: Done, right: bool, must: bool = True) -> bool:
        """True for right bytes. `must`: an error with a word will not do."""
        text = f"{self.what}: {what}"
        refused = any(line.startswith(b"err ") for line in done.out.splitlines())
        if done.status == 0 and right:
            self.tally.right += 1
            return True
        if done.status == 0 and not refused:
            self.tally.silent.append(f"{text}: wrong with status 0, {len(done.out)} bytes {done.out[:60]!r} {done.said()}")
        elif done.status == -1 or not (done.err.strip() or refused):
            self.tally.silent.append(f"{text}: status {done.status} without a word{': ' + done.said() if done.status == -1 else ''}")
        elif must:
            self.tally.refused.append(f"{text}: {done.said() or done.out[:100]!r}")
        else:
            self.tally.loud += 1
        return False

    def look(self, names: dict[str, str] | list[str] | None = None, ways: tuple[str, ...] = WAYS, what: str = "", must: bool = True, older: bool = False, **options: Any) -> None:
        """Reads files by all ways, each in a program of its own. `names` maps paths to objects; a list is below MODEL_DIR.
        `older`: an earlier version is right too, as a whole."""
        if names is None:
            names = list(self.objects)
        paths_of = names if isinstance(names, dict) else {str(self.model / name): name for name in names}
        copy = str(self.run.dir / "copy")
        for path, name in paths_of.items():
            expected = self.content(name)
            versions = [expected]
            if older:
                versions += [blocks.content(self.objects[name][0], version, len(expected)) for version in range(1, self.versions[name])]
            for way in ways:
                Path(copy).unlink(missing_ok=True)
                done = self.call(argv_of(way, path, copy), **options)
                if way == "cp" and done.status == 0:
                    done.out = Path(copy).read_bytes() if Path(copy).exists() else b""
                right = any(is_right(way, done.out, version) for version in versions) if expected else done.status == 0
                self.judge(f"{what or 'read'}, {way} {os.path.relpath(path, self.model)}", done, right, must)

    def end_engines(self) -> None:
        """Ends this world's engines, also where they see another root."""
        end = time.monotonic() + 10
        while (pids := self.engines()) and time.monotonic() < end:
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.01)

    def engines(self) -> list[int]:
        mark = str(self.run.dir)
        found = []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                if os.readlink(f"/proc/{entry}/exe").endswith("/ossc") and any(mark in os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")):
                    found.append(int(entry))
            except OSError:
                continue
        return found


def with_faults(rig: Rig, rules: list[faults.Rule], options: list[str] | None = None) -> Endpoint:
    """A second endpoint on a tree of its own, which misbehaves; the caller enters it."""
    folder = rig.folder()
    (folder / "root" / paths.BUCKET).mkdir(parents=True)
    return Endpoint(folder / "root", folder / "endpoint", rules, options)


# Its name, and what runs it with its neighbours.
Kind = tuple[str, Callable[[Rig], None]]
