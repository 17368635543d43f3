"""One bar: a promise, the command that checks or measures it, and a control, which must fail.

The sets beside this file list them. What they run is in tests/checks (is it right?) and perf/bars (how much?).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.harness.measure import Measure


@dataclass(frozen=True)
class Bar:
    """One promise: `what` in words, `limit` that the value must keep, and how to see it fail. `name` is unique in all sets.

    The control is the same measurement with something broken on purpose, so that a bar that cannot fail is noticed.
    """

    number: int
    name: str
    what: str
    limit: str
    measure: Callable[[], Measure]
    control: Callable[[], Measure]
    control_what: str

    @property
    def has_kinds(self) -> bool:
        """True if --only chooses among them; `what` says so."""
        return "(--only" in self.what
