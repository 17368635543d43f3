"""A program on a terminal of its own, as a person sees it: what it wrote, what the screen shows, keys pressed.

Used by the tests of what commands draw. The screen knows the few sequences that the commands use and refuses any other, so
that a new one is noticed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from types import TracebackType

_PIECES = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b([A-Z78])|([\r\n\b])|([^\x1b\r\n\b]+)", re.DOTALL)


class Screen:
    """Lines of a terminal that scrolls, and its cursor."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.lines = [""] * rows
        self.above: list[str] = []
        self.row = self.column = 0
        self._kept = (0, 0)

    def feed(self, text: str) -> None:
        at = 0
        while at < len(text):
            found = _PIECES.match(text, at)
            if found is None:
                raise AssertionError(f"a sequence that no command writes: {text[at : at + 20]!r}")
            at = found.end()
            argument, control, escape, key, words = found.groups()
            if words is not None:
                self._write(words)
            elif key is not None:
                self._move(key)
            else:
                self._act(argument or "", control or escape)

    def _act(self, argument: str, what: str) -> None:
        acts: dict[str, Callable[[], None]] = {
            "D": self._down, "M": lambda: setattr(self, "row", max(0, self.row - 1)), "7": lambda: setattr(self, "_kept", (self.row, self.column)),
            "8": self._restore, "B": lambda: setattr(self, "row", min(self.rows - 1, self.row + 1)), "J": self._erase, "K": self._erase_line,
        }
        if argument or what not in acts:
            raise AssertionError(f"a sequence that no command writes: {argument}{what}")
        acts[what]()

    def _move(self, key: str) -> None:
        if key == "\r":
            self.column = 0
        elif key == "\n":
            self._down()
        else:
            self.column = max(0, self.column - 1)

    def _down(self) -> None:
        if self.row < self.rows - 1:
            self.row += 1
            return
        self.above.append(self.lines.pop(0))
        self.lines.append("")

    def _write(self, text: str) -> None:
        for letter in text:
            if self.column == self.columns:
                self.column = 0
                self._down()
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1

    def _restore(self) -> None:
        self.row, self.column = self._kept

    def _erase_line(self) -> None:
        self.lines[self.row] = self.lines[self.row][: self.column]

    def _erase(self) -> None:
        self._erase_line()
        self.lines[self.row + 1 :] = [""] * (self.rows - self.row - 1)

    def text(self) -> list[str]:
        """What was and is to be seen, without the blank lines at the end."""
        lines = [line.rstrip() for line in self.above + self.lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Terminal:
    """A program whose terminal this is; `with Terminal(...)` ends it."""

    def __init__(self, argv: list[str], env: dict[str, str], columns: int = 100, rows: int = 24, outputs: tuple[bool, bool] = (True, True)) -> None:
        """`outputs`: whether standard output and standard error are the terminal, too."""
        self.ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.modes = termios.tcgetattr(theirs)
        self.screen = Screen(columns, rows)
        self.raw = ""

        def own() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        out, err = (theirs if is_terminal else subprocess.PIPE for is_terminal in outputs)
        self.process = subprocess.Popen(argv, env={"TERM": "xterm", **env}, stdin=theirs, stdout=out, stderr=err, preexec_fn=own)  # noqa: PLW1509
        self._theirs = theirs

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        for descriptor in (self.ours, self._theirs):
            os.close(descriptor)

    def read(self, secs: float, until: Callable[[], bool]) -> bool:
        """Takes what the program writes until something is so; false if that takes too long."""
        deadline = time.monotonic() + secs
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._take(min(left, 0.05))
        return True

    def _take(self, secs: float) -> None:
        if select.select([self.ours], [], [], secs)[0]:
            with contextlib.suppress(OSError):
                text = os.read(self.ours, 1 << 16).decode(errors="replace")
                self.raw += text
                self.screen.feed(text)

    def end(self, secs: float) -> int:
        """Its status, once it has ended and all that it wrote is here."""
        if not self.read(secs, lambda: self.process.poll() is not None):
            raise AssertionError(f"it goes on after {secs} s: {self.screen.text()}")
        while select.select([self.ours], [], [], 0.05)[0]:
            self._take(0)
        return self.process.returncode

    def press(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def is_as_it_was(self) -> bool:
        """No mode of the terminal has changed."""
        return termios.tcgetattr(self._theirs) == self.modes

    def seen(self, words: str) -> bool:
        return any(words in line for line in self.screen.text())
