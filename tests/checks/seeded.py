"""Runs that are made of a seed each, several at a time: the loop and the programs that the bars of such runs share."""

from __future__ import annotations

import queue
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.harness.run import Run, end


class Found(Protocol):
    """What came of a run."""

    # With `seed`, and what the run was as text.
    plan: Any
    log: str

    def problems(self) -> list[str]: ...


F = TypeVar("F", bound=Found)
J = TypeVar("J")
P = TypeVar("P")


def run_all(
    jobs: Iterable[J], places: Sequence[P], act: Callable[[P, J], F], every: int = 100, quiet: bool = False, enough: Callable[[list[F]], bool] = lambda _: False,
) -> list[F]:
    """Gives each job to the next free place, until there are none or it is enough. Says how many are done after each
    `every` runs, and what was wrong with a run unless `quiet`. The first exception of a run ends them."""
    results: list[F] = []
    free: queue.SimpleQueue[P] = queue.SimpleQueue()
    for place in places:
        free.put(place)

    def one(job: J) -> None:
        if enough(results):
            return
        place = free.get()
        try:
            found = act(place, job)
        finally:
            free.put(place)
        results.append(found)
        if len(results) % every == 0:
            print(f"  {len(results)} runs, {sum(bool(f.problems()) for f in results)} with a problem", flush=True)
        if found.problems() and not quiet:
            print(f"  seed {found.plan.seed} ({found.plan}): {found.problems()[:3]}\n{found.log}", flush=True)

    with ThreadPoolExecutor(len(places)) as pool:
        list(pool.map(one, jobs))
    return results


class Reader:
    """One program of a run and what it has said."""

    def __init__(self, run: Run, name: str, argv: list[str], env: dict[str, str], **options: Any) -> None:
        self.out, self.err = run.dir / f"{name}.out", run.dir / f"{name}.err"
        self.name, self.killed, self.begun = name, False, time.monotonic()
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = run.start(argv, env, stdout=out, stderr=err, start_new_session=True, **options)

    def lines(self) -> list[list[str]]:
        """Whole lines only: a killed program may have been cut off in one."""
        text = self.out.read_text(errors="replace")
        return [line.split() for line in text[:text.rfind("\n") + 1].splitlines()]

    def passes(self) -> list[list[str]]:
        return [line for line in self.lines() if line[0] in ("got", "err", "mix")]

    def kill(self) -> None:
        self.killed = True
        self.process.kill()

    def wait(self, secs_max: float) -> list[str]:
        """What is wrong with its end: it is killed when it takes too long."""
        try:
            self.process.wait(secs_max)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            return [f"{self.name} waits for more than {secs_max:.0f} s"]
        return []


def clean(run: Run, readers: Sequence[Reader], base: Path | None = None) -> None:
    """Ends what a run has started; engines would go by themselves after lingerSec. `base`: the run's own objects."""
    for reader in readers:
        end(reader.process)
    run.kill_engines()
    shutil.rmtree(run.dir, ignore_errors=True)
    if base is not None:
        shutil.rmtree(base, ignore_errors=True)
