"""The bars of transparency: a program cannot tell a managed folder from a local one, and what escapes the hooks fails loudly."""

from bars import Bar, bypass

BARS = [
    Bar(
        4, "programs that escape the hooks (static, Go, assembly, libaio, io_uring, children without the library, setuid)",
        "end-of-file or an error on a large object, never a zero or stale byte; small files read correctly",
        bypass.escape, bypass.escape_control, "a sparse file of the right size in place of the placeholder",
    ),
]
