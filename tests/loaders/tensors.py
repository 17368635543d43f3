"""Loaders of tensor files: safetensors in all its ways, torch.load in all its forms, torch's distributed checkpoint.

Each function takes a model folder and returns its tensors by name, in memory of their own where they would be views of
a map: a load is over when every byte was read.
"""

import contextlib
import io
import os
from functools import partial

from common import shards


def _open(folder, framework, **options):
    from safetensors import safe_open

    found = {}
    for path in shards(folder):
        with safe_open(path, framework=framework, **options) as file:
            for name in file.keys():
                tensor = file.get_tensor(name)
                found[name] = tensor.clone() if framework == "pt" else tensor
    return found


safetensors_mmap = partial(_open, framework="pt")
safetensors_pread = partial(_open, framework="pt", backend="pread")


def safetensors_numpy(folder, **options):
    import ml_dtypes  # noqa: F401  registers bfloat16

    return _open(folder, "np", **options)


safetensors_numpy_pread = partial(safetensors_numpy, backend="pread")


def safetensors_load_file(folder):
    from safetensors.torch import load_file

    return {name: tensor.clone() for path in shards(folder) for name, tensor in load_file(path).items()}


def safetensors_bytes(folder):
    from safetensors.torch import load

    found = {}
    for path in shards(folder):
        with open(path, "rb") as file:
            found.update(load(file.read()))
    return found


def safetensors_slices(folder):
    """What tensor-parallel workers do: one half of each matrix."""
    from safetensors import safe_open

    found = {}
    for path in shards(folder):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                rows = part.get_shape()[0]
                found[f"{name} 0"], found[f"{name} 1"] = part[: rows // 2].clone(), part[rows // 2 :].clone()
    return found


def _torch(folder, name="pytorch_model.bin", opened=contextlib.nullcontext, **options):
    """`opened`: what torch gets of the file's path; the path itself by default."""
    import torch

    options = {"map_location": "cpu", "weights_only": True, **options}
    with opened(os.path.join(folder, name)) as file:
        return {name: tensor.clone() for name, tensor in torch.load(file, **options).items()}


def _in_memory(path):
    with open(path, "rb") as file:
        return io.BytesIO(file.read())


torch_zip = _torch
torch_zip_pickle = partial(_torch, weights_only=False)
torch_zip_mmap = partial(_torch, mmap=True)
torch_zip_file = partial(_torch, opened=partial(open, mode="rb"))
torch_zip_unbuffered = partial(_torch, opened=partial(open, mode="rb", buffering=0))
torch_zip_bytes = partial(_torch, opened=_in_memory)
torch_legacy = partial(_torch, name="legacy.pt")
torch_legacy_file = partial(_torch, name="legacy.pt", opened=partial(open, mode="rb"), weights_only=False)


def torch_dcp(folder):
    import torch
    from torch.distributed import checkpoint

    reader = checkpoint.FileSystemReader(folder)
    metadata = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in metadata.items()}
    checkpoint.load(state, storage_reader=reader)
    return state
