"""The bars of the engine: at the machine's limit, and nothing where there is nothing to do."""

from bars import Bar, calls, resident, shaped

BARS = [
    Bar(
        5, f"a model of {shaped.SIZE_MIB // 1024} GiB over {shaped.CONNECTIONS} connections of 8 MB/s, 20 ms to the first byte, one answer in a hundred ten times slower",
        f"the median rate is at least {shaped.RATE_SHARE_MIN:.2f} of the connections', at most {shaped.TWICE_SHARE_MAX:.0%} of the bytes sent twice, a demand meanwhile takes at most {shaped.DEMAND_FACTOR_MAX:.0f} times its time",
        shaped.shaped, shaped.shaped_control, "nothing is asked for twice",
    ),
    Bar(
        6, "what an engine with 256 connections takes beside the cached bytes, which threads run, and how often it wakes when idle",
        f"at most {resident.PLAIN_BYTES_MAX // resident.MIB} MiB (https: {resident.HTTPS_BYTES_MAX // resident.MIB}), only the threads of ARCHITECTURE, none in clients, at most 1 wake-up/s",
        resident.resident, resident.resident_control, "a reader waits for bytes that never come",
    ),
    Bar(
        7, "what the library costs in an inert process, in reads of other files, and in a 4 KiB read of a ready object",
        f"at most {calls.INERT_SHARE_MAX:+.0%} instructions, {calls.UNMANAGED_INSTRUCTIONS_MAX:+d} instructions, {calls.PREAD_FACTOR_MAX} times the kernel's CPU on tmpfs",
        calls.cost, calls.cost_control, "the process is active, the reads end at end-of-file, and read() stands in for pread()",
    ),
]
