"""The bars of surviving: progress is what counts, one stray answer is nothing, and no stranger gets in."""

from tests.bars.bar import Bar
from tests.checks import hostile

BARS = [
    Bar(
        6, "hostile-user", "what a hostile user of the same machine can try: spoofed sockets, planted run folders, garbage in the region and on the attach socket, setuid by ld.so.preload, others' memory, core dumps",
        "nothing gained, the engine lives, programs get right bytes or an error, and a new program is served",
        hostile.withstood, hostile.control, "as root, in a program without privileges, with a listener of the same user, and on the catalog",
    ),
]
