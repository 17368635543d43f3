"""Starts vLLM's OpenAI server on a model folder, asks for completions, stops it, and prints what came as JSON.

An ordinary deployment: the server's processes know nothing of the connector, and inherit the environment.
Usage: serve.py PYTHON FOLDER (PYTHON is the interpreter that has vLLM)
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

PROMPTS = ["hello world", "This program is free software"]
READY_SECS_MAX = 300
STOP_SECS_MAX = 60
ASK_SECS_MAX = 120
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "WARNING",
}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path, body=None):
    conn = http.client.HTTPConnection("127.0.0.1", port, timeout=ASK_SECS_MAX)
    method = "GET" if body is None else "POST"
    conn.request(method, path, body and json.dumps(body), {"content-type": "application/json"})
    answer = conn.getresponse()
    return answer.status, answer.read()


def wait_ready(server, port):
    end = time.monotonic() + READY_SECS_MAX
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"the server ended with status {server.returncode}")
        try:
            if ask(port, "/health")[0] == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    sys.exit("the server does not become ready")


def complete(port, prompt):
    body = {"model": "m", "prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 1}
    status, answer = ask(port, "/v1/completions", body)
    if status != 200:
        sys.exit(f"completion: status {status}: {answer[:300]!r}")
    choice = json.loads(answer)["choices"][0]
    return {"text": choice["text"], "tokens": choice["logprobs"]["tokens"], "logprobs": choice["logprobs"]["token_logprobs"]}


def main():
    python, folder = sys.argv[1:]
    port = free_port()
    argv = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, "--served-model-name", "m",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512", "--enforce-eager", "--dtype", "bfloat16",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        env = {**os.environ, **SETTINGS, "VLLM_CACHE_ROOT": scratch}
        server = subprocess.Popen(argv, env=env, stdout=sys.stderr, stdin=subprocess.DEVNULL)
        try:
            wait_ready(server, port)
            found = {prompt: complete(port, prompt) for prompt in PROMPTS}
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(STOP_SECS_MAX)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    json.dump({"status": server.returncode, "completions": found}, sys.stdout, sort_keys=True)


if __name__ == "__main__":
    main()
