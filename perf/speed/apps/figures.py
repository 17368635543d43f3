"""What a transfer took inside the client's process, printed as one JSON line. Used by the programs beside it."""

from __future__ import annotations

import json
import resource
import time


class Meter:
    """From its making to `done`: interpreter and imports are not part of it."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._used = self._cpu()

    @staticmethod
    def _cpu() -> float:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime

    def done(self, count: int) -> None:
        wall, cpu = time.monotonic() - self._begin, self._cpu() - self._used
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"bytes": count, "wall_secs": wall, "cpu_secs": cpu, "rss_bytes_max": peak}))
