"""`ossc run --progress` on a terminal of its own: the bar is there while the model loads, and then nothing of it is left;
status, signals and keys are the program's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import ClassVar

from tests.e2e import test_commands
from tests.harness import paths
from tests.harness.run import Run
from tests.harness.terminal import Terminal

MIB = 1 << 20
MODEL = {"model-00001-of-00002.safetensors": 12 * MIB + 5, "model-00002-of-00002.safetensors": 12 * MIB}
RATE = 6_000_000
FRAME = re.compile(r"\x1b\[J\x1bD\x1bM\x1b7\x1b\[B\r(.*?)\x1b8")
LINE = re.compile(r"ossc run: loaded (\d+) objects, (\S+) GB in (\S+) s, (\S+) GB/s; (\d+) requests, (\d+) retries, (\d+) throttled, .*; verified (\d+) of (\d+); most memory")
READ = "import pathlib, sys; [p.read_bytes() for p in sorted(pathlib.Path(sys.argv[1]).iterdir())]; print('served', flush=True); sys.exit(7)"


class Progress(test_commands.OneModel):
    """A model of 24 MiB that takes about four seconds."""

    endpoint_options: ClassVar[list[str]] = ["--rate-bytes-per-sec", str(RATE)]
    files = MODEL

    def shown(self, run: Run, argv: list[str], columns: int = 100, rows: int = 24, term: str = "xterm") -> Terminal:
        env = run.env(None, LD_PRELOAD=None, TERM=term)
        terminal = Terminal([str(paths.OSSC), "run", "--progress", "--", *argv], env, columns, rows)
        self.addCleanup(terminal.__exit__, None, None, None)
        return terminal

    def reader(self, run: Run) -> list[str]:
        return [sys.executable, "-c", READ, str(run.model_dir)]

    def assert_clean(self, terminal: Terminal) -> None:
        self.assertTrue(terminal.is_as_it_was())
        self.assertFalse(terminal.seen("loading"), terminal.screen.text())

    def test_a_bar_while_it_loads_and_a_line_when_it_is_over(self) -> None:
        run = self.model()
        terminal = self.shown(run, self.reader(run))
        self.assertEqual(terminal.end(60), 7)
        frames = FRAME.findall(terminal.raw)
        self.assertGreaterEqual(len(frames), 4, terminal.raw)
        percents = [int(found) for frame in frames for found in re.findall(r"(\d+) %", frame)]
        self.assertEqual(percents, sorted(percents))
        full = [frame for frame in frames if "100 %" in frame]
        coming = [frame for frame in frames if frame not in full]
        self.assertRegex(coming[-1], r"^loading \[=+>? *\] +\d+ %  \S+ MiB of 24\.0 MiB  \d\.\d+ GB/s  \d+ s left$")
        # From the last byte until the line that ends the load, or the program's end.
        for frame in full:
            self.assertRegex(frame, r"^loading \[={20}\] 100 %  24\.0 MiB of 24\.0 MiB  \d\.\d+ GB/s$")
        self.assert_clean(terminal)
        text = terminal.screen.text()
        self.assertIn("served", text)
        (found,) = [match for match in map(LINE.match, self.unwrapped(text)) if match]
        sent = self.endpoint.requests()
        self.assertEqual((int(found[1]), int(found[5]), found[6], found[7]), (3, len(sent), "0", "0"))
        self.assertEqual(found[2], f"{sum(request.bytes_sent for request in sent) / 1e9:.3f}")
        self.assertEqual((found[8], found[9]), ("2", "2"))
        self.assertEqual(found[4], f"{sum(request.bytes_sent for request in sent) / 1e9 / float(found[3]):.3f}")

    def unwrapped(self, lines: list[str]) -> list[str]:
        """Lines of the terminal with those behind them, since a long one goes on in the next."""
        return [" ".join(lines[at:]) if line.startswith("ossc run:") else line for at, line in enumerate(line.replace("  ", " ") for line in lines)]

    def test_a_pipe_gets_nothing_and_the_program_is_the_process(self) -> None:
        run = self.model()
        argv = [str(paths.OSSC), "run", "--progress", "--", sys.executable, "-c", "import os; print(os.readlink('/proc/self/exe'), os.getpid(), flush=True); input()"]
        process = subprocess.Popen(argv, env=run.env(None, LD_PRELOAD=None), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        exe, pid = process.stdout.readline().split()
        self.assertEqual((os.path.realpath(exe), int(pid)), (os.path.realpath(sys.executable), process.pid))
        out, err = process.communicate("go on\n", timeout=60)
        self.assertEqual((process.returncode, out, err), (0, "", ""))

    def test_a_key_ends_the_program_and_leaves_the_terminal(self) -> None:
        run = self.model()
        # Where Python handles the signal itself it ends in one of several ways, by where it is hit.
        program = [sys.executable, "-c", f"import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n{READ}", str(run.model_dir)]
        terminal = self.shown(run, program)
        self.assertTrue(terminal.read(30, lambda: terminal.seen("loading [")), terminal.raw)
        terminal.press(b"\x03")
        self.assertEqual(terminal.end(30), -signal.SIGINT, terminal.raw)
        self.assert_clean(terminal)

    def test_a_key_stops_both_and_leaves_the_terminal(self) -> None:
        """Under a shell, whose jobs they are."""
        run = self.model()
        env = run.env(None, LD_PRELOAD=None, TERM="xterm", PS1="$ ")
        terminal = Terminal(["/bin/sh", "-i"], env)
        self.addCleanup(terminal.__exit__, None, None, None)
        script = run.dir / "program"
        script.write_text(f"exec {sys.executable} -c '{READ}' {run.model_dir}\n".replace("'served'", '"served"'))
        terminal.press(f"{paths.OSSC} run --progress -- sh {script}\n".encode())
        self.assertTrue(terminal.read(30, lambda: terminal.seen("loading [")), terminal.raw)
        terminal.press(b"\x1a")
        self.assertTrue(terminal.read(30, lambda: terminal.seen("Stopped")), terminal.raw)
        # None is drawn while the program is stopped.
        terminal.read(1, lambda: False)
        self.assertFalse(terminal.seen(" of 24.0 MiB"), terminal.screen.text())
        frames = len(FRAME.findall(terminal.raw))
        terminal.press(b"fg\n")
        self.assertTrue(terminal.read(30, lambda: len(FRAME.findall(terminal.raw)) > frames), terminal.raw)
        self.assertTrue(terminal.read(60, lambda: terminal.seen("ossc run: loaded")), terminal.screen.text())
        terminal.press(b"echo status $?\n")
        self.assertTrue(terminal.read(30, lambda: terminal.seen("status 7")), terminal.screen.text())
        self.assertFalse(terminal.seen(" of 24.0 MiB"), terminal.screen.text())
        terminal.press(b"exit\n")
        terminal.end(30)

    def test_each_signal_comes_once(self) -> None:
        run = self.model()
        counts = (
            "import signal, sys, time\ngot = []\n"
            "for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1): signal.signal(n, lambda n, _: got.append(n))\n"
            "print('listens', flush=True)\n"
            "while len(got) < 4: time.sleep(0.05)\n"
            "time.sleep(0.3); print('got', *sorted(map(int, got)), flush=True)\n"
        )
        terminal = self.shown(run, [sys.executable, "-c", counts])
        self.assertTrue(terminal.read(30, lambda: terminal.seen("listens")), terminal.raw)
        terminal.press(b"\x03")
        time.sleep(0.5)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            terminal.process.send_signal(number)
            time.sleep(0.2)
        self.assertEqual(terminal.end(30), 0)
        self.assertTrue(terminal.seen("got 2 2 10 15"), terminal.screen.text())
        self.assertTrue(terminal.is_as_it_was())

    def test_a_program_that_ends_early(self) -> None:
        for argv, status in ((["true"], 0), (["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -9 $$"], -9), (["/no/such"], 127), (["/etc/passwd"], 126)):
            with self.subTest(argv):
                run = self.model()
                terminal = self.shown(run, argv)
                self.assertEqual(terminal.end(30), status)
                self.assert_clean(terminal)

    def test_a_program_that_ends_amid_the_load_says_how_far_it_was(self) -> None:
        run = self.model()
        terminal = self.shown(run, ["sleep", "2.5"])
        self.assertEqual(terminal.end(30), 0)
        self.assert_clean(terminal)
        self.assertRegex("\n".join(terminal.screen.text()), r"ossc run: ended while \S+ MiB of 24\.0 MiB were here")

    def test_a_narrow_terminal_and_one_that_cannot_move_its_cursor(self) -> None:
        for columns in (12, 40):
            run = self.model()
            terminal = self.shown(run, self.reader(run), columns)
            self.assertEqual(terminal.end(60), 7)
            frames = FRAME.findall(terminal.raw)
            self.assertTrue(frames and max(map(len, frames)) < columns, frames)
            self.assert_clean(terminal)
        for term in ("dumb", ""):
            run = self.model()
            terminal = self.shown(run, ["echo", "served"], term=term)
            self.assertEqual((terminal.end(30), terminal.raw), (0, "served\r\n"))

    def test_lines_of_the_program_are_whole(self) -> None:
        run = self.model()
        talks = (
            "import pathlib, sys, threading, time\n"
            "over = threading.Event()\n"
            "def read(): [p.read_bytes() for p in sorted(pathlib.Path(sys.argv[1]).iterdir())]; over.set()\n"
            "threading.Thread(target=read).start(); n = 0\n"
            "while not over.is_set(): n += 1; print('INFO line', n, flush=True); time.sleep(0.6)\n"
        )
        terminal = self.shown(run, [sys.executable, "-c", talks, str(run.model_dir)], rows=12)
        self.assertEqual(terminal.end(60), 0)
        said = [line for line in terminal.screen.text() if line.startswith("INFO")]
        self.assertGreaterEqual(len(said), 5)
        self.assertEqual(said, [f"INFO line {n}" for n in range(1, len(said) + 1)])
        self.assert_clean(terminal)
