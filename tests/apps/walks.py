"""Reads a folder in each way that the C library has, and prints JSON: what each way gave, and its errno. Usage: walks.py FOLDER.

With a second argument the folder is then to be removed and to be moved there.
"""

import ctypes
import json
import os
import sys

C = ctypes.CDLL(None, use_errno=True)
C.fts_open.restype = ctypes.c_void_p
GLOB_ERR, FTW_PHYS, FTS_PHYSICAL = 1, 1, 0x10
ON_GLOB_ERROR = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int)
ON_FILE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


def called(call):
    ctypes.set_errno(0)
    got = call()
    return [got, ctypes.get_errno()]


def attempt(call):
    try:
        return call()
    except OSError as error:
        return error.errno


def glob(folder, flags, told):
    room = ctypes.create_string_buffer(128)
    got = C.glob(folder + b"/*", flags, told, room)
    return [got, int.from_bytes(room.raw[:8], "little") if got == 0 else 0]


def main():
    folder = os.fsencode(sys.argv[1])
    names = ctypes.c_void_p()
    refused = []
    walked = []

    def on_error(path, errno):
        refused.append([os.path.basename(os.fsdecode(path)), errno])
        return 0

    def on_file(path, status, kind, place):
        walked.append(path)
        return 0

    told, walk = ON_GLOB_ERROR(on_error), ON_FILE(on_file)
    roots = (ctypes.c_char_p * 2)(folder, None)
    found = {
        "listdir": attempt(lambda: len(os.listdir(folder))),
        "scandir": called(lambda: C.scandir(folder, ctypes.byref(names), None, None)),
        "glob": glob(folder, 0, told),
        "glob told": refused,
        "glob with GLOB_ERR": glob(folder, GLOB_ERR, None),
        "nftw": [*called(lambda: C.nftw(folder, walk, 8, FTW_PHYS)), len(walked)],
        "fts": C.fts_open(roots, FTS_PHYSICAL, None) is not None,
    }
    if len(sys.argv) > 2:
        found["rmdir"] = attempt(lambda: os.rmdir(folder))
        found["rename"] = attempt(lambda: os.rename(folder, sys.argv[2]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
