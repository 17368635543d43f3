"""Memory that the host has already given, for a measurement: in a VM the first touch of memory is dear."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from . import paths

MORE_BYTES = 512 << 20


@contextmanager
def held(size: int, memory: str = "tmpfs-huge", core: int | None = None) -> Iterator[None]:
    """Memory that was touched, and is given back in step with what is taken inside: `size` bytes,
    and some more, since not every core finds what another has freed; to a `core`, if all is taken there."""
    argv = [*([] if core is None else ["taskset", "-c", str(core)]), str(paths.PERF), "warm", "--hold", "--memory", memory, "--size", str(size + MORE_BYTES)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        if holder.stdout.readline() != "held\n":
            raise AssertionError(f"{argv} ended with status {holder.wait()}")
        try:
            yield
        finally:
            holder.stdin.close()
