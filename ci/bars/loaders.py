"""The bars of loaders."""

from bars import Bar, loaders_past

BARS = [
    Bar(
        2, "programs that ask the size of the C library and read of the kernel: libaio, io_uring, system calls, maps, children",
        "each way gives what docs/SEMANTICS.md says, on a cold and on a ready object, with and without O_DIRECT; statfs says tmpfs",
        loaders_past.past, loaders_past.past_control, "a build without whole opens, in which statfs answers as the disk does",
    ),
]
