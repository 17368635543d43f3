"""Checkpoints of many files: Orbax (JAX) and TensorStore's formats."""

import os
from functools import partial


def orbax(folder):
    import orbax.checkpoint

    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        return dict(checkpointer.restore(os.path.join(folder, "checkpoint")))


def _tensorstore(folder, driver, **options):
    import tensorstore

    context = tensorstore.Context(options) if options else None
    found = {}
    for name in sorted(os.listdir(folder)):
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": os.path.join(os.path.abspath(folder), name)}}
        found[name] = tensorstore.open(spec, open=True, read=True, context=context).result().read().result()
    return found


tensorstore_zarr = partial(_tensorstore, driver="zarr")
tensorstore_zarr3 = partial(_tensorstore, driver="zarr3")
tensorstore_memmap = partial(_tensorstore, driver="zarr3", file_io_mode={"mode": "memmap"})
tensorstore_direct = partial(_tensorstore, driver="zarr3", file_io_mode={"mode": "direct"})
