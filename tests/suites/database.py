"""SQLite checks a database object: integrity and every row, by pread and by mmap, with locks and immutable."""

from __future__ import annotations

import random
import sqlite3
from pathlib import Path

from tests.suites import PASS, Outcomes, Suite, Way

FILE = "rows.sqlite"
ROWS = 40_000
# The index repeats each value, so that a changed byte of a row contradicts it.
TABLE = "CREATE TABLE item (id INTEGER PRIMARY KEY, word TEXT, data BLOB); CREATE INDEX by_value ON item (word, data);"
CHECKS = {
    "integrity_check": "PRAGMA integrity_check;",
    "quick_check": "PRAGMA quick_check;",
    "rows": "SELECT count(*), sum(length(data)), sum(id * length(word)) FROM item NOT INDEXED;",
    "rows in index": "SELECT count(*) FROM item AS a NOT INDEXED WHERE EXISTS "
    "(SELECT 1 FROM item AS b INDEXED BY by_value WHERE b.word = a.word AND b.data = a.data);",
}
MAPPED = {"pread": 0, "mmap": 1 << 30}
NAMES = [f"{check} {how} {uri}" for check in CHECKS for how in MAPPED for uri in ("mode=ro", "immutable=1")]


def make(folder: Path) -> None:
    seeded = random.Random(77)
    with sqlite3.connect(folder / FILE) as base:
        base.executescript(TABLE)
        rows = ((n, f"{seeded.randrange(36**6):x}", seeded.randbytes(120)) for n in range(ROWS))
        base.executemany("INSERT INTO item VALUES (?, ?, ?)", rows)
    base.close()


def ask(way: Way, folder: Path, name: str) -> tuple[int, str]:
    check, how, uri = name.rsplit(" ", 2)
    statement = f"PRAGMA mmap_size={MAPPED[how]}; {CHECKS[check]}"
    done = way.call(["sqlite3", "-bail", f"file:{folder / FILE}?{uri}", statement], timeout=120)
    return done.returncode, (done.stdout + done.stderr).strip()


def run(way: Way, name: str) -> Outcomes:
    status, said = ask(way, way.folder, name)
    # The first line is the answer to PRAGMA mmap_size: the mapping was really allowed.
    size, _, answer = said.partition("\n")
    if status == 0 and size == str(MAPPED[name.rsplit(" ", 2)[1]]):
        true_answer = answer == "ok" if "check" in name else answer == ask_original(way, name)
        if true_answer:
            return {name: PASS}
    return {name: f"fail status {status}: {said[:200]}"}


def ask_original(way: Way, name: str) -> str:
    """What the database as it was made answers, read without the library."""
    native = Way("original", {"PATH": way.env["PATH"]}, way.original, way.work, way.original)
    return ask(native, way.original, name)[1].partition("\n")[2]


SUITE = Suite("SQLite", NAMES, run, short=["integrity_check pread mode=ro", "integrity_check mmap immutable=1"])
