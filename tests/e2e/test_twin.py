"""Each small program runs twice, on the plain folder and preloaded on the managed one, and must not tell them apart.

The table of programs, and how they are compared, is tests/checks/twin.py.
"""

from __future__ import annotations

from tests.checks import hits, twin
from tests.e2e.base import EndToEnd
from tests.harness.run import Run


class Twin(EndToEnd):
    """Compares standard output, standard error and the exit status; one warm folder for all cases."""

    both: twin.Pair

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # Long enough that the engine stays between two cases.
        shared = cls.make_run(config={"lingerSec": twin.LINGER_SECS})
        cls.addClassCleanup(shared.close)
        cls.both = cls.warm(shared)

    @classmethod
    def warm(cls, shared: Run) -> twin.Pair:
        """All folders are listed, whichever case comes first."""
        shared.call(["ls", "-R", str(shared.model_dir)])
        return twin.Pair(cls.plain, shared)

    def twin(self, case: twin.Case, run: Run | None = None, **changes: str | None) -> None:
        """`changes` are those of the preloaded program's environment (to see the comparison fail)."""
        different = self.both.differences(case, run, **changes)
        self.assertEqual(different, "", f"- natively, + preloaded\n{(run or self.both.run).log_tail(6)}")


class Control(Twin):
    """The comparison itself notices a program that is not hooked, and one hook that is missing."""

    def test_without_the_library(self) -> None:
        for script in ("sha256sum b.bin", "stat -c %s b.bin", "cat nested/deep/c.bin"):
            case = twin.Case(script, "bash", script, ("bash", "-c", script))
            self.twin(case)
            with self.assertRaises(AssertionError):
                self.twin(case, LD_PRELOAD=None)

    def test_one_hook_missing(self) -> None:
        known = {case.name: case for case in twin.cases(("a.bin",))}
        # Names whose absence the start itself refuses are not among them (test_hidden).
        for name, dropped in (("c reads on a.bin", "preadv64"), ("c stats on a.bin", "__fxstatat64"), ("c copies on a.bin", "copy_file_range")):
            with hits.Counters(self.both.run.dir, dropped) as counters:
                different = self.both.differences(known[name], LD_PRELOAD=counters.preload())
                self.assertNotEqual(different, "", dropped)
                self.assertNotIn("failed to launch", different)
                self.assertIn(dropped, counters.hit())


class ColdTwin(Twin):
    """Some of the cases, each on a folder that nobody has read: the first read waits for the network."""

    def cold(self, case: twin.Case) -> None:
        self.twin(case, self.managed())


class WholeTwin(Twin):
    """The C programs where each open for reading gives all of the object (`openMode: whole`)."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        shared = cls.make_run(config={"lingerSec": twin.LINGER_SECS, "openMode": "whole"})
        cls.addClassCleanup(shared.close)
        cls.both = cls.warm(shared)


COLD = {
    "shell sha256sum", "shell stdin", "shell tar", "shell cp", "shell lazy folder", "shell tail", "shell cd",
    "c fread on b.bin", "c seek on b.bin", "c fork on b.bin", "c private on b.bin", "c copy on b.bin", "c list on a.bin",
    "c aio on a.bin", "c streams on a.bin", "c walks on a.bin", "cpp whole on b.bin", "python mmap on b.bin",
    "python stdin on b.bin", "python numpy on b.bin", "rust threads on a.bin", "node stream on a.bin", "perl fork on a.bin",
}


def add(case: twin.Case) -> None:
    method = "test_" + "".join(c if c.isalnum() else "_" for c in case.name)
    if hasattr(Twin, method):
        raise AssertionError(f"two cases are called {method}")
    setattr(Twin, method, lambda self: self.twin(case))
    # The others inherit the machinery, not the warm cases.
    setattr(Control, method, None)
    # An open of all of an object needs a second free number for a moment (docs/SEMANTICS.md).
    if case.language != "C" or "c limits" in case.name or "c64 limits" in case.name:
        setattr(WholeTwin, method, None)
    setattr(ColdTwin, method, (lambda self: self.cold(case)) if case.name in COLD else None)


_CASES = twin.cases()
for _case in _CASES:
    add(_case)
if _unknown := COLD - {case.name for case in _CASES}:
    raise AssertionError(f"no such cases: {_unknown}")


def setUpModule() -> None:
    twin.build()
