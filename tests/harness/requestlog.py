"""The endpoint's request log: what crossed the socket, and whether it did so once.

Pure functions over parsed lines; reads no file and starts nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

PART_BYTES_MAX = 8 * 1024 * 1024


@dataclass(frozen=True)
class Request:
    """One line of the log. `start` and `end` are the half-open range asked for, or None."""

    time: float
    conn: int
    method: str
    bucket: str
    key: str
    query: str
    start: int | None
    end: int | None
    status: int
    code: str
    request_id: str
    bytes_sent: int


def parse_line(line: bytes) -> Request:
    entry = json.loads(line)
    asked = entry.get("range")
    return Request(
        time=float(entry.get("time") or 0),
        conn=int(entry.get("conn") or 0),
        method=str(entry.get("method") or ""),
        bucket=str(entry.get("bucket") or ""),
        key=str(entry.get("key") or ""),
        query=str(entry.get("query") or ""),
        start=None if asked is None else int(asked[0]),
        end=None if asked is None else int(asked[1]),
        status=int(entry.get("status") or 0),
        code=str(entry.get("code") or ""),
        request_id=str(entry.get("request_id") or ""),
        bytes_sent=int(entry.get("bytes_sent") or 0),
    )


def body_gets(requests: list[Request], prefix: str) -> list[Request]:
    """GETs of objects below the prefix that carried body bytes of the object."""
    return [
        r for r in requests
        if r.method == "GET" and r.key.startswith(prefix) and r.key != prefix and r.status in (200, 206)
    ]


def bytes_served(requests: list[Request], prefix: str) -> int:
    return sum(r.bytes_sent for r in body_gets(requests, prefix))


def part_bytes_max(requests: list[Request], prefix: str) -> int:
    return max((r.bytes_sent for r in body_gets(requests, prefix)), default=0)


def once_problems(requests: list[Request], sizes: dict[str, int]) -> list[str]:
    """Why it is not true that each byte of each object was served once in parts of at most 8 MiB.

    `sizes` maps whole keys to object sizes; empty objects need no request.
    """
    problems: list[str] = []
    gets: dict[str, list[Request]] = {key: [] for key in sizes}
    for request in body_gets(requests, ""):
        gets.setdefault(request.key, []).append(request)
    for key, served in sorted(gets.items()):
        size = sizes.get(key)
        if size is None:
            problems.append(f"{key}: served, but not expected")
            continue
        sent = sum(r.bytes_sent for r in served)
        if sent != size:
            problems.append(f"{key}: {sent} bytes on the socket, the object has {size}")
        position = 0
        for start, end in sorted((r.start or 0, size if r.end is None else r.end) for r in served):
            if start != position:
                kind = "again" if start < position else "never"
                problems.append(f"{key}: bytes {min(start, position)}-{max(start, position)} served {kind}")
            position = max(position, end)
            if end - start > PART_BYTES_MAX:
                problems.append(f"{key}: a part of {end - start} bytes")
        if served and position != size:
            problems.append(f"{key}: parts end at {position} of {size}")
    return problems
