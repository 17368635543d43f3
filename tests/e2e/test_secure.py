"""What others must not get of a program and its engine: privileges, keys, files that its user keeps private."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import unittest
from pathlib import Path

from tests.e2e.base import EndToEnd, can_unshare
from tests.harness import paths
from tests.harness.endpoint import ACCESS_KEY_SECRET
from tests.harness.run import Run

NOBODY = 65534
# An engine that an attacker would have a setuid program start: it leaves a file that shows whose it is.
PLANTED = """#!/usr/bin/python3
import os
os.open({proof!r}, os.O_CREAT | os.O_WRONLY, 0o600)
"""
# A copy of /etc in which all programs load the library, setuid ones too: the loader obeys this file everywhere.
LISTED = (
    "mkdir -p {copy} && mount -t tmpfs none {copy} && cp -a /etc/. {copy}/ 2>/dev/null; echo {library} > {copy}/ld.so.preload"
    ' && mount --bind {copy} /etc && exec "$@"'
)


class Secure(EndToEnd):
    """Nothing of it depends on what the attacker's program looks like."""

    @unittest.skipUnless(can_unshare() and os.getuid() == 0, "needs root")
    def test_nothing_is_obeyed_in_a_setuid_program(self) -> None:
        run = self.managed()
        folder = self.scratch / "setuid"
        folder.mkdir()
        for shown in (self.scratch, run.dir, run.model_dir):
            shown.chmod(0o755)
        shutil.copy2(paths.PRELOAD, folder / "libossc_preload.so")
        raised, planted, proof = folder / "cat", folder / "planted", folder / "proof"
        shutil.copyfile(shutil.which("cat") or "/bin/cat", raised)
        raised.chmod(0o4755)
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            self.skipTest("the file system has no setuid programs")
        planted.write_text(PLANTED.format(proof=str(proof)))
        planted.chmod(0o755)
        (run.model_dir / "plain.txt").write_text("plain\n")
        listed = LISTED.format(copy=folder / "etc", library=folder / "libossc_preload.so")
        env = run.env(None, LD_PRELOAD=None, OSSC_BIN=str(planted))
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        within = ["unshare", "-m", "sh", "-c", listed, "sh", *as_nobody]
        # The same library obeys in a program without privileges, so that this test can see.
        for program, obeys in (("/bin/cat", True), (str(raised), False)):
            with self.subTest(program):
                proof.unlink(missing_ok=True)
                folder.chmod(0o777)
                argv = [*within, "env", "ENABLE_CONNECTOR=1", program, str(run.model_dir / "plain.txt")]
                done = run.call(argv, env, cwd="/")
                self.assertEqual(proof.exists(), obeys, done.stderr)
                self.assertEqual(done.stdout, b"" if obeys else b"plain\n", done.stderr)
                self.assertEqual(b"oss connector" in done.stderr, obeys, done.stderr)

    def holders(self, pid: int) -> list[tuple[str, bool]]:
        """Maps of a process that hold the secret: their names, and whether core dumps leave them out."""
        found = []
        entries = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text())
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for entry in filter(None, entries):
                fields = entry.split("\n", 1)[0].split()
                start, end = (int(number, 16) for number in fields[0].split("-"))
                if "r" not in fields[1] or end - start > 200 << 20:
                    continue
                try:
                    memory.seek(start)
                    there = memory.read(end - start)
                except (OSError, ValueError, OverflowError):
                    continue
                flags = re.search(r"(?m)^VmFlags: (.*)$", entry)
                assert flags is not None
                found += [(fields[5] if len(fields) > 5 else "", "dd" in flags[1].split())] * there.count(ACCESS_KEY_SECRET.encode())
        return found

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
                found = self.holders(reader.pid)
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
