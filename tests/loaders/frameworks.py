"""Frameworks: transformers, accelerate, diffusers, sentence-transformers, and the loader functions of vLLM and SGLang.

Of vLLM and SGLang the functions are called with which their weight loaders read each format; a GPU is not needed for that.
InstantTensor within them runs over the stand-in CUDA runtime (see streamers.py), and they are told that there is a device.
"""

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


def _vllm():
    from vllm.model_executor.model_loader import weight_utils

    return weight_utils


def vllm_safetensors(folder):
    return _kept(_vllm().safetensors_weights_iterator(shards(folder), False))


def vllm_safetensors_eager(folder):
    return _kept(_vllm().safetensors_weights_iterator(shards(folder), False, "eager"))


def vllm_safetensors_prefetch(folder):
    return _kept(_vllm().safetensors_weights_iterator(shards(folder), False, "prefetch"))


def vllm_safetensors_threads(folder):
    return _kept(_vllm().multi_thread_safetensors_weights_iterator(shards(folder), False))


def vllm_runai(folder):
    return _kept(_vllm().runai_safetensors_weights_iterator(shards(folder), False))


def vllm_instanttensor(folder):
    from vllm.platforms import current_platform

    weight_utils = _vllm()
    _stand_in()
    current_platform.is_cuda, current_platform.current_device = lambda: True, lambda: "cuda:0"
    return _kept(weight_utils.instanttensor_weights_iterator(shards(folder), False))


def vllm_pt(folder):
    return _kept(_vllm().pt_weights_iterator(shards(folder, "*.bin"), False))


def vllm_pt_threads(folder):
    return _kept(_vllm().multi_thread_pt_weights_iterator(shards(folder, "*.bin"), False))


def _scratch():
    """A folder for the loader's own numpy files: in memory, so that no disk is timed."""
    return tempfile.TemporaryDirectory(dir="/dev/shm")


def vllm_npcache(folder):
    with _scratch() as scratch:
        return _kept(_vllm().np_cache_weights_iterator("m", scratch, scratch, shards(folder, "*.bin"), False))


def _stand_in():
    import streamers

    streamers.stand_in_cuda()


def _sglang():
    from sglang.srt.model_loader import weight_utils

    return weight_utils


def sglang_safetensors(folder):
    return _kept(_sglang().safetensors_weights_iterator(shards(folder)))


def sglang_safetensors_mmap_off(folder):
    return _kept(_sglang().safetensors_weights_iterator(shards(folder), disable_mmap=True))


def sglang_safetensors_threads(folder):
    return _kept(_sglang().buffered_multi_thread_safetensors_weights_iterator(shards(folder), 4))


def sglang_instanttensor(folder):
    import torch

    weight_utils = _sglang()
    _stand_in()

    class Platform:
        device_type = "cuda"

        @staticmethod
        def get_device(_):
            return torch.device("cuda:0")

    torch.cuda.current_device = lambda: 0
    weight_utils.current_platform = Platform
    return _kept(weight_utils.instanttensor_weights_iterator(shards(folder)))


def sglang_runai(folder):
    return _kept(_sglang().runai_safetensors_weights_iterator(shards(folder)))


def sglang_pt(folder):
    return _kept(_sglang().pt_weights_iterator(shards(folder, "*.bin")))


def sglang_pt_threads(folder):
    return _kept(_sglang().multi_thread_pt_weights_iterator(shards(folder, "*.bin"), 4))


def sglang_npcache(folder):
    with _scratch() as scratch:
        return _kept(_sglang().np_cache_weights_iterator("m", scratch, scratch, shards(folder, "*.bin")))
