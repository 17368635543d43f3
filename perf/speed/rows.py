"""What is measured: each row is one way to bring the object from the server to this machine's memory.

A row is a command in a process of its own. The project's own rows and Python clients print a JSON line of what
the transfer itself took; for other programs the whole process counts.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from perf.speed import server
from tests.harness import paths

MIB = 1024 * 1024
PART = 8 * MIB
PEERS = paths.CACHE / "venv-peers" / "bin"
APPS = Path(__file__).parent / "apps"
MEMORIES = ("scratch", "tmpfs-huge", "memfd")


@dataclass(frozen=True)
class Place:
    """Where and how a row runs."""

    url: str
    # The same object by https, and what to trust for it.
    secure_url: str
    ca: Path
    port: int
    size: int
    connections: int
    # An empty folder on tmpfs, for programs that write files.
    out: Path
    # A folder for configuration files.
    run: Path


@dataclass(frozen=True)
class Row:
    """`command` gives arguments and environment; None where the row cannot be had here (`why`)."""

    name: str
    group: str
    command: Callable[[Place], tuple[list[str], dict[str, str]]]
    # It prints its own figures.
    prints: bool = True
    # Kind of memory, for the ratio to the floor of the same; and what is warmed before.
    memory: str = ""
    why: str = ""
    # True where the bytes lie in `out` afterwards.
    writes: bool = False


def own(*words: str, memory: str, https: bool = False) -> Callable[[Place], tuple[list[str], dict[str, str]]]:
    def command(place: Place) -> tuple[list[str], dict[str, str]]:
        argv = [str(paths.PERF), *words, "--json", "--memory", memory]
        argv += ["--url", place.secure_url, "--ca", str(place.ca)] if https else ["--url", place.url]
        return [*argv, "--size", str(place.size), "--connections", str(place.connections)], {}

    return command


def receive_rows(memories: tuple[str, ...] = MEMORIES) -> list[Row]:
    """Floors, and the engine with both drivers."""
    rows = []
    for memory in memories:
        rows.append(Row(f"floor {memory}", "receive", own("floor", memory=memory), memory=memory))
        if memory != "scratch":
            rows.append(Row(f"splice floor {memory}", "receive", own("floor", "--splice", memory=memory), memory=memory))
        for driver in ("uring", "epoll"):
            for crc in ("no-crc", "crc"):
                words = ["engine", "--populate", "--driver", driver, *(["--crc"] if crc == "crc" else [])]
                rows.append(Row(f"engine {driver} {crc} {memory}", "receive", own(*words, memory=memory), memory=memory))
                if memory != "scratch":
                    spliced = own(*words, "--splice", memory=memory)
                    rows.append(Row(f"engine {driver} {crc} {memory} splice", "receive", spliced, memory=memory))
    return rows


def https_rows(memories: tuple[str, ...] = MEMORIES) -> list[Row]:
    """The floors of https in several shapes, and the engine with both drivers. The floor with AES-GCM receives
    by http and runs the cipher over what came, so it has nothing of TLS but its work that cannot be saved.
    """
    rows = []
    for memory in memories:
        rows.append(Row(f"floor-tls {memory}", "https", own("floor-tls", memory=memory, https=True), memory=memory))
        rows.append(Row(f"floor and AES-GCM {memory}", "https", own("floor", "--aead", memory=memory), memory=memory))
        for driver in ("uring", "epoll"):
            for crc in ("no-crc", "crc"):
                words = ["engine", "--populate", "--driver", driver, *(["--crc"] if crc == "crc" else [])]
                rows.append(Row(f"engine {driver} {crc} {memory} https", "https", own(*words, memory=memory, https=True), memory=memory))
        for shape, words in (("own records", ["--api", "own", "--input", "524288"]), ("small", ["--input", "32768"])):
            rows.append(Row(f"floor-tls {shape} {memory}", "https", own("floor-tls", *words, memory=memory, https=True), memory=memory))
    return rows


def python(app: str, *words: Callable[[Place], str]) -> Callable[[Place], tuple[list[str], dict[str, str]]]:
    return lambda place: ([str(PEERS / "python3"), str(APPS / app), *(word(place) for word in words)], {"PYTHONPATH": str(APPS)})


def base(place: Place) -> str:
    return f"http://127.0.0.1:{place.port}"


def curl(place: Place) -> tuple[list[str], dict[str, str]]:
    config = place.run / "curl.conf"
    pieces = []
    for start in range(0, place.size, PART):
        end = min(start + PART, place.size) - 1
        pieces.append(f'url = "{place.url}"\nrange = "{start}-{end}"\noutput = "{place.out}/{start}"\n')
    config.write_text("next\n".join(pieces))
    return ["curl", "-s", "--parallel", "--parallel-max", str(place.connections), "--parallel-immediate", "-K", str(config)], {}


def s5cmd(place: Place) -> tuple[list[str], dict[str, str]]:
    argv = [str(PEERS / "s5cmd"), "--no-sign-request", "--endpoint-url", base(place), "cp", "--concurrency", str(place.connections)]
    return [*argv, "--part-size", "8", f"s3://{server.BUCKET}/{server.KEY}", f"{place.out}/object"], {"AWS_REGION": "us-east-1"}


def rclone(place: Place) -> tuple[list[str], dict[str, str]]:
    argv = [
        "rclone", "--config", "/dev/null", "copyto", f":s3:{server.BUCKET}/{server.KEY}", f"{place.out}/object",
        "--s3-provider", "Other", "--s3-endpoint", base(place), "--s3-access-key-id", "x", "--s3-secret-access-key", "y",
        "--s3-force-path-style", "--s3-no-check-bucket", "--multi-thread-cutoff", "8M",
        "--multi-thread-streams", str(place.connections), "--ignore-checksum",
    ]
    return argv, {}


def osstorch(place: Place) -> tuple[list[str], dict[str, str]]:
    """It knows virtual hosts only: in a mount namespace of its own the bucket's name leads to loopback."""
    credentials, settings, hosts = place.run / "credentials.json", place.run / "settings.json", place.run / "hosts"
    prefetch = {"vcpus": 1, "workers": place.connections}
    settings.write_text(json.dumps({"logLevel": 3, "logPath": f"{place.run}/osstorch.log", "auditPath": f"{place.run}/osstorch.audit", "prefetch": prefetch}))
    credentials.write_text(json.dumps({"AccessKeyId": "x", "AccessKeySecret": "y"}))
    hosts.write_text(f"127.0.0.1 localhost {server.DOMAIN} {server.BUCKET}.{server.DOMAIN}\n")
    app = [str(PEERS / "python3"), str(APPS / "osstorch_get.py"), f"http://{server.DOMAIN}:{place.port}", server.BUCKET, server.KEY, str(place.size), str(credentials), str(settings)]
    script = f'mount --bind {hosts} /etc/hosts && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh", *app], {"PYTHONPATH": str(APPS)}


def runai_env(url: str, connections: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": url, "RUNAI_STREAMER_S3_ENDPOINT": url, "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
        "RUNAI_STREAMER_CONCURRENCY": str(connections), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "PYTHONPATH": str(APPS),
    }


def runai(place: Place) -> tuple[list[str], dict[str, str]]:
    argv = [str(PEERS / "python3"), str(APPS / "runai_load.py"), server.BUCKET, server.KEY]
    return argv, runai_env(base(place), place.connections)


def peer_rows() -> list[Row]:
    """Other clients, from PyPI and Debian; what is not installed is left out with a reason."""

    def needs(path: str | Path) -> str:
        found = shutil.which(str(path))
        return "" if found else f"{path} is not installed (ci/setup perf)"

    name, key, place_base = (lambda _: server.BUCKET), (lambda _: server.KEY), base
    connections = lambda place: str(place.connections)
    py = needs(PEERS / "python3")
    root = "" if os.getuid() == 0 else "needs root for a host name of its own"
    return [
        Row("osstorchconnector", "peer", osstorch, why=py or root),
        Row("obstore", "peer", python("obstore_get.py", place_base, name, key, lambda p: str(p.size), connections), why=py),
        Row("rclone", "peer", rclone, prints=False, writes=True, why=needs("rclone")),
        Row("curl --parallel", "peer", curl, prints=False, writes=True, why=needs("curl")),
        Row("s5cmd", "peer", s5cmd, prints=False, writes=True, why=needs(PEERS / "s5cmd")),
        Row("Run:ai Model Streamer", "peer", runai, why=py),
        Row("boto3", "peer", python("boto3_get.py", place_base, name, key, lambda p: f"{p.out}/object", connections), writes=True, why=py),
        Row("s3fs", "peer", python("s3fs_get.py", place_base, name, key), why=py),
    ]
