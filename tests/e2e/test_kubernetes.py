"""The manifests of dist/kubernetes: valid against the schemas of Kubernetes, whole, and run in containers of this machine."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any

from tests.e2e.base import EndToEnd, can_unshare
from tests.harness import paths, pod
from tests.harness.endpoint import ACCESS_KEY_ID, ACCESS_KEY_SECRET, REGION
from tests.harness.pod import Volume
from tests.harness.run import plain_env

CHECK = paths.CACHE / "venv-check" / "bin"
FOLDER = paths.ROOT / "dist" / "kubernetes"
BASES = ("single-node", "ray", "sglang-two-nodes", "shared-engine")
COMPONENTS = tuple(sorted(path.parent.name for path in FOLDER.glob("components/*/kustomization.yaml")))
TO_JSON = "import json, sys, yaml; json.dump(list(yaml.safe_load_all(sys.stdin)), sys.stdout)"
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
# Of programs, not of the connector.
OTHER_VARIABLES = {"HOME"}
CALL_SECS = 60.0


def yaml_documents(text: str) -> list[Any]:
    done = subprocess.run([str(CHECK / "python3"), "-c", TO_JSON], input=text, capture_output=True, text=True, env=plain_env(), check=True)
    found: list[Any] = json.loads(done.stdout)
    return found


def has_kustomize() -> bool:
    if shutil.which("kubectl") is None:
        return False
    said = subprocess.run(["kubectl", "version", "--client"], capture_output=True, text=True, env=plain_env(), check=False).stdout
    return re.search(r"Kustomize Version: v([5-9]|\d\d)", said) is not None


@functools.cache
def built(base: str, components: tuple[str, ...] = ()) -> str:
    """What `kubectl apply -k` would send of a base with components."""
    with tempfile.TemporaryDirectory(dir=FOLDER.parent, prefix=".kustomize-") as scratch:
        listed = [f"components: [{', '.join(f'../kubernetes/components/{name}' for name in components)}]\n"] if components else []
        head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n"
        (Path(scratch) / "kustomization.yaml").write_text("".join([head, f"resources: [../kubernetes/{base}]\n", *listed]))
        done = subprocess.run(["kubectl", "kustomize", scratch], capture_output=True, text=True, env=plain_env(), check=False)
    if done.returncode != 0:
        raise AssertionError(f"{base} with {components}: {done.stderr}")
    return done.stdout


def pods(documents: list[Any]) -> list[tuple[str, Any]]:
    """Name and specification of the pods."""
    return [(d["metadata"]["name"], d["spec"]["template"]["spec"]) for d in documents if d["kind"] in WORKLOADS]


def valid(text: str) -> subprocess.CompletedProcess[str]:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        argv = [str(CHECK / "kubernetes-validate"), "--strict", file.name]
        return subprocess.run(argv, capture_output=True, text=True, env=plain_env(), check=False)


class Files(unittest.TestCase):
    """What can be said of the files alone."""

    def test_each_kustomization_names_files_that_are_there(self) -> None:
        folders = {path.parent for path in FOLDER.rglob("kustomization.yaml")}
        self.assertEqual({str(f.relative_to(FOLDER)) for f in folders}, {*BASES, "example", *(f"components/{name}" for name in COMPONENTS)})
        for folder in folders:
            text = (folder / "kustomization.yaml").read_text()
            (document,) = yaml_documents(text)
            files = [*document.get("resources", []), *(patch["path"] for patch in document.get("patches", []))]
            files += [name for made in document.get("configMapGenerator", []) for name in made.get("files", [])]
            self.assertTrue(files or document.get("components"), folder)
            for name in files:
                self.assertTrue((folder / name).exists(), f"{folder.name}: {name}")

    def test_the_readme_names_every_folder_and_component(self) -> None:
        readme = (FOLDER / "README.md").read_text()
        for name in (*BASES, "example", *(f"components/{name}" for name in COMPONENTS)):
            self.assertIn(f"| `{name}` |", readme)

    def test_resources_are_valid_each(self) -> None:
        for base in (*BASES, "example"):
            for file in (FOLDER / base).glob("*.yaml"):
                if file.name != "kustomization.yaml":
                    done = valid(file.read_text())
                    self.assertEqual(done.returncode, 0, f"{file}: {done.stdout}{done.stderr}")

    def test_a_probe_of_both_ranks_asks_the_server_and_the_engine(self) -> None:
        """The shell goes on behind a redirection of `exec` that fails."""
        (rank,) = (d for d in yaml_documents((FOLDER / "sglang-two-nodes" / "statefulset.yaml").read_text()) if d["kind"] == "StatefulSet")
        (container,) = rank["spec"]["template"]["spec"]["containers"]
        with tempfile.TemporaryDirectory() as bin_folder, socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as silent:
            # Bound, and nothing listens.
            silent.bind(("127.0.0.1", 0))
            engine = Path(bin_folder) / "ossc"
            engine.write_text('#!/bin/sh\n[ "$*" = "wait --timeout 0" ] && exit "$ENGINE"\n')
            engine.chmod(0o755)
            for key in ("startupProbe", "readinessProbe"):
                *argv, script = container[key]["exec"]["command"]
                for port, host, answer, expected in ((server, 0, 0, True), (silent, 0, 0, False), (server, 0, 3, False), (silent, 1, 0, True), (silent, 1, 3, False)):
                    named = script.replace("/127.0.0.1/8000", f"/127.0.0.1/{port.getsockname()[1]}")
                    self.assertNotEqual(named, script)
                    env = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOSTNAME": f"sglang-{host}", "ENGINE": str(answer)}
                    done = subprocess.run([*argv, named], env=env, capture_output=True, timeout=CALL_SECS, check=False)
                    self.assertEqual(done.returncode == 0, expected, (key, host, answer, done))

    def test_configurations_have_known_keys_and_write_into_a_volume(self) -> None:
        known = set(re.findall(r"(?m)^\| `([a-zA-Z.]+)` \|", (paths.ROOT / "docs" / "CONFIG.md").read_text()))
        for base in BASES:
            config = json.loads((FOLDER / base / "config.json").read_text())
            self.assertLessEqual({*config} - {"prefetch"}, known, base)
            place = "/shared/" if base == "shared-engine" else "/models/"
            self.assertEqual((config["logPath"], config["logFormat"], config["auditPath"]), ("stdout", "json", f"{place}audit.log"))

    def test_the_image_has_this_version(self) -> None:
        version = re.search(r'(?m)^version = "(.+)"$', (paths.ROOT / "Cargo.toml").read_text())
        assert version is not None
        self.assertIn(f"COPY oss-connector-lib-{version.group(1)}.x86_64.", (FOLDER / "Dockerfile").read_text())


@unittest.skipUnless(has_kustomize(), "needs kubectl with kustomize 5")
class Built(unittest.TestCase):
    """What Kustomize makes of them."""

    def test_bases_are_valid_with_every_component(self) -> None:
        for base in BASES:
            for components in ((), *((name,) for name in COMPONENTS), COMPONENTS):
                done = valid(built(base, components))
                self.assertEqual(done.returncode, 0, f"{base} {components}: {done.stdout}{done.stderr}")
        self.assertEqual(valid(built("example")).returncode, 0)

    def test_a_wrong_manifest_is_refused(self) -> None:
        documents = yaml_documents(built("single-node"))
        wrong = copy.deepcopy(next(d for d in documents if d["kind"] == "Deployment"))
        wrong["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
        self.assertNotEqual(valid(json.dumps(wrong)).returncode, 0)

    def test_no_container_may_more_than_it_needs(self) -> None:
        for base in BASES:
            for name, spec in pods(yaml_documents(built(base))):
                self.assertTrue(spec["securityContext"]["runAsNonRoot"], name)
                self.assertEqual(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", name)
                self.assertNotIn("hostNetwork", spec)
                for container in (*spec.get("initContainers", []), *spec["containers"]):
                    security = container["securityContext"]
                    self.assertTrue(security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name)
                    self.assertEqual(security["capabilities"]["drop"], ["ALL"], name)
                    # Who makes the node's folder, and nothing else, is root.
                    self.assertEqual(security.get("runAsUser", 1000) == 0, container["name"] == "folder", name)

    def test_what_a_pod_refers_to_is_there(self) -> None:
        (secret,) = yaml_documents((FOLDER / "example" / "secret.yaml").read_text())
        variables = set(re.findall(r"(?m)^\| `([A-Z_]+)` \|", (paths.ROOT / "docs" / "CONFIG.md").read_text())) | OTHER_VARIABLES
        for base in BASES:
            documents = yaml_documents(built(base))
            maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
            for name, spec in pods(documents):
                volumes = {volume["name"]: volume for volume in spec["volumes"]}
                self.assertLessEqual({v["configMap"]["name"] for v in volumes.values() if "configMap" in v}, set(maps), name)
                for container in (*spec.get("initContainers", []), *spec["containers"]):
                    self.assertLessEqual({mount["name"] for mount in container["volumeMounts"]}, set(volumes), name)
                    for entry in container.get("env", []):
                        self.assertIn(entry["name"], variables, name)
                        if "valueFrom" in entry:
                            self.assertEqual(entry["valueFrom"]["secretKeyRef"]["name"], secret["metadata"]["name"])
                            self.assertIn(entry["valueFrom"]["secretKeyRef"]["key"], secret["stringData"])
                    for source in container.get("envFrom", []):
                        self.assertLessEqual(set(maps[source["configMapRef"]["name"]]), variables, name)

    def test_what_starts_an_engine_is_scraped_and_probed(self) -> None:
        for base in BASES:
            documents = yaml_documents(built(base))
            (config,) = (json.loads(d["data"]["config.json"]) for d in documents if d["kind"] == "ConfigMap" and "config.json" in d["data"])
            address, _, port = config["metricsListen"].rpartition(":")
            self.assertEqual(address, "0.0.0.0")
            for document in (d for d in documents if d["kind"] in WORKLOADS and d["metadata"]["name"] != "reader"):
                template, name = document["spec"]["template"], document["metadata"]["name"]
                (container,) = template["spec"]["containers"]
                self.assertEqual(template["metadata"]["annotations"], {"prometheus.io/scrape": "true", "prometheus.io/port": port}, name)
                self.assertEqual([p["containerPort"] for p in container["ports"] if p.get("name") == "metrics"], [int(port)], name)
                commands = [" ".join(probe["exec"]["command"]) for key, probe in container.items() if key.endswith("Probe") and "exec" in probe]
                self.assertTrue(all("ossc wait --timeout 0" in command for command in commands), name)

    def test_services_find_pods(self) -> None:
        for base in BASES:
            documents = yaml_documents(built(base))
            found = {json.dumps(d["spec"]["template"]["metadata"]["labels"]): d["spec"]["template"]["spec"] for d in documents if d["kind"] in WORKLOADS}
            for service in (d for d in documents if d["kind"] == "Service"):
                selector = service["spec"]["selector"]
                if "statefulset.kubernetes.io/pod-name" in selector:
                    self.assertEqual(selector["statefulset.kubernetes.io/pod-name"], "sglang-0")
                    continue
                ports = {port["containerPort"] for port in found[json.dumps(selector)]["containers"][0]["ports"]}
                self.assertLessEqual({port["port"] for port in service["spec"]["ports"]}, ports, base)

    def test_the_role_takes_the_place_of_the_key(self) -> None:
        for base in BASES:
            text = built(base, ("rrsa",))
            self.assertNotIn("OSS_ACCESS_KEY", text)
            self.assertTrue(all(spec["serviceAccountName"] == "oss-connector" for _, spec in pods(yaml_documents(text))))


class Profile(EndToEnd):
    """components/io-uring/io-uring.json."""

    def test_it_allows_what_the_connector_calls_and_no_mount(self) -> None:
        document = json.loads((FOLDER / "components" / "io-uring" / "io-uring.json").read_text())
        self.assertEqual(document["defaultAction"], "SCMP_ACT_ERRNO")
        allowed = {name for rule in document["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}
        self.assertFalse(allowed & {"mount", "unshare", "setns", "bpf", "fsopen", "pivot_root", "userfaultfd", "init_module"})
        run = self.managed({"logLevel": 0}, io="uring")
        trace = run.dir / "trace"
        env = {name: value for name, value in run.env(OSSC_PAGES="memfd").items() if plain_env().get(name) != value}
        given = [word for name, value in env.items() for word in ("-E", f"{name}={value}")]
        done = run.call(["strace", "-f", "-qq", "-o", str(trace), *given, "sha256sum", "b.bin"], plain_env(), cwd=run.model_dir)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIsNotNone(run.wait_engines_gone(CALL_SECS))
        called = set(re.findall(r"(?m)^\d+ +(\w+)\(", trace.read_text()))
        self.assertIn("io_uring_setup", called)
        # The C library goes on to `clone` where the runtime says that there is no clone3, and a policy that the engine cannot
        # reset is the runtime's own.
        self.assertLessEqual(called - allowed, {"clone3", "set_mempolicy"})


# What stands for a server: it reads the model that its command names, prints what it read, and ends.
SERVER = """
import hashlib, json, os, sys
name = next(sys.argv[at + 1] for at, word in enumerate(sys.argv) if word in ("--model", "--model-path"))
found = {}
for folder, _, files in os.walk(name):
    for file in files:
        path = os.path.join(folder, file)
        found[os.path.relpath(path, name)] = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps(found))
"""


@unittest.skipUnless(has_kustomize() and can_unshare() and os.geteuid() == 0, "needs root, and kubectl with kustomize 5")
class Running(EndToEnd):
    """The pods as they stand in the manifests: their commands, users, variables and volumes. The images, the bucket and the
    servers are the test's."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="ossc-node-")
        self.addCleanup(scratch.cleanup)
        self.node = Path(scratch.name)
        self.node.chmod(0o755)
        for module in ("vllm/entrypoints/openai/api_server", "sglang/launch_server"):
            file = self.node / "servers" / f"{module}.py"
            file.parent.mkdir(parents=True)
            file.write_text(SERVER)
        for product, folder in ((paths.PRELOAD, "lib"), (paths.OSSC, "bin")):
            (self.node / "connector" / folder).mkdir(parents=True)
            shutil.copy(product, self.node / "connector" / folder)

    def volumes(self, hostname: str, spec: Any, container: Any, maps: dict[str, dict[str, str]]) -> list[Volume]:
        found = [Volume(self.node / "connector", "/connector", writable=False), Volume(self.node / "servers", "/servers", writable=False)]
        kinds = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in container["volumeMounts"]:
            kind, name = kinds[mount["name"]], mount["name"]
            folder = self.node / ("host" if "hostPath" in kind else hostname) / name
            if not folder.exists():
                folder.mkdir(parents=True)
                # As the kubelet makes them: an emptyDir is open, a folder of the node is root's.
                folder.chmod(0o755 if "hostPath" in kind else 0o777)
                for file, text in maps.get(kind.get("configMap", {}).get("name", ""), {}).items():
                    # The pods of this machine have one network.
                    (folder / file).write_text(text.replace('"0.0.0.0:9464"', '"127.0.0.1:0"'))
            found.append(Volume(folder, mount["mountPath"], not mount.get("readOnly", False)))
        return found

    def variables(self, container: Any, maps: dict[str, dict[str, str]], **changes: str) -> dict[str, str]:
        secrets = {"key": ACCESS_KEY_ID, "secret": ACCESS_KEY_SECRET}
        found = {name: value for source in container.get("envFrom", []) for name, value in maps[source["configMapRef"]["name"]].items()}
        for entry in container.get("env", []):
            found[entry["name"]] = entry["value"] if "value" in entry else secrets[entry["valueFrom"]["secretKeyRef"]["key"]]
        ours = {"OSS_ENDPOINT": self.endpoint.url, "OSS_REGION": REGION, "OSS_PATH": f"oss://{paths.BUCKET}/team/tiny/"}
        found |= {name: value for name, value in ours.items() if name in found}
        return {**found, "PATH": f"/connector/bin:{paths.VENV_PYTHON.parent}:/usr/bin:/bin", "PYTHONPATH": "/servers", **changes}

    def start(self, documents: list[Any], name: str, number: int = 0) -> subprocess.Popen[str]:
        """Runs the init containers of one pod of a workload, and starts its container."""
        hostname = f"{name}-{number}"
        maps = {d["metadata"]["name"]: d["data"] for d in documents if d["kind"] == "ConfigMap"}
        spec = dict(pods(documents))[name]
        user = spec["securityContext"]["runAsUser"]
        for container in spec.get("initContainers", []):
            # The one that is root makes a folder for that user.
            is_root = container["securityContext"].get("runAsUser", user) == 0
            volumes = self.volumes(hostname, spec, container, maps)
            if is_root:
                (shared,) = (v for v in volumes if v.inside == "/shared")
                subprocess.run([word.replace("/shared", str(shared.outside)) for word in container["command"]], check=True)
                continue
            done = pod.call(container["command"], {}, volumes, CALL_SECS, user=user)
            self.assertEqual(done.returncode, 0, done.stderr)
        (container,) = spec["containers"]
        process = pod.start(
            container["command"], self.variables(container, maps, HOSTNAME=hostname), self.volumes(hostname, spec, container, maps),
            is_confined=True, has_network=bool(container.get("envFrom")), user=user,
        )
        self.addCleanup(pod.end, process)
        return process

    def check_read(self, process: subprocess.Popen[str]) -> list[dict[str, Any]]:
        """What the server read is right; gives the lines of the engine's log among its own."""
        out, err = process.communicate(timeout=CALL_SECS)
        self.assertEqual((process.returncode, err), (0, ""), out)
        lines = [json.loads(line) for line in out.splitlines()]
        (found,) = (line for line in lines if "level" not in line)
        files = [path for path in self.plain.rglob("*") if path.is_file()]
        expected = {str(path.relative_to(self.plain)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        self.assertEqual(found, expected)
        return [line for line in lines if "level" in line]

    def test_a_server_whose_library_an_init_container_brings(self) -> None:
        for base, name in (("single-node", "vllm"), ("sglang-two-nodes", "sglang")):
            with self.subTest(base):
                log = self.check_read(self.start(yaml_documents(built(base, ("library-by-init-container",))), name))
                self.assertIn("engine started", [line["message"] for line in log])
                self.assertIn("epoll", [line.get("fields", {}).get("driver") for line in log])
                self.assertIn("metrics are served", [line["message"] for line in log])
                self.assertTrue((self.node / f"{name}-0" / "models" / "audit.log").exists())

    def test_one_engine_for_the_pods_of_a_node(self) -> None:
        documents = yaml_documents(built("shared-engine", ("library-by-init-container",)))
        self.endpoint.forget()
        engine = self.start(documents, "connector-engine")
        shared = self.node / "host" / "shared"
        deadline = time.monotonic() + CALL_SECS
        while not (shared / "engine.sock").exists() and engine.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertIsNone(engine.poll())
        readers = [self.start(documents, "reader", number) for number in range(2)]
        for reader in readers:
            self.check_read(reader)
        served = [r for r in self.endpoint.requests() if r.method == "GET" and r.key.endswith("/b.bin") and r.status in (200, 206)]
        self.assertEqual(sum(r.bytes_sent for r in served), (self.plain / "b.bin").stat().st_size)
        os.killpg(engine.pid, signal.SIGKILL)
        out, _ = engine.communicate(timeout=CALL_SECS)
        self.assertEqual(out.count('"engine started"'), 1)


if __name__ == "__main__":
    unittest.main()
