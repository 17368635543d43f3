"""A program of several processes that each load the model: by multiprocessing, torchrun, accelerate, gunicorn or uvicorn.

Each process maps every shard with safetensors and writes down a hash for each tensor. The program ends with 1 unless all
agree, and prints what load.py prints. Knows nothing of the connector.

Usage: many.py WAY FOLDER      many.py --rank (what torchrun and accelerate start)
"""

import glob
import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from common import of_array, shards

PROCESSES = 3
READY_SECS_MAX = 180
STOP_SECS_MAX = 30
HERE = os.path.dirname(os.path.abspath(__file__))
# Where the processes write, and what they load; set by this program alone.
RESULTS, FOLDER = "OSSC_TEST_RESULTS", "OSSC_TEST_FOLDER"


def record(folder, results):
    """Loads the model in this process and writes down what it got."""
    import ml_dtypes  # noqa: F401  registers bfloat16
    from safetensors import safe_open

    found = {}
    for path in shards(folder):
        with safe_open(path, framework="np") as file:
            found.update({name: of_array(file.get_tensor(name)) for name in file.keys()})
    path = os.path.join(results, f"{os.getpid()}.json")
    with open(f"{path}.part", "w") as file:
        json.dump(found, file)
    os.rename(f"{path}.part", path)


def by_multiprocessing(folder, results, method):
    context = multiprocessing.get_context(method)
    children = [context.Process(target=record, args=(folder, results)) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    if any(child.exitcode for child in children):
        raise SystemExit(f"children ended with {[child.exitcode for child in children]}")


def by_launcher(folder, results, argv):
    env = {**os.environ, FOLDER: folder, RESULTS: results}
    done = subprocess.run([sys.executable, "-m", *argv, os.path.join(HERE, "many.py"), "--rank"], env=env, stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{argv[0]} ended with {done.returncode}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    try:
        conn = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        conn.request("GET", "/")
        return conn.getresponse().status == 200
    except OSError:
        return False


def by_server(folder, results, argv, port):
    """A web server whose workers load the model as they start; stopped as an orchestrator stops it."""
    env = {**os.environ, FOLDER: folder, RESULTS: results, "PYTHONPATH": HERE}
    server = subprocess.Popen([sys.executable, "-m", *argv], env=env, stdout=sys.stderr)
    try:
        end = time.monotonic() + READY_SECS_MAX
        while len(glob.glob(f"{results}/*.json")) < PROCESSES or not answers(port):
            if server.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{argv[0]} is not ready: status {server.poll()}")
            time.sleep(0.1)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(STOP_SECS_MAX)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
    if server.returncode not in (0, -signal.SIGTERM):
        raise SystemExit(f"{argv[0]} ended with {server.returncode}")


def start(way, folder, results):
    port = free_port()
    if way in ("spawn", "fork", "forkserver"):
        by_multiprocessing(folder, results, way)
    elif way == "torchrun":
        by_launcher(folder, results, ["torch.distributed.run", "--standalone", f"--nproc-per-node={PROCESSES}"])
    elif way == "accelerate":
        by_launcher(folder, results, ["accelerate.commands.launch", "--multi_gpu", f"--num_processes={PROCESSES}", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no", f"--main_process_port={port}"])
    elif way == "gunicorn":
        by_server(folder, results, ["gunicorn", f"--bind=127.0.0.1:{port}", f"--workers={PROCESSES}", "--timeout=120", "many_app:wsgi"], port)
    elif way == "uvicorn":
        by_server(folder, results, ["uvicorn", "--host=127.0.0.1", f"--port={port}", f"--workers={PROCESSES}", "many_app:asgi"], port)
    else:
        raise SystemExit(f"no way {way}")


def read(path):
    with open(path) as file:
        return json.load(file)


def main():
    if sys.argv[1] == "--rank":
        record(os.environ[FOLDER], os.environ[RESULTS])
        return
    way, folder = sys.argv[1:]
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as results:
        start(way, folder, results)
        found = [read(path) for path in sorted(glob.glob(f"{results}/*.json"))]
    if len(found) != PROCESSES or any(one != found[0] for one in found):
        raise SystemExit(f"{len(found)} of {PROCESSES} processes wrote what they got, equal: {all(one == found[0] for one in found)}")
    sys.stdout.write("\n" + json.dumps({"secs": time.perf_counter() - begin, "tensors": found[0]}) + "\n")


if __name__ == "__main__":
    main()
