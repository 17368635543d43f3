"""What goes into the packages, as far as it can be seen without building them: ci/bar ship does that."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

from harness import paths
from harness.run import plain_env
from package import abi, crates, notices, sbom

CHECK = paths.CACHE / "venv-check" / "bin"
MANIFESTS = sorted((paths.ROOT / "dist" / "kubernetes").glob("*.yaml"))
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


class Manifests(unittest.TestCase):
    def validate(self, *files: Path) -> subprocess.CompletedProcess[str]:
        return call(CHECK / "kubernetes-validate", "--strict", *files)

    def test_manifests_are_valid(self) -> None:
        self.assertEqual(len(MANIFESTS), 2)
        done = self.validate(*MANIFESTS)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_wrong_manifest_is_refused(self) -> None:
        deployment = next(d for d in yaml_documents(MANIFESTS[0]) if d["kind"] == "Deployment")
        wrong = copy.deepcopy(deployment)
        wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "wrong.yaml"
            file.write_text(json.dumps(deployment))
            self.assertEqual(self.validate(file).returncode, 0)
            file.write_text(json.dumps(wrong))
            self.assertNotEqual(self.validate(file).returncode, 0)

    def test_configuration_is_the_default_one(self) -> None:
        config = next(d for d in yaml_documents(MANIFESTS[0]) if d["kind"] == "ConfigMap")["data"]["config.json"]
        self.assertEqual(json.loads(config), json.loads((paths.ROOT / "dist" / "config.json").read_text()))

    def test_secret_is_the_one_that_is_asked_for(self) -> None:
        deployment = next(d for d in yaml_documents(MANIFESTS[0]) if d["kind"] == "Deployment")
        secret = yaml_documents(MANIFESTS[1])[0]
        asked = {
            (e["valueFrom"]["secretKeyRef"]["name"], e["valueFrom"]["secretKeyRef"]["key"])
            for e in deployment["spec"]["template"]["spec"]["containers"][0]["env"] if "valueFrom" in e
        }
        self.assertEqual(asked, {(secret["metadata"]["name"], key) for key in secret["stringData"]})


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
            done = call(CHECK / "python3", paths.ROOT / "ci" / "package" / "schema.py", file)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            document["components"][0]["type"] = "thing"
            file.write_text(json.dumps(document))
            done = call(CHECK / "python3", paths.ROOT / "ci" / "package" / "schema.py", file)
            self.assertEqual(done.returncode, 1, done.stdout + done.stderr)

    def test_every_crate_has_the_text_of_its_licence(self) -> None:
        for crate in self.linked:
            if not crate.is_own:
                self.assertTrue(any(len(body) > 500 for _, body in notices.texts_of(crate)), crate.key)

    def test_crate_without_a_text_is_an_error(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            crate = crates.Crate("none", "1.0.0", "Proprietary", "", Path(scratch), False)
            self.assertRaises(notices.NoText, notices.texts_of, crate)
