"""Each small program runs twice, on the plain folder and preloaded on the managed one, and must not tell them apart."""

from __future__ import annotations

import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import compile as compiler
from harness import paths
from harness.run import Run, plain_env
from tests.e2e.base import EndToEnd

SHELL = {
    "sha256sum": "sha256sum *.bin lines.txt archive.zip nested/*.json nested/deep/*",
    "cp": 'cp b.bin "$SCRATCH/copy" && sha256sum < "$SCRATCH/copy"',
    "cp -r": 'cp -r . "$SCRATCH/tree" && cd "$SCRATCH/tree" && find . -type f | sort | xargs -d "\\n" sha256sum',
    "cp over a file": 'head -c 9000000 /dev/zero > "$SCRATCH/old" && cp a.bin "$SCRATCH/old" && sha256sum < "$SCRATCH/old"',
    "cat | head": "cat b.bin | head -c 1000001 | sha256sum",
    "head": "head -c 3000000 b.bin | sha256sum; head -n 3 lines.txt",
    "tail": "tail -c 70001 b.bin | sha256sum; tail -n 3 lines.txt; tail -c +3000000 a.bin | sha256sum",
    "tar": "tar cf - --sort=name --mtime=@0 --owner=0 --group=0 --mode=644 . | sha256sum",
    "tar names": "tar cf - . | tar tvf - | awk '{print $3, $6}' | sort",
    "dd skip": "dd if=b.bin bs=4096 skip=1000 count=300 status=none | sha256sum",
    "dd odd": "dd if=a.bin bs=999 skip=77 status=none | sha256sum",
    "dd iflag": "dd if=a.bin iflag=skip_bytes,count_bytes skip=1234567 count=54321 status=none | sha256sum",
    "cmp": "cmp a.bin a.bin; echo $?; cmp a.bin b.bin; echo $?; cmp -n 100 a.bin a.bin; echo $?",
    "diff": "diff a.bin b.bin; diff -q lines.txt lines.txt; echo $?",
    "wc": "wc -c *.bin lines.txt; wc lines.txt; wc -l < lines.txt; wc -c < b.bin",
    "stat": "stat -c '%n %s %F' *.bin nested nested/deep/c.bin; stat -L -c %s a.bin",
    "ls": "ls; ls -1 nested nested/deep; ls -l a.bin b.bin empty.bin | awk '{print $5, $9}'; ls -R | sort",
    "find": "find . -size +1M -type f | sort; find . -name 'c.*'; find . -empty | sort; find . -type d | sort",
    "du": "du -b --apparent-size a.bin b.bin empty.bin nested/deep/c.bin",
    "test": "test -s b.bin; echo $?; test -s empty.bin; echo $?; [ -f a.bin ]; echo $?; [ -e absent ]; echo $?",
    "glob": "echo *.bin nested/*/*; echo nested/deep/c.*",
    "stdin": "sha256sum < b.bin; sha256sum < empty.bin; sha256sum < small.bin; cat < a.bin | sha256sum",
    "sort": "sort lines.txt | sha256sum; sort < lines.txt | head -n 2; sort -n -r lines.txt | tail -n 1",
    "grep": "grep -c 'line 7' lines.txt; grep -n 'line 79999$' lines.txt; grep -m1 'line 500$' < lines.txt",
    "sed awk": "sed -n '40000p' lines.txt; awk 'END {print NR}' lines.txt; awk '{s+=$1} END {printf \"%.0f\\n\", s}' lines.txt",
    "read loop": "while read -r number rest; do last=$number; done < lines.txt; echo $last",
    "subshell shares the position": "{ head -n 1; head -c 100; } < lines.txt; (read -r x; echo \"$x\") < lines.txt",
    "two readers of one descriptor": "(head -c 1000000; sha256sum) < b.bin | sha256sum; { dd bs=1000 count=1 status=none | cksum; cksum; } < b.bin",
    "descriptor 3": "exec 3< b.bin; head -c 100000 <&3 | sha256sum; sha256sum <&3; exec 3<&-",
    "cd": "cd nested/deep && sha256sum c.bin ../small.json ../../a.bin",
    "lazy folder": "sha256sum nested/deep/c.bin",
    "od": "od -A d -t x1 -j 3000000 -N 64 a.bin; od -t x1 -N 16 < b.bin",
    "split": 'split -b 7M b.bin "$SCRATCH/part-" && sha256sum "$SCRATCH"/part-* | cut -c1-64',
    "gzip": "gzip -1 -c lines.txt | gzip -d | sha256sum; gzip -1 < a.bin | gzip -d | sha256sum",
    "file": "file small.bin lines.txt archive.zip",
    "base64 cksum": "base64 small.bin | cksum; cksum b.bin",
    "symlink": 'ln -s "$PWD" "$SCRATCH/link" && sha256sum "$SCRATCH/link/a.bin" | cut -c1-64; cat "$SCRATCH/link/nested/deep/c.bin" | wc -c',
    "proc": "exec 4< a.bin; sha256sum /proc/self/fd/4 | cut -c1-64; sha256sum /dev/fd/4 < /dev/null | cut -c1-64",
    "absent": "cat absent; cat nested/absent; sha256sum a.bin/x; ls absent",
    "readlink": "readlink -f a.bin nested/deep/c.bin; realpath nested/../b.bin",
    "install": 'install -m 600 a.bin "$SCRATCH/installed" && sha256sum < "$SCRATCH/installed"',
    "xargs": "find . -name '*.bin' -print0 | sort -z | xargs -0 -P 4 -n 1 sha256sum | sort",
    "background": "sha256sum a.bin > \"$SCRATCH/1\" & sha256sum b.bin > \"$SCRATCH/2\" & wait; cat \"$SCRATCH/1\" \"$SCRATCH/2\"",
}

C_CASES = {
    "io_read.c": "fread fgetc fdopen seek edges efault vector dup fork threads procfd opath ioctl syscall".split(),
    "io_map.c": "private shared window mapfork copy copyat advise".split(),
    "io_name.c": "stat openat list glob walk realpath".split(),
}
CPP_CASES = "whole seek folder copy".split()
PYTHON_CASES = "read readinto positional mmap numpy copy kernelcopy names stdin processes zip".split()
FILES = ["a.bin", "b.bin", "page.bin", "small.bin"]


class Twin(EndToEnd):
    """Compares standard output, standard error and the exit status; one warm folder for all cases."""

    shared: Run

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        # Long enough that the engine stays between two cases.
        cls.shared = cls.make_run(config={"lingerSec": 5})
        cls.addClassCleanup(cls.shared.close)

    def twin(self, argv: list[str], run: Run | None = None, drop: str | None = None) -> None:
        """`drop` names a variable that the preloaded program does not get (to see the comparison fail)."""
        run = run or self.shared
        results = []
        for where, env in ((self.plain, plain_env()), (run.model_dir, run.env())):
            if drop is not None:
                env.pop(drop, None)
            scratch = Path(tempfile.mkdtemp(dir=run.dir, prefix="scratch-"))
            env["SCRATCH"] = str(scratch)
            env["LC_ALL"] = "C.UTF-8"
            replaced = [arg.replace("$SCRATCH", str(scratch)) if argv[0] != "bash" else arg for arg in argv]
            done = run.call(replaced, env, cwd=where)
            results.append((
                done.returncode,
                self.neutral(done.stdout, where, scratch),
                self.neutral(done.stderr, where, scratch),
            ))
        native, preloaded = results
        self.assertEqual(native, preloaded, f"native first, preloaded second; {argv}\n{run.log_tail(6)}")

    @staticmethod
    def neutral(output: bytes, where: Path, scratch: Path) -> str:
        text = output.decode(errors="backslashreplace")
        return text.replace(os.path.realpath(where), "<folder>").replace(str(scratch), "<scratch>")


class Control(Twin):
    """The comparison itself notices a program that is not hooked."""

    def test_without_the_library(self) -> None:
        self.twin(["sha256sum", "b.bin"])
        for argv in (["sha256sum", "b.bin"], ["stat", "-c", "%s", "b.bin"], ["cat", "nested/deep/c.bin"]):
            with self.assertRaises(AssertionError):
                self.twin(argv, drop="LD_PRELOAD")


class ColdTwin(Twin):
    """Some of the cases, each on a folder that nobody has read: the first read waits for the network."""

    def cold(self, argv: list[str]) -> None:
        self.twin(argv, self.managed())


COLD = {
    "shell sha256sum", "shell stdin", "shell tar", "shell cp", "shell lazy folder", "shell tail", "shell cd",
    "c fread b.bin", "c seek b.bin", "c fork b.bin", "c private b.bin", "c copy b.bin", "c list a.bin",
    "cpp whole b.bin", "python mmap b.bin", "python stdin b.bin", "python numpy b.bin",
}


def add(name: str, argv: list[str]) -> None:
    method = "test_" + "".join(c if c.isalnum() else "_" for c in name)
    if hasattr(Twin, method):
        raise AssertionError(f"two cases are called {method}")
    setattr(Twin, method, lambda self: self.twin(argv))
    # The others inherit the machinery, not the warm cases.
    setattr(Control, method, None)
    setattr(ColdTwin, method, (lambda self: self.cold(argv)) if name in COLD else None)


for _name, _script in SHELL.items():
    add(f"shell {_name}", ["bash", "-c", _script])
for _source, _cases in C_CASES.items():
    for _case in _cases:
        for _variant in ("", "64"):
            for _file in FILES:
                _program = str(compiler.OUT / (Path(_source).stem + _variant))
                add(f"c{_variant} {_case} {_file}", [_program, _case, _file, "$SCRATCH"])
for _case in CPP_CASES:
    for _file in FILES[:2]:
        add(f"cpp {_case} {_file}", [str(compiler.OUT / "io_stream"), _case, _file, "$SCRATCH"])
for _case in PYTHON_CASES:
    for _file in (*FILES[:2], "empty.bin") if _case in ("read", "positional") else FILES[:2]:
        add(f"python {_case} {_file}", [str(paths.VENV_PYTHON), str(paths.APPS / "io_cases.py"), _case, _file, "$SCRATCH"])


def setUpModule() -> None:
    for source in C_CASES:
        compiler.program(source)
        compiler.program(source, "64")
    compiler.program("io_stream.cpp")


class Native(unittest.TestCase):
    """The programs themselves work: a case that fails natively would compare two failures."""

    def test_programs_succeed_on_a_plain_folder(self) -> None:
        from harness import folder

        with tempfile.TemporaryDirectory(prefix="ossc-test-") as scratch:
            plain = Path(scratch) / "plain"
            folder.make(plain)
            runs = [[str(compiler.program(s, v)), c, "a.bin", scratch] for s in C_CASES for v in ("", "64") for c in C_CASES[s]]
            runs += [[str(compiler.program("io_stream.cpp")), c, "a.bin", scratch] for c in CPP_CASES]
            runs += [[str(paths.VENV_PYTHON), str(paths.APPS / "io_cases.py"), c, "a.bin", scratch] for c in PYTHON_CASES]
            for argv in runs:
                with self.subTest(argv=argv[:2]):
                    done = subprocess.run(argv, cwd=plain, env=plain_env(), capture_output=True, text=True, timeout=60, check=False)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertGreater(len(done.stdout), 20)
