"""What a real Kubernetes of one node is told (kubernetes.py): settings of its parts, pods, and images of busybox."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NODE = "node1"
KUBELET_PORT, READ_ONLY_PORT = 10250, 10255
USER = "sojourn"  # who may ask the kubelet for its pods
TOKEN, USELESS_TOKEN, ADMIN_TOKEN = "podreader-token", "stranger-token", "admin-token"
REVIEWER, REVIEWER_TOKEN = "spire-server", "reviewer-token"  # a SPIRE server, with the rights that its plugin needs
TOKENS = f"""{ADMIN_TOKEN},admin,1,"system:masters"
node-token,system:node:{NODE},2,"system:nodes"
{TOKEN},{USER},3,""
{USELESS_TOKEN},stranger,4,""
{REVIEWER_TOKEN},{REVIEWER},5,""
"""
IMAGE = "localhost/app:1"
BUSYBOX = "/bin/busybox"
_APPLETS = ("sh", "sleep", "ls", "cat", "id", "true")


def kubeconfig(authority_file: Path, token: str = "node-token") -> dict[str, Any]:
    """How who has this token reaches the API server: the kubelet, if nothing else is said."""
    authority = base64.b64encode(authority_file.read_bytes()).decode()
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [
            {"name": "x", "cluster": {"server": "https://127.0.0.1:6443", "certificate-authority-data": authority}}
        ],
        "users": [{"name": "x", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }


def kubelet_settings(runtime: Path, clients: Path, static_pods: Path, cgroup_root: str) -> dict[str, Any]:
    """`runtime`: containerd's socket. `clients`: who vouches for client certificates."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": True,
        "cgroupRoot": cgroup_root,
        "enforceNodeAllocatable": [],
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "protectKernelDefaults": True,
        "containerRuntimeEndpoint": f"unix://{runtime}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True, "cacheTTL": "1s"},
            "x509": {"clientCAFile": str(clients)},
        },
        "authorization": {"mode": "Webhook"},
        "readOnlyPort": READ_ONLY_PORT,
        "port": KUBELET_PORT,
        "resolvConf": "",
        "evictionHard": {},
        "localStorageCapacityIsolation": False,
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": "/var/lib/kubelet/vp",
        "staticPodPath": str(static_pods),
        "fileCheckFrequency": "1s",
    }


def containerd_settings(folder: Path, runtime: Path) -> str:
    """`folder`: where it keeps what it has."""
    return f"""version = 2
root = "{folder}/containerd"
state = "{folder}/containerd-state"
[grpc]
address = "{runtime}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/pause:1"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
"""


def pod(
    name: str, *, labels: Mapping[str, str] | None = None, owners: Sequence[Mapping[str, str]] = (), **spec: Any
) -> dict[str, Any]:
    """A pod of node `node1` that needs neither scheduler nor network plug-in nor registry."""
    fixed = {
        "nodeName": NODE,
        "hostNetwork": True,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "serviceAccountName": "web",
        "tolerations": [{"operator": "Exists"}],
        "containers": [container("main")],
    }
    metadata = {"name": name, "namespace": "default", "labels": dict(labels or {}), "ownerReferences": [*owners]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**fixed, **spec}}


def container(name: str, *command: str, **more: Any) -> dict[str, Any]:
    """One container that runs `command`, or sleeps."""
    fixed = {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": list(command) or ["sleep", "3600"]}
    return {**fixed, **more}


def container_id(found: Mapping[str, Any], name: str = "main", kind: str = "containerStatuses") -> str:
    """The 64 hex digits of a container of a pod."""
    (text,) = (each["containerID"] for each in found["status"][kind] if each["name"] == name)
    return str(text).partition("://")[2]


def image(name: str, command: list[str]) -> bytes:
    """A docker archive with busybox."""
    layer = _tar({"bin/busybox": Path(BUSYBOX).read_bytes()}, {f"bin/{each}": "busybox" for each in _APPLETS})
    settings = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar(
        {
            "config.json": json.dumps(settings).encode(),
            "layer.tar": layer,
            "manifest.json": json.dumps(manifest).encode(),
        },
        {},
    )


def _tar(files: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return made.getvalue()
