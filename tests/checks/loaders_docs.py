"""docs/FRAMEWORKS.md out of the committed results of the loaders, and the command line of ci/loaders.

The results are in tests/loaders/results.json: one row for each loader, renewed by each run of it. The document is made of them and
of the list of what was not run, and of nothing else: tests/e2e/test_frameworks.py compares.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import Any

from tests.checks import loaders_page, loaders_real
from tests.checks.loaders_table import LOADERS, NOT_RUN
from tests.harness import paths
from tests.harness.measure import scale
from tests.harness.turn import alone

RESULTS = paths.ROOT / "tests" / "loaders" / "results.json"
DOCUMENT = paths.ROOT / "docs" / "FRAMEWORKS.md"
HEAD = """# Programs that load models

Made by `ci/loaders --docs` from `tests/loaders/results.json`, which `ci/loaders` writes: do not edit.

Each program was run unmodified, natively on a plain folder and on a managed one: with nothing in memory and every file a
placeholder, with the defaults, and again with the model in memory. *Equal* means that the hash of every tensor (or of what
an engine computed from all of them) was the same, that the program ended with status 0, and that each byte of the files that
it reads crossed the socket once (but the first 4 bytes of a large object whose name is none of a data format, as of
Orbax and zarr: they are asked for beforehand, once, to see whether it is a program). *In memory* is the median time of a
load, model in memory, over that from a tmpfs folder; it is empty where it was not measured. *(plain)*: the weights are smaller
than `materializeBytes`, so they are real files of MODEL_DIR's file system, and the time is over that from a plain folder there
(natively ext4 itself took 1.2 to 1.4 times as long as tmpfs for such files, all of them in its page cache).

There was no GPU. InstantTensor, which needs one, ran over a stand-in for the CUDA runtime whose device memory is host memory
(`tests/loaders/cudart.c`): its reading is real, its copies to the device are not. vLLM on Ray is the one exception to
*unmodified*: its row names the two lines that were changed, and why.
"""


def stored() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


@alone
def store(row: dict[str, Any]) -> None:
    """Two runs at a time take turns."""
    rows = {**stored(), row["name"]: row}
    kept = {name: rows[name] for name in names_in_order() if name in rows}
    RESULTS.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


def names_in_order() -> list[str]:
    return [loader.name for loader in LOADERS] + [case.name for case in loaders_page.CASES]


def row_of(found: loaders_real.Found) -> dict[str, Any]:
    row = {**dataclasses.asdict(found), "result": found.result}
    for name in ("problems", "native_secs", "cold_secs", "other_secs", "right", "reads", "settings"):
        del row[name]
    row["factor"] = None if found.factor is None else round(found.factor, 2)
    return row


def cells(*values: str) -> str:
    return "| " + " | ".join(value.replace("|", "/").replace("\n", " ") for value in values) + " |"


def document(rows: dict[str, dict[str, Any]]) -> str:
    lines = [HEAD, "## Loaders", "", cells("Program", "Version", "How it reads", "Result", "In memory", "What to set"), cells(*["---"] * 6)]
    for loader in LOADERS:
        row = rows.get(loader.name)
        if row is None:
            lines.append(cells(loader.name, "", loader.reads, "not run yet", "", loader.settings))
            continue
        factor = "" if row["factor"] is None else f"{row['factor']:.2f}" + ("" if row.get("beside", "tmpfs") == "tmpfs" else " (plain)")
        lines.append(cells(loader.name, row["version"], loader.reads, row["result"], factor, loader.settings))
    lines += ["", "## Servers and launchers", "", cells("Case", "Version", "Result", "What was measured", "What to set"), cells(*["---"] * 5)]
    for case in loaders_page.CASES:
        row = rows.get(case.name)
        said = ("", "not run yet", "") if row is None else (row["version"], row["result"], row["measured"])
        lines.append(cells(case.name, *said, case.settings))
    lines += ["", "## Not run", "", cells("What", "Why"), cells("---", "---")]
    lines += [cells(entry.name, entry.why) for entry in [*NOT_RUN, *loaders_page.NOT_RUN]]
    return "\n".join(lines) + "\n"


def write() -> None:
    DOCUMENT.write_text(document(stored()))


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/loaders", description="Runs every loader, server and launcher on a managed folder; ends with 0 when all are right.")
    parser.add_argument("--only", action="append", default=[], metavar="TEXT", help="only rows whose name has TEXT")
    parser.add_argument("--runs", type=int, help="pairs of loads against a tmpfs folder for each loader; 0: none")
    parser.add_argument("--missing", action="store_true", help="only rows that tests/loaders/results.json does not have, or has as wrong")
    parser.add_argument("--list", action="store_true", help="list the rows")
    parser.add_argument("--docs", action="store_true", help="only write docs/FRAMEWORKS.md from tests/loaders/results.json")
    options = parser.parse_args()
    scale.runs, scale.only = options.runs, options.only
    if options.docs:
        write()
        return 0
    names = [name for name in names_in_order() if not options.only or any(text in name for text in options.only)]
    if options.missing:
        names = [name for name in names if stored().get(name, {}).get("result") not in ("equal", loaders_real.REFUSED)]
    if options.list or not names:
        print("\n".join(names))
        return 0 if names else 2
    paths.require_products()
    wrong = 0
    for found in loaders_real.results([loader for loader in LOADERS if loader.name in names]):
        store(row_of(found))
        wrong += bool(found.problems)
    for row in loaders_page.results([case for case in loaders_page.CASES if case.name in names]):
        store(row)
        wrong += row["result"] != "equal"
    write()
    print(f"{len(names) - wrong} right, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
