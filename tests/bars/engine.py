"""The bars of the engine: at the machine's limit, and nothing where there is nothing to do."""

from perf.bars import builds, calls, ready, receive, resident, secure, shaped, whole
from perf.speed import limited
from tests.bars.bar import Bar
from tests.checks import simulation

BARS = [
    Bar(
        1, "http-receive", "receiving one object with both drivers, beside the floor of the same memory and beside other clients",
        f"CPU at most {receive.CPU_FACTOR_MAX} and speed at least {receive.SPEED_FACTOR_MIN} times the floor's; on huge pages at most "
        + ", ".join(f"{limit} times {peer}'s CPU" for peer, limit in receive.PEERS.items()) + "; cheaper than every peer on 4 KiB pages",
        receive.received, receive.received_control, "the engine receives through a mapping what it has to splice",
    ),
    Bar(
        2, "warm-read", "reads in 1 MiB steps and a map of a model that is ready, beside a file in tmpfs",
        f"pread at most {ready.READ_FACTOR_MAX} times the kernel's CPU (where a memcpy alone is near that, {ready.COPY_FACTOR_MAX} times the memcpy's), map at most {ready.MAP_FACTOR_MAX} times the CPU and the same faults",
        ready.ready, ready.ready_control, "the reads are of 512 bytes",
    ),
    Bar(
        3, "cold-prefetch", f"a new process to the last tensor of {whole.SIZE_MIB // 1024} GiB, from an endpoint of {whole.RATE / 1e9} GB/s",
        f"at most {whole.SECS_FACTOR_MAX} times the longer of download and load, CPU at most {whole.CPU_FACTOR_MAX} times their sum; unshaped at most {whole.UNSHAPED_FACTOR_MAX} times " + " and ".join(whole.OTHERS),
        whole.whole, whole.whole_control, "one connection asks for 256 KiB at a time",
    ),
    Bar(
        4, "https-receive", "receiving one object by https with both drivers, beside a prototype on rustls' unbuffered interface",
        f"CPU at most {secure.CPU_FACTOR_MAX} times the prototype's",
        secure.received, secure.received_control, "the prototype with 32 KiB per connection takes the engine's place",
    ),
    Bar(
        5, "tail-latency", f"a model of {shaped.SIZE_MIB // 1024} GiB over {limited.CONNECTIONS} connections of 8 MB/s, 20 ms to the first byte, one answer in a hundred ten times slower",
        f"the median rate is at least {shaped.RATE_SHARE_MIN:.2f} of the connections', at most {shaped.TWICE_SHARE_MAX:.0%} of the bytes sent twice, a demand meanwhile takes at most {shaped.DEMAND_FACTOR_MAX:.0f} times its time",
        shaped.shaped, shaped.shaped_control, "nothing is asked for twice",
    ),
    Bar(
        6, "engine-footprint", "what an engine with 256 connections takes beside the cached bytes, which threads run, and how often it wakes when idle",
        f"at most {resident.PLAIN_BYTES_MAX // resident.MIB} MiB (https: {resident.HTTPS_BYTES_MAX // resident.MIB}), only the threads of ARCHITECTURE, none in clients, at most 1 wake-up/s",
        resident.resident, resident.resident_control, "a reader waits for bytes that never come",
    ),
    Bar(
        7, "hook-overhead", "what the library costs in an inert process, in reads of other files, and in a 4 KiB read of a ready object",
        f"at most {calls.INERT_SHARE_MAX:+.0%} instructions, {calls.UNMANAGED_INSTRUCTIONS_MAX:+d} instructions, {calls.PREAD_FACTOR_MAX} times the kernel's CPU on tmpfs",
        calls.cost, calls.cost_control, "the process is active, the reads end at end-of-file, and read() stands in for pread()",
    ),
    Bar(
        8, "simulation", "seeded simulation of engine and cache: 1,000,000 seeds of at least 1,000 events (--runs, --seed)",
        "no violation, every kind of fault reached",
        simulation.seeds, simulation.planted, "thirteen bugs, planted one at a time, each to be caught within 10,000 seeds",
    ),
    Bar(
        9, "other-build", "what this build costs beside another one (--against), in turns: cold prefetch, a whole load, warm reads, start of a program (--runs)",
        f"at most {builds.FACTOR_MAX} times the CPU of the engine (median of at least {builds.ROUNDS_MIN} pairs, with its interval) and the instructions of a program",
        builds.beside, builds.beside_control, "one connection asks for 64 KiB at a time",
    ),
]
