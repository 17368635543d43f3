"""Twins: each small program runs on a plain folder and, preloaded, on the managed one, and must not tell them apart.

Holds the table of programs, how they are built, run and compared, and bar `hooks 1`. The end-to-end tests make
one test of each entry. The programs are in tests/apps; they know nothing of the library.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.checks import exports, hits
from tests.checks.host import tiny
from tests.harness import compile as compiler
from tests.harness import folder, paths
from tests.harness.measure import Measure, from_problems
from tests.harness.run import Run, plain_env
from tests.harness.turn import alone

PREFIX = "team/tiny"
PROGRAMS_MIN = 60
CALLS_MIN = 3
LANGUAGES = ("C", "C++", "Python", "Rust", "Node", "bash", "Perl", "Java")
# The engine stays between two cases.
LINGER_SECS = 5
CASE_SECS_MAX = 60.0
# Characters that a case prints at least, the scripts of the shell aside.
OUT_MIN = 10
# In place of a status: the program had to be killed, which is never alike.
HANGS = -999

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
    "rsync": 'rsync -a --no-times . "$SCRATCH/tree" && diff -r . "$SCRATCH/tree" && rsync -rcni . "$SCRATCH/tree"',
    "tar -d": 'tar cf "$SCRATCH/tar" . && tar df "$SCRATCH/tar" && rm "$SCRATCH/tar"',
    "git": 'export GIT_DIR="$SCRATCH/git" GIT_WORK_TREE=.; git init -q; git hash-object b.bin; git add small.bin page.bin nested && git write-tree; git status --short | sort; git diff --stat; git ls-files -s',
    "git diff": "git diff --no-index --stat a.bin b.bin; git diff --no-index --numstat lines.txt small.bin",
    "mapfile": "mapfile -n 3 -t first < lines.txt; echo \"${first[@]}\"; exec {in}< lines.txt; read -r -u $in one; echo $one; read -r -N 20 -u $in two; echo $two; [[ -s a.bin && ! -s empty.bin ]]; echo $?",
    "process substitution": "cmp <(cat a.bin) a.bin; sha256sum <(head -c 100000 b.bin) | cut -c1-64; comm -12 <(head lines.txt) <(head -n 5 lines.txt)",
    "limits": "ulimit -n 16; sha256sum a.bin; ulimit -v 4000000; sha256sum < b.bin; ulimit -f 0; wc -c a.bin",
    "env -i": "env -i sha256sum small.bin; env -i PATH=$PATH bash -c 'wc -c < small.bin'",
    "background": "sha256sum a.bin > \"$SCRATCH/1\" & sha256sum b.bin > \"$SCRATCH/2\" & wait; cat \"$SCRATCH/1\" \"$SCRATCH/2\"",
}

C_CASES = {
    "io_read.c": "fread fgetc fdopen seek edges efault vector dup fork threads procfd opath ioctl syscall",
    "io_map.c": "private shared window mapfork copy copyat advise",
    "io_name.c": "stat openat list glob walk realpath",
    "io_paths.c": "made attributes places others spawned newer",
    "io_symbols.c": "stats access opens reads writes own aio descriptors streams copies maps beyond links scans walks execs handover",
    "io_direct.c": "direct doors handed lies",
    "io_host.c": "constructor handlers clearenv cancel stacks daemon limits memory jumps closed spawn forks signals under",
}
# Cases whose standard input is the file itself.
STDIN_CASES = {"handover"}
OTHER_CASES = {
    "io_stream.cpp": "whole seek folder copy lines threads buffers",
    "io_cases.py": "read readinto positional mmap numpy copy kernelcopy names stdin processes zip",
    "io_rust.rs": "whole at lines copy names walk threads children options",
    "io_node.js": "whole positional stream handles copies names children workers",
    "io_perl.pl": "slurp sysread lines tests folders copy fork stdin layers inplace",
    "IoJava.java": "streams random maps channels names children",
}
LANGUAGE_OF = {".c": "C", ".cpp": "C++", ".py": "Python", ".rs": "Rust", ".js": "Node", ".pl": "Perl", ".java": "Java"}
# Sources whose cases are about names and processes, not about sizes.
FEW_FILES = {"io_symbols.c", "io_paths.c", "io_host.c"}
# Cases of other languages that run on a second, larger file.
ON_TWO_FILES = {"mmap", "numpy", "stdin", "copy"}
# Placeholders of odd and even size, and a small real file.
FILES = ("a.bin", "b.bin", "page.bin", "small.bin")


@dataclass(frozen=True)
class Case:
    """One program with its own mix of calls, on one file."""

    name: str
    language: str
    # Source file of the program; each shell script is its own.
    source: str
    argv: tuple[str, ...]
    stdin: str | None = None

    @property
    def program(self) -> str:
        """What the bar counts: the same calls on another file or under other names are no further program."""
        return self.name.rsplit(" on ", 1)[0].replace("c64 ", "c ")


def built(source: str, variant: str = "") -> tuple[str, ...]:
    """The command that runs a program of tests/apps, without its arguments."""
    origin = paths.APPS / source
    if origin.suffix == ".py":
        return str(paths.VENV_PYTHON), str(origin)
    if origin.suffix == ".js":
        return "node", str(origin)
    if origin.suffix == ".pl":
        return "perl", str(origin)
    if origin.suffix == ".java":
        # No shared archive of classes and one collector thread: the same start on both sides.
        return "java", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-cp", str(compiler.OUT), origin.stem
    return (str(compiler.OUT / (origin.stem + variant)),)


def build() -> None:
    """Compiles what has to be compiled and has changed."""
    for source in C_CASES:
        compiler.program(source)
        compiler.program(source, "64")
    compiler.program("io_stream.cpp")
    compiler.OUT.mkdir(parents=True, exist_ok=True)
    rust = [str(paths.APPS / "io_rust.rs")]
    compile_with(["rustc", "--edition", "2024", "-O", "-o", str(compiler.OUT / "io_rust"), *rust], rust[0], compiler.OUT / "io_rust")
    java = str(paths.APPS / "IoJava.java")
    compile_with(["javac", "-d", str(compiler.OUT), java], java, compiler.OUT / "IoJava.class")


@alone
def compile_with(argv: list[str], origin: str, target: Path) -> None:
    if target.exists() and target.stat().st_mtime >= Path(origin).stat().st_mtime:
        return
    done = subprocess.run(argv, env=plain_env(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{origin} does not compile:\n{done.stderr}")


def cases(files: tuple[str, ...] = FILES) -> list[Case]:
    """All twins. Some of the C programs have a second build (64-bit names, fortified)."""
    found = [Case(f"shell {name}", "bash", f"shell {name}", ("bash", "-c", script)) for name, script in SHELL.items()]

    def add(label: str, source: str, name: str, file: str, variant: str = "") -> None:
        argv = (*built(source, variant), name, file, "$SCRATCH")
        stdin = file if name in STDIN_CASES else None
        found.append(Case(f"{label} {name} on {file}", LANGUAGE_OF[Path(source).suffix], source, argv, stdin))

    for source, names in C_CASES.items():
        for name in names.split():
            for variant in ("", "64"):
                chosen = files[:1] if source in FEW_FILES else files[::3] if variant else files
                for file in chosen:
                    add(f"c{variant}", source, name, file, variant)
    for source, names in OTHER_CASES.items():
        label = LANGUAGE_OF[Path(source).suffix].lower().replace("+", "p")
        for name in names.split():
            for file in files[:2] if label == "cpp" or name in ON_TWO_FILES else files[:1]:
                add(label, source, name, file)
            if name in ("read", "positional") and label == "python":
                add(label, source, name, "empty.bin")
    return found


def one_each() -> list[Case]:
    """One case for each program: what the bar runs and counts."""
    seen: dict[str, Case] = {}
    for case in cases(FILES[:1]):
        seen.setdefault(case.program, case)
    # The fortified build has call names of its own.
    seen.update({case.name: case for case in cases(FILES[:1]) if case.name.startswith("c64 ")})
    return list(seen.values())


@dataclass(frozen=True)
class Result:
    """What a program did, with the names of its folders taken out."""

    status: int
    out: str
    err: str


@dataclass
class Pair:
    """A plain folder and the managed folder that mirrors it."""

    plain: Path
    run: Run

    def native(self, case: Case) -> Result:
        return self._result(case, self.plain, plain_env())

    def preloaded(self, case: Case, run: Run | None = None, **changes: str | None) -> Result:
        run = run or self.run
        return self._result(case, run.model_dir, run.env(**changes))

    def differences(self, case: Case, run: Run | None = None, /, **changes: str | None) -> str:
        """Empty when the program cannot tell the two folders apart."""
        native, preloaded = self.native(case), self.preloaded(case, run, **changes)
        if case.language != "bash" and (native.status != 0 or len(native.out) < OUT_MIN):
            return f"{case.name}: fails natively already, so that two failures would be compared: {native}"
        if native == preloaded and native.status != HANGS:
            return ""
        shown = [f"{case.name}: not the same"]
        for what in ("status", "out", "err"):
            one, two = str(getattr(native, what)).splitlines(), str(getattr(preloaded, what)).splitlines()
            if one != two:
                shown += [f"  {what} - {line}" for line in one if line not in two][:6]
                shown += [f"  {what} + {line}" for line in two if line not in one][:6]
        return "\n".join(shown)

    def _result(self, case: Case, where: Path, env: dict[str, str]) -> Result:
        scratch = Path(tempfile.mkdtemp(dir=self.run.dir, prefix="scratch-"))
        env |= {"SCRATCH": str(scratch), "LC_ALL": "C.UTF-8"}
        argv = list(case.argv) if case.language == "bash" else [arg.replace("$SCRATCH", str(scratch)) for arg in case.argv]
        options = {}
        if case.stdin is not None:
            # The real descriptor, opened by a process without the library.
            options["stdin"] = os.open(where / case.stdin, os.O_RDONLY)
        try:
            done = self.run.call(argv, env, timeout=CASE_SECS_MAX, cwd=where, **options)
        except AssertionError as hangs:
            return Result(HANGS, "", str(hangs))
        finally:
            for fd in options.values():
                os.close(fd)
        return Result(done.returncode, neutral(done.stdout, where, scratch), neutral(done.stderr, where, scratch))


def neutral(output: bytes, where: Path, scratch: Path) -> str:
    text = output.decode(errors="backslashreplace")
    return text.replace(os.path.realpath(where), "<folder>").replace(str(scratch), "<scratch>")


@contextmanager
def pair() -> Iterator[Pair]:
    with tiny() as (endpoint, plain):
        settings = {"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": LINGER_SECS}
        with Run(endpoint, PREFIX, config=settings) as run:
            yield Pair(plain, run)


def counted(found: list[Case]) -> tuple[Counter[str], Counter[str]]:
    """Programs and source files by language."""
    programs = {(case.language, case.program) for case in found}
    sources = {(case.language, case.source) for case in found}
    return Counter(language for language, _ in programs), Counter(language for language, _ in sources)


def transparent(dropped: str | None = None) -> Measure:
    """Bar 1. `dropped`: a symbol that goes past our hook, straight to the C library."""
    build()
    found = one_each()
    problems: list[str] = []
    with pair() as both, hits.Counters(both.run.dir, dropped) as counters:
        counted_calls: dict[str, set[str]] = {}
        for case in found:
            counters.clear()
            found_different = both.differences(case, LD_PRELOAD=counters.preload())
            counted_calls.setdefault(case.program, set()).update(counters.hit())
            # The counters must not be what makes a twin pass.
            found_different = found_different or ("" if dropped else both.differences(case))
            problems += [found_different] if found_different else []
    notes = []
    if not dropped:
        problems += [f"{name}: only {sorted(calls)}" for name, calls in counted_calls.items() if len(calls) < CALLS_MIN]
        everything = set().union(*counted_calls.values())
        missed = sorted(set(exports.functions()) - everything)
        problems += [f"{name}: exported, but no twin calls it" for name in missed]
        notes.append(f"{len(everything)} of {len(exports.functions())} exported functions called")
    programs, sources = counted(found)
    notes += [f"{language}: {programs[language]} programs from {sources[language]} sources" for language in LANGUAGES]
    if sum(programs.values()) < PROGRAMS_MIN or set(programs) != set(LANGUAGES):
        problems.append(f"{sum(programs.values())} programs in {len(programs)} languages")
    measure = from_problems(f"{sum(programs.values())} programs, {len(found)} runs on both folders", problems)
    return Measure(measure.value, measure.good, notes[0] if notes else "", [*problems, *notes])


def transparent_control() -> Measure:
    return transparent("pread64")

