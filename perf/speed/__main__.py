"""The command line of ci/perf."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

from perf.speed import loads, rows, server, table
from perf.speed.measure import Run, in_turns
from tests.harness import paths


def cores() -> tuple[int, int]:
    """For the server and for the client."""
    allowed = sorted(os.sched_getaffinity(0))
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (allowed[0], allowed[0])


def report(options: argparse.Namespace) -> int:
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    at_server, at_client = cores()

    def named(all_rows: list[rows.Row]) -> list[rows.Row]:
        return [row for row in all_rows if not options.only or any(word in row.name for word in options.only)]

    http, https = named([*rows.receive_rows(), *rows.peer_rows()]), named(rows.https_rows())
    text = [f"# Speed report\n\n{options.size_mib} MiB, {options.rounds} rounds, server on core {at_server}, client on core {at_client}; median (smallest-largest), 1 GB = 10^9 bytes.\n"]
    runs: list[Run] = []
    with tempfile.TemporaryDirectory(prefix="ossc-speed-") as scratch, open(out / "runs.jsonl", "a") as lines:
        for connections in options.connections:
            with server.Nginx(server.make_object(options.size_mib), Path(scratch) / str(connections), at_server) as nginx:
                found, left_out = in_turns(http, nginx, connections, at_client, options.rounds)
                secure, secure_out = in_turns(https, nginx, connections, at_client, options.rounds)
            lines.writelines(run.line() + "\n" for run in [*found, *secure])
            if http:
                text.append(f"\n## Receiving one object, {connections} connections\n\n{table.markdown(found, left_out)}")
            if https:
                text.append(f"\n## By https, {connections} connections, beside the floor of https\n\n{table.markdown(secure, secure_out, 'floor-tls')}")
            runs = [*found, *secure] if not runs else runs
        if not options.only:
            for title, lines_of in loads.sections(options.rounds):
                text.append(f"\n## {title}\n\n{lines_of}\n")
    picture = out / f"speed.{options.picture}"
    try:
        table.plot(runs, picture)
    except ImportError as why:
        print(f"speed: no picture: {why} (ci/setup perf)", file=sys.stderr)
    (out / "report.md").write_text("".join(text))
    print("".join(text))
    print(f"speed: {out / 'report.md'}, {out / 'runs.jsonl'}, {picture}", file=sys.stderr)
    return 0


def medians(path: str) -> dict[tuple[str, int], tuple[float, float, int]]:
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for line in Path(path).read_text().splitlines():
        run = json.loads(line)
        if run.get("record") == "run":
            gb = run["bytes"] / 1e9
            found.setdefault((run["row"], run["connections"]), []).append((run["cpu_secs"] / gb, gb / run["wall_secs"]))
    return {
        key: (statistics.median(v[0] for v in values), statistics.median(v[1] for v in values), len(values))
        for key, values in found.items()
    }


def compare(options: argparse.Namespace) -> int:
    """Two files of runs: medians and their ratio, row by row."""
    old, new = medians(options.old), medians(options.new)
    print("| row | connections | CPU-s/GB old | new | new/old | GB/s old | new | new/old |\n|---|---|---|---|---|---|---|---|")
    for key in [key for key in old if key in new]:
        (cpu, speed, _), (cpu_new, speed_new, _) = old[key], new[key]
        print(f"| {key[0]} | {key[1]} | {cpu:.3f} | {cpu_new:.3f} | {cpu_new / cpu:.2f} | {speed:.2f} | {speed_new:.2f} | {speed_new / speed:.2f} |")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="ci/perf", description="Measures floors, the engine, other clients and whole loads on this machine.")
    commands = parser.add_subparsers(dest="command")
    one = commands.add_parser("report", help="everything on loopback, as table, JSON lines and picture (the default)")
    one.add_argument("--size-mib", type=int, default=1024, help="size of the object (1024)")
    one.add_argument("--rounds", type=int, default=5, help="runs of each row (5)")
    one.add_argument("--connections", type=int, nargs="+", default=[16, 64], help="connections at once (16 64)")
    one.add_argument("--only", nargs="+", help="rows whose name has one of these words, and no loads")
    one.add_argument("--picture", choices=["svg", "png"], default="svg", help="format of the picture (svg)")
    one.add_argument("--out", default=str(paths.CACHE / "perf"), help="folder of the results (target/perf)")
    two = commands.add_parser("ab", help="two files of JSON lines: what became faster and slower")
    two.add_argument("old")
    two.add_argument("new")
    three = commands.add_parser("endpoint", help="a real endpoint, named by the variables OSS_ENDPOINT, OSS_PATH, OSS_REGION and credentials: the two tables")
    three.add_argument("--rounds", type=int, default=3, help="loads (3)")
    options = parser.parse_args(sys.argv[1:] or ["report"])
    if options.command == "ab":
        return compare(options)
    paths.require_products()
    if options.command == "endpoint":
        return loads.real_endpoint(options.rounds)
    return report(options)


if __name__ == "__main__":
    sys.exit(main())
