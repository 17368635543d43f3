"""Loaders with I/O of their own: InstantTensor, Run:ai Model Streamer, fastsafetensors, tensorizer.

Each function takes a model folder and returns its tensors by name, in memory of their own. Settings come from the
environment, as each product documents. InstantTensor runs over a stand-in CUDA runtime (cudart.c, OSSC_TEST_CUDART).
"""

import ctypes
import functools
import mmap
import os

from common import shards

CPU, DEVICE_TYPE_OFFSET = 1, ctypes.sizeof(ctypes.c_void_p)
# Less than the stand-in takes when it is loaded.
STAND_IN_BYTES = 4 * mmap.PAGESIZE


class _Stream:
    def synchronize(self):
        pass


def _first_cudart():
    """Address and path of the CUDA runtime that comes first in the process: InstantTensor takes that one."""
    with open("/proc/self/maps") as maps:
        line = next(line for line in maps if "libcudart.so" in line)
    return int(line.split("-")[0], 16), line.split()[-1]


def _fill_holes_above(address):
    """Takes the free places above an address, so that the next library comes below it."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    while libc.mmap(None, STAND_IN_BYTES, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0) > address:
        pass


@functools.cache
def stand_in_cuda():
    """Makes host memory what torch and InstantTensor take for device 0."""
    import torch

    library = os.environ["OSSC_TEST_CUDART"]
    _fill_holes_above(_first_cudart()[0])
    ctypes.CDLL(library)
    first = _first_cudart()[1]
    if os.path.realpath(first) != os.path.realpath(library):
        raise SystemExit(f"InstantTensor would use {first}, not the stand-in")
    capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    capsule_pointer.restype, capsule_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    from_dlpack = torch.from_dlpack

    def on_host(capsule):
        at = capsule_pointer(capsule, b"dltensor") + DEVICE_TYPE_OFFSET
        ctypes.c_int32.from_address(at).value = CPU
        return from_dlpack(capsule)

    class Properties:
        is_integrated = False

    torch.from_dlpack = on_host
    torch.cuda.mem_get_info = lambda *_: (2 << 30, 2 << 30)
    torch.cuda.current_stream = lambda *_: _Stream()
    torch.cuda.get_device_properties = lambda *_: Properties


def instanttensor(folder):
    stand_in_cuda()
    from instanttensor import safe_open

    backend = {}
    if name := os.environ.get("OSSC_TEST_BACKEND"):
        import instanttensor as module

        backend = {"backend": module.Backend[name]}
    with safe_open(shards(folder), framework="pt", device="cuda:0", chunk_size=2 << 20, io_depth=16, **backend) as file:
        # Version 0.1.8 gives views of a ring of buffers.
        return {name: tensor.clone() for name, tensor in file.tensors()}


def runai(folder):
    from runai_model_streamer import SafetensorsStreamer

    with SafetensorsStreamer() as streamer:
        streamer.stream_files(shards(folder))
        return {name: tensor.clone() for name, tensor in streamer.get_tensors()}


def fastsafetensors(folder):
    """The loader that reads with threads, or, by OSSC_TEST_GDS, asks for GPUDirect Storage first."""
    from fastsafetensors import SafeTensorsFileLoader, SingleGroup

    loader = SafeTensorsFileLoader(SingleGroup(), "cpu", nogds=os.environ.get("OSSC_TEST_GDS") != "1")
    loader.add_filenames({0: shards(folder)})
    buffer = loader.copy_files_to_device()
    try:
        return {name: buffer.get_tensor(name).clone() for name in loader.get_keys()}
    finally:
        buffer.close()
        loader.close()


def fastsafetensors_parallel(folder):
    from fastsafetensors import ParallelLoader

    loader = ParallelLoader(None, shards(folder), use_tqdm_on_load=False, device="cpu", nogds=True)
    try:
        return {name: tensor.clone() for name, tensor in loader.iterate_weights()}
    finally:
        loader.close()


def fastsafetensors_open(folder):
    from fastsafetensors import fastsafe_open

    with fastsafe_open(shards(folder), nogds=True, device="cpu") as file:
        return {name: file.get_tensor(name).clone().detach() for name in file.keys()}


def tensorizer(folder):
    from tensorizer import TensorDeserializer

    found = {}
    for path in shards(folder, "*.tensors"):
        with TensorDeserializer(path, device="cpu", num_readers=int(os.environ.get("OSSC_TEST_READERS", "1"))) as state:
            found.update({name: state[name].detach().clone() for name in state.keys()})
    return found


def tensorizer_lazy(folder):
    from tensorizer import TensorDeserializer

    found = {}
    for path in shards(folder, "*.tensors"):
        with open(path, "rb") as file, TensorDeserializer(file, device="cpu", lazy_load=True) as state:
            found.update({name: state[name].detach().clone() for name in state.keys()})
    return found
