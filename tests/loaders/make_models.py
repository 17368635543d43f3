"""Makes the small models that the loader programs load, from seeded random weights, with no hub access.

One folder for each format, so that a loader's folder holds what such a model's folder holds. Run by
tests/checks/loaders_real.py with the interpreter of target/venv-loaders.

Usage: make_models.py FOLDER [FORMAT ...]
"""

import os
import sys
import warnings

import torch

SOURCES = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(SOURCES), "consumers"))
SEED = 20_261_130
MIB = 1024 * 1024


def seeded():
    return torch.Generator().manual_seed(SEED)


def state_dict(count=12, rows=1024, columns=1536):
    """About 60 MiB of tensors of several types, some small, as a checkpoint has."""
    generator = seeded()
    state = {f"layer.{n}.weight": torch.randn(rows, columns + n, generator=generator) for n in range(count - 3)}
    state["layer.half"] = torch.randn(2000, 513, generator=generator).half()
    state["layer.brain"] = torch.randn(999, 1025, generator=generator).bfloat16()
    state["layer.bias"] = torch.randn(7, generator=generator)
    return state


def hf(folder):
    """A Qwen3 of 92 million parameters in two shards, with tokenizer."""
    import make_model

    make_model.tokenizer(folder)
    make_model.language_model(folder)


def torch_files(folder):
    state = state_dict()
    torch.save(state, f"{folder}/pytorch_model.bin")


def torch_plain(folder):
    """Without bfloat16, which numpy lacks: what npcache can read."""
    torch.save({name: tensor for name, tensor in state_dict().items() if tensor.dtype != torch.bfloat16}, f"{folder}/pytorch_model.bin")


def torch_legacy(folder):
    torch.save(state_dict(), f"{folder}/legacy.pt", _use_new_zipfile_serialization=False)


def dcp(folder):
    from torch.distributed import checkpoint

    checkpoint.save(state_dict(), checkpoint_id=folder)


def tensorizer(folder):
    from tensorizer import TensorSerializer

    serializer = TensorSerializer(f"{folder}/model.tensors")
    serializer.write_state_dict(state_dict())
    serializer.close()


def gguf(folder):
    """A llama of 28 million parameters with a byte-pair vocabulary."""
    import json

    import make_model
    import numpy as np
    from gguf import GGUFWriter

    make_model.tokenizer(folder)
    with open(f"{folder}/tokenizer.json") as file:
        trained = json.load(file)["model"]
    for name in os.listdir(folder):
        os.remove(f"{folder}/{name}")
    tokens = [token for token, _ in sorted(trained["vocab"].items(), key=lambda item: item[1])]
    width, inner, layers, heads = 512, 1536, 6, 8
    random = np.random.default_rng(SEED)
    writer = GGUFWriter(f"{folder}/model.gguf", "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in trained["merges"]])
    writer.add_eos_token_id(2)
    writer.add_bos_token_id(0)

    def add(name, *shape):
        writer.add_tensor(name, (random.standard_normal(shape) * 0.02).astype(np.float16))

    def norm(name):
        writer.add_tensor(name, (1 + 0.1 * random.standard_normal(width)).astype(np.float32))

    add("token_embd.weight", len(tokens), width)
    norm("output_norm.weight")
    add("output.weight", len(tokens), width)
    for layer in range(layers):
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", width, width)
        add(f"blk.{layer}.ffn_gate.weight", inner, width)
        add(f"blk.{layer}.ffn_up.weight", inner, width)
        add(f"blk.{layer}.ffn_down.weight", width, inner)
        norm(f"blk.{layer}.attn_norm.weight")
        norm(f"blk.{layer}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _onnx():
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(SEED)
    weight = numpy_helper.from_array(random.standard_normal((8000, 2000)).astype(np.float32), "weight")
    # The weight itself comes out too: a sum may round a changed byte away.
    nodes = [helper.make_node("MatMul", ["x", "weight"], ["y"]), helper.make_node("Gather", ["weight", "rows"], ["taken"], axis=0)]
    graph = helper.make_graph(
        nodes, "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8000]), helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2000]), helper.make_tensor_value_info("taken", TensorProto.FLOAT, ["n", 2000])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def onnx_inline(folder):
    import onnx

    onnx.save(_onnx(), f"{folder}/model.onnx")


def onnx_external(folder):
    import onnx

    onnx.save(
        _onnx(), f"{folder}/model.onnx", save_as_external_data=True, all_tensors_to_one_file=True, location="model.onnx.data", size_threshold=0,
    )


def openvino(folder):
    import openvino

    model = openvino.Core().read_model(_onnx().SerializeToString())
    openvino.save_model(model, f"{folder}/model.xml", compress_to_fp16=False)


def ctranslate2(folder):
    import json
    import tempfile

    import make_model
    from ctranslate2.converters import TransformersConverter
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        make_model.tokenizer(scratch)
        with open(f"{scratch}/tokenizer.json") as file:
            count = len(json.load(file)["model"]["vocab"])
        config = GPT2Config(vocab_size=count, n_positions=256, n_embd=512, n_layer=4, n_head=8, bos_token_id=0, eos_token_id=2)
        GPT2LMHeadModel(config).save_pretrained(scratch)
        TransformersConverter(scratch).convert(folder, force=True)
    # The tokenizer has no such tokens, and the engine wants some.
    with open(f"{folder}/config.json") as file:
        config = json.load(file)
    with open(f"{folder}/config.json", "w") as file:
        json.dump({**config, "bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}, file)


def _arrays():
    import numpy as np

    random = np.random.default_rng(SEED)
    return {f"layer{n}": random.standard_normal((1024, 1500 + n)).astype(np.float32) for n in range(10)}


def orbax(folder):
    import orbax.checkpoint

    with orbax.checkpoint.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(os.path.join(os.path.abspath(folder), "checkpoint"), _arrays())


def _tensorstore(folder, driver):
    import tensorstore

    for name, array in _arrays().items():
        spec = {"driver": driver, "kvstore": {"driver": "file", "path": f"{os.path.abspath(folder)}/{name}"}}
        store = tensorstore.open(spec, create=True, dtype=array.dtype, shape=array.shape, chunk_layout=tensorstore.ChunkLayout(chunk_shape=[256, array.shape[1]])).result()
        store.write(array).result()


def zarr(folder):
    _tensorstore(folder, "zarr")


def zarr3(folder):
    _tensorstore(folder, "zarr3")


def diffusers(folder):
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(SEED)
    unet = UNet2DModel(
        sample_size=16, in_channels=3, out_channels=3, layers_per_block=1, block_out_channels=(128, 256),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)


def sentence_transformers(folder):
    import tempfile

    import make_model
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(SEED)
    with tempfile.TemporaryDirectory() as scratch:
        make_model.tokenizer(scratch)
        BertModel(BertConfig(vocab_size=8192, hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=1536)).save_pretrained(scratch)
        encoder = Transformer(scratch)
        SentenceTransformer(modules=[encoder, Pooling(512)]).save(folder)


FORMATS = {
    "hf": hf, "torch": torch_files, "torchplain": torch_plain, "legacy": torch_legacy, "dcp": dcp, "tensorizer": tensorizer, "gguf": gguf, "onnx": onnx_inline,
    "onnxdata": onnx_external, "openvino": openvino, "ctranslate2": ctranslate2, "orbax": orbax, "zarr": zarr, "zarr3": zarr3,
    "diffusers": diffusers, "sentence": sentence_transformers,
}


def main():
    warnings.filterwarnings("ignore")
    base, *names = sys.argv[1:]
    for name in names or FORMATS:
        folder = os.path.join(base, name)
        os.makedirs(folder)
        FORMATS[name](folder)


if __name__ == "__main__":
    main()
