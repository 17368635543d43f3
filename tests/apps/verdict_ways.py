"""Reads one file in one way, and says what it got: the SHA-256 on stdout and status 0, or an error and status 1.

Usage: verdict_ways.py WAY FILE [SCRATCH]. It never looks at the bytes: an ordinary program trusts what it is given.
"""

import ctypes
import hashlib
import mmap
import os
import shutil
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

KIB, MIB = 1 << 10, 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fopen.restype = LIBC.fopen64.restype = ctypes.c_void_p
LIBC.fread.restype = ctypes.c_size_t


def digest(pieces):
    state = hashlib.sha256()
    for piece in pieces:
        state.update(piece)
    return state.hexdigest()


def stream(fd, step):
    while piece := os.read(fd, step):
        yield piece


def read(path, step):
    fd = os.open(path, os.O_RDONLY)
    return digest(stream(fd, step))


def at_offsets(path, step, order):
    """pread of all steps in some order, from 8 threads."""
    fd, size = os.open(path, os.O_RDONLY), os.path.getsize(path)
    room = bytearray(size)

    def one(at):
        piece = os.pread(fd, min(step, size - at), at)
        if len(piece) != min(step, size - at):
            raise OSError(f"{len(piece)} bytes at {at}")
        room[at:at + len(piece)] = piece

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, order(list(range(0, size, step)))))
    return digest([room])


def footer_first(path):
    """As a zip or parquet file is read: its end, then all of it."""
    fd, size = os.open(path, os.O_RDONLY), os.path.getsize(path)
    footer = os.pread(fd, 64 * KIB, size - 64 * KIB)
    whole = b"".join(stream(fd, MIB))
    if not whole.endswith(footer):
        raise OSError("the footer is not the end of the file")
    return digest([whole])


def header_then_map(path):
    """As a safetensors file is loaded: its header by read, the rest by a map; two opens."""
    with open(path, "rb", buffering=0) as file:
        header = file.read(MIB)
    with open(path, "rb") as again, mmap.mmap(again.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return digest([header, memoryview(data)[len(header):]])


def two_opens(path):
    """The first half through one descriptor, the rest through another."""
    half = os.path.getsize(path) // 2
    with open(path, "rb", buffering=0) as file:
        first = b""
        while len(first) < half and (piece := file.read(min(MIB, half - len(first)))):
            first += piece
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, half, os.SEEK_SET)
    return digest([first, *stream(fd, MIB)])


def sendfile_socket(path):
    fd, size = os.open(path, os.O_RDONLY), os.path.getsize(path)
    ours, its = socket.socketpair()
    got: list[bytes] = []
    taker = threading.Thread(target=lambda: got.extend(iter(lambda: its.recv(MIB), b"")))
    taker.start()
    try:
        at = 0
        while at < size and (n := os.sendfile(ours.fileno(), fd, at, size - at)):
            at += n
    finally:
        ours.close()
        taker.join()
    return digest(got)


def into_file(path, scratch, call):
    fd, out = os.open(path, os.O_RDONLY), os.open(scratch, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    while call(fd, out):
        pass
    with open(scratch, "rb") as copy:
        return digest(iter(lambda: copy.read(MIB), b""))


def spliced(path):
    fd = os.open(path, os.O_RDONLY)
    out, into = os.pipe()
    pieces = []
    while n := os.splice(fd, into, 64 * KIB):
        piece = b""
        while len(piece) < n:
            piece += os.read(out, n - len(piece))
        pieces.append(piece)
    return digest(pieces)


def vectors(path):
    fd = os.open(path, os.O_RDONLY)
    rooms = [bytearray(100 * KIB) for _ in range(4)]
    pieces = []
    while n := os.readv(fd, rooms):
        pieces.append(b"".join(rooms)[:n])
    return digest(pieces)


def map_whole(path):
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return digest([data])


def map_parts(path):
    fd, size = os.open(path, os.O_RDONLY), os.path.getsize(path)

    def piece(at):
        with mmap.mmap(fd, min(MIB, size - at), mmap.MAP_PRIVATE, mmap.PROT_READ, offset=at) as data:
            return data[:]

    return digest(piece(at) for at in range(0, size, MIB))


def stdio(path):
    file = LIBC.fopen64(os.fsencode(path), b"rb")
    if not file:
        raise OSError(ctypes.get_errno(), "fopen")
    file, room, state = ctypes.c_void_p(file), ctypes.create_string_buffer(MIB), hashlib.sha256()
    while got := LIBC.fread(room, ctypes.c_size_t(1), ctypes.c_size_t(MIB), file):
        state.update(memoryview(room)[:got])
    if LIBC.ferror(file):
        raise OSError(ctypes.get_errno(), "fread")
    return state.hexdigest()


def tool(argv, path=None):
    with open(path, "rb") if path else open(os.devnull, "rb") as given:
        done = subprocess.run(argv, stdin=given, capture_output=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{argv[0]} ends with {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def copied(path, scratch):
    tool(["cp", path, scratch])
    with open(scratch, "rb") as copy:
        return digest(iter(lambda: copy.read(MIB), b""))


WAYS = {
    "read 1 MiB": lambda path, scratch: read(path, MIB),
    "read 64 KiB": lambda path, scratch: read(path, 64 * KIB),
    "pread, 8 threads": lambda path, scratch: at_offsets(path, 256 * KIB, lambda order: order),
    "pread backwards": lambda path, scratch: at_offsets(path, MIB, lambda order: order[::-1]),
    "footer first": lambda path, scratch: footer_first(path),
    "header, then map": lambda path, scratch: header_then_map(path),
    "two opens": lambda path, scratch: two_opens(path),
    "readv": lambda path, scratch: vectors(path),
    "sendfile": lambda path, scratch: sendfile_socket(path),
    "sendfile to a file": lambda path, scratch: into_file(path, scratch, lambda fd, out: os.sendfile(out, fd, None, MIB)),
    "copy_file_range": lambda path, scratch: into_file(path, scratch, lambda fd, out: os.copy_file_range(fd, out, MIB)),
    "splice": lambda path, scratch: spliced(path),
    "cp": copied,
    "sha256sum": lambda path, scratch: tool(["sha256sum", path]).split()[0].decode(),
    "sha256sum <": lambda path, scratch: tool(["sha256sum"], path).split()[0].decode(),
    "cat": lambda path, scratch: digest([tool(["cat", path])]),
    "shutil": lambda path, scratch: (shutil.copyfile(path, scratch), read(scratch, MIB))[1],
    "mmap": lambda path, scratch: map_whole(path),
    "mmap in parts": lambda path, scratch: map_parts(path),
    "FILE": lambda path, scratch: stdio(path),
}


def main():
    if sys.argv[1] == "--list":
        print("\n".join(WAYS))
        return 0
    try:
        print(WAYS[sys.argv[1]](*sys.argv[2:4]))
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
