"""Holds a descriptor by O_DIRECT of the first file while the memory is wanted for the second, and reads it again past
the C library. Usage: hold_direct.py FILE OTHER COPY [kill]: with `kill`, after a line on standard input."""

import mmap
import os
import sys

held, other, copy = sys.argv[1:4]
with open(copy, "rb") as file:
    expected = file.read()
fd = os.open(held, os.O_RDONLY | os.O_DIRECT)
for _ in range(4):
    with open(other, "rb", buffering=0) as file:
        while file.read(1 << 20):
            pass
if "kill" in sys.argv:
    print("ready", flush=True)
    sys.stdin.readline()
# On the memory file `preadv` of the C library goes to the kernel, and finds bytes there.
room, got = mmap.mmap(-1, 1 << 20), b""
while chunk := os.preadv(fd, [room], len(got)):
    got += room[:chunk]
print("same" if got == expected else f"{len(got)} other bytes, {got.count(0)} of them zero")
print(os.fstat(fd).st_size == len(expected), os.path.samestat(os.fstat(fd), os.stat(held)), os.readlink(f"/proc/self/fd/{fd}") == os.path.realpath(held))
