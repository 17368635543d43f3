"""Frameworks: transformers, accelerate, diffusers, sentence-transformers, and the loader functions of vLLM and SGLang.

Of vLLM and SGLang the functions are called with which their weight loaders read each format; a GPU is not needed for that.
InstantTensor within them runs over the stand-in CUDA runtime (see streamers.py), and they are told that there is a device.
"""

import importlib
import tempfile

from common import shards


def _state(module):
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def transformers(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    return {**_state(model), "tokens": tokenizer("The quick brown fox")["input_ids"]}


def accelerate(folder):
    import torch
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder)
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = load_checkpoint_and_dispatch(model, folder, device_map={"": "cpu"}, dtype=torch.bfloat16)
    return _state(model)


def diffusers(folder):
    from diffusers import DDPMPipeline

    return _state(DDPMPipeline.from_pretrained(folder).unet)


def sentence_transformers(folder):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cpu", local_files_only=True)
    return {**_state(model), "embedding": model.encode(["The quick brown fox"])}


def _kept(weights):
    return {name: tensor.clone() for name, tensor in weights}


def _weights(framework, folder, iterator, *args, files="*.safetensors", **options):
    """What one of the framework's iterators over weights gives of the model's files."""
    weight_utils = importlib.import_module(framework)
    return _kept(getattr(weight_utils, f"{iterator}_weights_iterator")(shards(folder, files), *args, **options))


def _np_cache(framework, folder, *args):
    # A folder for the loader's own numpy files: in memory, so that no disk is timed.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        weight_utils = importlib.import_module(framework)
        return _kept(weight_utils.np_cache_weights_iterator("m", scratch, scratch, shards(folder, "*.bin"), *args))


def _loader(kind, framework, *args, **options):
    return lambda folder: kind(framework, folder, *args, **options)


VLLM, SGLANG = "vllm.model_executor.model_loader.weight_utils", "sglang.srt.model_loader.weight_utils"
# False: without a progress bar.
vllm_safetensors = _loader(_weights, VLLM, "safetensors", False)
vllm_safetensors_eager = _loader(_weights, VLLM, "safetensors", False, "eager")
vllm_safetensors_prefetch = _loader(_weights, VLLM, "safetensors", False, "prefetch")
vllm_safetensors_threads = _loader(_weights, VLLM, "multi_thread_safetensors", False)
vllm_runai = _loader(_weights, VLLM, "runai_safetensors", False)
vllm_pt = _loader(_weights, VLLM, "pt", False, files="*.bin")
vllm_pt_threads = _loader(_weights, VLLM, "multi_thread_pt", False, files="*.bin")
vllm_npcache = _loader(_np_cache, VLLM, False)
sglang_safetensors = _loader(_weights, SGLANG, "safetensors")
sglang_safetensors_mmap_off = _loader(_weights, SGLANG, "safetensors", disable_mmap=True)
sglang_safetensors_threads = _loader(_weights, SGLANG, "buffered_multi_thread_safetensors", 4)
sglang_runai = _loader(_weights, SGLANG, "runai_safetensors")
sglang_pt = _loader(_weights, SGLANG, "pt", files="*.bin")
sglang_pt_threads = _loader(_weights, SGLANG, "multi_thread_pt", 4, files="*.bin")
sglang_npcache = _loader(_np_cache, SGLANG)


def _stand_in():
    import streamers

    streamers.stand_in_cuda()


def vllm_instanttensor(folder):
    from vllm.model_executor.model_loader import weight_utils
    from vllm.platforms import current_platform

    _stand_in()
    current_platform.is_cuda, current_platform.current_device = lambda: True, lambda: "cuda:0"
    return _kept(weight_utils.instanttensor_weights_iterator(shards(folder), False))


def sglang_instanttensor(folder):
    import torch
    from sglang.srt.model_loader import weight_utils

    _stand_in()

    class Platform:
        device_type = "cuda"

        @staticmethod
        def get_device(_):
            return torch.device("cuda:0")

    torch.cuda.current_device = lambda: 0
    weight_utils.current_platform = Platform
    return _kept(weight_utils.instanttensor_weights_iterator(shards(folder)))
