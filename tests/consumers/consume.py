"""Ordinary programs: each loads the model folder with a library that people use, and says what it got.

They know nothing of the connector. Prints one JSON object of hashes and results, the same for the same bytes.
`chain` starts children with multiprocessing's spawn; each maps its file with torch.

Usage: consume.py NAME FOLDER      consume.py --names
"""

import hashlib
import json
import multiprocessing
import os
import sys

TEXT = "The quick brown fox loads 1024 tensors; größer, schneller."
PROMPTS = ["hello world", "This program is free software"]


def digest(data):
    return hashlib.sha256(data).hexdigest()


def array_digest(array):
    import numpy as np

    return f"{array.dtype}{list(array.shape)} {digest(np.ascontiguousarray(array).tobytes())}"


def tensor_digest(tensor):
    import torch

    flat = tensor.detach().contiguous().cpu().reshape(-1)
    return f"{tensor.dtype}{list(tensor.shape)} {digest(flat.view(torch.uint8).numpy().tobytes())}"


def shards(folder):
    with open(os.path.join(folder, "model.safetensors.index.json")) as file:
        return [os.path.join(folder, name) for name in sorted(set(json.load(file)["weight_map"].values()))]


def safetensors_open(folder, framework, hasher, **options):
    from safetensors import safe_open

    found = {}
    for shard in shards(folder):
        with safe_open(shard, framework=framework, **options) as file:
            for name in file.keys():
                found[name] = hasher(file.get_tensor(name))
    return found


def safetensors_numpy(folder):
    # numpy has no bfloat16: this one registers it.
    import ml_dtypes  # noqa: F401

    return safetensors_open(folder, "np", array_digest)


def safetensors_torch(folder):
    from safetensors.torch import load_file

    return {name: tensor_digest(t) for shard in shards(folder) for name, t in load_file(shard).items()}


def safetensors_torch_pread(folder):
    return safetensors_open(folder, "pt", tensor_digest, backend="pread")


def safetensors_numpy_pread(folder):
    import ml_dtypes  # noqa: F401

    return safetensors_open(folder, "np", array_digest, backend="pread")


def safetensors_slices(folder):
    """What tensor-parallel workers do: one half of each matrix."""
    from safetensors import safe_open

    found = {}
    for shard in shards(folder):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():
                part = file.get_slice(name)
                rows = part.get_shape()[0]
                found[name] = [tensor_digest(part[: rows // 2]), tensor_digest(part[rows // 2 :])]
    return found


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
        "parameters": {name: tensor_digest(p) for name, p in model.named_parameters()},
        "logits": tensor_digest(logits), "greedy": greedy.tolist(), "sampled": sampled.tolist(),
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
    return {"y": array_digest(y), "weight": array_digest(taken)}


def onnxruntime_inline(folder):
    return onnx_outputs(os.path.join(folder, "inline.onnx"))


def onnxruntime_external(folder):
    return onnx_outputs(os.path.join(folder, "external.onnx"))


def gguf(folder):
    from gguf import GGUFReader

    reader = GGUFReader(os.path.join(folder, "model.gguf"))
    fields = {name: [digest(part.tobytes()) for part in field.parts] for name, field in reader.fields.items()}
    tensors = {t.name: [t.tensor_type.name, array_digest(t.data)] for t in reader.tensors}
    return {"fields": {name: digest("".join(parts).encode()) for name, parts in fields.items()}, "tensors": tensors}


def numpy_load(folder):
    import numpy as np

    with np.load(os.path.join(folder, "arrays.npz")) as arrays:
        found = {name: array_digest(arrays[name]) for name in arrays.files}
    return {"npy": array_digest(np.load(os.path.join(folder, "array.npy"))), **found}


def numpy_memmap(folder):
    import numpy as np

    raw = np.memmap(os.path.join(folder, "raw.f32"), dtype=np.float32, mode="r")
    tail = np.memmap(os.path.join(folder, "raw.f32"), dtype=np.uint8, mode="c", offset=12_345)
    tail[0] ^= 255
    array = np.load(os.path.join(folder, "array.npy"), mmap_mode="r")
    return {"raw": array_digest(raw), "tail": array_digest(tail), "array": array_digest(array)}


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
    return {"position": position, **{name: array_digest(a) for name, a in arrays.items()}}


def torch_state(path, **options):
    import torch

    return {name: tensor_digest(t) for name, t in torch.load(path, map_location="cpu", **options).items()}


def torch_zip(folder):
    return torch_state(os.path.join(folder, "pytorch_model.bin"), weights_only=True)


def torch_zip_mmap(folder):
    return torch_state(os.path.join(folder, "pytorch_model.bin"), weights_only=True, mmap=True)


def torch_legacy(folder):
    return torch_state(os.path.join(folder, "legacy.pt"), weights_only=True)


def mapped_in_child(path):
    import torch

    size = os.path.getsize(path)
    return [os.getpid(), tensor_digest(torch.from_file(path, shared=False, size=size, dtype=torch.uint8))]


def chain(folder):
    """Maps every larger file with torch, in children that multiprocessing spawns."""
    names = sorted(name for name in os.listdir(folder) if os.path.getsize(os.path.join(folder, name)) > 1_000_000)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.map(mapped_in_child, [os.path.join(folder, name) for name in names], chunksize=1)
    if os.getpid() in [pid for pid, _ in results]:
        sys.exit("no child did the work")
    return {name: value for name, (_, value) in zip(names, results)}


CONSUMERS = {
    f.__name__: f
    for f in (
        safetensors_numpy, safetensors_numpy_pread, safetensors_torch, safetensors_torch_pread, safetensors_slices,
        transformers, tokenizers, sentencepiece, onnxruntime_inline, onnxruntime_external, gguf,
        numpy_load, numpy_memmap, numpy_fromfile, torch_zip, torch_zip_mmap, torch_legacy, chain,
    )
}


def main():
    if sys.argv[1] == "--names":
        json.dump(sorted(CONSUMERS), sys.stdout)
        return
    json.dump(CONSUMERS[sys.argv[1]](sys.argv[2]), sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
