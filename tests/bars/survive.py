"""The bars of surviving: progress is what counts, one stray answer is nothing, and no stranger gets in."""

from tests.bars.bar import Bar
from tests.checks import hostile, matrix, simulation, soak, survive_link, survive_outage, versions

BARS = [
    Bar(
        1, "fault-matrix", "every row of docs/FAULTS.md, with io_uring and with epoll, in less than 10 minutes (--only, --against)",
        "each reader gets what its row says, in its time, and the log names what it says",
        matrix.all_hold, matrix.unseen, "nothing goes wrong (with --against: another build's products): rows of each group fail",
    ),
    Bar(
        2, "slow-links", f"{len(survive_link.KINDS)} slow links: drips on 1, 8 and all of 64 connections, 300 kB/s for 26 and 256 requests, turns of 256 KiB (--only, --against)",
        f"a load takes at most {survive_link.FACTOR_MAX} times what the link allows, no error",
        survive_link.slow_links, survive_link.no_least_rate, "leastBytesPerSec 0 beside a drip, or the build that --against names beside all links",
    ),
    Bar(
        3, "strays-and-outages", f"one stray answer of each of {len(survive_outage.STRAYS)} kinds among {survive_outage.REQUESTS} requests; OSS away for {', '.join(map(str, survive_outage.OUTAGES))} s in start and load (--only, --against)",
        f"0 failed reads; the last byte at most {survive_outage.LATE_SECS_MAX} s after what the link needs, at most {survive_outage.LINES_MAX} log lines",
        survive_outage.strays_and_outages, survive_outage.control, "the stray answers stay, and deadlines of 60 s outlast a silence; or the build that --against names",
    ),
    Bar(
        4, "soak", f"{soak.SECS // 60} minutes of two MODEL_DIRs with programs of {len(versions.WAYS)} ways to read, sidecars, kills, stops, overwrites, expiry and {soak.FAULTS_SHARE:.0%} of wrong answers (--secs, --seed)",
        f"0 wrong bytes, 0 hangs; descriptors and memory at most {soak.GROWTH_MAX:.0%} above those after a tenth of the time; nothing left in run folders",
        soak.long_time, soak.control, "bytes change under one ETag, without a CRC",
    ),
    Bar(
        5, "survival-simulation", "seeded simulation with drips, stray answers, pauses, thin links, listings that hang and orders of service: 1,000,000 seeds (--seeds, --seed)",
        "no violation, every kind of fault reached",
        simulation.seeds, simulation.planted_in_survival,
        f"{len(simulation.PLANTS_OF_SURVIVAL)} bugs, planted one at a time, each to be caught within {simulation.SEEDS_PLANTED:,} seeds",
    ),
    Bar(
        6, "hostile-user", "what a hostile user of the same machine can try: spoofed sockets, planted run folders, garbage in the region and on the attach socket, setuid by ld.so.preload, others' memory, core dumps",
        "nothing gained, the engine lives, programs get right bytes or an error, and a new program is served",
        hostile.withstood, hostile.control, "as root, in a program without privileges, with a listener of the same user, and on the catalog",
    ),
]
