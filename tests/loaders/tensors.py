"""Loaders of tensor files: safetensors in all its ways, torch.load in all its forms, torch's distributed checkpoint.

Each function takes a model folder and returns its tensors by name, in memory of their own where they would be views of
a map: a load is over when every byte was read.
"""

import io
import os

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


def safetensors_mmap(folder):
    return _open(folder, "pt")


def safetensors_pread(folder):
    return _open(folder, "pt", backend="pread")


def safetensors_numpy(folder):
    import ml_dtypes  # noqa: F401  registers bfloat16

    return _open(folder, "np")


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


def _torch(path, **options):
    import torch

    options = {"map_location": "cpu", "weights_only": True, **options}
    return {name: tensor.clone() for name, tensor in torch.load(path, **options).items()}


def _zip(folder):
    return os.path.join(folder, "pytorch_model.bin")


def torch_zip(folder):
    return _torch(_zip(folder))


def torch_zip_pickle(folder):
    return _torch(_zip(folder), weights_only=False)


def torch_zip_mmap(folder):
    return _torch(_zip(folder), mmap=True)


def torch_zip_file(folder):
    with open(_zip(folder), "rb") as file:
        return _torch(file)


def torch_zip_unbuffered(folder):
    with open(_zip(folder), "rb", buffering=0) as file:
        return _torch(file)


def torch_zip_bytes(folder):
    with open(_zip(folder), "rb") as file:
        return _torch(io.BytesIO(file.read()))


def torch_legacy(folder):
    return _torch(os.path.join(folder, "legacy.pt"))


def torch_legacy_file(folder):
    with open(os.path.join(folder, "legacy.pt"), "rb") as file:
        return _torch(file, weights_only=False)


def _dcp(folder, **options):
    import torch
    from torch.distributed import checkpoint

    reader = checkpoint.FileSystemReader(folder, **options)
    metadata = reader.read_metadata().state_dict_metadata
    state = {name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in metadata.items()}
    checkpoint.load(state, storage_reader=reader)
    return state


def torch_dcp(folder):
    return _dcp(folder)
