"""The bars of the bytes: whatever the folder, the process or the moment, no byte is wrong without an error."""

from bars import Bar, versions

BARS = [
    Bar(
        2, f"an object is overwritten while engine, primary or a reader is killed, both page kinds, {len(versions.WAYS)} ways to read (--runs, --seed)",
        f"{versions.RUNS} seeded runs: each reader sees one version as a whole, or an error; none a mix",
        versions.whole_versions, versions.control,
        f"the build that --against names, or bytes that change under one ETag: seen within {versions.CONTROL_RUNS} seeds",
    ),
]
