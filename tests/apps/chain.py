"""Python in the middle of a chain: children made by multiprocessing spawn map the files with numpy.

Prints one JSON object: relative path -> sha256. Usage: chain.py FOLDER [--drop-preload]
With --drop-preload the children run without LD_PRELOAD (to see that this makes a difference).
"""

import hashlib
import json
import multiprocessing
import os
import sys

import numpy as np


def digest(path):
    if os.path.getsize(path) == 0:
        return hashlib.sha256(b"").hexdigest()
    return hashlib.sha256(np.memmap(path, dtype=np.uint8, mode="r")).hexdigest()


def main():
    folder = sys.argv[1]
    if "--drop-preload" in sys.argv:
        os.environ.pop("LD_PRELOAD", None)
    names = sorted(os.path.relpath(os.path.join(p, f), folder) for p, _, fs in os.walk(folder) for f in fs)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        digests = pool.map(digest, [os.path.join(folder, name) for name in names])
    json.dump(dict(zip(names, digests)), sys.stdout)


if __name__ == "__main__":
    main()
