"""Reads a folder in each way that the C library has, and prints JSON: what each way gave, and its errno. Usage: walks.py FOLDER.

With a second argument the folder is then to be removed and to be moved there.
"""

import ctypes
import json
import os
import sys
import tempfile

C = ctypes.CDLL(None, use_errno=True)
for call in (C.fts_open, C.fts_read, C.fdopendir):
    call.restype = ctypes.c_void_p
GLOB_ERR, FTW_PHYS, FTW_CHDIR, FTS_LOGICAL, FTS_PHYSICAL = 1, 1, 4, 2, 0x10
FTS_INFO_AT = 98
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


def glob(pattern, flags, told):
    """Programs give room that holds anything, and free what was found also after an error."""
    room = ctypes.create_string_buffer(b"\xaa" * 128, 128)
    got = C.glob(pattern, flags, told, room)
    count = int.from_bytes(room.raw[:8], "little") if got == 0 else 0
    C.globfree(room)
    return [got, count]


def fts_kinds(root, options):
    """What fts says of each entry; None where it does not begin."""
    walk = C.fts_open((ctypes.c_char_p * 2)(root, None), options, None)
    if walk is None:
        return None
    entries = iter(lambda: C.fts_read(ctypes.c_void_p(walk)), None)
    return [ctypes.c_uint16.from_address(entry + FTS_INFO_AT).value for entry in entries]


def behind_a_link(folder):
    """The folder as the end of a link, which lies in a folder of its own."""
    kinds = []

    def on_file(path, status, kind, place):
        kinds.append(kind)
        return 0

    found, walk = {}, ON_FILE(on_file)
    with tempfile.TemporaryDirectory() as own:
        link, moved = own + "/link", own + "/moved"
        os.symlink(os.path.abspath(os.fsdecode(folder)), link)
        found["nftw of the link"] = [*called(lambda: C.nftw(os.fsencode(link), walk, 8, FTW_PHYS)), len(kinds)]
        for way, flags in (("nftw", 0), ("nftw with FTW_CHDIR", FTW_CHDIR)):
            kinds.clear()
            got = C.nftw(os.fsencode(own), walk, 8, flags)
            found[way] = [got, *kinds]
        found["fts"] = fts_kinds(os.fsencode(own), FTS_LOGICAL)
        found["rmdir"] = attempt(lambda: os.rmdir(link))
        found["rename"] = attempt(lambda: os.rename(link, moved))
        found["remove"] = called(lambda: C.remove(os.fsencode(moved)))
    return found


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
    found = {
        "listdir": attempt(lambda: len(os.listdir(folder))),
        "scandir": called(lambda: C.scandir(folder, ctypes.byref(names), None, None)),
        "glob": glob(folder + b"/*", 0, told),
        "glob told": refused,
        "glob with GLOB_ERR": glob(folder + b"/*", GLOB_ERR, None),
        "glob beside it": glob(b"[ab]*/x", GLOB_ERR, None),
        "nftw": [*called(lambda: C.nftw(folder, walk, 8, FTW_PHYS)), len(walked)],
        "fts": fts_kinds(folder, FTS_PHYSICAL) is not None,
        "behind a link": behind_a_link(folder),
    }
    if len(sys.argv) > 2:
        found["rmdir"] = attempt(lambda: os.rmdir(folder))
        os.mkdir(sys.argv[2])
        found["replace"] = attempt(lambda: os.rename(sys.argv[2], folder))
        os.rmdir(sys.argv[2])
        found["rename"] = attempt(lambda: os.rename(folder, sys.argv[2]))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
