"""Fault rules of the test endpoint (tests/endpoint/FAULTS.md), under the names that tests use.

Makes the JSON objects only; Endpoint writes them to its rule file.
"""

from __future__ import annotations

from typing import Any

Rule = dict[str, Any]


def rule(effect: dict[str, Any], key: str = "", times: int | None = None, kind: str = "get") -> Rule:
    """`key` is exact, or a prefix with a final `*`; `times` None means for ever."""
    match: dict[str, Any] = {"kind": kind}
    if key:
        match["key"] = key
    made: Rule = {"match": match, "do": effect}
    if times is not None:
        made["times"] = times
    return made


def flipped_byte(key: str, offset: int, times: int | None = None) -> Rule:
    """One byte at this offset of each answer's body is another."""
    return rule({"flip_byte": offset}, key, times)


def flipped_at(key: str, offset: int, times: int | None = None) -> Rule:
    """The byte at this offset of the object is another, in each answer that holds it, or in the first `times`."""
    made: Rule = {"match": {"kind": "get", "key": key, "covers": offset}, "do": {"flip_object_byte": offset}}
    if times is not None:
        made["times"] = times
    return made


def refused(status: int, code: str, key: str = "", times: int | None = None, kind: str = "get") -> Rule:
    return rule({"status": status, "code": code}, key, times, kind)


def cut(after: int, key: str = "", times: int | None = None) -> Rule:
    """The connection ends after so many bytes of the body."""
    return rule({"cut_after": after}, key, times)


def stalled(after: int, millis: int, key: str = "", times: int | None = None) -> Rule:
    """Nothing comes for a while after so many bytes of the body."""
    return rule({"stall_after": after, "ms": millis}, key, times)
