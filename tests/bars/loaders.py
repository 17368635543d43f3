"""The bars of loaders."""

from perf.bars import loaders_small
from tests.bars.bar import Bar
from tests.checks import loaders_bucket, loaders_past, loaders_real

BARS = [
    Bar(
        1, "model-loaders", "today's model loaders (InstantTensor, Run:ai, fastsafetensors, tensorizer, safetensors, torch ...), plain and managed, cold and warm (--only)",
        f"equal tensors, status 0, each byte over the socket once; in memory within {loaders_real.FACTOR_MAX} times a tmpfs folder",
        loaders_real.equal, loaders_real.equal_control, "statfs and O_DIRECT opens are answered by the disk's file system",
    ),
    Bar(
        2, "kernel-io", "programs that ask the size of the C library and read of the kernel: libaio, io_uring, system calls, maps, children",
        "each way gives what docs/SEMANTICS.md says, on a cold and on a ready object, with and without O_DIRECT; statfs says tmpfs",
        loaders_past.past, loaders_past.past_control, "a build without whole opens, in which statfs answers as the disk does",
    ),
    Bar(
        3, "whole-bucket", "a whole bucket as OSS_PATH costs what the one model in use costs",
        "first byte at most 1 s later than with the model alone; at most 50 requests for other folders and no byte of theirs; fewer than 600 descriptors of 1,024; "
        "the same beside a hanging and a looping folder; 70,000 files in one folder listed, or an error at most 2 s beyond its pages' own time",
        loaders_bucket.whole_bucket, loaders_bucket.whole_bucket_control, "with --against a build that lists and fetches ahead; else the model's own listing is late",
    ),
    Bar(
        4, "random-read", f"random reads of 4 KiB by {loaders_small.THREADS} threads, of a cold file of {loaders_small.SIZE_MIB >> 10} GB at 100 MB/s, also with memoryLimit 1 GiB",
        f"p50 at most {loaders_small.P50_SECS_MAX} s, at most {loaders_small.TIMES_MAX:.0f} bytes fetched per byte, right bytes, memory within its limit; sequential at most {loaders_small.SEQUENTIAL_FACTOR_MAX} times the seconds of the build named with --against",
        loaders_small.small, loaders_small.small_control, "the build named with --against, or a file that is fetched ahead part by part",
    ),
    Bar(
        5, "config-scan", "looking at the configurations of 100 models fetches none of them", "only small objects, none twice, no weight byte",
        loaders_bucket.scans, loaders_bucket.scans_control, "with --against a build that fetches at the first touch; else the weights are opened, too",
    ),
]
