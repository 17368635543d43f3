"""What a contributor meets first: the documents name what exists, and the quick checks see what they are for."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from tests.harness import paths
from tests.harness.run import plain_env

DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", ".github/PULL_REQUEST_TEMPLATE.md")
CHECK = paths.ROOT / "ci" / "check"
# Words in code marks that look like paths of the project and are none.
ELSEWHERE = ("/", "target", "apt-get")


def call(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in argv], cwd=paths.ROOT, capture_output=True, text=True, env=plain_env(), check=False)


def marked(document: str) -> list[str]:
    """What stands in code marks, and the lines of blocks of commands."""
    text = (paths.ROOT / document).read_text()
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [*re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)), *(line for b in blocks for line in b.splitlines())]


def commands(document: str) -> list[list[str]]:
    return [words for text in marked(document) if (words := text.split("#")[0].split()) and re.match(r"(ci|dist)/[a-z]+$", words[0])]


class Documents(unittest.TestCase):
    def missing(self, names: list[str]) -> list[str]:
        files = call("git", "ls-files").stdout.split() + call("git", "ls-files", "--others", "--exclude-standard").stdout.split()
        known = {file.rsplit("/", 1)[-1] for file in files}
        looks = re.compile(r"[\w.-]+(/[\w.-]*)+|[\w-]+\.(rs|md|toml|py|yaml|txt)")
        found = [n for n in names if looks.fullmatch(n) and not n.startswith(ELSEWHERE)]
        return [n for n in found if not (paths.ROOT / n).exists() and n not in known]

    def test_files_that_are_named_exist(self) -> None:
        for document in DOCUMENTS:
            self.assertEqual(self.missing(marked(document)), [], document)
        self.assertEqual(self.missing(["net/none.rs", "none.rs", "net/kind.rs", "kind.rs"]), ["net/none.rs", "none.rs"])

    def test_links_lead_somewhere(self) -> None:
        for document in DOCUMENTS:
            for target in re.findall(r"\]\(([^)#]+)", (paths.ROOT / document).read_text()):
                if not target.startswith("https://"):
                    self.assertTrue((paths.ROOT / document).parent.joinpath(target).exists(), f"{document}: {target}")

    def test_commands_and_their_options_exist(self) -> None:
        named = {tuple(words) for document in DOCUMENTS for words in commands(document)}
        self.assertIn(("ci/test", "--only", "lint"), named)
        for words in named:
            self.assertTrue((paths.ROOT / words[0]).exists(), words)
            options = [word for word in words[1:] if word.startswith("-")]
            if options:
                shown = call(paths.ROOT / words[0], "--help").stdout
                for option in options:
                    self.assertRegex(shown, rf"(?<![\w-]){option}\b", " ".join(words))

    def test_bars_that_are_named_exist(self) -> None:
        listed = call("ci/bar", "--list").stdout
        for document in DOCUMENTS:
            for words in commands(document):
                if words[0] == "ci/bar" and len(words) > 2 and words[1].islower():
                    self.assertRegex(listed, rf"(?m)^{words[1]} {words[2]}  ", " ".join(words))

    def test_checks_that_are_named_exist(self) -> None:
        known = set(re.findall(r"(?m)^  (\w+)  +[a-z]", call(CHECK, "--help").stdout))
        named = {words[1] for document in DOCUMENTS for words in commands(document) if words[0] == "ci/check"}
        self.assertTrue(named)
        self.assertLessEqual(named, known)

    def test_crates_that_are_named_exist(self) -> None:
        metadata = json.loads(call("cargo", "metadata", "--offline", "--locked", "--no-deps", "--format-version", "1").stdout)
        known = {package["name"] for package in metadata["packages"]}
        named = {name for document in DOCUMENTS for text in marked(document) for name in re.findall(r"cargo test .*-p (\S+)", text)}
        self.assertTrue(named)
        self.assertLessEqual(named, known)


class Checks(unittest.TestCase):
    """Each quick check passes on what is right, and sees what is wrong."""

    def scratch(self, text: str) -> Path:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = Path(folder.name) / "text"
        file.write_text(text)
        return file

    def test_subjects(self) -> None:
        self.assertEqual(call(CHECK, "message", self.scratch("x" * 72 + "\n\n" + "y" * 200 + "\n")).returncode, 0)
        done = call(CHECK, "message", self.scratch("x" * 73 + "\n"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("73 characters", done.stdout)

    def test_spelling(self) -> None:
        right, wrong = "receive\n", "rec" + "ieve\n"
        self.assertEqual(call(CHECK, "spelling", self.scratch(right)).returncode, 0)
        done = call(CHECK, "spelling", self.scratch(wrong))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("receive", done.stdout)

    def test_an_unknown_check_is_refused(self) -> None:
        self.assertEqual(call(CHECK, "everything").returncode, 2)

    def test_hooks_call_what_exists(self) -> None:
        text = (paths.ROOT / ".pre-commit-config.yaml").read_text()
        entries = [line.split()[0] for line in re.findall(r"(?m)^ +entry: (.+)$", text)]
        self.assertEqual(len(entries), 4)
        for entry in entries:
            self.assertTrue(entry == "cargo" or (paths.ROOT / entry).exists(), entry)
        # A hook of another project would be fetched and run on each contributor's machine.
        self.assertEqual(re.findall(r"(?m)^ +- repo: (.+)$", text), ["local"])
