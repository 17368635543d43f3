"""Bar about bytes that no program wrote on purpose: each fuzz target runs under libFuzzer and AddressSanitizer.

The targets are beside the code that they try; tests/fuzz holds the fuzzer's program, what it starts
from and what it has found worth keeping. By hand, `python3 -m tests.checks.wire_fuzz` adds
what the last run has found to the corpus that is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.checks.build import copy_of_tree
from tests.harness import paths
from tests.harness.measure import Measure, from_problems, scale
from tests.harness.run import plain_env

FUZZ = paths.ROOT / "tests" / "fuzz"
OUT = paths.CACHE / "fuzz"
HOST = "x86_64-unknown-linux-gnu"
TARGETS = ("head", "list", "fault", "url", "key", "config", "issued", "packet", "board", "page", "line", "conn")
SECS = 600
# So long a planted bug may hide.
PLANTED_SECS = 120
# For one input, in seconds of the wall: a busy machine must not look like an endless loop.
INPUT_SECS_MAX = 60
JOBS = 2
NICE = 10
INPUT_BYTES_MAX = 4096
CORPUS_BYTES_MAX = 1 << 20
# What cargo-fuzz sets: coverage for libFuzzer by LLVM's own pass. AddressSanitizer asks for RUSTC_BOOTSTRAP.
RUSTFLAGS = (
    "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 "
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table "
    "-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Zsanitizer=address"
)
# Target -> (file, what stands there, what is planted): each breaks what the target promises.
PLANTED = {
    "head": ("net/http1.rs", "if head.chunked && head.content_length.is_some() {", "if head.chunked && head.content_length == Some(0) {"),
    "list": ("net/list.rs", "if !complete {", "if !complete && raw.page.objects.is_empty() {"),
    "fault": ("net/error.rs", "out.push(if c.is_control() { ' ' } else { c });", "out.push(if c == '\\n' { ' ' } else { c });"),
    "url": ("src/conf/endpoint.rs", "Ok(port) if digits && port > 0 =>", "Ok(port) if digits =>"),
    "key": ("sign/canon.rs", "matches!(byte, b'-' | b'_' | b'.' | b'~')", "matches!(byte, b'-' | b'_' | b'.' | b'~' | b'+')"),
    "config": ("src/conf/config.rs", "self.key.escape_debug()", "self.key"),
    "issued": ("sign/issued.rs", "if !value.bytes().all(|byte| byte.is_ascii_graphic()) =>", "if value.contains(' ') =>"),
    "packet": ("cache/wire.rs", "packet.head.len as usize + HEAD_BYTES != got", "packet.head.len as usize + HEAD_BYTES > got"),
    "board": ("cache/event.rs", "head = head.saturating_add(1);", "head += 1;"),
    "page": ("src/ossc/process/exposition.rs", """text.replace('\\\\', "\\\\\\\\")""", "text"),
    "line": ("src/ossc/journal/line.rs", "if !json.contains(char::is_control) {", "if !json.contains('\\u{80}') {"),
    "conn": ("net/conn.rs", "if (self.filled - start) as u64 > length {", "if (self.filled - start) as u64 > length + 64 {"),
}


@dataclass
class Outcome:
    """What one target's run came to."""

    target: str
    executions: int
    cpu_secs: float
    coverage: int
    inputs: int
    crash: Path | None
    said: list[str] = field(default_factory=list)

    def line(self) -> str:
        end = f"crash: {self.crash}" if self.crash else "no crash"
        return (
            f"{self.target}: {self.executions} executions in {self.cpu_secs:.0f} CPU s, "
            f"coverage {self.coverage}, {self.inputs} inputs, {end}"
        )


def build(root: Path, name: str) -> Path:
    """The fuzzer's program of the tree at `root`."""
    env = {**plain_env(), "RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": RUSTFLAGS, "CARGO_TARGET_DIR": str(OUT)}
    argv = ["cargo", "build", "--locked", "--release", "--target", HOST]
    done = subprocess.run(argv, cwd=root / "tests" / "fuzz", env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"the fuzz targets do not build:\n{done.stderr[-3000:]}")
    program = OUT / f"program-{name}"
    shutil.copy2(OUT / HOST / "release" / "ossc-fuzz", program)
    return program


def run(program: Path, target: str, secs: int, found: Path) -> Outcome:
    """Runs a target until its time is over or it crashes; what it finds goes to `found`."""
    crashes = OUT / "crashes" / target
    for folder in (found, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    kept = [str(folder) for folder in (FUZZ / "corpus" / target, FUZZ / "seeds" / target) if folder.is_dir()]
    argv = [
        "nice", "-n", str(NICE), str(program), str(found), *kept,
        f"-dict={FUZZ / 'dict' / target}", f"-max_total_time={secs}", f"-max_len={INPUT_BYTES_MAX}", f"-timeout={INPUT_SECS_MAX}",
        "-rss_limit_mb=1024", f"-artifact_prefix={crashes}/", "-print_final_stats=1", f"-seed={scale.seed}",
    ]
    env = {**plain_env(), "OSSC_FUZZ_TARGET": target}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        text = log.read().decode(errors="replace")
    written = re.findall(r"Test unit written to (\S+)", text)
    if process.returncode != 0 and not written:
        raise RuntimeError(f"{target}: the fuzzer ended with {process.returncode}:\n{text[-2000:]}")
    executions = re.findall(r"stat::number_of_executed_units: (\d+)", text)
    covered = re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)/", text)
    coverage, inputs = covered[-1] if covered else (0, 0)
    panics = [line for line in text.splitlines() if "panicked at" in line or "ERROR: " in line]
    cpu_secs = used.ru_utime + used.ru_stime
    return Outcome(
        target, int(executions[-1]) if executions else 0, cpu_secs, int(coverage), int(inputs), Path(written[0]) if written else None, panics,
    )


def run_all(program: Path, secs: int, found: Path) -> list[Outcome]:
    def one(target: str) -> Outcome:
        outcome = run(program, target, secs, found / target)
        print(f"  {outcome.line()}", flush=True)
        return outcome

    with ThreadPoolExecutor(JOBS) as pool:
        return list(pool.map(one, TARGETS))


def corpus_bytes() -> int:
    return sum(path.stat().st_size for path in (FUZZ / "corpus").rglob("*") if path.is_file())


def all_hold() -> Measure:
    secs = scale.secs or SECS
    outcomes = run_all(build(paths.ROOT, "tree"), secs, OUT / "found")
    problems = [f"{o.line()} ({'; '.join(o.said)})" for o in outcomes if o.crash]
    problems += [f"{o.target}: nothing was executed" for o in outcomes if o.executions == 0]
    if corpus_bytes() > CORPUS_BYTES_MAX:
        problems.append(f"the corpus has {corpus_bytes()} bytes, more than {CORPUS_BYTES_MAX}")
    total = sum(o.executions for o in outcomes)
    slowest = min(outcomes, key=lambda o: o.executions)
    value = f"{len(outcomes)} targets, {secs} s each, {total} executions, {sum(bool(o.crash) for o in outcomes)} crashes"
    spread = f"fewest executions: {slowest.executions} ({slowest.target}); corpus {corpus_bytes()} bytes"
    return from_problems(value, problems, spread)


def planted() -> Measure:
    """The same on a copy of the tree in which each target's code has a bug."""
    with copy_of_tree() as root:
        for target in TARGETS:
            name, old, new = PLANTED[target]
            text = (root / name).read_text()
            if text.count(old) != 1:
                return Measure(f"{name} has not exactly one place for the bug of {target}", True)
            (root / name).write_text(text.replace(old, new))
        outcomes = run_all(build(root, "planted"), min(scale.secs or PLANTED_SECS, PLANTED_SECS), root.with_name("found"))
        missed = [o.target for o in outcomes if o.crash is None or "panicked" not in "".join(o.said)]
        for outcome in outcomes:
            if outcome.crash:
                outcome.crash.unlink()
    value = f"{len(outcomes) - len(missed)} of {len(outcomes)} planted bugs found"
    return Measure(value, bool(missed), notes=[f"{o.target}: {'; '.join(o.said)}" for o in outcomes] + [f"missed: {t}" for t in missed])


def keep() -> None:
    """Minimizes the corpus together with what was found since: no input whose coverage others have."""
    program = OUT / "program-tree"
    for target in TARGETS:
        kept, small = FUZZ / "corpus" / target, OUT / "merged" / target
        shutil.rmtree(small, ignore_errors=True)
        small.mkdir(parents=True)
        sources = [str(folder) for folder in (FUZZ / "seeds" / target, kept, OUT / "found" / target) if folder.is_dir()]
        argv = [str(program), "-set_cover_merge=1", "-use_counters=0", f"-max_len={INPUT_BYTES_MAX}", str(small), *sources]
        subprocess.run(argv, env={**plain_env(), "OSSC_FUZZ_TARGET": target}, check=True, capture_output=True)
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for path in small.iterdir():
            shutil.move(path, kept / path.name)
        print(f"{target}: {len(list(kept.iterdir()))} inputs, {sum(p.stat().st_size for p in kept.iterdir())} bytes")


if __name__ == "__main__":
    keep()
