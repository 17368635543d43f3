"""fio reads a file that it wrote natively, and checks a CRC-32C in each block, with every synchronous engine."""

from __future__ import annotations

import json
from pathlib import Path

from tests.suites import FAIL, PASS, Outcomes, Suite, Way

FILE = "fio.dat"
BYTES = 32 * 1024 * 1024
ENGINES = "sync psync vsync pvsync pvsync2 mmap splice".split()
JOBS = [f"{pattern} {engine}" for engine in ENGINES for pattern in ("read", "randread")]
# A read job without verify_only reads the data itself and compares: only that catches a wrong byte.
COMMON = [
    "--name=job", f"--size={BYTES}", "--bs=64k", "--verify=crc32c", "--verify_interval=4k", "--verify_fatal=1",
    "--verify_state_save=0", "--thread=0", "--output-format=json",
]


def lay_out_argv(folder: Path) -> list[str]:
    return ["fio", *COMMON, f"--filename={folder / FILE}", "--rw=write", "--do_verify=0", "--ioengine=psync", "--end_fsync=1"]


def run(way: Way, job: str) -> Outcomes:
    pattern, engine = job.split()
    done = way.call([
        "fio", *COMMON, f"--filename={way.folder / FILE}", f"--rw={pattern}", f"--ioengine={engine}",
        "--readonly", "--allow_file_create=0", "--verify_state_load=0",
    ], timeout=120)
    if done.returncode != 0:
        return {job: way.explain(done)}
    read = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]["read"]["io_bytes"]
    return {job: PASS if read == BYTES else f"{FAIL} {read} of {BYTES} bytes read"}


SUITE = Suite("fio crc32c", JOBS, run, short=["read psync", "randread sync", "randread mmap", "read splice"])
