"""Ordinary programs: each loads the model folder with a library that people use, and says what it got.

They know nothing of the connector. Prints one JSON object of hashes and results, the same for the same bytes.
`chain` starts children with multiprocessing's spawn; each maps its file with torch.

Usage: consume.py NAME FOLDER      consume.py --names
"""

import json
import multiprocessing
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "loaders"))
import tensors
from common import digest, of_array, of_tensor, of_value

TEXT = "The quick brown fox loads 1024 tensors; größer, schneller."
PROMPTS = ["hello world", "This program is free software"]


def hashed(load):
    """A loader of tests/loaders, whose tensors are told by their hashes."""
    return lambda folder: {name: of_value(value) for name, value in load(folder).items()}


def transformers(folder):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": TEXT}], tokenize=False)
    torch.manual_seed(7)
    with torch.no_grad():
        logits = model(**inputs).logits
        greedy = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        sampled = model.generate(**inputs, max_new_tokens=8, do_sample=True)
    return {
        "parameters": {name: of_tensor(p) for name, p in model.named_parameters()},
        "logits": of_tensor(logits), "greedy": greedy.tolist(), "sampled": sampled.tolist(),
        "text": tokenizer.batch_decode(greedy), "chat": chat,
    }


def tokenizers(folder):
    from tokenizers import Tokenizer

    path = os.path.join(folder, "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    with open(path, encoding="utf-8") as file:
        again = Tokenizer.from_str(file.read())
    encoded = tokenizer.encode(TEXT)
    return {
        "ids": encoded.ids, "again": again.encode(TEXT).ids, "decoded": tokenizer.decode(encoded.ids),
        "vocabulary": digest(json.dumps(sorted(tokenizer.get_vocab().items())).encode()),
        "whole": digest(tokenizer.to_str().encode()),
    }


def sentencepiece(folder):
    import sentencepiece as spm

    path = os.path.join(folder, "spm.model")
    processor = spm.SentencePieceProcessor(model_file=path)
    ids = processor.encode(TEXT)
    return {
        "ids": ids, "decoded": processor.decode(ids),
        "pieces": [[processor.id_to_piece(n), processor.get_score(n)] for n in range(processor.get_piece_size())],
        "whole": digest(processor.serialized_model_proto()),
    }


def onnx_outputs(path):
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 10_000, dtype=np.float32).reshape(2, 5000)
    y, taken = session.run(None, {"x": x, "rows": np.arange(5000)})
    return {"y": of_array(y), "weight": of_array(taken)}


def onnxruntime_inline(folder):
    return onnx_outputs(os.path.join(folder, "inline.onnx"))


def onnxruntime_external(folder):
    return onnx_outputs(os.path.join(folder, "external.onnx"))


def gguf(folder):
    from gguf import GGUFReader

    reader = GGUFReader(os.path.join(folder, "model.gguf"))
    fields = {name: [digest(part.tobytes()) for part in field.parts] for name, field in reader.fields.items()}
    tensors = {t.name: [t.tensor_type.name, of_array(t.data)] for t in reader.tensors}
    return {"fields": {name: digest("".join(parts).encode()) for name, parts in fields.items()}, "tensors": tensors}


def numpy_load(folder):
    import numpy as np

    with np.load(os.path.join(folder, "arrays.npz")) as arrays:
        found = {name: of_array(arrays[name]) for name in arrays.files}
    return {"npy": of_array(np.load(os.path.join(folder, "array.npy"))), **found}


def numpy_memmap(folder):
    import numpy as np

    raw = np.memmap(os.path.join(folder, "raw.f32"), dtype=np.float32, mode="r")
    tail = np.memmap(os.path.join(folder, "raw.f32"), dtype=np.uint8, mode="c", offset=12_345)
    tail[0] ^= 255
    array = np.load(os.path.join(folder, "array.npy"), mmap_mode="r")
    return {"raw": of_array(raw), "tail": of_array(tail), "array": of_array(array)}


def numpy_fromfile(folder):
    import numpy as np

    path = os.path.join(folder, "raw.f32")
    middle = np.fromfile(path, dtype=np.float32, count=1_000_003, offset=4_000_000)
    with open(path, "rb") as file:
        file.seek(1234)
        after = np.fromfile(file, dtype=np.uint8, count=999_999)
        position = file.tell()
        rest = np.fromfile(file, dtype=np.uint8)
    whole = np.fromfile(path, dtype=np.float32)
    arrays = {"whole": whole, "middle": middle, "after": after, "rest": rest}
    return {"position": position, **{name: of_array(a) for name, a in arrays.items()}}


def mapped_in_child(path):
    import torch

    size = os.path.getsize(path)
    return [os.getpid(), of_tensor(torch.from_file(path, shared=False, size=size, dtype=torch.uint8))]


def chain(folder):
    """Maps every larger file with torch, in children that multiprocessing spawns."""
    names = sorted(name for name in os.listdir(folder) if os.path.getsize(os.path.join(folder, name)) > 1_000_000)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(mapped_in_child, [os.path.join(folder, name) for name in names], chunksize=1)
    if os.getpid() in [pid for pid, _ in results]:
        sys.exit("no child did the work")
    return {name: value for name, (_, value) in zip(names, results)}


OF_TENSORS = (
    "safetensors_numpy", "safetensors_numpy_pread", "safetensors_load_file", "safetensors_pread", "safetensors_slices", "torch_zip", "torch_zip_mmap", "torch_legacy",
)
CONSUMERS = {
    **{name: hashed(getattr(tensors, name)) for name in OF_TENSORS},
    **{
        f.__name__: f
        for f in (
            transformers, tokenizers, sentencepiece, onnxruntime_inline, onnxruntime_external, gguf, numpy_load, numpy_memmap, numpy_fromfile, chain,
        )
    },
}


def main():
    if sys.argv[1] == "--names":
        json.dump(sorted(CONSUMERS), sys.stdout)
        return
    json.dump(CONSUMERS[sys.argv[1]](sys.argv[2]), sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
