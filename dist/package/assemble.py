"""Makes the packages of the products that dist/build has compiled.

Called by dist/build: `python3 -m dist.package.assemble COMPILED OUT`. Splits the debug information off,
checks the ABI, lays all files out below OUT/stage (man pages and completions are what the packaged `ossc` writes),
has nfpm write both packages (dist/nfpm.yaml) and sums everything up. Every time in the result is SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from dist.package import abi, crates, documents, notices, sbom
from tests.harness import paths

NAME = "oss-connector-lib"
DIST = paths.ROOT / "dist"
FORMATS = ("deb", "rpm")
# What is taken as it is: (in the project, in the stage).
COPIED = [
    ("dist/config.json", "config.json"),
    ("dist/logrotate", "logrotate"),
    ("dist/after-removal.sh", "after-removal.sh"),
    ("dist/copyright", "doc/copyright"),
]


def run(*argv: str | Path) -> None:
    subprocess.run([str(a) for a in argv], cwd=paths.ROOT, check=True)


def split_debug(compiled: Path, products: Path, debug: Path) -> None:
    """NAME without, and NAME.debug with the debug information; each names the other."""
    for folder in (products, debug):
        folder.mkdir(parents=True)
    for name in abi.promise()["files"]:
        symbols = debug / f"{name}.debug"
        run("objcopy", "--only-keep-debug", compiled / name, symbols)
        run("objcopy", "--strip-all", "--remove-section=.comment", f"--add-gnu-debuglink={symbols}", compiled / name, products / name)


def check_abi(products: Path, debug: Path) -> None:
    found = abi.problems(products, debug)
    if found:
        sys.exit("dist/build: the products are not what dist/abi.json promises:\n  " + "\n  ".join(found))


def changelog(epoch: int) -> str:
    """What nfpm turns into the packages' own change logs."""
    when = datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    note = f"Version {crates.version()}: see /usr/share/doc/{NAME}/CHANGELOG.md"
    maintainer = re.search(r"^maintainer: (.+)$", (DIST / "nfpm.yaml").read_text(), re.MULTILINE)
    assert maintainer is not None
    return (
        f"- semver: {crates.version()}-1\n  date: {when}\n  packager: {maintainer.group(1)}\n"
        f"  deb:\n    urgency: medium\n    distributions: [stable]\n  changes:\n    - note: \"{note}\"\n"
    )


def lay_out_pages(ossc: Path, stage: Path) -> None:
    """Man pages, compressed as both kinds of packages want them, and completions under the names that shells look for."""
    man, completions = stage / "man", stage / "completions"
    for folder in (man, completions):
        folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        run(ossc, "pages", scratch)
        for page in sorted(Path(scratch).glob("*.1")):
            (man / f"{page.name}.gz").write_bytes(gzip.compress(page.read_bytes(), 9, mtime=0))
        for made, name in (("ossc.bash", "ossc"), ("_ossc", "_ossc"), ("ossc.fish", "ossc.fish")):
            shutil.copyfile(Path(scratch) / made, completions / name)


def lay_out(stage: Path, ossc: Path, epoch: int) -> None:
    linked = crates.linked()
    for source, target in COPIED:
        (stage / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(paths.ROOT / source, stage / target)
    documents.lay_out(stage / "doc")
    shutil.copyfile(DIST / "lintian-overrides", stage / "lintian-overrides")
    (stage / "doc" / "THIRD-PARTY-LICENSES.txt").write_text(notices.text(linked))
    shutil.copyfile(notices.standard_library(), stage / "doc" / notices.standard_library().name)
    (stage / "doc" / "sbom.cdx.json").write_text(sbom.text(linked))
    (stage / "changelog.yaml").write_text(changelog(epoch))
    lay_out_pages(ossc, stage)


def settle(folder: Path, epoch: int) -> None:
    """One time and plain permissions for everything that goes into an archive."""
    for path in sorted(folder.rglob("*")):
        # The completion for bash is named as the program is.
        is_program = path.name == "after-removal.sh" or path.parts[-2:] == ("products", "ossc")
        path.chmod(0o755 if path.is_dir() or is_program else 0o644)
        os.utime(path, (epoch, epoch))


def debug_archive(debug: Path, target: Path, epoch: int) -> None:
    """The debug files where debuggers look for them by build id, once this is unpacked in the root folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in sorted(debug.iterdir()):
            build_id = abi.build_id(file)
            member = tarfile.TarInfo(f"usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug")
            member.size, member.mtime, member.mode = file.stat().st_size, epoch, 0o644
            with open(file, "rb") as content:
                archive.addfile(member, content)
    target.write_bytes(lzma.compress(buffer.getvalue(), preset=6))


def nfpm() -> str:
    return str(paths.CACHE / "venv-package" / "bin" / "nfpm")


def package(
    out: Path, version: str, kinds: tuple[str, ...] = FORMATS, description: Path = DIST / "nfpm.yaml",
) -> list[Path]:
    """The packages of OUT/products and OUT/stage, beside them."""
    env = {**os.environ, "VERSION": version}
    made = []
    for kind in kinds:
        target = out / f"{NAME}-{version}.x86_64.{kind}"
        subprocess.run(
            [nfpm(), "package", "--config", str(description), "--packager", kind, "--target", str(target)],
            cwd=out, env=env, check=True, stdout=subprocess.DEVNULL,
        )
        made.append(target)
    return made


def main() -> None:
    compiled, out = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    epoch, version = int(os.environ["SOURCE_DATE_EPOCH"]), crates.version()
    shutil.rmtree(out, ignore_errors=True)
    stage = out / "stage"
    stage.mkdir(parents=True)
    split_debug(compiled, out / "products", out / "debug")
    check_abi(out / "products", out / "debug")
    lay_out(stage, out / "products" / "ossc", epoch)
    for folder in (stage, out / "products"):
        settle(folder, epoch)
    made = package(out, version)
    archive = out / f"{NAME}-{version}.x86_64.debug.tar.xz"
    debug_archive(out / "debug", archive, epoch)
    made.append(archive)
    sums = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in made]
    (out / "SHA256SUMS").write_text("".join(sums))
    for name in abi.promise()["files"]:
        product = out / "products" / name
        print(f"{product.relative_to(paths.ROOT)}: {product.stat().st_size} bytes, GLIBC_{abi.glibc_max(product)}")
    for path in made:
        print(f"{path.relative_to(paths.ROOT)}: {path.stat().st_size} bytes")
    print("".join(sums), end="")


if __name__ == "__main__":
    main()
