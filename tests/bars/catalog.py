"""All sets of bars. Read by `ci/bar NAME`, `ci/bar SET NUMBER` and the end-to-end tests."""

from __future__ import annotations

from tests.bars import bytes as of_bytes
from tests.bars import engine, hooks, loaders, main, operate, roles, ship, survive, wire
from tests.bars.bar import Bar

SETS: dict[str, list[Bar]] = {
    "bytes": of_bytes.BARS, "engine": engine.BARS, "hooks": hooks.BARS, "loaders": loaders.BARS, "main": main.BARS, "operate": operate.BARS, "roles": roles.BARS, "ship": ship.BARS,
    "survive": survive.BARS, "wire": wire.BARS,
}


def every() -> list[tuple[str, Bar]]:
    """All bars, each with the name of its set."""
    return [(name, bar) for name, bars in SETS.items() for bar in bars]


def find(word: str, number: int | None) -> list[tuple[str, Bar]]:
    """The bar of this name, or of this set and number; none or one."""
    return [(s, bar) for s, bar in every() if (number is None and bar.name == word) or (s == word and bar.number == number)]
