"""Bar about the golden vectors of sign/vectors: signer, independent verifier and checksums agree with them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.checks.build import copy_of_tree
from tests.harness import paths
from tests.harness.measure import Measure, from_problems
from tests.harness.run import plain_env

# Who reads which vectors, as arguments of `cargo test`, and the tests that must be among those that pass.
SUITES = (
    (["-p", "ossc-sign"], ("golden::open_vectors_agree_in_every_text", "golden::open_vectors_agree_in_path_and_query", "golden::anchors_agree")),
    (["-p", "oss-endpoint"], ("v1::tests::every_vector_is_accepted", "v4::tests::every_vector_is_accepted", "vectors_over_sockets")),
    (["-p", "ossc-net", "--lib", "crc"], ("crc::tests::plain_vectors_whole_and_in_pieces", "crc::tests::combine_vectors", "crc::tests::combine_over_zeros", "crc::tests::incremental_vectors")),
)
SIGNATURES = {"V1": r"\"authorization\": \"OSS [^\":]+:([A-Za-z0-9+/=]{28})\"", "V4": r"OSS4-HMAC-SHA256 Credential=[^\"]*Signature=([0-9a-f]{64})"}
EXPECTED = {"V1": 42, "V4": 43, "published": 6, "CRC": 18}


def cases(folder: Path) -> dict[str, int]:
    """How many cases of each kind the project carries."""
    signing = json.loads((folder / "open.json").read_text())
    crc = json.loads((folder / "crc64-open.json").read_text())
    return {
        "V1": sum(case["sig"] == "v1" for case in signing),
        "V4": sum(case["sig"] == "v4" for case in signing),
        "published": len(json.loads((folder / "anchors.json").read_text())),
        "CRC": sum(len(crc[kind]) for kind in ("plain", "combine", "combine_zeros", "incremental")),
    }


def run(root: Path, target: Path) -> tuple[int, list[str]]:
    """(tests passed, problems) of everything that reads the vectors of the tree at `root`."""
    passed, problems = 0, []
    for arguments, needed in SUITES:
        done = subprocess.run(
            ["cargo", "test", "--locked", "--no-fail-fast", *arguments],
            cwd=root, env={**plain_env(), "CARGO_TARGET_DIR": str(target)}, capture_output=True, text=True, check=False,
        )
        passed += sum(int(n) for n in re.findall(r"test result: \w+\. (\d+) passed", done.stdout))
        failed = re.findall(r"^test (\S+) \.\.\. FAILED$", done.stdout, re.MULTILINE)
        problems += [f"{arguments[1]}: {name} failed" for name in failed]
        problems += [f"{arguments[1]}: {name} did not pass" for name in needed if f"test {name} ... ok" not in done.stdout and name not in failed]
        if done.returncode != 0 and not failed:
            problems += done.stderr.splitlines()[-10:]
    return passed, problems


def all_pass() -> Measure:
    found = cases(paths.ROOT / "sign" / "vectors")
    passed, problems = run(paths.ROOT, paths.TARGET)
    if found != EXPECTED:
        problems.append(f"the vectors are {found}, not {EXPECTED}")
    return from_problems(", ".join(f"{count} {kind}" for kind, count in found.items()) + f" cases; {passed} tests passed", problems)


def wrong(version: str) -> Measure:
    """The same tests on a copy in which one character of one expected signature is another."""
    with copy_of_tree() as root:
        file = root / "sign" / "vectors" / "open.json"
        text = file.read_text()
        found = re.search(SIGNATURES[version], text)
        if found is None:
            return Measure(f"no {version} signature found to change", True)
        # A signature stands twice: in the header and alone.
        right = found[1]
        file.write_text(text.replace(right, ("a" if right[0] != "a" else "b") + right[1:]))
        passed, problems = run(root, paths.CACHE / "control")
    return from_problems(f"{passed} tests passed", problems)
