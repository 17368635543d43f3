"""Objects whose every 8 bytes say which object, version and place they are: a mix of two is seen wherever it begins.

Used by the bars "bytes" and by the end-to-end tests; tests/apps/version_reader.c reads them. A word is
little-endian: object << 56 | version << 32 | index of the word. Writes into the endpoint's tree by rename only.
"""

from __future__ import annotations

import os
import sys
from array import array
from functools import lru_cache
from pathlib import Path

WORD = 8
INDEX_BITS = 32
OBJECT_BITS = 56


@lru_cache(maxsize=64)
def content(number: int, version: int, size: int) -> bytes:
    """The bytes of one version; `number` is 1 to 255, so that no word is zero."""
    assert 1 <= number < 256 and 0 <= version < 1 << 24 and sys.byteorder == "little"
    base = number << OBJECT_BITS | version << INDEX_BITS
    return array("Q", range(base, base + -(-size // WORD))).tobytes()[:size]


def put(root: Path, path: Path, data: bytes) -> None:
    """Makes or replaces one object of the endpoint's tree at once, as an upload does."""
    fresh = root / ".incoming" / f"{os.getpid()}-{os.urandom(6).hex()}"
    fresh.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh.write_bytes(data)
    fresh.rename(path)
