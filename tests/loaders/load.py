"""An ordinary program that loads a model folder by one loader, and says what it got. Knows nothing of the connector.

Usage: load.py LOADER FOLDER                  prints {"secs": ..., "tensors": {name: hash}} as the last line
       load.py LOADER FOLDER --pairs N OTHER  loads FOLDER once, as above, then both folders in turns, N times each after
                                              one to warm up, and prints "pairs" and "other" too
"""

import gc
import importlib
import json
import sys
import time

from common import of_value

MODULES = ("streamers", "tensors", "engines", "arrays", "frameworks")


def loader_of(name):
    for module in MODULES:
        found = getattr(importlib.import_module(module), name, None)
        if callable(found):
            return found
    raise SystemExit(f"no loader {name}")


def timed(load, folder):
    begin = time.perf_counter()
    found = load(folder)
    secs = time.perf_counter() - begin
    return secs, found


def pairs(load, folder, other, count):
    secs: dict[str, list[float]] = {folder: [], other: []}
    for number in range(count + 1):
        for each in (folder, other) if number % 2 else (other, folder):
            took, found = timed(load, each)
            del found
            gc.collect()
            if number:
                secs[each].append(took)
    return {"pairs": secs[folder], "other": secs[other]}


def main():
    name, folder, *rest = sys.argv[1:]
    load = loader_of(name)
    secs, tensors = timed(load, folder)
    found = {"secs": secs, "tensors": {key: of_value(value) for key, value in tensors.items()}}
    if rest:
        del tensors
        found.update(pairs(load, folder, rest[2], int(rest[1])))
    sys.stdout.write("\n" + json.dumps(found, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
