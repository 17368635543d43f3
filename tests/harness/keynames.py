"""Keys of a bucket in nested folders, hostile ones among them, and what MODEL_DIR must hold of them.

Used by the bar on names. The expectation is made from the keys alone, by the rules of docs/SEMANTICS.md,
not by asking the engine. Seeded: the same on each machine.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

KEYS_PER_FOLDER = 30
CONTENTS = 64
NAME_BYTES_MAX = 255
KEY_BYTES_MAX = 1023

# Names that Linux takes and programs stumble over.
ODD = [
    "new\nline", "tab\there", "\x01\x7f", "\x1b[31mred", " leading", "trailing ", "-rf", "~", "$(reboot)", "a\\b", "100%25+&<>\"'",
    "caf\u00e9", "cafe\u0301", "\u6a21\u578b", "\U0001f9e0", "...", "..a", "a..", ".hidden", "*?[x]", "\u202egnp", "\ufeffbom", "x" * NAME_BYTES_MAX,
    "\u00e9" * 127,
]
NOT_UTF8 = "the key is not UTF-8"
EMPTY = "an empty name between slashes"
LEAVES = "it would leave the folder"
LONG = "the name is longer than 255 bytes"
NUL = "it holds a NUL byte"
RESERVED = "the name is reserved for files that are being written"
FOLDER = "a folder has the same name"


@dataclass
class Names:
    """Keys relative to OSS_PATH with their contents, and what must come of them."""

    keys: dict[bytes, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    # What the log says is skipped, once each: a folder stands for all that is below it.
    skipped: dict[bytes, str] = field(default_factory=dict)

    def reasons(self) -> Counter[str]:
        return Counter(self.skipped.values())


def refusal(segment: bytes) -> str | None:
    """Why one name cannot be mirrored."""
    try:
        segment.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    if segment == b"":
        return EMPTY
    if segment in (b".", b".."):
        return LEAVES
    if len(segment) > NAME_BYTES_MAX:
        return LONG
    if b"\0" in segment:
        return NUL
    return RESERVED if segment.startswith(b".ossc-tmp-") else None


def make(count: int, escape: str) -> Names:
    """`count` keys; those that lead outside end in `escape`, so that one that got there can be found."""
    seeded = random.Random(20_250_607)
    names = Names()
    number = 0
    folders = [b""]
    while len(names.keys) < count:
        folder = folders[-1]
        for key in _folder(seeded, folder, number, escape.encode()):
            if len(names.keys) < count and 0 < len(key) <= KEY_BYTES_MAX:
                names.keys[key] = seeded.randrange(CONTENTS)
        number += 1
        parent = seeded.choice(folders[-40:])
        name = seeded.choice(ODD[:-2]).encode() + b"-%d" % number if number % 3 == 0 else b"folder-%d" % number
        folders.append(parent + name + b"/" if parent.count(b"/") < 5 else name + b"/")
    _expect(names)
    return names


def _folder(seeded: random.Random, folder: bytes, number: int, escape: bytes) -> list[bytes]:
    """Keys of one folder: plain ones, odd ones, and in each a few that cannot be mirrored."""
    keys = [folder + b"shard-%05d.json" % n for n in range(KEYS_PER_FOLDER - 9)]
    keys += [folder + name.encode() for name in seeded.sample(ODD, 4)]
    hostile = [
        folder + b"../" * (1 + folder.count(b"/")) + escape,
        folder + b"./" + escape,
        folder + b"/" + escape,
        folder + b"n" * (NAME_BYTES_MAX + 1),
        folder + b"nul\0" + escape,
        folder + b"latin-\xe9",
        folder + b"caf\xe9/" + escape,
        folder + b"..",
        folder + b"." ,
        folder + b".ossc-tmp-1-2",
        folder + b"../../../../../../../../tmp/" + escape,
        folder + b"//tmp/" + escape,
    ]
    keys += seeded.sample(hostile, 3)
    # A key that is a folder too, and a marker object.
    keys += [folder + b"both", folder + b"both/inside", folder + b"marked/"] if number % 4 == 0 else []
    return keys


def _expect(names: Names) -> None:
    prefixes = {key[: at + 1] for key in names.keys for at in range(len(key)) if key[at: at + 1] == b"/"}
    for key, content in names.keys.items():
        segments = key.split(b"/")
        at = b""
        for segment in segments[:-1]:
            at += segment + b"/"
            if (why := refusal(segment)) is not None:
                names.skipped[at] = why
                break
            names.folders.add(at.decode().rstrip("/"))
        else:
            _expect_object(names, key, segments[-1], content, prefixes)


def _expect_object(names: Names, key: bytes, last: bytes, content: int, prefixes: set[bytes]) -> None:
    if last == b"":
        return  # The folder's own marker.
    why = refusal(last)
    if why is None and key + b"/" in prefixes:
        why = FOLDER
    if why is None:
        names.files[key.decode()] = content
    else:
        names.skipped[key] = why
