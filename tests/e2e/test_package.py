"""What goes into the packages, as far as it can be seen without building them: ci/bar ship does that."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from dist.package import abi, assemble, crates, notices, sbom
from tests.harness import paths
from tests.harness.run import plain_env

CHECK = paths.CACHE / "venv-check" / "bin"
DESCRIPTION = paths.ROOT / "dist" / "nfpm.yaml"
TO_JSON = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(open(sys.argv[1]))), sys.stdout)"


def call(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(a) for a in argv], capture_output=True, text=True, env=plain_env(), check=False)


def yaml_documents(file: Path) -> list[Any]:
    found: list[Any] = json.loads(call(CHECK / "python3", "-c", TO_JSON, file).stdout)
    return found


class Abi(unittest.TestCase):
    def test_fast_build_asks_nothing_unusual_of_a_process(self) -> None:
        for name in abi.promise()["files"]:
            self.assertEqual(abi.mapping_problems(paths.PRODUCTS / name), [], name)

    def test_library_that_is_linked_against_this_machine_is_refused(self) -> None:
        """The check is not blind: what the ordinary linker makes asks for a newer C library and is not stripped."""
        promised = abi.promise()
        found = "\n".join(abi.link_problems(paths.PRELOAD, promised["files"][abi.LIBRARY], promised["glibc"]))
        self.assertRegex(found, r"asks for GLIBC_2\.[0-9]+, above GLIBC_2\.17")
        found = "\n".join(abi.shipped_problems(paths.PRELOAD, promised["files"][abi.LIBRARY], Path("/nonexistent")))
        self.assertIn("is not stripped: .symtab", found)
        self.assertIn("does not name its debug file", found)

    def test_bad_mappings_are_seen(self) -> None:
        source = "int f(void) { return 0; }"
        with tempfile.TemporaryDirectory() as scratch:
            library = Path(scratch) / abi.LIBRARY
            subprocess.run(
                ["gcc", "-shared", "-fPIC", "-Wl,-z,execstack,-z,lazy,-rpath,/tmp", "-x", "c", "-", "-o", str(library)],
                input=source, text=True, check=True,
            )
            found = "\n".join(abi.mapping_problems(library))
        for part in ("executable stack", "relro, now", "RUNPATH", "nodelete"):
            self.assertIn(part, found)

    def test_version_stands_in_a_symbol_of_the_library(self) -> None:
        names = call("nm", "-D", paths.PRELOAD).stdout
        self.assertRegex(names, r"(?m) ossc_version_" + crates.version().replace(".", "_").replace("-", "_") + "$")
        self.assertIn(f"oss-connector {crates.version()}\0".encode(), paths.PRELOAD.read_bytes())


class Description(unittest.TestCase):
    """dist/nfpm.yaml, from which both packages are made."""

    def setUp(self) -> None:
        self.description = yaml_documents(DESCRIPTION)[0]
        self.contents = {entry["dst"]: entry for entry in self.description["contents"]}

    def test_no_script_runs_at_installation(self) -> None:
        holders = (self.description, *self.description["overrides"].values(), self.description["rpm"], self.description["deb"])
        scripts = [(moment, file) for holder in holders for moment, file in holder.get("scripts", {}).items()]
        self.assertEqual(scripts, [("postremove", "stage/after-removal.sh")])
        self.assertFalse(any("triggers" in holder for holder in holders))
        self.assertNotIn("preload", (paths.ROOT / "dist" / "after-removal.sh").read_text())

    def test_everything_below_etc_is_configuration_that_is_kept(self) -> None:
        below = [e for dst, e in self.contents.items() if dst.startswith("/etc/") and e.get("type") != "dir"]
        self.assertEqual(len(below), 2)
        for entry in below:
            self.assertEqual(entry["type"], "config|noreplace", entry)

    def test_files_are_where_the_documents_say(self) -> None:
        readme = (paths.ROOT / "README.md").read_text()
        for place in ("/usr/local/lib/libossc_preload.so", "/usr/local/bin/ossc", "/etc/oss-connector/config.json", "/var/log/oss-connector"):
            self.assertIn(place, self.contents)
            self.assertIn(place, readme)

    def test_changelog_has_this_version(self) -> None:
        self.assertRegex((paths.ROOT / "CHANGELOG.md").read_text(), rf"(?m)^## {re.escape(crates.version())} - ")


class Pages(unittest.TestCase):
    """Man pages and completions: the packaged `ossc` writes them, and readers and shells take them."""

    def setUp(self) -> None:
        paths.require_products()
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.stage = Path(scratch.name)
        assemble.lay_out_pages(paths.OSSC, self.stage)

    def visible(self) -> list[str]:
        shown = call(paths.OSSC, "--help").stdout
        return re.findall(r"(?m)^  ([a-z]+) ", shown.split("Commands:")[1].split("Options:")[0])

    def test_every_command_has_a_page_and_both_packages_have_it(self) -> None:
        commands = [name for name in self.visible() if name != "help"]
        self.assertLessEqual({"run", "doctor", "status", "top", "metrics", "config", "errors"}, set(commands))
        names = {file.name for file in (self.stage / "man").iterdir()}
        self.assertEqual(names, {"ossc.1.gz", *(f"ossc-{name}.1.gz" for name in commands)})
        self.assertNotIn("engine", commands)
        entries = {entry["src"]: entry for entry in yaml_documents(DESCRIPTION)[0]["contents"] if "src" in entry}
        self.assertNotIn("packager", entries["stage/man/*.1.gz"])

    def test_completions_are_where_their_shells_look(self) -> None:
        contents = yaml_documents(DESCRIPTION)[0]["contents"]
        for kind, zsh in (("deb", "vendor-completions"), ("rpm", "site-functions")):
            found = {e["dst"]: e["src"] for e in contents if e.get("packager", kind) == kind and "completions" in e.get("src", "")}
            self.assertEqual(found, {
                "/usr/share/bash-completion/completions/ossc": "stage/completions/ossc",
                "/usr/share/fish/vendor_completions.d/ossc.fish": "stage/completions/ossc.fish",
                f"/usr/share/zsh/{zsh}/_ossc": "stage/completions/_ossc",
            })
            for source in found.values():
                self.assertTrue((self.stage.parent / self.stage.name / source.removeprefix("stage/")).stat().st_size > 0, source)

    def test_bash_completes_commands_and_options_but_nothing_hidden(self) -> None:
        def offered(*words: str) -> list[str]:
            script = 'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _ossc ossc "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"'
            return call("bash", "--norc", "-c", script, self.stage / "completions" / "ossc", *words).stdout.split()

        self.assertEqual(set(offered("ossc", "")) - {"-h", "-V", "--help", "--version"}, set(self.visible()))
        self.assertEqual(offered("ossc", "stat"), ["status"])
        self.assertEqual(set(offered("ossc", "run", "--")), {"--progress", "--secondary", "--model-dir", "--oss-path", "--help"})

    def test_the_same_bytes_each_time_and_nothing_of_the_environment(self) -> None:
        again = self.stage / "again"
        again.mkdir()
        env = {**plain_env(), "MODEL_DIR": "/of-this-machine"}
        subprocess.run([paths.OSSC, "pages", str(again)], env=env, check=True)
        for page in (self.stage / "man").iterdir():
            self.assertEqual(gzip.decompress(page.read_bytes()), (again / page.stem).read_bytes(), page.name)
        status = gzip.decompress((self.stage / "man" / "ossc-status.1.gz").read_bytes()).decode()
        self.assertIn("MODEL_DIR", status)
        self.assertFalse([file.name for file in again.iterdir() if b"/of-this-machine" in file.read_bytes()])

    def test_a_folder_that_is_not_there_is_an_error(self) -> None:
        done = call(paths.OSSC, "pages", self.stage / "missing")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, r"^ossc pages: .*missing: No such file or directory")


class Workflows(unittest.TestCase):
    def test_workflows_only_call_the_projects_own_commands(self) -> None:
        files = sorted((paths.ROOT / ".github" / "workflows").glob("*.yml"))
        self.assertEqual([f.name for f in files], ["release.yml", "test.yml"])
        for file in files:
            for name, job in yaml_documents(file)[0]["jobs"].items():
                steps = job["steps"]
                self.assertFalse([s for s in steps if "uses" in s], f"{file.name} {name}")
                for command in (part.strip() for s in steps[1:] for part in s["run"].split("&&")):
                    self.assertRegex(command, r"^(ci/|dist/build$)", file.name)
                    self.assertTrue((paths.ROOT / command.split()[0]).exists(), command)

    def test_the_gate_waits_for_every_other_job(self) -> None:
        jobs = yaml_documents(paths.ROOT / ".github" / "workflows" / "test.yml")[0]["jobs"]
        self.assertEqual(set(jobs["gate"]["needs"]), set(jobs) - {"gate"})
        self.assertEqual(jobs["gate"]["if"], "always()")
        (step,) = jobs["gate"]["steps"]
        for results, status in (("success success", 0), ("success failure", 1), ("skipped success", 1), ("success cancelled", 1)):
            done = subprocess.run(["sh", "-c", step["run"]], env={**plain_env(), "RESULTS": results}, capture_output=True, check=False)
            self.assertEqual(done.returncode, status, results)

    def test_every_check_is_a_job_and_every_job_a_check(self) -> None:
        text = (paths.ROOT / ".github" / "workflows" / "test.yml").read_text()
        called = set(re.findall(r"ci/check (\w+)", text))
        known = set(re.findall(r"(?m)^  (\w+)  +[a-z]", call(paths.ROOT / "ci" / "check", "--help").stdout))
        self.assertEqual(called, known - {"spelling", "message"})

    def test_one_compiler_checks_and_releases(self) -> None:
        self.assertIn('channel = "stable"', (paths.ROOT / "rust-toolchain.toml").read_text())
        texts = [file.read_text() for file in (paths.ROOT / ".github" / "workflows").glob("*.yml")]
        images = {version for text in texts for version in re.findall(r"rust:([0-9.]+)-bookworm", text)}
        named = [version for text in texts for version in re.findall(r"RUSTUP_TOOLCHAIN: ([0-9.]+)", text)]
        self.assertEqual((images, len(named)), (set(named), len(texts)))
        self.assertEqual(len(images), 1)


class Dependencies(unittest.TestCase):
    linked: list[crates.Crate]

    @classmethod
    def setUpClass(cls) -> None:
        cls.linked = crates.linked()

    def test_sbom_is_valid_and_whole(self) -> None:
        document = sbom.document(self.linked)
        self.assertIsNone(re.search(rf"{re.escape(str(paths.ROOT))}|{Path.home()}", json.dumps(document)))
        names = {c["name"] for c in document["components"]}
        self.assertLessEqual({"ossc", "ossc-preload", "ring", "rustls", "libc", "rust-std"}, names)
        self.assertTrue(names.isdisjoint({"syn", "clap_derive", "shuttle", "oss-endpoint", "rcgen"}), names)
        for crate in self.linked:
            self.assertEqual(bool(crate.checksum), not crate.is_own, crate.key)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "sbom.cdx.json"
            file.write_text(sbom.text(self.linked))
            done = call(CHECK / "python3", paths.ROOT / "dist" / "package" / "schema.py", file)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            document["components"][0]["type"] = "thing"
            file.write_text(json.dumps(document))
            done = call(CHECK / "python3", paths.ROOT / "dist" / "package" / "schema.py", file)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)

    def test_every_crate_has_the_text_of_its_licence(self) -> None:
        for crate in self.linked:
            if not crate.is_own:
                self.assertTrue(any(len(body) > 500 for _, body in notices.texts_of(crate)), crate.key)

    def test_crate_without_a_text_is_an_error(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            crate = crates.Crate("none", "1.0.0", "Proprietary", "", Path(scratch), False)
            self.assertRaises(notices.NoText, notices.texts_of, crate)
