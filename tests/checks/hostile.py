"""Bar about a hostile user of the same machine: what such a one can try, and that nothing is gained by it.

Other users try to reach the engine, its keys and its memory, listen where it is looked for, and plant folders in its way.
A client of the same user writes garbage over all that programs may write of the region, and sends garbage to the attach
socket. A setuid program has the library by /etc/ld.so.preload. Whatever is tried, the engine lives, and programs get
right bytes, or an error. Called by the bar "survive 6" and by the end-to-end tests. Needs root, for the other users.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import folder, paths
from tests.harness.endpoint import ACCESS_KEY_SECRET, Endpoint
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, end

NOBODY = 65534
AS_NOBODY: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
PREFIX = "team/hostile"
NAMES = ("a.bin", "b.bin", "nested/deep/c.bin", "lines.txt", "small.bin")
# A slow origin, so that the load goes on while the garbage is written.
BYTES_PER_SEC = 8_000_000
GARBAGE_SECS = 6.0
# A reader ends within this time, whatever is written meanwhile.
READ_SECS_MAX = 90.0
PACKETS = 3000
LAYOUT = re.compile(r"pub const LAYOUT_VERSION: u32 = (\d+);")

# A client that speaks to the engine by itself. Arguments: socket, layout version, what it writes to ("board", or
# "catalog" by the store's folder, which no client of ours does), seed.
GARBAGE = """
import mmap, os, random, socket, struct, sys
path, version, where, seed = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(path)
s.send(struct.pack('<5I', 0x6f737363, version, 1, 0, 0))
answer, fds, _, _ = socket.recv_fds(s, 8192, 4)
assert struct.unpack('<5I', answer[:20])[2] == 0 and len(fds) >= 3, answer
catalog, board = fds[:2]
for fd, prot in ((catalog, mmap.PROT_READ | mmap.PROT_WRITE),):
    try: mmap.mmap(fd, 0, mmap.MAP_SHARED, prot); print('GAINED: the catalog can be written to', flush=True)
    except PermissionError: pass
if where == 'catalog': board = os.open('region', os.O_RDWR, dir_fd=fds[3])
size = os.fstat(board).st_size
memory = mmap.mmap(board, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
random.seed(seed)
print('attached', flush=True)
fills = [os.urandom, lambda n: b'\\xff' * n, lambda n: b'\\x01\\x00\\x00\\x00' * (n // 4), lambda n: bytes(n)]
step = 0
while True:
    # All of it, then the words that are in use and what lies near them, again and again.
    if step % 4 == 0:
        fill = fills[step // 4 % len(fills)]
        for at in range(0, size, 1 << 20): memory[at:at + (1 << 20)] = fill(min(1 << 20, size - at))
    for _ in range(20000):
        at = random.randrange(size // 4) * 4 if random.random() < 0.5 else random.randrange(1 << 14) * 4
        memory[at:at + 4] = struct.pack('<I', random.choice([random.getrandbits(32), 0, 1, 2, 0xffffffff, 0x80000000, random.getrandbits(8)]))
    step += 1
"""

# Packets that no client sends. Arguments: socket, layout version, how many, seed.
PACKETS_SENT = """
import os, random, socket, struct, sys
path, version, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
random.seed(seed)
null = os.open('/dev/null', os.O_RDWR)
silent = []
for n in range(count):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        s.connect(path)
        text = random.randbytes(random.choice([0, 1, 7, 100, 4096, 5000]))
        head = [0x6f737363, version, random.choice([2, 3, 4, 5, 6, 7, 0, random.getrandbits(32)]), random.getrandbits(32), len(text)]
        if random.random() < 0.3: head[random.randrange(5)] = random.getrandbits(32)
        packet = struct.pack('<5I', *head) + text
        if random.random() < 0.2: packet = packet[:random.randrange(len(packet) + 1)]
        socket.send_fds(s, [packet or b'x'], [null] * random.choice([0, 0, 1, 4, 30]))
        if random.random() < 0.5: s.setblocking(False); s.recv(8192)
    except (BlockingIOError, OSError): pass
    s.close()
print('sent', flush=True)
"""

# Whatever a process of another user can try on an engine: what it got is printed. Arguments: the engine, its socket, a
# folder of its own, the model folder.
TRIES = """
import ctypes, os, signal, socket, struct, sys
pid, path, own, model = sys.argv[1:5]
libc = ctypes.CDLL(None, use_errno=True)
def opened(name, flags=os.O_RDONLY): os.close(os.open(name, flags)); return True
def answered():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.settimeout(5); s.connect(path)
    s.send(struct.pack('<5I', 0x6f737363, int(sys.argv[5]), 1, 0, 0))
    answer, fds, _, _ = socket.recv_fds(s, 8192, 4)
    return bool(fds) or struct.unpack('<5I', answer[:20])[2] == 0
def read_memory():
    room = ctypes.create_string_buffer(16)
    local = struct.pack('QQ', ctypes.addressof(room), 16); far = struct.pack('QQ', 0x400000, 16)
    got = libc.process_vm_readv(int(pid), local, 1, far, 1, 0)
    return got >= 0 or ctypes.get_errno() not in (1, 3)
tries = {
    'memory by /proc': lambda: opened(f'/proc/{pid}/mem'), 'environment': lambda: opened(f'/proc/{pid}/environ'),
    'maps': lambda: len(open(f'/proc/{pid}/maps').read()) > 0, 'list of descriptors': lambda: len(os.listdir(f'/proc/{pid}/fd')) > 0,
    'descriptors by number': lambda: any(os.path.exists(f'/proc/{pid}/fd/{n}') for n in range(3, 400)),
    'mapped files': lambda: len(os.listdir(f'/proc/{pid}/map_files')) > 0, 'working folder': lambda: len(os.listdir(f'/proc/{pid}/cwd/')) > 0 and opened(f'/proc/{pid}/cwd'),
    'process_vm_readv': read_memory, 'ptrace': lambda: libc.ptrace(16, int(pid), 0, 0) == 0,
    'a signal': lambda: os.kill(int(pid), signal.SIGTERM) is None, 'attach': answered,
    'the lock': lambda: opened(path + '.lock', os.O_RDWR), 'the lock, to read': lambda: opened(path + '.lock'),
    'the socket, removed': lambda: os.unlink(path) is None, 'a file in the model folder': lambda: opened(model + '/planted', os.O_CREAT | os.O_WRONLY),
}
count = 0
for what, attempt in tries.items():
    count += 1
    try: gained = attempt()
    except OSError: gained = False
    if gained: print('GAINED:', what, flush=True)
print('tried', count, flush=True)
"""

# Holds the lock of an engine at a path, listens there, and prints what it is told. Arguments: the path and a user.
LISTENER = """
import fcntl, os, socket, struct, sys
path = sys.argv[1]
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2])); os.umask(0)
lock = os.open(path + '.lock', os.O_RDWR | os.O_CREAT, 0o666)
fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0))
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(path); s.listen(9)
print('ready', flush=True)
while True:
    told = s.accept()[0].recv(65536)
    if told: print(told, flush=True)
"""

# An engine that an attacker would have a setuid program start: it leaves a file that shows whose it is.
PLANTED = """#!/usr/bin/python3
import os
os.open({proof!r}, os.O_CREAT | os.O_WRONLY, 0o600)
"""
# A copy of /etc in which all programs load the library, setuid ones too: the loader obeys this file everywhere.
LISTED = (
    "mkdir -p {copy} && mount -t tmpfs none {copy} && cp -a /etc/. {copy}/ 2>/dev/null; echo {library} > {copy}/ld.so.preload"
    ' && mount --bind {copy} /etc && exec "$@"'
)


def layout_version() -> str:
    found = LAYOUT.search((paths.ROOT / "cache" / "region.rs").read_text())
    assert found is not None
    return found[1]


@dataclass
class Stage:
    """An endpoint with the small folder, and what was found."""

    endpoint: Endpoint
    plain: Path
    scratch: Path
    # Who tries it; a control tries it as root.
    as_other: dict[str, Any] = field(default_factory=lambda: dict(AS_NOBODY))
    tried: int = 0
    problems: list[str] = field(default_factory=list)

    def digests(self) -> list[str]:
        return [hashlib.sha256((self.plain / name).read_bytes()).hexdigest() for name in NAMES]

    def run(self, **config: Any) -> Run:
        run = Run(self.endpoint, PREFIX, config={"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 2, **config}, below=self.scratch)
        for path in (run.dir, run.model_dir):
            path.chmod(0o755)
        return run

    def found(self, what: str, problem: str) -> None:
        self.problems.append(f"{what}: {problem}")


@contextmanager
def stage() -> Iterator[Stage]:
    """Where everything is tried; gone at the end."""
    with tempfile.TemporaryDirectory(prefix="ossc-hostile-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)
        plain = scratch / "root" / paths.BUCKET / PREFIX
        folder.make(plain)
        with Endpoint(scratch / "root", scratch / "endpoint", options=["--rate-bytes-per-sec", str(BYTES_PER_SEC)]) as endpoint:
            yield Stage(endpoint, plain, scratch)


def python(code: str, *arguments: object) -> list[str]:
    return ["/usr/bin/python3", "-c", code, *map(str, arguments)]


def starts(run: Run, argv: list[str], env: dict[str, str], **options: Any) -> subprocess.Popen[bytes]:
    return run.start(argv, env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)


def without_library(run: Run) -> dict[str, str]:
    return run.env(None, LD_PRELOAD=None)


def said(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode(errors="replace").strip()


def read_all(run: Run, env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return run.call(["sha256sum", *NAMES], env, cwd=run.model_dir, timeout=READ_SECS_MAX)


def judge(stage: Stage, what: str, done: subprocess.CompletedProcess[bytes], must: bool) -> None:
    """Right bytes, or an error; only right bytes, where it `must` be served."""
    stage.tried += 1
    lines = dict(line.split(None, 1)[::-1] for line in done.stdout.decode(errors="replace").splitlines() if " " in line)
    wrong = [name for name, digest in zip(NAMES, stage.digests(), strict=True) if lines.get(name, digest) != digest]
    if wrong:
        stage.found(what, f"wrong bytes of {wrong} with status {done.returncode}")
    if done.returncode == 0 and len(lines) != len(NAMES):
        stage.found(what, f"status 0 without {set(NAMES) - set(lines)}")
    if must and done.returncode != 0:
        stage.found(what, f"a program that comes later is refused: {done.stderr.decode(errors='replace')[-200:]}")


def garbage(stage: Stage, where: str = "board", seed: int = 1, **config: Any) -> None:
    """A client writes garbage over the region while programs load; then a new program reads."""
    what = f"garbage on the {where}{''.join(f', {key} {value}' for key, value in config.items())}"
    run = stage.run(**config)
    socket = run.dir / "s"
    env = run.env(CONNECTOR_UDS_PATH=str(socket))
    try:
        holder = starts(run, ["sh", "-c", "cat small.bin > /dev/null; echo ready; sleep 600"], env, cwd=run.model_dir)
        if said(holder) != "ready":
            raise AssertionError(f"the load did not start\n{run.log_tail()}")
        engine = run.engines()
        readers = [starts(run, ["sha256sum", *NAMES], env, cwd=run.model_dir) for _ in range(2)]
        writer = starts(run, python(GARBAGE, socket, layout_version(), where, seed), without_library(run))
        first = said(writer)
        if first != "attached":
            stage.found(what, first)
        time.sleep(GARBAGE_SECS)
        readers += [starts(run, ["sha256sum", *NAMES], env, cwd=run.model_dir)]
        time.sleep(GARBAGE_SECS / 2)
        if writer.poll() is not None:
            stage.found(what, f"the writer has ended: {writer.communicate()[1].decode(errors='replace')[-300:]}")
        end(writer)
        for number, reader in enumerate(readers):
            try:
                out, err = reader.communicate(timeout=READ_SECS_MAX)
                judge(stage, f"{what}, reader {number}", subprocess.CompletedProcess([], reader.returncode, out, err), must=False)
            except subprocess.TimeoutExpired:
                end(reader)
                stage.found(what, f"reader {number} hangs")
        judge(stage, f"{what}, afterwards", read_all(run, env), must=True)
        if run.engines() != engine or run.engine_starts() != 1:
            stage.found(what, f"the engine has died: {run.log_tail(5)}")
        end(holder)
    except AssertionError as error:
        stage.found(what, str(error)[:600])
        end(holder)
    finally:
        run.close()


@contextmanager
def attacked(stage: Stage) -> Iterator[tuple[Run, Path, dict[str, str], int]]:
    """A folder, the socket of its engine, the environment of its programs and the engine, which a program keeps alive."""
    run = stage.run()
    socket = run.dir / "s"
    env = run.env(CONNECTOR_UDS_PATH=str(socket))
    holder = starts(run, ["sh", "-c", "cat small.bin > /dev/null; echo ready; sleep 600"], env, cwd=run.model_dir)
    try:
        if said(holder) != "ready":
            raise AssertionError(run.log_tail())
        (engine,) = run.engines()
        yield run, socket, env, engine
    finally:
        end(holder)
        run.close()


def packets(stage: Stage) -> None:
    """Garbage on the attach socket, from the same user; descriptors that come with it are closed."""
    with attacked(stage) as (run, socket, env, engine):
        before = len(os.listdir(f"/proc/{engine}/fd"))
        sent = run.call(python(PACKETS_SENT, socket, layout_version(), PACKETS, 1), without_library(run), timeout=READ_SECS_MAX)
        stage.tried += PACKETS
        if sent.stdout != b"sent\n":
            stage.found("packets", sent.stderr.decode(errors="replace")[-300:])
        judge(stage, "packets, afterwards", read_all(run, env), must=True)
        if run.engines() != [engine]:
            stage.found("packets", f"the engine has died: {run.log_tail(5)}")
        elif len(os.listdir(f"/proc/{engine}/fd")) > before + 40:
            stage.found("packets", f"{before} descriptors before, {len(os.listdir(f'/proc/{engine}/fd'))} afterwards")


def another_user(stage: Stage) -> None:
    """What a process of another user can reach of an engine."""
    with attacked(stage) as (run, socket, _, engine):
        socket.chmod(0o777)
        own = stage.scratch / f"own-{run.dir.name}"
        own.mkdir(mode=0o777)
        tried = run.call(python(TRIES, engine, socket, own, run.model_dir, layout_version()), {"PATH": os.environ["PATH"]}, **stage.as_other)
        lines = tried.stdout.decode(errors="replace").splitlines()
        stage.tried += sum(int(line.split()[1]) for line in lines if line.startswith("tried "))
        if not any(line.startswith("tried ") for line in lines):
            stage.found("another user", tried.stderr.decode(errors="replace")[-300:])
        stage.problems += [f"another user: {line}" for line in lines if line.startswith("GAINED")]
        if run.engines() != [engine]:
            stage.found("another user", "the engine is gone")


def listener(stage: Stage, user: int = NOBODY) -> None:
    """Another user listens where the engine is looked for: a program tells it nothing and believes nothing."""
    run = stage.run()
    shared = run.dir / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    other = run.start(python(LISTENER, shared / "s", user), without_library(run), stdout=subprocess.PIPE, start_new_session=True)
    try:
        if said(other) != "ready":
            raise AssertionError("the listener did not start")
        done = read_all(run, run.env(CONNECTOR_UDS_PATH=str(shared / "s")))
        stage.tried += 1
        if done.returncode == 0 or done.stdout:
            stage.found("a listener", f"status {done.returncode}, {done.stdout[:80]!r}")
    except AssertionError as error:
        stage.found("a listener", str(error)[:300])
    finally:
        end(other)
        assert other.stdout is not None
        told = other.stdout.read()
        if told:
            stage.found("a listener", f"was told {told[:80]!r}")
        run.close()


def planted_folders(stage: Stage, owner: int = NOBODY) -> None:
    """Run folders that another user has made, or that others may write to, are passed over."""
    run = stage.run()
    traps = (
        ("owned by another user", f"mkdir -m 755 /run/oss-connector; chown {owner} /run/oss-connector"),
        ("open to all", "mkdir /run/oss-connector; chmod 1777 /run/oss-connector"),
        ("a link", f"mkdir -m 755 /run/trap; chown {owner} /run/trap; ln -s /run/trap /run/oss-connector"),
    )
    (run.dir / "xdg").mkdir(mode=0o700)
    try:
        for what, trap in traps:
            env = run.env(XDG_RUNTIME_DIR=str(run.dir / "xdg"))
            preload = env.pop("LD_PRELOAD")
            inside = f"set -e; mount -t tmpfs none /run; {trap}; env LD_PRELOAD={preload} sha256sum {' '.join(NAMES)}; echo; ls /run/oss-connector/ /run/trap 2>/dev/null || true"
            done = run.call(["unshare", "-m", "sh", "-c", inside], env, cwd=run.model_dir, timeout=READ_SECS_MAX)
            read, _, left = done.stdout.decode(errors="replace").partition("\n\n")
            judge(stage, f"a run folder that is {what}", subprocess.CompletedProcess([], done.returncode, read.encode(), done.stderr), must=True)
            if ".lock" in left or ".sock" in left:
                stage.found(f"a run folder that is {what}", f"is used: {left.split()}")
            run.wait_engines_gone(run.linger_secs + 3)
    finally:
        run.close()


def obeyed(run: Run, scratch: Path, program: str) -> tuple[bool, subprocess.CompletedProcess[bytes]]:
    """Starts a program as another user, with the library by /etc/ld.so.preload and an engine that was planted in OSSC_BIN. True if
    that engine was run. "setuid" is a setuid copy of cat."""
    room = Path(tempfile.mkdtemp(prefix="setuid-", dir=scratch))
    room.chmod(0o777)
    shutil.copy2(run.products / paths.PRELOAD.name, room / "libossc_preload.so")
    raised, planted, proof = room / "cat", room / "planted", room / "proof"
    shutil.copyfile(shutil.which("cat") or "/bin/cat", raised)
    raised.chmod(0o4755)
    planted.write_text(PLANTED.format(proof=str(proof)))
    planted.chmod(0o755)
    (run.model_dir / "plain.txt").write_text("plain\n")
    listed = LISTED.format(copy=room / "etc", library=room / "libossc_preload.so")
    env = run.env(None, LD_PRELOAD=None, OSSC_BIN=str(planted))
    as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    argv = ["unshare", "-m", "sh", "-c", listed, "sh", *as_nobody, "env", "ENABLE_CONNECTOR=1"]
    done = run.call([*argv, str(raised) if program == "setuid" else program, str(run.model_dir / "plain.txt")], env, cwd="/")
    return proof.exists(), done


def setuid(stage: Stage, program: str = "setuid") -> None:
    """Nothing is obeyed in a setuid program, though the library is in /etc/ld.so.preload."""
    run = stage.run()
    stage.tried += 1
    is_obeyed, done = obeyed(run, stage.scratch, program)
    if is_obeyed:
        stage.found("setuid", "the library started a program that the environment names, with root's privileges")
    elif done.stdout != b"plain\n":
        stage.found("setuid", f"the program does not run: {done.stderr[-200:]!r}")
    run.close()


def holders(pid: int) -> list[tuple[str, bool]]:
    """Maps of a process that hold the secret key: their names, and whether core dumps leave them out."""
    found = []
    entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for entry in filter(None, entries):
            fields = entry.split("\n", 1)[0].split()
            start, finish = (int(number, 16) for number in fields[0].split("-"))
            if "r" not in fields[1] or finish - start > 200 << 20:
                continue
            try:
                memory.seek(start)
                there = memory.read(finish - start)
            except (OSError, ValueError, OverflowError):
                continue
            flags = re.search(r"(?m)^VmFlags: (.*)$", entry)
            assert flags is not None
            found += [(fields[5] if len(fields) > 5 else "", "dd" in flags[1].split())] * there.count(ACCESS_KEY_SECRET.encode())
    return found


def core_dumps(stage: Stage) -> None:
    """A core dump of a program has the keys of its own environment and no other copy; of the engine there is none."""
    run = stage.run()
    program = starts(run, ["sh", "-c", "head -c 10 b.bin > /dev/null; echo ready; read wait"], run.env(), cwd=run.model_dir, stdin=subprocess.PIPE)
    try:
        if said(program) != "ready":
            raise AssertionError(run.log_tail())
        stage.tried += 2
        kept = [is_left_out for name, is_left_out in holders(program.pid) if name not in ("[stack]", "[heap]")]
        if kept != [True]:
            stage.found("core dumps", f"copies of the key beside the environment, and whether dumps leave them out: {kept}")
        (engine,) = run.engines()
        limits = Path(f"/proc/{engine}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        if core.split()[4] not in ("0", "1"):
            stage.found("core dumps", f"of the engine: {core}")
    finally:
        end(program)
        run.close()


ATTACKS: tuple[Callable[[Stage], None], ...] = (another_user, listener, planted_folders, setuid, core_dumps, packets)


def withstood() -> Measure:
    """Every attack, and the garbage with plenty of memory and with little."""
    if os.geteuid() != 0:
        return Measure("needs root, for the other users", good=False)
    with stage() as found:
        for attack in ATTACKS:
            attack(found)
        garbage(found)
        garbage(found, seed=2, memoryLimit=64 << 20, partBytes=1 << 20)
        return from_problems(f"{found.tried} attempts, nothing gained", found.problems)


def control() -> Measure:
    """The same attempts where each is known to succeed: as root, in a program without privileges, and on the catalog."""
    if os.geteuid() != 0:
        return Measure("needs root, for the other users", good=False)
    kinds: dict[str, Callable[[Stage], None]] = {
        "as root": another_user,
        "a program without privileges": lambda found: setuid(found, "/bin/cat"),
        "the same user's listener": lambda found: listener(found, 0),
        "the catalog": lambda found: garbage(found, "catalog"),
    }
    unnoticed, notes = [], []
    for what, attack in kinds.items():
        with stage() as found:
            found.as_other = {"cwd": "/"}
            attack(found)
            notes += [f"{what}: {problem}"[:200] for problem in found.problems[:3]]
            if not found.problems:
                unnoticed.append(what)
    if unnoticed:
        return Measure(f"not noticed: {unnoticed}", good=True, notes=notes)
    return Measure(f"all {len(kinds)} noticed", good=False, notes=notes)
