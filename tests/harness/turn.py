"""Programs of tests that make something for all of them take turns: one makes it, and the others find it made.

Used by what compiles programs or makes models below target/. Tests run in several processes.
"""

from __future__ import annotations

import fcntl
import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from tests.harness import paths

Make = TypeVar("Make", bound=Callable[..., Any])


def alone(make: Make) -> Make:
    """`make` runs in one process, and one thread of it, at a time."""

    @functools.wraps(make)
    def turn(*args: Any, **options: Any) -> Any:
        paths.CACHE.mkdir(exist_ok=True)
        with open(paths.CACHE / f"{make.__module__}.{make.__name__}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return make(*args, **options)

    return cast(Make, turn)
