"""Which crates are linked into the products, and what is known of each.

Called by the notices and the SBOM. Asks cargo only, offline, with the lock file as it is.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.harness import paths

TRIPLE = "x86_64-unknown-linux-gnu"
PRODUCTS = ("ossc", "ossc-preload")
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice|unlicense|copyright)", re.IGNORECASE)


@dataclass
class Crate:
    """One version of one package, as cargo resolved it."""

    name: str
    version: str
    licence: str
    repository: str
    folder: Path
    is_own: bool
    checksum: str = ""
    needs: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"

    def licence_files(self) -> list[Path]:
        return sorted(p for p in self.folder.iterdir() if p.is_file() and _LICENCE_FILE.match(p.name))


def cargo(*arguments: str) -> str:
    return subprocess.run(
        ["cargo", *arguments], cwd=paths.ROOT, check=True, capture_output=True, text=True
    ).stdout


def linked_keys() -> set[str]:
    """NAME@VERSION of what ends up in the products: no build scripts, procedural macros or tests."""
    tree = cargo(
        "tree", "--locked", "--offline", "--target", TRIPLE, "--edges", "normal,no-proc-macro", "--prefix", "none",
        *(f"--package={name}" for name in PRODUCTS),
    )
    return {f"{name}@{version}" for name, version in re.findall(r"^(\S+) v(\S+)", tree, re.MULTILINE)}


def checksums() -> dict[str, str]:
    """SHA-256 of each crate file, from Cargo.lock."""
    text = (paths.ROOT / "Cargo.lock").read_text()
    entry = re.compile(r'name = "(.+)"\nversion = "(.+)"\n(?:source = .*\n)?checksum = "([0-9a-f]{64})"')
    return {f"{name}@{version}": digest for name, version, digest in entry.findall(text)}


def linked() -> list[Crate]:
    """All crates in the products, by name."""
    metadata: dict[str, Any] = json.loads(
        cargo("metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform", TRIPLE)
    )
    keys, digests = linked_keys(), checksums()
    ids = {p["id"]: f"{p['name']}@{p['version']}" for p in metadata["packages"]}
    needs = {ids[node["id"]]: sorted({ids[d["pkg"]] for d in node["deps"]} & keys) for node in metadata["resolve"]["nodes"]}
    crates = [
        Crate(
            p["name"], p["version"], p["license"] or "", p["repository"] or "", Path(p["manifest_path"]).parent,
            p["source"] is None, digests.get(ids[p["id"]], ""), needs[ids[p["id"]]],
        )
        for p in metadata["packages"] if ids[p["id"]] in keys
    ]
    missing = keys - {c.key for c in crates}
    if missing:
        raise RuntimeError(f"cargo metadata does not know {sorted(missing)}")
    return sorted(crates, key=lambda c: (c.name, c.version))


def version() -> str:
    """The version of the workspace."""
    found = re.search(r'^\[workspace\.package\]\nversion = "(.+)"$', (paths.ROOT / "Cargo.toml").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("Cargo.toml names no version of the workspace")
    return found.group(1)


def toolchain() -> str:
    return subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]


def toolchain_documents() -> Path:
    """Where the toolchain keeps its licences."""
    root = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    return Path(root) / "share" / "doc" / "rust"


def zig_version() -> str:
    """The zig that links, as dist/requirements.txt pins it."""
    found = re.search(r"^ziglang==(.+)$", (paths.ROOT / "dist" / "requirements.txt").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError("dist/requirements.txt pins no ziglang")
    return found.group(1)
