"""The main job, shown: two real models load from an OSS endpoint on loopback, and are verified.

Called by ci/demo after setup and build. Ends with a status other than 0 when a program
fails, a tensor differs or a byte crossed the socket twice.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.harness import load, models, paths
from tests.harness.certificate import Certificate
from tests.harness.endpoint import Endpoint
from tests.harness.faults import flipped_byte
from tests.harness.requestlog import body_gets, bytes_served, once_problems
from tests.harness.run import Run

GB = 1e9
OUT = paths.CACHE / "demo"


@dataclass
class Result:
    """One row of the table."""

    model: str
    load_secs: float
    program_secs: float
    tensor_bytes: int
    socket_bytes: int
    requests: int
    problems: list[str]


def progress_line(model: str, served: int, total: int, secs: float) -> str:
    share = min(served / total, 1.0) if total else 1.0
    bar = ("#" * int(share * 30)).ljust(30, ".")
    rate = served / secs / GB if secs else 0.0
    return f"  {model:<12} [{bar}] {share:4.0%}  {served / GB:.3f} of {total / GB:.3f} GB  {rate:.2f} GB/s  {secs:4.1f} s"


def show_progress(process: subprocess.Popen[bytes], endpoint: Endpoint, model: str, total: int) -> None:
    """Prints what the endpoint has sent until the program ends; one line on a terminal, else one per second."""
    terminal = sys.stdout.isatty()
    begin = shown = time.monotonic()
    while process.poll() is None:
        time.sleep(0.1)
        now = time.monotonic()
        line = progress_line(model, bytes_served(endpoint.requests(), f"{model}/"), total, now - begin)
        if terminal:
            print("\r" + line, end="", flush=True)
        elif now - shown >= 1.0:
            print(line, flush=True)
            shown = now
    secs = time.monotonic() - begin
    line = progress_line(model, bytes_served(endpoint.requests(), f"{model}/"), total, secs)
    print(("\r" if terminal else "") + line, flush=True)


def demonstrate(endpoint: Endpoint, model: str, io: str | None, config: dict[str, Any] | None) -> Result:
    sizes = models.sizes(model)
    report = OUT / f"{model}.json"
    report.unlink(missing_ok=True)
    endpoint.forget()
    with Run(endpoint, model, config=config, io=io) as run:
        begin = time.monotonic()
        with open(OUT / f"{model}.stderr", "wb") as stderr:
            process = run.start(load.loader_argv(run, report), stderr=stderr)
            show_progress(process, endpoint, model, sum(sizes.values()))
        program_secs = time.monotonic() - begin
        for path in (run.log_path, run.audit_path):
            if path.exists():
                shutil.copyfile(path, OUT / f"{model}.{path.name}")
    errors = (OUT / f"{model}.stderr").read_text(errors="replace").strip()
    if errors:
        print(errors, file=sys.stderr)
    problems = [f"an engine outlived its last client: pid {pid}" for pid in run.leaks]
    if process.returncode != 0:
        problems.append(f"the program ended with status {process.returncode}")
        return Result(model, 0, program_secs, 0, 0, 0, problems)
    loaded = load.read_report(report)
    requests = endpoint.requests()
    problems += once_problems(requests, sizes)
    return Result(
        model, loaded["load_secs"], program_secs, loaded["tensor_bytes"],
        bytes_served(requests, f"{model}/"), len(body_gets(requests, f"{model}/")), problems,
    )


def print_table(results: list[Result]) -> None:
    print(f"\n  {'model':<12} {'tensors':>10} {'load':>8} {'speed':>11} {'socket':>10} {'requests':>9} {'program':>9}")
    for r in results:
        speed = r.tensor_bytes / r.load_secs / GB if r.load_secs else 0.0
        print(
            f"  {r.model:<12} {r.tensor_bytes / GB:>7.3f} GB {r.load_secs:>6.2f} s {speed:>6.2f} GB/s"
            f" {r.socket_bytes / GB:>7.3f} GB {r.requests:>9} {r.program_secs:>7.2f} s"
        )


def verify(results: list[Result]) -> bool:
    """Prints the verdict on each model; the comparison runs without the library."""
    print()
    good = True
    for r in results:
        for problem in r.problems:
            print(f"  {r.model}: {problem}")
        if r.tensor_bytes:
            equal, text = load.verify(OUT / f"{r.model}.json", r.model)
            print(f"  {r.model}: {text}")
        else:
            equal = False
        good = good and equal and not r.problems
    return good


def print_audit(results: list[Result]) -> None:
    print(f"\n  request log: {OUT / 'endpoint.log'}")
    for r in results:
        print(f"  log and audit of {r.model}: {OUT / r.model}.connector.log, {OUT / r.model}.audit.log")
    audit = OUT / f"{results[-1].model}.audit.log"
    lines = audit.read_text(errors="replace").splitlines() if audit.exists() else []
    print("  three audit lines:")
    for line in lines[:3]:
        print(f"    {line}")
    if not lines:
        print("    (none were written)")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="ci/demo",
        description="Loads two real models through libossc_preload.so from an OSS endpoint on loopback.",
    )
    parser.add_argument("--io", choices=["uring", "epoll"], help="force a driver (default: the connector chooses)")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="size of the sharded model (default 1024)")
    parser.add_argument("--https", action="store_true", help="speak https, with a certificate made for this run")
    parser.add_argument("--flip-byte", action="store_true", help="control: serve a wrong byte, which must be noticed")
    options = parser.parse_args()
    paths.require_products()

    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    print("making the models (once) ...", flush=True)
    names = [models.ensure("gt-minilm"), models.ensure("shards", options.size)]
    faults = [flipped_byte(f"{names[0]}/model.safetensors", 1_000_000)] if options.flip_byte else None
    certificate = Certificate(OUT / "certificate") if options.https else None
    config = {"tls": {"caFile": str(certificate.ca)}} if certificate else None
    with Endpoint(paths.BUCKETS, OUT, faults, certificate.options if certificate else None) as endpoint:
        print(f"OSS endpoint at {endpoint.url}; the program runs with")
        print(f"  LD_PRELOAD={os.path.relpath(paths.PRELOAD)} ENABLE_CONNECTOR=1 OSS_ENDPOINT={endpoint.url} ...")
        results = [demonstrate(endpoint, name, options.io, config) for name in names]
    print_table(results)
    good = verify(results)
    print_audit(results)
    print("\n  " + ("verified: every tensor equals the original" if good else "FAILED: see above"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
