"""A small bucket folder with the shapes that break things: odd sizes, empty files, nesting, odd names.

Used by the end-to-end tests, natively and behind the endpoint. The data is seeded: the same on each machine.
"""

from __future__ import annotations

import hashlib
import random
import zipfile
from pathlib import Path

MIB = 1024 * 1024
# With this limit the larger files are placeholders and the smaller ones real files.
MATERIALIZE_BYTES = MIB


def make(folder: Path) -> None:
    seeded = random.Random(20_240_607)
    (folder / "nested" / "deep").mkdir(parents=True)
    large = {
        "a.bin": 3 * MIB + 17,
        "b.bin": 20 * MIB + 4097,
        "page.bin": 2 * MIB,
        "nested/deep/c.bin": 5 * MIB + 1,
        "name with space.bin": MIB + 1,
        "größe-模型.bin": MIB + 4095,
    }
    small = {"small.bin": 5000, "empty.bin": 0, "nested/small.json": 700, "limit.bin": MIB}
    for name, size in {**large, **small}.items():
        (folder / name).write_bytes(seeded.randbytes(size))
    lines = [f"{seeded.randrange(10**12):012d} line {n}\n" for n in range(80_000)]
    (folder / "lines.txt").write_text("".join(lines))
    with zipfile.ZipFile(folder / "archive.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("member.bin"), seeded.randbytes(2 * MIB + 5))
        archive.writestr(zipfile.ZipInfo("other.bin"), seeded.randbytes(1000))


def fill(base: Path, sizes: dict[str, int], seed: int) -> dict[str, str]:
    """Makes files of random bytes; gives the SHA-256 of each."""
    seeded = random.Random(seed)
    sums = {}
    for name, size in sizes.items():
        data = seeded.randbytes(size)
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(data)
        sums[name] = hashlib.sha256(data).hexdigest()
    return sums


def sizes(folder: Path, prefix: str) -> dict[str, int]:
    """Whole object keys below a prefix and their sizes."""
    return {
        f"{prefix}/{p.relative_to(folder)}": p.stat().st_size for p in folder.rglob("*") if p.is_file()
    }
