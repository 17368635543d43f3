"""Memory that the host has already given, for a measurement: in a VM the first touch of memory is dear."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from . import paths

PERF = paths.PRODUCTS / "ossc-perf"


@contextmanager
def held(size: int, memory: str = "tmpfs-huge") -> Iterator[None]:
    """Memory that was touched, and is given back in step with the shared memory that is taken inside."""
    argv = [str(PERF), "warm", "--hold", "--memory", memory, "--size", str(size)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            raise AssertionError(f"{argv} ended with status {holder.wait()}")
        try:
            yield
        finally:
            holder.stdin.close()
