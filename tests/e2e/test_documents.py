"""The documents for users: links lead somewhere, here and where they are installed; numbers, messages and metrics are the
product's; and the commands of README and GUIDE run, with the servers and the bucket of the test's own."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from dist.package import documents
from tests.e2e.base import EnginesEnd
from tests.harness import folder, paths
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION, Endpoint
from tests.harness.run import Run, plain_env

ROOT = paths.ROOT
TROUBLE = ROOT / "docs" / "TROUBLESHOOTING.md"
# A bound for what hangs.
SCRIPT_SECS = 400.0


def anchors(text: str) -> set[str]:
    """Of headings, as forges make them."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = [re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"(?m)^#+ (.+)$", text)]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def tracked() -> list[Path]:
    """The documents that git knows: what was built, and fetched to build, lies below the project, too."""
    listed = subprocess.run(["git", "ls-files", "-z", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def broken(root: Path, files: list[Path] | None = None) -> list[str]:
    """Links of the documents below a folder, all or these, that lead nowhere."""
    found = []
    for file in files or sorted(root.rglob("*.md")):
        # Code may look like a link.
        text = re.sub(r"```.*?```|`[^`\n]*`", "", file.read_text(), flags=re.DOTALL)
        for _, _, target in documents.LINK.findall(text):
            path, _, anchor = target.partition("#")
            if ":" in path:
                continue
            there = file.parent / path if path else file
            if not there.exists():
                found.append(f"{file.relative_to(root)}: {target}")
            elif anchor and there.suffix == ".md" and anchor not in anchors(there.read_text()):
                found.append(f"{file.relative_to(root)}: {target}: no such heading")
    return found


class Links(unittest.TestCase):
    def test_in_the_project(self) -> None:
        self.assertEqual(broken(ROOT, tracked()), [])

    def test_where_they_are_installed(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            documents.lay_out(Path(scratch))
            self.assertEqual(broken(Path(scratch)), [])
            names = {str(file.relative_to(scratch)) for file in Path(scratch).rglob("*") if file.is_file()}
            self.assertLessEqual({"README.md", "SECURITY.md", "docs/GUIDE.md", "docs/speed.svg", "kubernetes/README.md", "kubernetes/ray/head.yaml"}, names)
            readme = (Path(scratch) / "README.md").read_text()
            self.assertIn("](kubernetes/README.md)", readme)
            self.assertIn("](docs/GUIDE.md)", readme)
            self.assertIn("CONTRIBUTING,", readme)
            # What the check must see.
            (Path(scratch) / "README.md").write_text((ROOT / "README.md").read_text() + "\n[x](docs/GUIDE.md#no-such)\n")
            self.assertEqual([line.split(": ", 1)[1] for line in broken(Path(scratch)) if "docs/GUIDE.md#" in line], ["docs/GUIDE.md#no-such: no such heading"])
            self.assertIn("README.md: CONTRIBUTING.md", broken(Path(scratch)))

    def test_readme_names_every_document(self) -> None:
        readme = (ROOT / "README.md").read_text()
        for file in sorted((ROOT / "docs").glob("*.md")):
            self.assertIn(f"(docs/{file.name})", readme)


class Words(unittest.TestCase):
    """What documents quote is what the product says."""

    def test_numbers_of_readme_are_measured_ones(self) -> None:
        measured = (ROOT / "docs" / "ENVELOPE.md").read_text()
        rows = re.findall(r"(?m)^\| (.+?) \| (\d\.\d\d) \| (\d\.\d{3}) \|$", (ROOT / "README.md").read_text())
        self.assertGreaterEqual(len(rows), 9)
        own = {"engine, every byte checked (the default)": "engine uring crc tmpfs-huge splice", "engine, unchecked": "engine uring no-crc tmpfs-huge splice"}
        for client, speed, cpu in rows:
            self.assertRegex(measured, rf"(?m)^\| {re.escape(own.get(client, client))} \| {speed} \([^)]*\) \| {cpu} \(")
        for factor in re.findall(r"takes (0\.\d\d) of the time of s5cmd.*?\n?.*?and (0\.\d\d) of Run:ai", (ROOT / "README.md").read_text()):
            self.assertRegex(measured, rf"measured {factor[0]} \([^)]*\) of the time of s5cmd and then the load, {factor[1]} \([^)]*\) of Run:ai")

    def test_messages_of_troubleshooting_are_the_programs(self) -> None:
        source = "".join(file.read_text() for folder in ("src", "net", "cache") for file in sorted((ROOT / folder).rglob("*.rs")))
        source = source.replace("the {what}", "the log")
        rows = re.findall(r"(?m)^\| ([^|]*) \|", TROUBLE.read_text())
        quoted = [text for row in rows for text in re.findall(r"`([^`]+)`", row) if " " in text and not text.startswith(("ls ", "ossc "))]
        self.assertGreaterEqual(len(quoted), 14)
        for text in quoted:
            # A name or a path stands where the document has dots; what waits is said in two texts.
            text = text.removeprefix("oss connector: ").removeprefix("waiting for ")
            for piece in text.split(" ..."):
                self.assertTrue(piece.strip(": ") in source, f"{text}: {piece}")


class Commands(EnginesEnd):
    """README's quick start and all of GUIDE, in a shell, in order."""

    # What stands for vLLM and SGLang: it reads the model that its command names, and says what it read.
    SERVER = """
import hashlib, os, sys
place = next(sys.argv[at + 1] for at, word in enumerate(sys.argv) if word in ("--model", "--model-path"))
total = hashlib.sha256()
for path in sorted(os.path.join(f, n) for f, _, names in os.walk(place) for n in names):
    total.update(open(path, "rb").read())
print("served", total.hexdigest(), flush=True)
"""
    # And for Ray, whose workers read what they are asked for.
    RAY = """#!/bin/sh
case " $* " in *" --block "*) ;; *) exit 0 ;; esac
[ -d "$MODEL_DIR/qwen" ] && echo "joined $1 $2"
"""
    # Done by `ci/bar ship 2`, `ci/bar operate 5` and `ci/bar main 1`, in roots and clones of their own.
    NOT_HERE = ("yum install", "dpkg -i", "ci/demo", "ci/test")

    def setUp(self) -> None:
        paths.require_products()
        scratch = tempfile.TemporaryDirectory(prefix="ossc-docs-")
        self.addCleanup(scratch.cleanup)
        self.scratch = Path(scratch.name)
        self.plain = self.scratch / "root" / "examplebucket" / "qwen" / "Qwen3-8B"
        folder.make(self.plain)
        folder.make(self.plain.parent / "Qwen2___5-72B")
        (self.plain.parent / "Qwen2___5-72B" / "another.json").write_text("{}")
        self.endpoint = self.serving(Endpoint(self.scratch / "root", self.scratch))
        # As long as a shell needs between two commands.
        self.run_ = self.ending(Run(self.endpoint, "qwen/Qwen3-8B", config={"materializeBytes": folder.MATERIALIZE_BYTES, "lingerSec": 8}))
        tools = self.scratch / "tools"
        for module in ("vllm/entrypoints/openai/api_server", "sglang/launch_server"):
            (tools / module).parent.mkdir(parents=True, exist_ok=True)
            (tools / f"{module}.py").write_text(self.SERVER)
        (tools / "ray").write_text(self.RAY)
        (tools / "ray").chmod(0o755)
        self.tools = tools

    def here(self, text: str) -> str:
        """The document's commands with this test's endpoint, keys and folders."""
        for was, now in (
            ("/usr/local/lib/libossc_preload.so", str(paths.PRELOAD)), ("http://oss-cn-beijing-internal.aliyuncs.com", self.endpoint.url),
            ("cn-beijing", REGION), ("OSS_ACCESS_KEY_ID=... ", f"OSS_ACCESS_KEY_ID={ACCESS_KEY_ID} "), ("OSS_ACCESS_KEY_SECRET=...", f"OSS_ACCESS_KEY_SECRET={ACCESS_KEY_SECRET}"),
            ("/tmp/models", str(self.run_.dir / "models")), ("/tmp/model", str(self.run_.model_dir)), ("/tmp/config.json", str(self.run_.dir / "new.json")),
        ):
            text = text.replace(was, now)
        return text

    def script(self, document: str) -> str:
        text = (ROOT / document).read_text()
        # The tables and the pictures are no commands.
        blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        self.assertGreaterEqual(len(blocks), 2)
        lines = "".join(blocks).splitlines(keepends=True)
        return self.here("".join(line for line in lines if not line.startswith(self.NOT_HERE)))

    def run_script(self, document: str) -> str:
        env = {
            **plain_env(), "PATH": f"{self.tools}:{paths.OSSC.parent}:{paths.VENV_PYTHON.parent}:/usr/bin:/bin", "PYTHONPATH": str(self.tools),
            "OSSC_CONFIG": str(self.run_.config_path), "HOME": str(self.scratch),
        }
        done = self.run_.call(["bash", "-e", "-o", "pipefail", "-c", self.script(document)], env, timeout=SCRIPT_SECS, cwd=self.scratch)
        said = done.stdout.decode()
        self.assertEqual(done.returncode, 0, f"{said}\n{done.stderr.decode()}\n{self.run_.log_tail()}")
        return said

    def digest(self, model: str) -> str:
        total = hashlib.sha256()
        place = self.plain.parent / model
        for path in sorted(os.path.join(f, n) for f, _, names in os.walk(place) for n in names):
            total.update(Path(path).read_bytes())
        return total.hexdigest()

    def test_quick_start_of_readme(self) -> None:
        said = self.run_script("README.md")
        self.assertIn("ossc_version_", said)
        self.assertNotRegex(said, r"(?m)^FAIL")
        self.assertIn(f"served {self.digest('Qwen3-8B')}", said)
        self.assertRegex(said, r"(?m)b\.bin.*verified|verified.*b\.bin")

    def test_guide(self) -> None:
        said = self.run_script("docs/GUIDE.md")
        served = [line.split()[1] for line in said.splitlines() if line.startswith("served ")]
        # vLLM, SGLang, vLLM on Ray, SGLang on two nodes.
        self.assertEqual(served, [self.digest("Qwen3-8B")] * 2 + [self.digest("Qwen2___5-72B")] + [self.digest("Qwen3-8B")])
        self.assertEqual(re.findall(r"(?m)^joined .*", said), ["joined start --head", "joined start --address=172.24.176.137:6379"])
        for words in ("'b.bin'", "ossc_up", '"logLevel": 1'):
            self.assertIn(words, said + (self.run_.dir / "new.json").read_text())

    def test_guide_has_the_commands_of_the_replaced_page(self) -> None:
        """Word by word, but for a `\\` in the middle of a line, which is one too many on that page."""
        guide = " ".join((ROOT / "docs" / "GUIDE.md").read_text().replace("\\\n", " ").split())
        start = (
            "LD_PRELOAD=/usr/local/lib/libossc_preload.so ENABLE_CONNECTOR=1 OSS_ACCESS_KEY_ID=${OSS_ACCESS_KEY_ID} "
            "OSS_ACCESS_KEY_SECRET=${OSS_ACCESS_KEY_SECRET} OSS_ENDPOINT=${OSS_ENDPOINT} OSS_REGION=${OSS_REGION} OSS_PATH=${OSS_PATH} MODEL_DIR=/tmp/model "
        )
        primary = "LD_PRELOAD=/usr/local/lib/libossc_preload.so ENABLE_CONNECTOR=1 "
        of_ray = "--trust-remote-code --served-model-name ds --max-model-len 2048 --gpu-memory-utilization 0.98 --tensor-parallel-size 32"
        for command in (
            f"{start}python3 -m vllm.entrypoints.openai.api_server --model /tmp/model --trust-remote-code --tensor-parallel-size 1 --disable-custom-all-reduce",
            f"{start}python3 -m sglang.launch_server --model-path /tmp/model --port 8000",
            "export OSS_PATH=oss://examplebucket/", "export MODEL_DIR=/tmp/models",
            f"{primary}ray start --head --dashboard-host 0.0.0.0 --block",
            f"{primary}ray start --address='172.24.176.137:6379' --block",
            f"{primary.replace('=1', '=2')}python3 -m vllm.entrypoints.openai.api_server --model ${{MODEL_DIR}}/qwen/Qwen2___5-72B/ {of_ray}",
            f"{start}python3 -m sglang.launch_server --model-path /tmp/model --port 8000 --dist-init-addr 192.168.1.1:20000 --nnodes 2 --node-rank 0",
        ):
            self.assertIn(command, guide)
        self.assertIn("--node-rank 1", guide)

    def test_metrics_are_the_documents(self) -> None:
        env = self.run_.env(OSS_PATH="oss://examplebucket/qwen/Qwen3-8B/")
        done = self.run_.call(["sh", "-c", f"cat b.bin > /dev/null; env -u LD_PRELOAD {paths.OSSC} metrics"], env, cwd=self.run_.model_dir)
        text = done.stdout.decode()
        helps = dict(re.findall(r"(?m)^# HELP (\S+) (.+)$", text))
        types = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
        document = re.findall(r"(?m)^\| `(ossc_\w+)` \| (\w+) \| (.+) \|$", (ROOT / "docs" / "METRICS.md").read_text())
        self.assertEqual({name: (kind, words) for name, kind, words in document}, {name: (types[name], words) for name, words in helps.items()})


if __name__ == "__main__":
    unittest.main()
