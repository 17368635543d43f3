"""The bars of the main job: a real model loads, once, unchanged, and nothing else is disturbed."""

from tests.bars.bar import Bar
from tests.checks import build, chain, host, load, vectors

BARS = [
    Bar(
        1, "readme-commands", "both README commands work in a fresh clone with empty build caches",
        "both end with 0, each within 15 minutes",
        build.fresh_clone, build.wrong_byte_demo, "the demo is served one wrong byte",
    ),
    Bar(
        2, "v4-vectors", "all V4 vectors pass, canonical request and string to sign included, in signer and endpoint",
        "every test passes",
        vectors.all_pass, lambda: vectors.wrong("V4"), "one hex digit of one expected signature is changed",
    ),
    Bar(
        3, "shared-load", "four programs load the 1 GiB model at once: each byte crosses the socket once, on both drivers",
        "1.000000 bytes per byte, disjoint parts of at most 8 MiB, one engine, equal tensors",
        load.once, load.twice, "one of the four has an engine of its own",
    ),
    Bar(
        4, "inert", "without ENABLE_CONNECTOR programs behave as without the library",
        "same output, status and files, no new thread or descriptor, no request",
        host.inert, host.inert_control, "ENABLE_CONNECTOR=1 without OSS_PATH",
    ),
    Bar(
        5, "start-errors", "a wrong start gives one clear line and changes nothing",
        "one line on stderr, status not 0, at most 5 s, MODEL_DIR unchanged",
        host.start_errors, host.start_control, "a start with nothing wrong",
    ),
    Bar(
        6, "static-binary", "a static binary that reads a placeholder gets end-of-file, not zeros",
        "0 bytes for each file",
        host.static_read, host.static_control, "a sparse file of the right size in place of a placeholder",
    ),
    Bar(
        7, "launchers", "started through env, sh, a script or a version manager: one engine, each byte once, gone after its clients",
        "equal tensors, 1 engine, 1 time on the socket, gone within lingerSec + 2 s, also after SIGKILL",
        chain.starts, chain.starts_control, "LD_PRELOAD is dropped on the way",
    ),
    Bar(
        8, "process-levels", "three levels (shell, Python, multiprocessing spawn) map the files with numpy",
        "every file equals the original, one engine",
        chain.three_levels, chain.three_levels_control, "the innermost processes run without the library",
    ),
]
