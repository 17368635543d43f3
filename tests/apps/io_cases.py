"""Ways in which Python programs read files; each case prints what it saw. Usage: io_cases.py CASE FILE SCRATCH

Compared between a plain folder and a managed one, so nothing here knows of either.
"""

import glob
import hashlib
import io
import mmap
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile

import numpy as np


def digest(data):
    return hashlib.sha256(data).hexdigest()[:24]


def attempt(what, function):
    """Prints the value, or the error with its number and text."""
    try:
        value = function()
    except (OSError, ValueError) as error:
        value = f"{type(error).__name__} {getattr(error, 'errno', None)} {getattr(error, 'strerror', '')}"
    print(what, digest(value) + f" {len(value)}" if isinstance(value, (bytes, bytearray, memoryview)) else value)


def case_read(path, scratch):
    with open(path, "rb") as file:
        attempt("whole", file.read)
        attempt("again", file.read)
        attempt("tell", file.tell)
        attempt("seek", lambda: file.seek(-1000, os.SEEK_END))
        attempt("tail", file.read)
        attempt("seek set", lambda: file.seek(123456))
        attempt("some", lambda: file.read(77777))
        attempt("negative", lambda: file.seek(-1))
        attempt("write", lambda: file.write(b"x"))
    with open(path, "rb", buffering=0) as file:
        attempt("unbuffered", lambda: file.read(10))
        attempt("readall", file.readall)
        attempt("not writable", lambda: os.write(file.fileno(), b"x"))


def case_readinto(path, scratch):
    room = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        total = 0
        state = hashlib.sha256()
        while got := file.readinto(memoryview(room)[: 1 << 20]):
            total += got
            state.update(room[:got])
    print(total, state.hexdigest())
    with io.BufferedReader(open(path, "rb", buffering=0), 8191) as file:
        attempt("peek", lambda: file.peek(10)[:10])
        attempt("line", file.readline)


def case_positional(path, scratch):
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    attempt("size", lambda: size)
    attempt("pread", lambda: os.pread(fd, 100_000, 5))
    attempt("pread end", lambda: os.pread(fd, 100_000, size - 7))
    attempt("pread past", lambda: os.pread(fd, 10, size + 7))
    attempt("pread negative", lambda: os.pread(fd, 10, -1))
    rooms = [bytearray(11), bytearray(100_001), bytearray(3)]
    attempt("preadv", lambda: os.preadv(fd, rooms, 99))
    attempt("rooms", lambda: b"".join(bytes(r) for r in rooms))
    attempt("readv", lambda: os.readv(fd, rooms))
    attempt("position", lambda: os.lseek(fd, 0, os.SEEK_CUR))
    os.close(fd)
    attempt("closed", lambda: os.read(fd, 1))


def case_mmap(path, scratch):
    with open(path, "rb") as file:
        for name in ("ACCESS_READ", "ACCESS_COPY"):
            with mmap.mmap(file.fileno(), 0, access=getattr(mmap, name)) as data:
                attempt(name, lambda d=data: d[:])
                attempt("find", lambda d=data: d.find(d[5000:5016]))
                attempt("size", data.size)
                if name == "ACCESS_COPY":
                    data[0:4] = b"mine"
                    attempt("own copy", lambda d=data: d[:100])
        attempt("offset", lambda: mmap.mmap(file.fileno(), 8192, access=mmap.ACCESS_READ, offset=1 << 16)[:])
        attempt("too long", lambda: mmap.mmap(file.fileno(), 1 << 40, access=mmap.ACCESS_READ))
        attempt("private", lambda: mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[-999:])


def case_numpy(path, scratch):
    attempt("memmap", lambda: np.memmap(path, dtype=np.uint8, mode="r").tobytes())
    attempt("memmap c", lambda: np.memmap(path, dtype=np.uint8, mode="c", offset=4097, shape=(9999,)).tobytes())
    attempt("fromfile", lambda: np.fromfile(path, dtype=np.uint8).tobytes())
    attempt("fromfile part", lambda: np.fromfile(path, dtype=np.uint8, count=4096, offset=12345).tobytes())
    with open(path, "rb") as file:
        file.seek(1000)
        attempt("fromfile handle", lambda: np.fromfile(file, dtype=np.uint8, count=5000).tobytes())
        attempt("tell", file.tell)


def case_copy(path, scratch):
    target = os.path.join(scratch, "python-copy")
    for copy in (shutil.copyfile, shutil.copy, shutil.copy2):
        attempt(copy.__name__, lambda c=copy: os.path.basename(c(path, target)))
        with open(target, "rb") as file:
            attempt("arrived", file.read)
        os.remove(target)
    tree = os.path.join(scratch, "tree")
    shutil.copytree("nested", tree)
    for parent, folders, files in sorted(os.walk(tree)):
        folders.sort()
        for name in sorted(files):
            with open(os.path.join(parent, name), "rb") as file:
                attempt(name, file.read)
    shutil.rmtree(tree)


def case_kernelcopy(path, scratch):
    size = os.path.getsize(path)
    for step in ("sendfile", "copy_file_range"):
        with open(path, "rb") as source, tempfile.TemporaryFile(dir=scratch) as target:
            offset = 0
            while offset < size:
                if step == "sendfile":
                    sent = os.sendfile(target.fileno(), source.fileno(), offset, 1 << 20)
                else:
                    sent = os.copy_file_range(source.fileno(), target.fileno(), 1 << 20, offset)
                if sent == 0:
                    break
                offset += sent
            target.seek(0)
            attempt(step, target.read)


def case_names(path, scratch):
    print(sorted(os.listdir(".")))
    print(sorted(e.name for e in os.scandir(".") if e.is_file() and e.stat().st_size > 2_000_000))
    for parent, folders, files in sorted(os.walk(".")):
        folders.sort()
        print(parent, [(f, os.path.getsize(os.path.join(parent, f))) for f in sorted(files)])
    print(sorted(glob.glob("**/*.bin", recursive=True)))
    print(os.path.exists(path), os.path.isfile(path), os.path.islink(path), os.access(path, os.R_OK))
    attempt("absent", lambda: os.stat("absent").st_size)
    attempt("absent nested", lambda: open("nested/absent/x", "rb"))  # noqa: SIM115 - the open fails
    print(os.path.realpath(path) == os.path.join(os.path.realpath("."), path))
    with open(path, "rb") as one, open(path, "rb") as two:
        print(os.path.sameopenfile(one.fileno(), two.fileno()), os.path.samestat(os.fstat(one.fileno()), os.stat(path)))
    folder = os.open("nested", os.O_RDONLY)
    print(sorted(os.listdir(folder)))
    fd = os.open("deep/c.bin", os.O_RDONLY, dir_fd=folder)
    attempt("dir_fd", lambda: os.read(fd, 5_000))
    os.symlink(os.path.abspath("."), os.path.join(scratch, "link"))
    with open(os.path.join(scratch, "link", path), "rb") as file:
        attempt("symlink", file.read)
    os.remove(os.path.join(scratch, "link"))


def case_stdin(path, scratch):
    with open(path, "rb") as file:
        os.dup2(file.fileno(), 0)
    attempt("stdin", sys.stdin.buffer.read)
    with open(path, "rb") as file:
        file.seek(4096)
        os.lseek(file.fileno(), 4096, os.SEEK_SET)
        done = subprocess.run(["sha256sum"], stdin=file, capture_output=True, text=True, check=False)
        print(done.returncode, done.stdout, done.stderr)
    with open(path, "rb") as file:
        head = subprocess.run(["head", "-c", "100000"], stdin=file, capture_output=True, check=False)
        attempt("head", lambda: head.stdout)


def child_digest(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return digest(data)


def case_processes(path, scratch):
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            print(method, pool.map(child_digest, [path, "nested/deep/c.bin", path]))
    print(subprocess.run(f"sha256sum {path} | cut -c1-24", shell=True, capture_output=True, text=True, check=False))
    reader, writer = os.pipe()
    with open(path, "rb") as file:
        file.read(1000)
        if os.fork() == 0:
            os.write(writer, digest(file.read()).encode())
            os._exit(0)
        os.wait()
    print(os.read(reader, 100))


def case_zip(path, scratch):
    attempt("not a zip", lambda: zipfile.is_zipfile(path))
    attempt("listing", lambda: zipfile.ZipFile("archive.zip").namelist())
    attempt("member", lambda: zipfile.ZipFile("archive.zip").read("member.bin"))


if __name__ == "__main__":
    globals()["case_" + sys.argv[1]](sys.argv[2], sys.argv[3])
