"""The bars of roles and sharing: one engine per node, one copy of each byte, and no process waits for a dead one."""

from tests.bars.bar import Bar
from tests.checks import heal, interleave, roles_memory, roles_ray, share

BARS = [
    Bar(
        1, "process-sharing", "8 processes (4 spawned, 4 forked) map and checksum a 2 GiB model at once from an endpoint of 0.2 GB/s",
        "each byte over the socket once; Pss of the memory files over all processes <= model + 2 %; <= 1.2 times one process",
        share.together, share.two_engines, "two of the programs have another CONNECTOR_UDS_PATH and MODEL_DIR, and so an engine of their own",
    ),
    Bar(
        2, "kill-recovery", "engine, primary or a reader is killed during a load with 3 clients, at every stage (--runs, --seed)",
        "0 wrong bytes, 0 waits over 10 s, complete wherever a client may start an engine, else EIO within 5 s",
        heal.survive, heal.control, "a changed byte whose check value is gone, and an engine that is stopped",
    ),
    Bar(
        3, "memory-release", "expireTimeSec 2: memory after the last close, and after a reader was killed",
        "within 64 MiB of before 4 s later; the next load is right",
        share.released, share.never_released, "expireTimeSec -1",
    ),
    Bar(
        4, "memory-limit", "1 GiB of memory, as a cgroup and as memoryLimit, and a model of 4 GiB: readers in order, at random and 8 at once",
        "right bytes, no kill, peak under 1 GiB; a map of what cannot fit is ENOMEM within 1 s, with a log line",
        roles_memory.within, roles_memory.beyond, "a memoryLimit of twice that",
    ),
    Bar(
        5, "ray", "`ray start --head`, with --block, and two nodes as two primaries: a task and an actor read by map and read",
        "right bytes, each over the socket once, one engine a node; nothing of ours lingerSec + 2 s after `ray stop`",
        roles_ray.shared, roles_ray.twice, "the workers have another CONNECTOR_UDS_PATH",
    ),
    Bar(
        6, "model-check", "part states, waiters, demand, events and give-up under a checker of schedules and of memory orders; a death at every step",
        "no violation in any schedule; after a death at any step all others go on; every planted bug is found",
        interleave.checked, interleave.planted, "a bug planted in each: lost wake, double owner, early publish, no fence, no second look",
    ),
]
