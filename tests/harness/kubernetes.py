"""A real Kubernetes of one node: etcd, kube-apiserver, containerd and kubelet, in network and mount namespaces of its own.

Nothing of it reaches the machine: its ports are its own loopback's, its folders are its own mounts, and the kernel
settings that a kubelet makes are files that already hold them. Pods run in the namespace of its network. Needs root.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.agent import AgentProcess, clean_environment
from harness.kubernetesfiles import (
    ADMIN_TOKEN,
    BUSYBOX,
    IMAGE,
    KUBELET_PORT,
    NODE,
    REVIEWER,
    TOKEN,
    TOKENS,
    USER,
    containerd_settings,
    image,
    kubeconfig,
    kubelet_settings,
    pod,
)
from harness.looking import until
from harness.podprocesses import command_of, members, namespace
from harness.tlsplace import TlsPlace

_WITH_US = ["setpriv", "--pdeathsig", "KILL"]  # so that a test that is killed leaves none of it
_READY_SECONDS = 60.0
# What a kubelet sets: as files that hold it, so that the machine's own settings stay.
_KERNEL = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}


def find_kubernetes() -> Path:
    """The folder of kubelet and kube-apiserver. Skip the test if they were not built, as for every run."""
    named = os.environ.get("SOJOURN_TEST_KUBERNETES")
    if not named:
        pytest.skip("needs a real Kubernetes, which is too long for every run: make test-kubernetes")
    for program in ("etcd", "containerd", "runc", "ctr", "nsenter", "curl", BUSYBOX):
        if shutil.which(program) is None:
            pytest.fail(f"needs {program}: install docker.io, etcd-server, util-linux, curl and busybox-static")
    return Path(named)


class Cluster:
    """One cluster in a folder of its own below /tmp. Use as a context manager, which waits until its node serves."""

    def __init__(self, programs: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-test-k8s-", dir="/tmp"))
        self.folder.chmod(0o755)
        self.cgroup_root = f"/{self.folder.name}"
        self.static_pods = self.folder / "static"
        self.pki = self.folder / "pki"  # of the kubelet: `kubelet.crt` is the certificate that it made for itself
        self.clients = TlsPlace(self.folder / "clients", name=USER, common_name=USER)
        self.foreign_clients = TlsPlace(self.folder / "foreign-clients", name=USER, common_name=USER)
        self._programs = programs
        self._api = TlsPlace(self.folder / "api")
        self._parts: list[subprocess.Popen[bytes]] = []
        self._containerd = self.folder / "containerd.sock"

    # --- life ---

    def __enter__(self) -> "Cluster":
        try:
            self._hold_namespaces()
            self._write_files()
            self._start()
        except BaseException as error:
            error.add_note(self.logs)
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            shutil.rmtree(self.static_pods)
            for each in self.get("/api/v1/pods")["items"]:
                self.delete(each["metadata"]["name"], each["metadata"]["namespace"], wait=False)
            until(lambda: not self.get("/api/v1/pods")["items"], "all pods deleted", 20)
        for part in reversed(self._parts[1:]):
            part.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                part.wait(10)
        self._kill_rest()
        for part in self._parts:
            part.kill()
            part.wait()
        self._remove_cgroups()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _hold_namespaces(self) -> None:
        """A process that does nothing but keep the namespaces; the mounts in them."""
        self._parts.append(
            subprocess.Popen([*_WITH_US, "unshare", "-m", "-n", "--propagation", "private", "sleep", "3600"])
        )
        until(lambda: namespace(self._parts[0].pid, "net") != namespace(os.getpid(), "net"), "own namespaces")
        folders = "/var/lib/kubelet /var/log/pods /var/log/containers /run/containerd"
        lines = ["set -e", "ip link set lo up", f"mkdir -p {folders}"]
        lines += [f"mount -t tmpfs tmpfs {each}" for each in folders.split()]
        lines += ["mount --make-rshared /var/lib/kubelet"]
        self._make_cgroups()
        kernel = self.folder / "kernel"
        kernel.mkdir()
        for name, value in _KERNEL.items():
            file = kernel / name.replace("/", "-")
            file.write_text(f"{value}\n")
            lines.append(f"mount --bind {file} /proc/sys/{name}")
        subprocess.run([*self.inside, "sh", "-c", "\n".join(lines)], check=True)

    def _make_cgroups(self) -> None:
        """A cgroup of its own in every hierarchy: a kubelet ends all pods below its root that are not its own."""
        for hierarchy in filter(Path.is_dir, Path("/sys/fs/cgroup").iterdir()):
            made = hierarchy / self.cgroup_root.lstrip("/")
            made.mkdir()
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (made / name).exists():
                    (made / name).write_text((hierarchy / name).read_text())

    def _remove_cgroups(self) -> None:
        """Remove them, once what was in them has ended."""

        def left() -> list[Path]:
            roots = list(Path("/sys/fs/cgroup").glob(f"*{self.cgroup_root}"))
            for folder in (folder for root in roots for folder, _, _ in os.walk(root, topdown=False)):
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            return [root for root in roots if root.exists()]

        until(lambda: not left(), "the cgroups are empty")

    def _write_files(self) -> None:
        self.static_pods.mkdir()
        files = {
            "tokens.csv": TOKENS,
            "node.kubeconfig": json.dumps(kubeconfig(self._api.ca)),
            "kubelet.json": json.dumps(
                kubelet_settings(self._containerd, self.clients.ca, self.static_pods, self.cgroup_root)
            ),
            "containerd.toml": containerd_settings(self.folder, self._containerd),
        }
        for name, text in files.items():
            (self.folder / name).write_text(text)
        for name, command in (("localhost/pause:1", "2147483647"), (IMAGE, "3600")):
            (self.folder / f"{name[10:-2]}.tar").write_bytes(image(name, ["/bin/sleep", command]))

    def _start(self) -> None:
        etcd = "http://127.0.0.1:2379"
        self._run(
            [
                "etcd",
                f"--data-dir={self.folder}/etcd",
                "--unsafe-no-fsync",
                "--listen-peer-urls=http://127.0.0.1:2380",
                f"--listen-client-urls={etcd}",
                f"--advertise-client-urls={etcd}",
            ]
        )
        self._run(["containerd", "-c", f"{self.folder}/containerd.toml"])
        key = rsa.generate_private_key(65_537, 2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / "sa.key").write_bytes(pem)
        self._run(
            [
                f"{self._programs}/kube-apiserver",
                f"--etcd-servers={etcd}",
                "--secure-port=6443",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--tls-cert-file={self._api.chain}",
                f"--tls-private-key-file={self._api.key}",
                "--service-account-issuer=https://127.0.0.1:6443",
                f"--service-account-key-file={self.folder}/sa.key",
                f"--service-account-signing-key-file={self.folder}/sa.key",
                f"--token-auth-file={self.folder}/tokens.csv",
                "--authorization-mode=Node,RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--endpoint-reconciler-type=none",
                "--disable-admission-plugins=ServiceAccount",
            ]
        )
        until(self._containerd.exists, "containerd's socket", _READY_SECONDS)
        for name in ("pause", "app"):
            ctr = ["ctr", "-a", str(self._containerd), "-n", "k8s.io", "images", "import", "--snapshotter", "native"]
            subprocess.run([*self.inside, *ctr, f"{self.folder}/{name}.tar"], check=True, capture_output=True)
        until(lambda: self._ask("GET", "/readyz", check=False) == "ok", "the API server is ready", _READY_SECONDS)
        self._grant()
        self.start_kubelet()

    def start_kubelet(self) -> None:
        """Start the kubelet, and wait until it answers for its pods."""
        self._kubelet = self._run(
            [
                f"{self._programs}/kubelet",
                f"--config={self.folder}/kubelet.json",
                f"--kubeconfig={self.folder}/node.kubeconfig",
                f"--hostname-override={NODE}",
                "--node-ip=127.0.0.1",
                f"--cert-dir={self.pki}",
                "--root-dir=/var/lib/kubelet",
            ]
        )
        until(lambda: self.ask_kubelet(TOKEN)[0] == 200, "the kubelet answers", _READY_SECONDS)
        until(lambda: self._ask("GET", f"/api/v1/nodes/{NODE}", check=False), "the node is known", _READY_SECONDS)

    def stop_kubelet(self) -> None:
        self._kubelet.terminate()
        self._kubelet.wait(20)
        self._parts.remove(self._kubelet)

    def _run(self, command: list[str]) -> "subprocess.Popen[bytes]":
        """Start a part inside, by its own pid: `nsenter` becomes it."""
        name = Path(command[0]).name
        with (self.folder / f"{name}.log").open("ab") as log:
            part = subprocess.Popen(
                [*_WITH_US, *self.inside, *command], stdout=log, stderr=log, env=clean_environment()
            )
        self._parts.append(part)
        return part

    def _kill_rest(self) -> None:
        """Kill what still is in the namespace of the network: shims of containerd, and containers."""
        own = namespace(self._parts[0].pid, "net")
        for entry in os.listdir("/proc"):
            if entry.isdecimal() and int(entry) != self._parts[0].pid and namespace(int(entry), "net") == own:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(entry), signal.SIGKILL)

    # --- use ---

    @property
    def inside(self) -> list[str]:
        """What to put before a command so that it runs in the cluster's namespaces; its paths must be absolute."""
        return ["nsenter", "-t", str(self._parts[0].pid), "-m", "-n", "--"]

    @property
    def network(self) -> list[str]:
        """What to put before a command so that it reaches the cluster, and sees the machine's files."""
        return ["nsenter", "-t", str(self._parts[0].pid), "-n", "--"]

    @property
    def logs(self) -> str:
        """The end of each part's log."""
        return "\n".join(f"{file.name}:\n{file.read_text()[-2000:]}" for file in sorted(self.folder.glob("*.log")))

    def get(self, path: str) -> Any:
        return self.send("GET", path)

    def send(self, method: str, path: str, document: Mapping[str, Any] | None = None) -> Any:
        """Ask the API server, as its administrator."""
        return json.loads(self._ask(method, path, document))

    def make_account(self, name: str) -> None:
        """Make a service account."""
        self.send("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": name}})

    def kubeconfig(self, token: str) -> Path:
        """A file by which a client of the API server finds it, and shows a token."""
        file = self.folder / f"{token}.kubeconfig"
        file.write_text(json.dumps(kubeconfig(self._api.ca, token)))
        return file

    def start_pod(self, name: str, **fields: Any) -> str:
        """Make a pod, as `kubernetesfiles.pod` does; its uid."""
        made = self.send("POST", "/api/v1/namespaces/default/pods", pod(name, **fields))
        return str(made["metadata"]["uid"])

    def run_pod(self, name: str, **fields: Any) -> dict[str, Any]:
        self.start_pod(name, **fields)
        return self.wait_for(name, lambda found: found["status"].get("phase") == "Running")

    def wait_for(self, name: str, holds: Any, namespace: str = "default") -> dict[str, Any]:
        """The pod of this name once `holds` is true of it."""

        def look() -> dict[str, Any] | None:
            text = self._ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}", check=False)
            found = json.loads(text) if text.startswith("{") else {}
            return found if found.get("kind") == "Pod" and holds(found) else None

        found = until(look, f"pod {name}", _READY_SECONDS)
        assert found is not None
        return found

    def delete(self, name: str, namespace: str = "default", *, wait: bool = True) -> None:
        """Delete a pod at once, and wait until the kubelet has let go of it."""
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        self._ask("DELETE", path, {"gracePeriodSeconds": 1}, check=False)
        if wait:
            until(lambda: '"NotFound"' in self._ask("GET", path, check=False), f"pod {name} is gone", 30)

    def pods_of_kubelet(self) -> dict[str, Any]:
        """The kubelet's own list."""
        status, text = self.ask_kubelet(TOKEN)
        assert 200 == status
        found: dict[str, Any] = json.loads(text)
        return found

    def ask_kubelet(self, token: str = "", *extra: str) -> tuple[int, str]:
        """What the kubelet answers about its pods, to one who trusts it blindly. 0: it cannot be reached."""
        header = ["-H", f"Authorization: Bearer {token}"] if token else []
        url = f"https://127.0.0.1:{KUBELET_PORT}/pods"
        done = subprocess.run(
            [*self.network, "curl", "-sk", "-w", "\n%{http_code}", *header, *extra, url], capture_output=True, text=True
        )
        text, _, status = done.stdout.rpartition("\n")
        return int(status or 0), text

    def pid_of(self, container: str) -> int:
        """The first process of a container, by its 64 hex digits, once it runs its own program: as the machine sees it."""

        def look() -> int:
            first = next(iter(members(f"/{container}/")), 0)
            return first if command_of(first) and "runc" not in command_of(first) else 0

        return until(look, f"a process of {container}")

    def process_in(self, uid: str, image_command: str) -> int:
        """A process in a pod that runs `image_command`, whether the kubelet knows of it yet or not; 0: there is none."""
        return next((pid for pid in members(f"/pod{uid}/") if image_command in command_of(pid)), 0)

    def log_of(self, name: str) -> str:
        """What the containers of a pod have printed."""
        logs = Path(f"/proc/{self._parts[0].pid}/root/var/log/pods")
        return "".join(file.read_text() for file in logs.glob(f"default_{name}_*/*/*.log"))

    def agent(self, settings: str, *, more: str = "") -> AgentProcess:
        """An agent in the namespace of the network, with `settings` for its attestor `k8s`."""
        return AgentProcess(config=f"[attestors.unix]\n[attestors.k8s]\n{settings}\n{more}", under=self.network)

    # --- parts ---

    def _ask(self, method: str, path: str, document: Mapping[str, Any] | None = None, *, check: bool = True) -> str:
        kind = "application/strategic-merge-patch+json" if method == "PATCH" else "application/json"
        command = ["curl", "-s", "--cacert", str(self._api.ca), "-X", method, f"https://127.0.0.1:6443{path}"]
        command += ["-H", f"Authorization: Bearer {ADMIN_TOKEN}", "-H", f"Content-Type: {kind}"]
        command += [] if document is None else ["--data", json.dumps(document)]
        done = subprocess.run([*self.network, *command], capture_output=True, text=True)
        if check and (done.returncode != 0 or '"kind":"Status"' in done.stdout.replace(" ", "")):
            raise AssertionError(f"{method} {path}: {done.returncode} {done.stdout[:2000]}")
        return done.stdout

    def _grant(self) -> None:
        """Accounts and rights. For a kubelet of 1.33 or newer `get nodes/pods` is all that it takes."""
        self._allow(USER, "pods-of-node", {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]})
        self._allow(
            REVIEWER,
            "reviews-of-tokens",
            {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get"]},
            {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        )
        self.make_account("web")

    def _allow(self, user: str, name: str, *rules: Mapping[str, Any]) -> None:
        group = "/apis/rbac.authorization.k8s.io/v1"
        self.send("POST", f"{group}/clusterroles", {"metadata": {"name": name}, "rules": rules})
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
        self.send("POST", f"{group}/clusterrolebindings", binding)
