"""Keeps the tree in order: imports, lengths, words, dead files, documented commands. Reads the files that git knows; builds
and runs nothing. Each rule is a function of a tree (path -> text), so that a control plants a fault in a copy of it.

Ratchets hold what was there when the rule came. Their numbers may fall, never grow."""

from __future__ import annotations

import ast
import collections
import re
import subprocess
import unittest
from pathlib import Path, PurePosixPath

from tests.bars import catalog
from tests.harness import paths

Tree = dict[str, str]
# What others wrote, and what a fuzzer found.
FOREIGN = ("tests/fuzz/corpus/", "tests/fuzz/seeds/", "sign/vectors/", "LICENSE", "Cargo.lock")
# Crate -> crates of this workspace that it may use.
CRATES: dict[str, set[str]] = {
    "sign": set(), "cache": set(), "src/conf": {"sign"},
    # What only the engine keeps; the library cannot reach it.
    "cache/store": {"cache"},
    "net": {"sign"},
    "src/preload": {"cache"},
    "src/ossc": {"cache", "conf", "net", "sign", "store"},
    "perf": {"cache", "net", "store"},
    "tests/endpoint": set(),
    "tests/sim": {"ossc", "cache", "net", "store"},
}
# Folder of Python -> folders that it may import beside itself; tests/e2e may import all of them.
LAYERS: dict[str, set[str]] = {
    "tests/harness": set(),
    "dist/package": {"tests/harness"},
    "perf/speed": {"tests/harness"},
    "perf/bars": {"perf/speed", "tests/harness"},
    "tests/suites": {"tests/harness"},
    "tests/checks": {"dist/package", "tests/harness"},
    "tests/bars": {"perf/bars", "perf/speed", "tests/checks", "tests/harness", "tests/suites"},
}
# Pairs of rooms of src/ossc that import each other, directly or by way of others.
CIRCLES_MAX = 0
FUNCTION_LINES, FILE_LINES = 70, 800
LONG_FUNCTIONS = {
    "engine.rs: start": 91, "flight_tests.rs: in_any_order_each_part_ends_once": 79, "mirror.rs: make": 83,
    "world.rs: new": 102,
}
LONG_FILES: dict[str, int] = {}
# The actor has a name: the engine, the reader, the connection.
BANNED = re.compile(r"\b(somebody|nobody|someone|anybody|whoever|whomever|everybody)\b", re.IGNORECASE)
BANNED_MAX = {"cache": 77, "dist": 5, "docs": 1, "net": 38, "perf": 5, "sign": 4, "src": 115, "tests": 33}

# One meaning per name: how often Rust may define a function or a type of this name. 0: a name that the tree has given up.
# `take` is what the standard library means by it: gives what is there and leaves nothing.
DEFINITIONS_MAX = {
    "ask": 0, "take": 1, "hold": 0, "keep": 0, "lie_down": 0,
    "Options": 0, "Kind": 0, "Place": 0, "Spare": 0, "Bed": 0, "Bell": 0, "Growth": 0, "Held": 0, "Hold": 0, "Kept": 0, "Room": 0, "Word": 0,
}
# Of any other name of a type; those that had more when the rule came.
TYPES_MAX = 3
OFTEN = {"Entry": 9, "Args": 9, "Folder": 7, "State": 6, "Line": 5, "Seen": 4, "Answer": 4, "Step": 4, "Rig": 4}

# Files that a pattern finds: pytest, `ci/setup PART`, the folder of examples that tests/endpoint/FAULTS.md names.
FOUND = re.compile(r"tests/e2e/test_\w+\.py|ci/requirements-\w+\.txt|tests/endpoint/shapes/\w+\.json")


def read_tree() -> Tree:
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=paths.ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name and not name.startswith(FOREIGN)]
    return {name: (paths.ROOT / name).read_text(errors="replace") for name in names if (paths.ROOT / name).is_file()}


def own(name: str, text: str) -> str:
    """Rust without its tests."""
    return "" if re.search(r"_tests?\.rs$|/tests?/|/tests?\.rs$", name) else text.split("#[cfg(test)]\nmod tests {")[0]


def crate_problems(tree: Tree) -> list[str]:
    found = []
    for name, text in tree.items():
        folder = str(PurePosixPath(name).parent)
        if PurePosixPath(name).name != "Cargo.toml" or folder in (".", "tests/fuzz"):
            continue
        sections = re.split(r"^\[(.*)\]$", text, flags=re.MULTILINE)
        tables = dict(zip(sections[1::2], sections[2::2]))
        used = {word.removeprefix("ossc-") for word in re.findall(r"^(ossc(?:-\w+)?)\b", tables.get("dependencies", ""), re.MULTILINE)}
        if folder not in CRATES:
            found.append(f"{folder}: a crate without a row in CRATES")
        found += [f"{name}: {folder} may not use {word}" for word in sorted(used - CRATES.get(folder, used))]
    return found


def layer_problems(tree: Tree) -> list[str]:
    found = []
    for name, text in tree.items():
        folder = str(PurePosixPath(name).parent)
        if name.startswith("ci/") and name.endswith(".py"):
            found.append(f"{name}: ci/ only calls")
        if name.endswith(".py") and folder in LAYERS:
            used = {"/".join(words) for words in re.findall(r"^\s*(?:from|import) (tests|perf|dist)\.(\w+)", text, re.MULTILINE)}
            found += [f"{name}: {folder} may not import {other}" for other in sorted(used - LAYERS[folder] - {folder})]
    return found


def room_circles(tree: Tree) -> list[str]:
    """Pairs of rooms of src/ossc, a file or folder of its top, that reach each other by imports."""
    arrows: dict[str, set[str]] = collections.defaultdict(set)
    for name, text in tree.items():
        parts = PurePosixPath(name).parts
        if parts[:2] == ("src", "ossc") and name.endswith(".rs") and parts[2] not in ("lib.rs", "main.rs"):
            room = parts[2].removesuffix(".rs")
            code = re.sub(r"//.*", "", own(name, text))
            arrows[room] |= {word for word in re.findall(r"\bcrate::(\w+)", code) if word != room}
            for group in re.findall(r"\bcrate::\{([^;]*)\};", code):
                arrows[room] |= {word for word in re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)) if word != room}

    def reach(room: str) -> set[str]:
        seen: set[str] = set()
        todo = [room]
        while todo:
            for after in arrows.get(todo.pop(), set()) - seen:
                seen.add(after)
                todo.append(after)
        return seen

    reached = {room: reach(room) for room in list(arrows)}
    return sorted(f"{one} <-> {two}" for one in reached for two in reached if one < two and two in reached[one] and one in reached[two])


def circle_problems(tree: Tree) -> list[str]:
    pairs = room_circles(tree)
    return [f"{len(pairs)} pairs of rooms reach each other, {CIRCLES_MAX} are allowed: {pairs}"] if len(pairs) > CIRCLES_MAX else []


def functions(name: str, text: str) -> list[tuple[str, int]]:
    """Functions with their lines; Rust is laid out by rustfmt, which ends each where its line began."""
    if name.endswith(".py"):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [(n.name, (n.end_lineno or n.lineno) - n.lineno + 1) for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]
    found, lines = [], text.split("\n")
    for at, line in enumerate(lines):
        begin = re.match(r"( *)(?:pub(?:\([^)]*\))? |const |unsafe |async |extern \"C\" )*fn (\w+)", line)
        if begin and not line.rstrip().endswith((";", "}")):
            end = next((n for n in range(at + 1, len(lines)) if lines[n].startswith(begin[1] + "}") or lines[n] == begin[1] + ";"), at)
            found.append((begin[2], end - at + 1))
    return found


def long_functions(tree: Tree) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, text in tree.items():
        if name.endswith((".py", ".rs")):
            for function, count in functions(name, text):
                if count > FUNCTION_LINES:
                    key = f"{PurePosixPath(name).name}: {function}"
                    found[key] = max(count, found.get(key, 0))
    return found


def long_files(tree: Tree) -> dict[str, int]:
    counts = {PurePosixPath(name).name: own(name, text).count("\n") for name, text in tree.items() if name.endswith((".py", ".rs"))}
    return {name: count for name, count in counts.items() if count > FILE_LINES}


def length_problems(tree: Tree) -> list[str]:
    found = []
    for what, limit, now, old in (("function", FUNCTION_LINES, long_functions(tree), LONG_FUNCTIONS), ("file", FILE_LINES, long_files(tree), LONG_FILES)):
        found += [f"{what} {name}: {count} lines, {old.get(name, limit)} are allowed" for name, count in now.items() if count > old.get(name, limit)]
    return found


def said(name: str, text: str) -> str:
    """What people read: documents, comments, docstrings."""
    if name.endswith(".md"):
        return text
    if name.endswith((".rs", ".c", ".h", ".go")):
        return "\n".join(re.findall(r"//.*", text))
    if name.endswith(".py"):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        docs = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        return "\n".join([*docs, *re.findall(r"(?:^|\s)# .*", text)])
    return "\n".join(re.findall(r"(?:^|\s)# .*", text))


def banned(tree: Tree) -> dict[str, int]:
    count: collections.Counter[str] = collections.Counter()
    for name, text in tree.items():
        count[name.split("/")[0]] += len(BANNED.findall(said(name, text)))
    return {folder: n for folder, n in count.items() if n}


def word_problems(tree: Tree) -> list[str]:
    return [f"{folder}: {n} banned words, {BANNED_MAX.get(folder, 0)} are allowed" for folder, n in banned(tree).items() if n > BANNED_MAX.get(folder, 0)]


def definitions(tree: Tree) -> tuple[collections.Counter[str], collections.Counter[str]]:
    """How often Rust defines each function and each type."""
    functions_of, types_of = collections.Counter[str](), collections.Counter[str]()
    for name, text in tree.items():
        if name.endswith(".rs"):
            code = re.sub(r"//.*", "", text)
            functions_of.update(re.findall(r"\bfn (\w+)", code))
            types_of.update(re.findall(r"^ *(?:pub(?:\([^)]*\))? )?(?:unsafe )?(?:struct|enum|union|trait) (\w+)", code, re.MULTILINE))
    return functions_of, types_of


def meaning_problems(tree: Tree) -> list[str]:
    functions_of, types_of = definitions(tree)
    allowed = {name: DEFINITIONS_MAX.get(name, OFTEN.get(name, TYPES_MAX)) for name in types_of}
    found = [f"{name}: {n} types of this name, {allowed[name]} are allowed" for name, n in types_of.items() if n > allowed[name]]
    return found + [f"{name}: {functions_of[name]} functions of this name, {most} are allowed" for name, most in DEFINITIONS_MAX.items() if functions_of[name] > most]


def dead_problems(tree: Tree) -> list[str]:
    """Files of ci/, tests/, perf/ and dist/ that no other file names and no pattern finds."""
    found, everything = [], collections.Counter[str]()
    words = {name: set(re.findall(r"[\w.-]+", text)) for name, text in tree.items()}
    for each in words.values():
        everything.update(each | {part for word in each for part in word.split(".")})
    for name in tree:
        path = PurePosixPath(name)
        if path.parts[0] not in ("ci", "tests", "perf", "dist") or path.name in ("__init__.py", "__main__.py", "Cargo.toml", "README.md", "Cargo.lock"):
            continue
        if FOUND.fullmatch(name):
            continue
        # Python names a module and Rust a `mod` by the stem; all else is named as a whole.
        keys = {path.name, path.stem} if path.suffix in (".py", ".rs", ".go") else {path.name}
        own_words = words[name] | {part for word in words[name] for part in word.split(".")}
        if all(everything[key] - (key in own_words) <= 0 for key in keys):
            found.append(f"{name}: no other file names it")
    return found


def subcommands(tree: Tree) -> set[str]:
    """Variants of the enum that clap makes the commands of `ossc` from."""
    found = {"help"}
    for name, text in tree.items():
        if name.startswith("src/ossc/"):
            for body in re.findall(r"derive\([^)]*Subcommand[^)]*\)\](?:\n#\[.*)*\n(?:pub(?:\([^)]*\))? )?enum \w+ \{\n(.*?)\n\}", text, re.DOTALL):
                found |= {re.sub(r"(?<!^)([A-Z])", r"-\1", word).lower() for word in re.findall(r"^    ([A-Z]\w*)\b", body, re.MULTILINE)}
    return found


def command_problems(tree: Tree) -> list[str]:
    """Commands in code of documents that do not exist."""
    found, known = [], subcommands(tree)
    for name, text in tree.items():
        if not name.endswith(".md") or name == "CHANGELOG.md":
            continue
        for code in re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL):
            for path in re.findall(r"(?<![\w/.-])((?:ci|dist)/[\w./-]*\w)", code):
                if path not in tree and not any(other.startswith(path + "/") for other in tree):
                    found.append(f"{name}: there is no {path}")
            for word in re.findall(r"(?:^`|\n|\$ |; )ossc ([a-z][a-z-]*)", code):
                if word not in known:
                    found.append(f"{name}: there is no ossc {word}")
            for bar, number in re.findall(r"ci/bar ([a-z][a-z0-9-]*)(?: (\d+))?", code):
                if bar != "list" and not catalog.find(bar, int(number) if number else None):
                    found.append(f"{name}: there is no bar {bar} {number}")
    return found


class Tidy(unittest.TestCase):
    """Each rule holds, and its control is seen."""

    tree: Tree
    maxDiff = None

    @classmethod
    def setUpClass(cls) -> None:
        cls.tree = read_tree()

    def planted(self, name: str, text: str) -> Tree:
        """A copy of the tree with more text at the end of a file, or with a new file."""
        return {**self.tree, name: self.tree.get(name, "") + text}

    def test_the_fuzz_targets_lock_the_crates_of_this_version(self) -> None:
        def versions(folder: Path) -> dict[str, str]:
            packages = (folder / "Cargo.lock").read_text().split("[[package]]")
            fields = [dict(re.findall(r'^(name|version|source) = "(.*)"', package, re.MULTILINE)) for package in packages[1:]]
            return {f["name"]: f["version"] for f in fields if "source" not in f}

        ours, theirs = versions(paths.ROOT), versions(paths.ROOT / "tests/fuzz")
        shared = sorted(set(ours) & set(theirs))
        self.assertGreater(len(shared), 3)
        self.assertEqual([theirs[name] for name in shared], [ours[name] for name in shared])

    def test_crates_import_downwards(self) -> None:
        self.assertEqual(crate_problems(self.tree), [])
        planted = {**self.tree, "net/Cargo.toml": self.tree["net/Cargo.toml"].replace("[dependencies]\n", "[dependencies]\nossc-cache.workspace = true\n")}
        self.assertEqual(crate_problems(planted), ["net/Cargo.toml: net may not use cache"])
        self.assertEqual(crate_problems(self.planted("new/Cargo.toml", "[package]\n")), ["new: a crate without a row in CRATES"])

    def test_python_imports_downwards(self) -> None:
        self.assertEqual(layer_problems(self.tree), [])
        for name, text in (("tests/harness/run.py", "from tests.checks import heal\n"), ("perf/speed/loads.py", "from perf.bars import whole\n"), ("ci/new.py", "")):
            self.assertEqual(len(layer_problems(self.planted(name, text))), 1, name)

    def test_rooms_of_the_engine_have_no_new_circle(self) -> None:
        self.assertEqual(circle_problems(self.tree), [])
        planted = {**self.tree, "src/ossc/one.rs": "use crate::two::Two;\n", "src/ossc/two/deep.rs": "use crate::{one, log};\n"}
        self.assertIn("one <-> two", room_circles(planted))
        more = {f"src/ossc/r{n}.rs": f"use crate::r{(n + 1) % 40}::X;\n" for n in range(40)}
        self.assertTrue(circle_problems({**self.tree, **more}))

    def test_functions_and_files_do_not_grow(self) -> None:
        self.assertEqual(length_problems(self.tree), [])
        body = "    let _ = 1;\n" * FUNCTION_LINES
        self.assertEqual(len(length_problems(self.planted("net/new.rs", f"pub fn planted() {{\n{body}}}\n"))), 1)
        self.assertEqual(len(length_problems(self.planted("tests/new.py", "def planted():\n" + "    pass\n" * FUNCTION_LINES))), 1)
        self.assertEqual(len(length_problems(self.planted("net/new.rs", "// line\n" * (FILE_LINES + 1)))), 1)

    def test_comments_and_documents_name_the_actor(self) -> None:
        self.assertEqual(word_problems(self.tree), [])
        for name, text in (("net/new.rs", "// {0} waits\n"), ("tests/new.py", "# {0} waits\n"), ("docs/NEW.md", "{0} waits\n"), ("dist/new", "# {0} waits\n")):
            folder = name.split("/")[0]
            count = BANNED_MAX.get(folder, 0) + 1
            self.assertTrue(word_problems(self.planted(name, text.format("Nobody") * count)), name)
        self.assertEqual(word_problems(self.planted("net/new.rs", 'const USER: &str = "nobody";\n')), [])

    def test_names_have_one_meaning(self) -> None:
        self.assertEqual(meaning_problems(self.tree), [])
        for name, most in DEFINITIONS_MAX.items():
            kind = "struct" if name[0].isupper() else "fn"
            text = "".join(f"mod m{n} {{\n    pub {kind} {name}{';' if kind == 'struct' else '() {}'}\n}}\n" for n in range(most + 1))
            self.assertEqual(len(meaning_problems(self.planted("net/new.rs", text))), 1, name)
        self.assertEqual(len(meaning_problems(self.planted("net/new.rs", "struct Unheard;\n" * (TYPES_MAX + 1)))), 1)
        self.assertEqual(meaning_problems(self.planted("net/new.rs", "// fn ask, struct Options\n")), [])

    def test_no_file_is_dead(self) -> None:
        self.assertEqual(dead_problems(self.tree), [])
        # In two parts, since this file must not name them either.
        for name in (start + "_thing" + end for start, end in (("ci/unused", ".py"), ("tests/apps/unused", ".c"), ("perf/unused", ".rs"), ("dist/unused", ".sh"))):
            self.assertEqual(dead_problems(self.planted(name, "")), [f"{name}: no other file names it"])

    def test_documented_commands_exist(self) -> None:
        self.assertEqual(command_problems(self.tree), [])
        self.assertLessEqual({"doctor", "status", "engine"}, subcommands(self.tree))
        for code in ("ci/absent --all", "dist/absent", "ossc absent", "ci/bar absent", "ci/bar engine 99"):
            self.assertEqual(len(command_problems(self.planted("README.md", f"\nRun `{code}`.\n"))), 1, code)
