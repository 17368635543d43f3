"""Reads files one way and prints JSON: name -> sha256, or the error's name. Usage: read_all.py WAY FILE...

WAY: read (open().read()), map (mmap of the whole file) or stdio (a C FILE, through numpy.fromfile).
"""

import errno
import hashlib
import json
import mmap
import os
import sys

import numpy as np


def read(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def map_whole(path):
    if os.path.getsize(path) == 0:
        return hashlib.sha256(b"").hexdigest()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return hashlib.sha256(data).hexdigest()


def stdio(path):
    return hashlib.sha256(np.fromfile(path, dtype=np.uint8)).hexdigest()


def main():
    way = {"read": read, "map": map_whole, "stdio": stdio}[sys.argv[1]]
    found = {}
    for path in sys.argv[2:]:
        try:
            found[path] = way(path)
        except OSError as error:
            found[path] = errno.errorcode.get(error.errno, str(error))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
