"""Inference engines with formats of their own: llama.cpp, GGUF's reader, ONNX Runtime, OpenVINO, CTranslate2.

Where an engine gives no weights out, what it computes from all of them is compared.
"""

import os
from functools import partial

PROMPT = "The quick brown fox loads"


def _llama(folder, mode):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = os.path.join(folder, "model.gguf")
    params.load_mode = getattr(xllamacpp.llama_load_mode, f"LLAMA_LOAD_MODE_{mode}")
    params.check_tensors = True
    params.fit_params = False
    params.warmup = False
    params.n_ctx, params.n_gpu_layers = 256, 0
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    asked = {"prompt": PROMPT, "n_predict": 6, "temperature": 0, "n_probs": 4, "seed": 1, "cache_prompt": False}
    choice = server.handle_completions(asked)["choices"][0]
    return {"text": choice["text"], "probabilities": repr(choice["logprobs"])}


llama_auto = partial(_llama, mode="AUTO")
llama_mmap = partial(_llama, mode="MMAP")
llama_none = partial(_llama, mode="NONE")
llama_direct = partial(_llama, mode="DIRECT_IO")
llama_mlock = partial(_llama, mode="MLOCK")
llama_mmap_mlock = partial(_llama, mode="MMAP_MLOCK")


def gguf_reader(folder):
    from gguf import GGUFReader

    reader = GGUFReader(os.path.join(folder, "model.gguf"))
    return {tensor.name: tensor.data.copy() for tensor in reader.tensors}


def onnxruntime(folder):
    import numpy as np
    import onnxruntime as runtime

    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = 1
    path = os.path.join(folder, "model.onnx")
    session = runtime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    x = np.linspace(-1, 1, 16_000, dtype=np.float32).reshape(2, 8000)
    y, taken = session.run(None, {"x": x, "rows": np.arange(8000)})
    return {"y": y, "weight": taken}


def onnxruntime_bytes(folder):
    import numpy as np
    import onnxruntime as runtime

    with open(os.path.join(folder, "model.onnx"), "rb") as file:
        session = runtime.InferenceSession(file.read(), providers=["CPUExecutionProvider"])
    return {"weight": session.run(["taken"], {"x": np.zeros((2, 8000), np.float32), "rows": np.arange(8000)})[0]}


def _openvino(folder, mmap):
    import openvino

    core = openvino.Core()
    core.set_property({"ENABLE_MMAP": mmap})
    model = core.read_model(os.path.join(folder, "model.xml"))
    return {op.get_friendly_name(): op.data.copy() for op in model.get_ops() if op.get_type_name() == "Constant" and op.data.nbytes > 64}


openvino_mmap = partial(_openvino, mmap=True)
openvino_read = partial(_openvino, mmap=False)


def openvino_compiled(folder):
    import numpy as np
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(os.path.join(folder, "model.xml"), "CPU", {"INFERENCE_NUM_THREADS": 1})
    found = compiled({"x": np.zeros((2, 8000), np.float32), "rows": np.arange(8000)})
    return {"weight": found["taken"].copy()}


def ctranslate2(folder):
    import ctranslate2 as engine
    import numpy as np

    generator = engine.Generator(folder, device="cpu", intra_threads=1)
    logits = generator.forward_batch([[1, 20, 300, 4000], [5, 6, 7, 8]], return_log_probs=False)
    return {"logits": np.array(logits)}
