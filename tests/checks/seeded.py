"""Runs that are made of a seed each, several at a time: the loop that the bars of such runs share."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar


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
    `every` runs, and what was wrong with a run unless `quiet`. The first exception of a run is raised at the end."""
    results: list[F] = []
    failures: list[BaseException] = []
    waiting = collections.deque(jobs)

    def work(place: P) -> None:
        try:
            while not enough(results):
                try:
                    job = waiting.popleft()
                except IndexError:
                    return
                found = act(place, job)
                results.append(found)
                if len(results) % every == 0:
                    print(f"  {len(results)} runs, {sum(bool(f.problems()) for f in results)} with a problem", flush=True)
                if found.problems() and not quiet:
                    print(f"  seed {found.plan.seed} ({found.plan}): {found.problems()[:3]}\n{found.log}", flush=True)
        except BaseException as error:  # noqa: BLE001 - told by the caller, in its own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(place,)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
