"""The bars of the packages: made from nothing by one command, twice the same, and at home in fresh systems."""

from __future__ import annotations

from tests.bars.bar import Bar
from tests.checks import ship, ship_roots

BARS = [
    Bar(
        1, "reproducible-build", "from an empty checkout one command makes both packages, twice",
        "the same bytes, nothing above GLIBC_2.17, all that dist/abi.json promises",
        ship.from_nothing, ship.from_nothing_control, "zig sees the folder; the wall clock as SOURCE_DATE_EPOCH; a library linked against this machine's glibc",
    ),
    Bar(
        2, "package-install", "both packages in fresh roots: installed, version shown, main job and vLLM's server run, upgraded, removed",
        "equal tensors and completions, an edited configuration is kept, only the user's files are left",
        ship_roots.at_home, ship_roots.at_home_control, "a library of another version, a configuration that is overwritten, a script that makes /etc/ld.so.preload",
    ),
]
