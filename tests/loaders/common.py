"""What the loader programs share: a hash for each tensor, and the names of a model's files. Knows nothing of the connector."""

import glob
import hashlib
import os


def digest(data):
    return hashlib.sha256(data).hexdigest()[:32]


def of_array(array):
    import numpy as np

    return f"{array.dtype}{list(array.shape)} {digest(np.ascontiguousarray(array).tobytes())}"


def of_tensor(tensor):
    import torch

    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return f"{tensor.dtype}{list(tensor.shape)} {digest(flat.view(torch.uint8).numpy())}"


def of_value(value):
    """Tensors of any library, bytes, and plain values."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return digest(value)
    if hasattr(value, "detach"):
        return of_tensor(value)
    if hasattr(value, "__array__"):
        import numpy as np

        return of_array(np.asarray(value))
    return value


def shards(folder, pattern="*.safetensors"):
    found = sorted(glob.glob(os.path.join(folder, pattern)))
    if not found:
        raise SystemExit(f"no {pattern} in {folder}")
    return found
