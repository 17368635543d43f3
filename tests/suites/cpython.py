"""CPython's own tests (Debian's libpython3.11-testsuite), one process per module, results from its JUnit file."""

from __future__ import annotations

import xml.etree.ElementTree as xml

from tests.suites import FAIL, PASS, SKIP, Outcomes, Suite, Way

PYTHON = "python3.11"
MODULES = (
    "test_io test_fileio test_bufio test_mmap test_posix test_os test_largefile test_zipfile test_tarfile "
    "test_pathlib test_glob test_shutil test_stat test_file test_linecache test_subprocess test_selectors"
).split()


def outcome(case: xml.Element) -> str:
    for child in case:
        if child.tag in ("error", "failure"):
            text = (child.text or child.get("message") or "").strip().splitlines()
            return f"{FAIL} {text[-1] if text else child.tag}"[:300]
        if child.tag == "skipped":
            return f"{SKIP} {child.text or ''}"
    return PASS if case.get("result") == "completed" else f"{FAIL} {case.get('result')}"


def run(way: Way, module: str) -> Outcomes:
    report = way.work / "report.xml"
    temp = way.work / "tmp"
    temp.mkdir()
    way.env["TMPDIR"] = str(temp)
    done = way.call([PYTHON, "-m", "test", "--junit-xml", str(report), "--tempdir", str(temp), module])
    way.env.pop("TMPDIR")
    outcomes = {f"{module} as a whole": PASS if done.returncode == 0 else way.explain(done)}
    if not report.exists():
        return outcomes
    for case in xml.parse(report).getroot().iter("testcase"):
        name = (case.get("name") or "").removeprefix("test.")
        if not name:
            # The runner's own entry for a module that failed: see "as a whole".
            continue
        # Some modules run one name several times; each run counts.
        count = sum(other == name or other.startswith(f"{name} #") for other in outcomes)
        outcomes[f"{name} #{count + 1}" if count else name] = outcome(case)
    return outcomes


SUITE = Suite(
    "CPython", MODULES, run,
    short="test_fileio test_bufio test_mmap test_stat test_glob test_file test_linecache".split(),
    writes=True,
)
