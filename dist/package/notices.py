"""The licence texts of everything that is linked into the products, as one document.

Called by assemble. Fails when a crate has neither a licence file nor a licence whose text is at hand.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from dist.package import crates
from dist.package.crates import Crate

RULE = "=" * 100


class NoText(RuntimeError):
    """A crate without a licence text."""


def texts_of(crate: Crate) -> list[tuple[str, str]]:
    """(file name, text) of a crate's own licence files, or else the usual text of one of its licences."""
    found = [(p.name, p.read_text(errors="replace").strip()) for p in crate.licence_files()]
    if found:
        return found
    for name in crate.licence.replace("/", " OR ").split(" OR "):
        usual = crates.toolchain_documents() / "licenses" / f"{name.strip()}.txt"
        if usual.exists():
            return [(f"{name.strip()} (the crate carries no text of its own)", usual.read_text().strip())]
    raise NoText(f"{crate.key} ({crate.licence or 'no licence named'}) has no licence text")


def zig_texts() -> tuple[str, str]:
    """What stands over zig's licence, and the licence. Only the environment that dist/build uses has it."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise NoText("ziglang is not installed: run ci/setup package")
    licence = Path(spec.origin).parent / "LICENSE"
    return f"zig {crates.zig_version()}: parts of its compiler-rt (MIT)", licence.read_text().strip()


def standard_library() -> Path:
    """The licences of Rust's standard library and what it contains, as the toolchain brings them."""
    document = crates.toolchain_documents() / "COPYRIGHT-library.html"
    if not document.exists():
        raise NoText(f"{document} is missing: this toolchain does not say what its standard library contains")
    return document


def text(linked: list[Crate]) -> str:
    """Every distinct text once, under the crates that have it."""
    users: dict[str, list[str]] = {}
    for crate in linked:
        if not crate.is_own:
            for file, body in texts_of(crate):
                users.setdefault(body, []).append(f"{crate.name} {crate.version} ({crate.licence}): {file}")
    title, body = zig_texts()
    users.setdefault(body, []).append(title)
    head = (
        "libossc_preload.so and ossc contain the following software under the following licences. Rust's standard\n"
        f"library is in {standard_library().name}, beside this file.\n"
    )
    parts = ["\n".join([RULE, *names, RULE, "", body, ""]) for body, names in users.items()]
    return head + "\n" + "\n".join(parts)
