"""Compares what load_model.py got with the original folder, tensor by tensor.

Runs without the library, and reads the safetensors format itself (header length,
JSON header, offsets), so that it shares no code with the program it judges.
Prints `verified: ...` and ends with 0, or each difference and 1.

Usage: verify_tensors.py REPORT ORIGINAL_FOLDER
"""

import hashlib
import json
import os
import struct
import sys

from tokenizers import Tokenizer

DTYPES = {"F16": "float16", "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32", "U8": "uint8"}


def originals(folder):
    """(name, dtype, shape, sha256) of every tensor of every safetensors file in the folder."""
    for file_name in sorted(os.listdir(folder)):
        if not file_name.endswith(".safetensors"):
            continue
        with open(os.path.join(folder, file_name), "rb") as file:
            (header_bytes,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(header_bytes))
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                begin, end = entry["data_offsets"]
                file.seek(8 + header_bytes + begin)
                digest = hashlib.sha256(file.read(end - begin)).hexdigest()
                yield name, DTYPES[entry["dtype"]], entry["shape"], digest, end - begin


def differences(report, folder):
    left = dict(report["tensors"])
    count = size = 0
    for name, dtype, shape, digest, length in originals(folder):
        got = left.pop(name, None)
        if got is None:
            yield f"{name}: not loaded"
        elif (got["dtype"], got["shape"]) != (dtype, shape):
            yield f"{name}: is {got['dtype']}{got['shape']}, should be {dtype}{shape}"
        elif got["sha256"] != digest:
            yield f"{name}: other bytes than the original"
        count += 1
        size += length
    for name in left:
        yield f"{name}: loaded, but the original has no such tensor"
    if count == 0 or size != report["tensor_bytes"]:
        yield f"{report['tensor_bytes']} tensor bytes loaded, the original has {size} in {count} tensors"
    ids = Tokenizer.from_file(os.path.join(folder, "tokenizer.json")).encode(report["text"]).ids
    if ids != report["ids"]:
        yield "the tokenizer gives other ids than the original's"
    if "files" in report:
        names = {os.path.relpath(os.path.join(p, f), folder) for p, _, fs in os.walk(folder) for f in fs}
        for name in names.symmetric_difference(report["files"]):
            if not name.endswith(".safetensors"):
                yield f"{name}: in one of the two folders only"
    for name, digest in report.get("files", {}).items():
        with open(os.path.join(folder, name), "rb") as file:
            if hashlib.sha256(file.read()).hexdigest() != digest:
                yield f"{name}: other bytes than the original"


def main():
    with open("/proc/self/maps") as file:
        maps = file.read()
    if os.environ.get("LD_PRELOAD") or "libossc_preload" in maps:
        sys.exit("verify_tensors.py must run without the library")
    with open(sys.argv[1]) as file:
        report = json.load(file)
    found = list(differences(report, sys.argv[2]))
    for line in found:
        print(f"DIFFERENT {line}")
    if found:
        sys.exit(1)
    print(f"verified: {len(report['tensors'])} tensors, {report['tensor_bytes']} bytes, equal to the original")


if __name__ == "__main__":
    main()
