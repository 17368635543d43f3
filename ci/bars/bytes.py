"""The bars of the bytes: whatever the folder, the process or the moment, no byte is wrong without an error."""

from bars import Bar, identity, versions

BARS = [
    Bar(
        1, f"{len(identity.KINDS)} kinds of peculiar folders, names, processes and limits, with and without extended attributes, {len(identity.situations.WAYS)} ways to read",
        "right bytes, or an error with a word; never empty, zero or other bytes with status 0",
        identity.known, identity.unknown, "no mark at all: each silent read must be noticed; with --against also each kind that 0.1.0 got wrong",
    ),
    Bar(
        2, f"an object is overwritten while engine, primary or a reader is killed, both page kinds, {len(versions.WAYS)} ways to read (--runs, --seed)",
        f"{versions.RUNS} seeded runs: each reader sees one version as a whole, or an error; none a mix",
        versions.whole_versions, versions.control,
        f"the build that --against names, or bytes that change under one ETag: seen within {versions.CONTROL_RUNS} seeds",
    ),
]
