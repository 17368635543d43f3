"""What others must not get of a program and its engine: privileges, keys, files that its user keeps private."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import unittest
from pathlib import Path

from tests.checks import hostile
from tests.e2e.base import EndToEnd, can_unshare
from tests.harness.run import Run


class Secure(EndToEnd):
    """Nothing of it depends on what the attacker's program looks like."""

    @unittest.skipUnless(can_unshare() and os.getuid() == 0, "needs root")
    def test_nothing_is_obeyed_in_a_setuid_program(self) -> None:
        run = self.managed()
        for shown in (self.scratch, run.dir, run.model_dir):
            shown.chmod(0o755)
        # The same library obeys in a program without privileges, so that this test can see.
        for program, obeys in (("/bin/cat", True), ("setuid", False)):
            with self.subTest(program):
                is_obeyed, done = hostile.obeyed(run, self.scratch, program)
                self.assertEqual(is_obeyed, obeys, done.stderr)
                self.assertEqual(done.stdout, b"" if obeys else b"plain\n", done.stderr)
                self.assertEqual(b"oss connector" in done.stderr, obeys, done.stderr)

    def test_core_dumps_leave_out_what_the_library_keeps_of_the_keys(self) -> None:
        """Beside the program's own environment there is one copy, for an engine that this program may have to start."""
        for role in (1, 2):
            with self.subTest(role=role):
                run = self.managed()
                first = run.start(["sleep", "60"], run.env(1))
                reader = run.start(["sh", "-c", "head -c 10 b.bin; read wait"], run.env(role), cwd=run.model_dir, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                for process in (first, reader):
                    self.addCleanup(process.communicate)
                    self.addCleanup(process.kill)
                assert reader.stdout is not None
                self.assertEqual(len(reader.stdout.read(10)), 10)
                found = hostile.holders(reader.pid)
                kept = [dumped for name, dumped in found if name not in ("[stack]", "[heap]")]
                self.assertEqual(kept, [True], found)

    def test_the_engine_is_in_no_core_dump(self) -> None:
        """1 byte: with 0 the kernel still hands a dump to a program that core_pattern names."""
        run = self.managed()
        process = run.start(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.assertTrue(run.logged("engine started"), run.log_tail())
        (engine,) = run.engines()
        limits = Path(f"/proc/{engine}/limits").read_text()
        core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
        self.assertEqual(core.split()[4:6], ["1", "1"])

    def modes(self, umask: int) -> dict[str, int]:
        run: Run = self.managed()
        code = f"import os, sys; os.umask({umask}); os.execvp('sh', ['sh', '-c', 'cat small.bin nested/small.json a.bin | wc -c'])"
        preload = run.env()["LD_PRELOAD"]
        argv = [sys.executable, "-c", f"import os; os.environ['LD_PRELOAD'] = {preload!r}; " + code]
        done = run.call(argv, run.env(LD_PRELOAD=None), cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(run.logged("engine started"), run.log_tail())
        names = {"log": run.log_path, "audit": run.audit_path}
        names.update({name: run.model_dir / name for name in ("small.bin", "a.bin", "nested", "nested/small.json")})
        return {name: stat.S_IMODE(path.stat().st_mode) for name, path in names.items()}

    def test_files_follow_the_umask_of_the_program(self) -> None:
        files = ("log", "audit", "small.bin", "a.bin", "nested/small.json")
        for umask, file, folder in ((0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o027, 0o640, 0o750), (0, 0o644, 0o755), (0o777, 0o600, 0o700)):
            with self.subTest(oct(umask)):
                self.assertEqual(self.modes(umask), {**dict.fromkeys(files, file), "nested": folder})


if __name__ == "__main__":
    unittest.main()
