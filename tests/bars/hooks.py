"""The bars of transparency: a program cannot tell a managed folder from a local one, and what escapes the hooks fails loudly."""

from tests.bars.bar import Bar
from tests.checks import bypass, consumers, differ, twin
from tests.suites import all as suites

BARS = [
    Bar(
        1, "program-twins", "small programs (C, C++, Python, Rust, Node, bash, Perl, Java) on a plain folder and preloaded on a managed one",
        f"at least {twin.PROGRAMS_MIN} programs of at least {twin.CALLS_MIN} calls each: same output and exit code; each exported function called",
        twin.transparent, twin.transparent_control, "pread64 goes past its hook",
    ),
    Bar(
        2, "third-party-suites", "suites of other projects (CPython, fio, stress-ng, SQLite, checking tools), plain, preloaded inert, preloaded active",
        "the same tests pass, fail and are skipped in all three ways",
        suites.run, suites.control, "one bit of each object is wrong; for suites with files of their own, a few calls are broken",
    ),
    Bar(
        3, "random-operations", "random operation sequences (open, read, mmap, fork, dup, threads, stdio ...) on a plain folder and on the managed one",
        f"at least {differ.OPS_MIN} operations, half of them on a cold cache, each of {', '.join(differ.CLASSES)} 5 % of the mix: no difference",
        differ.alike, differ.alike_control, "one hook after the other is bypassed: each must be noticed",
    ),
    Bar(
        4, "hook-bypass", "programs that escape the hooks (static, Go, assembly, libaio, io_uring, children without the library, setuid)",
        "end-of-file or an error on a large object, never a zero or stale byte; small files read correctly",
        bypass.escape, bypass.escape_control, "a sparse file of the right size in place of the placeholder",
    ),
    Bar(
        5, "model-libraries", "safetensors, transformers, tokenizers, sentencepiece, onnxruntime, gguf, numpy and torch load from a managed folder",
        "outputs equal those from the plain folder, on a cold cache, with placeholders only and with the defaults",
        consumers.equal, consumers.equal_control, "one byte of each consumer's file is served changed, without its CRC",
    ),
]
