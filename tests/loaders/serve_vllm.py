"""Starts vLLM's OpenAI server as the product's page does, asks for completions, stops it, and prints what came as JSON.

An ordinary deployment: the server's processes know nothing of the connector, and inherit the environment.

Usage: serve_vllm.py FOLDER [--kill] [FLAG ...]    --kill: kills all of the server once it is ready, and starts it anew
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "consumers"))
import serve

# Two servers start one after the other here, and a worker for each of two ranks; vLLM compiles in the first request.
serve.READY_SECS_MAX = 1200
serve.ASK_SECS_MAX = 600

# The page's flags; those of SMALL keep a server on two CPUs small, and tell it its port.
PAGE = ["--trust-remote-code", "--disable-custom-all-reduce"]
SMALL = ["--max-model-len", "512", "--enforce-eager", "--dtype", "bfloat16", "--served-model-name", "m", "--host", "127.0.0.1"]


def started(folder, flags, port, scratch):
    argv = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folder, *PAGE, *flags, *SMALL, "--port", str(port)]
    env = {**serve.SETTINGS, **os.environ, "VLLM_CACHE_ROOT": scratch}
    begin = time.perf_counter()
    server = subprocess.Popen(argv, env=env, stdout=sys.stderr, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        serve.wait_ready(server, port)
    except BaseException:
        os.killpg(server.pid, signal.SIGKILL)
        raise
    return server, time.perf_counter() - begin


def main():
    folder, *flags = sys.argv[1:]
    kill = "--kill" in flags
    flags = [flag for flag in flags if flag != "--kill"]
    with tempfile.TemporaryDirectory() as scratch:
        port = serve.free_port()
        server, secs = started(folder, flags, port, scratch)
        if kill:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
            port = serve.free_port()
            server, secs = started(folder, flags, port, scratch)
        try:
            found = {prompt: serve.complete(port, prompt) for prompt in serve.PROMPTS}
        finally:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(serve.STOP_SECS_MAX)
            except subprocess.TimeoutExpired:
                os.killpg(server.pid, signal.SIGKILL)
                server.wait()
    if server.returncode != 0:
        sys.exit(f"the server ended with {server.returncode}")
    sys.stdout.write("\n" + json.dumps({"secs": secs, "tensors": found}, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
