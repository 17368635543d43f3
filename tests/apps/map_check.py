"""Maps a file again and again, in different ways, and compares it with a copy as long as it is mapped.

Usage: map_check.py FILE COPY SEED SECS. The last line says how many maps there were; a byte that is another is an
error on stderr and status 1.
"""

import ctypes
import mmap
import os
import random
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.fopen64.restype = ctypes.c_void_p
LIBC.fread.restype = ctypes.c_size_t
HELD_SECS = 0.4


def compare(data, right, what):
    end = time.monotonic() + HELD_SECS
    while True:
        if memoryview(data) != memoryview(right):
            at = next(at for at in range(len(right)) if data[at] != right[at])
            sys.exit(f"{what}: byte {at} is {data[at]} and not {right[at]}")
        if time.monotonic() > end:
            return
        time.sleep(0.02)


def mapped(fd, size):
    return mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ)


def whole(path, right):
    fd = os.open(path, os.O_RDONLY)
    data = mapped(fd, len(right))
    os.close(fd)
    with data:
        compare(data, right, "map")


def duplicated(path, right):
    fd = os.open(path, os.O_RDONLY)
    other = os.dup(fd)
    os.close(fd)
    with mapped(other, len(right)) as data:
        os.close(other)
        compare(data, right, "map of a duplicate")


def forked(path, right):
    """The child keeps the map when the parent has ended its own."""
    fd = os.open(path, os.O_RDONLY)
    data = mapped(fd, len(right))
    os.close(fd)
    child = os.fork()
    if child == 0:
        time.sleep(0.1)
        compare(data, right, "map in a child")
        os._exit(0)
    data.close()
    _, status = os.waitpid(child, 0)
    if status != 0:
        sys.exit(1)


def streamed(path, right):
    stream = ctypes.c_void_p(LIBC.fopen64(os.fsencode(path), b"rb"))
    room = ctypes.create_string_buffer(len(right))
    end = time.monotonic() + HELD_SECS
    while time.monotonic() < end:
        LIBC.rewind(stream)
        if LIBC.fread(room, ctypes.c_size_t(1), ctypes.c_size_t(len(right)), stream) != len(right) or room.raw != right:
            sys.exit("FILE: other bytes")
        time.sleep(0.05)
    LIBC.fclose(stream)


def main():
    path, copy, seed, secs = sys.argv[1:5]
    with open(copy, "rb") as file:
        right = file.read()
    chance, end, count = random.Random(seed), time.monotonic() + float(secs), 0
    while time.monotonic() < end:
        chance.choice([whole, whole, duplicated, forked, streamed])(path, right)
        count += 1
        time.sleep(chance.random() * 0.4)
    print(count)


if __name__ == "__main__":
    main()
