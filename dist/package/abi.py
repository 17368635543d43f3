"""Reads a built library and command, and says where they are not what dist/abi.json promises.

Called by dist/build for what goes into the packages, and by the tests. Looks at the files
alone, with readelf: that they also run on an older system is for bar `ship 2`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.harness import paths

PROMISE = paths.ROOT / "dist" / "abi.json"
LIBRARY = "libossc_preload.so"


def promise() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PROMISE.read_text())
    return found


def readelf(file: Path, *options: str) -> str:
    return subprocess.run(
        ["readelf", "--wide", *options, str(file)], check=True, capture_output=True, text=True, env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
    ).stdout


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in version.split("."))


def glibc_versions(file: Path) -> dict[str, list[str]]:
    """Version of the C library -> the symbols that ask for it."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"UND (\S+?)@+GLIBC_([0-9.]+)", readelf(file, "--dyn-syms")):
        found.setdefault(version, []).append(name)
    return found


def glibc_max(file: Path) -> str:
    return max(glibc_versions(file), key=version_key, default="0")


def loose_symbols(file: Path) -> set[str]:
    """What the file asks for without a version: there or not, the loader says nothing."""
    return set(re.findall(r"(?:WEAK|GLOBAL)\s+DEFAULT\s+UND (\w+)$", readelf(file, "--dyn-syms"), re.MULTILINE))


def build_id(file: Path) -> str:
    found = re.search(r"Build ID: ([0-9a-f]+)", readelf(file, "--notes"))
    return found.group(1) if found else ""


def section_names(file: Path) -> set[str]:
    return set(re.findall(r"\]\s+(\.\S+)", readelf(file, "--sections")))


def mapping_problems(file: Path) -> list[str]:
    """What the loader would have to do to the process: writable code, an executable stack, late binding."""
    dynamic, segments = readelf(file, "--dynamic"), readelf(file, "--segments")
    found = []
    if "TEXTREL" in dynamic:
        found.append("has text relocations")
    stack = re.search(r"GNU_STACK.*", segments)
    if stack is None or " E" in stack.group(0) or "RWE" in stack.group(0):
        found.append("asks for an executable stack")
    if re.search(r"LOAD.*\bRWE\b", segments):
        found.append("has a segment that is writable and executable")
    if "GNU_RELRO" not in segments or not re.search(r"FLAGS.*\bBIND_NOW\b|FLAGS_1.*\bNOW\b", dynamic):
        found.append("is not wholly read-only after relocation (relro, now)")
    for word in ("RPATH", "RUNPATH"):
        if word in dynamic:
            found.append(f"has a {word}")
    if file.name == LIBRARY and "NODELETE" not in dynamic:
        found.append("may be unloaded: it is not linked with -z nodelete")
    return found


def link_problems(file: Path, promised: dict[str, Any], glibc: str) -> list[str]:
    """What the file asks of the system."""
    found = []
    for version, names in sorted(glibc_versions(file).items()):
        if version_key(version) > version_key(glibc):
            found.append(f"asks for GLIBC_{version}, above GLIBC_{glibc}: {', '.join(sorted(names)[:8])}")
    needed = re.findall(r"NEEDED.*\[(.*)\]", readelf(file, "--dynamic"))
    if sorted(needed) != sorted(promised["needed"]):
        found.append(f"needs {sorted(needed)}, not {sorted(promised['needed'])}")
    loose = loose_symbols(file)
    for name in sorted(loose - set(promised["optional"])):
        found.append(f"asks for {name} without a version")
    return found


def shipped_problems(file: Path, promised: dict[str, Any], debug: Path) -> list[str]:
    """What only a stripped file with its debug file beside the packages has."""
    found = []
    size = file.stat().st_size
    if size > promised["bytesMax"]:
        found.append(f"has {size} bytes, more than {promised['bytesMax']}")
    sections = section_names(file)
    # Rust's note to gdb is a part of the program that is loaded.
    for section in sorted(s for s in sections - {".debug_gdb_scripts"} if s == ".symtab" or s.startswith(".debug")):
        found.append(f"is not stripped: {section}")
    if not build_id(file):
        found.append("has no build id")
    if ".gnu_debuglink" not in sections:
        found.append("does not name its debug file")
    if not debug.exists() or build_id(debug) != build_id(file):
        found.append(f"is not the build of {debug.name}")
    elif ".debug_line" not in section_names(debug):
        found.append(f"has no line numbers in {debug.name}")
    return found


def export_problems(library: Path) -> list[str]:
    done = subprocess.run([str(paths.ROOT / "ci" / "exports"), str(library)], capture_output=True, text=True, check=False)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).strip().splitlines()


def problems(folder: Path, debug: Path | None) -> list[str]:
    """All that is wrong with the two files in a folder; `debug` has NAME.debug of each, None: not stripped."""
    found = []
    promised = promise()
    for name in promised["files"]:
        file = folder / name
        wrong = mapping_problems(file) + link_problems(file, promised["files"][name], promised["glibc"])
        if debug is not None:
            wrong += shipped_problems(file, promised["files"][name], debug / f"{name}.debug")
        if name == LIBRARY:
            wrong += export_problems(file)
        found += [f"{name} {w}" for w in wrong]
    return found


def main() -> int:
    folder, debug = Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None
    found = problems(folder, debug)
    for problem in found:
        print(f"abi: {problem}", file=sys.stderr)
    if not found:
        for name in promise()["files"]:
            print(f"abi: {name}: GLIBC_{glibc_max(folder / name)}, {(folder / name).stat().st_size} bytes")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
