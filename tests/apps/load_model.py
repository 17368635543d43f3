"""An ordinary program: loads a safetensors model and its tokenizer and reports what it got.

It knows nothing of the connector. Weights: the shards that the index names, or
model.safetensors. With --all-files every other file of the folder is read too.
Writes JSON to --out: sha256, dtype and shape of each tensor, token ids, seconds.

Usage: load_model.py FOLDER --out FILE [--all-files]
"""

import argparse
import hashlib
import json
import os
import time

from safetensors import safe_open
from tokenizers import Tokenizer

TEXT = "The quick brown fox loads 1024 tensors; größer, schneller."


def shard_names(folder):
    index = os.path.join(folder, "model.safetensors.index.json")
    if not os.path.exists(index):
        return ["model.safetensors"]
    with open(index) as file:
        return sorted(set(json.load(file)["weight_map"].values()))


def load(folder):
    tensors = {}
    for shard in shard_names(folder):
        with safe_open(os.path.join(folder, shard), framework="np") as file:
            for name in file.keys():
                tensors[name] = file.get_tensor(name)
    return tensors


def other_files(folder, shards):
    found = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            if relative not in shards:
                with open(path, "rb") as file:
                    found[relative] = hashlib.sha256(file.read()).hexdigest()
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--out", required=True)
    parser.add_argument("--all-files", action="store_true")
    options = parser.parse_args()

    begin = time.monotonic()
    tensors = load(options.folder)
    load_secs = time.monotonic() - begin
    ids = Tokenizer.from_file(os.path.join(options.folder, "tokenizer.json")).encode(TEXT).ids

    report = {
        "tensors": {
            name: {"sha256": hashlib.sha256(t).hexdigest(), "dtype": str(t.dtype), "shape": list(t.shape)}
            for name, t in tensors.items()
        },
        "tensor_bytes": sum(t.nbytes for t in tensors.values()),
        "load_secs": load_secs,
        "text": TEXT,
        "ids": ids,
    }
    if options.all_files:
        report["files"] = other_files(options.folder, set(shard_names(options.folder)))
    with open(options.out, "w") as file:
        json.dump(report, file)


if __name__ == "__main__":
    main()
