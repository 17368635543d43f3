"""The documents as they are installed: each link leads to what is installed beside it, or is plain text.

Called by assemble and by the tests. Reads the project's documents; writes below the folder that it is given, nowhere else.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from tests.harness import paths

# Documents that are installed under their own names, and folders under others: (in the project, in the package).
FILES = ("README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md")
FOLDERS = (("docs", "docs"), ("dist/kubernetes", "kubernetes"), ("dist/monitoring", "monitoring"))
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def sources() -> list[str]:
    """What is installed, as paths in the project."""
    found = [*FILES]
    for folder, _ in FOLDERS:
        found += [str(file.relative_to(paths.ROOT)) for file in sorted((paths.ROOT / folder).rglob("*")) if file.is_file()]
    return found


def place(source: str) -> str | None:
    """Where a file of the project is installed below the package's folder of documents; None where it is not."""
    if source in FILES:
        return source
    for folder, installed in FOLDERS:
        if source == folder or source.startswith(f"{folder}/"):
            return installed + source.removeprefix(folder)
    return None


def installed(text: str, source: str) -> str:
    """The text of a document with the links that it has where it is installed."""
    own = place(source)
    assert own is not None, source

    def rewrite(link: re.Match[str]) -> str:
        image, words, target = link.groups()
        path, _, anchor = target.partition("#")
        if not path or ":" in path:
            return link.group(0)
        there = place(os.path.normpath(PurePosixPath(source).parent / path))
        if there is None:
            return words
        relative = os.path.relpath(there, PurePosixPath(own).parent)
        return f"{image}[{words}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(rewrite, text)


def lay_out(folder: Path) -> None:
    """Writes all of them below a folder."""
    for source in sources():
        own = place(source)
        assert own is not None
        target = folder / own
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.endswith(".md"):
            target.write_text(installed((paths.ROOT / source).read_text(), source))
        else:
            shutil.copyfile(paths.ROOT / source, target)
