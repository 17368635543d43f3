"""The bars of loaders."""

from bars import Bar, loaders_bucket, loaders_past

BARS = [
    Bar(
        2, "programs that ask the size of the C library and read of the kernel: libaio, io_uring, system calls, maps, children",
        "each way gives what docs/SEMANTICS.md says, on a cold and on a ready object, with and without O_DIRECT; statfs says tmpfs",
        loaders_past.past, loaders_past.past_control, "a build without whole opens, in which statfs answers as the disk does",
    ),
    Bar(
        3, "a whole bucket as OSS_PATH costs what the one model in use costs",
        "first byte at most 1 s later than with the model alone; at most 50 requests for other folders and no byte of theirs; fewer than 600 descriptors of 1,024; "
        "the same beside a hanging and a looping folder; 70,000 files in one folder listed, or an error, at most 2 s beyond its pages' own time",
        loaders_bucket.whole_bucket, loaders_bucket.whole_bucket_control, "with --against a build that lists and fetches ahead; else the model's own listing is late",
    ),
    Bar(
        5, "looking at the configurations of 100 models fetches none of them", "only small objects, none twice, no weight byte",
        loaders_bucket.scans, loaders_bucket.scans_control, "with --against a build that fetches at the first touch; else the weights are opened, too",
    ),
]
