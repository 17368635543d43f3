"""Makes a small model folder in the real formats, from seeded random weights, with no hub access.

Hugging Face folder of a Qwen3 (two safetensors shards with an index, tokenizer), and beside it what other
consumers read: PyTorch zip and legacy files, numpy arrays, ONNX with inline and external data, GGUF, and a
SentencePiece model. Run by the bar `hooks 5` with the interpreter of target/venv-consumers.

Usage: make_model.py FOLDER
"""

import glob
import os
import sys

import gguf
import numpy as np
import onnx
import sentencepiece
import torch
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SEED = 20_240_607
# Text that every Debian system has, to train tokenizers on.
CORPUS = sorted(f for f in glob.glob("/usr/share/common-licenses/*") if os.path.isfile(f))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{m.role}}\n{{m.content}}<|im_end|>\n{% endfor %}<|im_start|>assistant\n"
)
MIB = 1024 * 1024


def text_of(path):
    with open(path, errors="ignore") as file:
        return file.read()


def tokenizer(folder):
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8000, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    made.train_from_iterator((text_of(path) for path in CORPUS), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=None
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def language_model(folder):
    torch.manual_seed(SEED)
    config = Qwen3Config(
        vocab_size=8192, hidden_size=1024, intermediate_size=3072, num_hidden_layers=6, num_attention_heads=8,
        num_key_value_heads=4, head_dim=128, max_position_embeddings=2048, tie_word_embeddings=False,
        eos_token_id=2, bos_token_id=0, pad_token_id=0,
    )
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="100MB")
    GenerationConfig(eos_token_id=2, pad_token_id=0).save_pretrained(folder)


def torch_files(folder):
    generator = torch.Generator().manual_seed(SEED)
    state = {f"layer.{n}.weight": torch.randn(1024, 1024 + n, generator=generator) for n in range(6)}
    state["layer.half"] = torch.randn(2000, 513, generator=generator).half()
    torch.save(state, f"{folder}/pytorch_model.bin")
    torch.save(state, f"{folder}/legacy.pt", _use_new_zipfile_serialization=False)


def numpy_files(folder):
    random = np.random.default_rng(SEED)
    np.save(f"{folder}/array.npy", random.standard_normal((2500, 1001)))
    np.savez(f"{folder}/arrays.npz", a=random.standard_normal((1100, 1200)), b=random.integers(0, 99, 1_000_003))
    with open(f"{folder}/raw.f32", "wb") as file:
        file.write(random.standard_normal(5_000_011).astype(np.float32).tobytes())


def onnx_files(folder):
    random = np.random.default_rng(SEED)
    weight = numpy_helper.from_array(random.standard_normal((5000, 1000)).astype(np.float32), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        # The weight itself comes out too: a sum may round a changed byte away.
        helper.make_node("Gather", ["weight", "rows"], ["taken"], axis=0),
    ]
    graph = helper.make_graph(
        nodes, "weights",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 5000]),
         helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 1000]),
         helper.make_tensor_value_info("taken", TensorProto.FLOAT, ["n", 1000])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, f"{folder}/inline.onnx")
    onnx.save(
        model, f"{folder}/external.onnx", save_as_external_data=True, all_tensors_to_one_file=True,
        location="external.onnx.data", size_threshold=0,
    )


def gguf_file(folder):
    random = np.random.default_rng(SEED)
    writer = gguf.GGUFWriter(f"{folder}/model.gguf", "llama")
    writer.add_block_count(4)
    writer.add_array("tokenizer.ggml.tokens", [f"token{n}" for n in range(3000)])
    for layer in range(4):
        writer.add_tensor(f"blk.{layer}.ffn_up.weight", random.standard_normal((1024, 1024 + 32 * layer)).astype(np.float32))
        writer.add_tensor(f"blk.{layer}.attn_q.weight", random.standard_normal((512, 1024)).astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def sentencepiece_file(folder):
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(CORPUS), model_prefix=f"{folder}/spm", vocab_size=4000, model_type="unigram",
        num_threads=1, minloglevel=2, hard_vocab_limit=False,
    )


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    for make in (tokenizer, language_model, torch_files, numpy_files, onnx_files, gguf_file, sentencepiece_file):
        make(folder)


if __name__ == "__main__":
    main()
