"""An agent in a pod of a real Kubernetes, as a DaemonSet has it: with the token that the kubelet projects for it there."""

import json
import os
import sys
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.agent import READY_SECONDS, ROOT, AgentProcess
from harness.forks import PROGRAM
from harness.kubernetes import Cluster
from harness.kubernetesfiles import container, container_id
from harness.looking import until

AUDIENCE = "spire-server"
_MOUNTED = "/var/run/secrets/tokens"
# What an agent needs to look at the processes of others, and nothing else.
_RIGHTS = {
    "capabilities": {"drop": ["ALL"], "add": ["SYS_PTRACE", "DAC_READ_SEARCH"]},
    "allowPrivilegeEscalation": False,
}


def token_volume(audience: str = AUDIENCE) -> dict[str, Any]:
    """A volume as the manifests of agents have it."""
    token = {"path": "spire-agent", "audience": audience, "expirationSeconds": 600}
    return {"name": "tokens", "projected": {"sources": [{"serviceAccountToken": token}]}}


def token_mount() -> dict[str, Any]:
    return {"name": "tokens", "mountPath": _MOUNTED, "readOnly": True}


def token_in(cluster: Cluster, found: Mapping[str, Any]) -> str:
    """The token that a pod's main container sees now."""
    pid = cluster.pid_of(container_id(found))
    return Path(f"/proc/{pid}/root{_MOUNTED}/spire-agent").read_text()


def claims_of(token: str) -> dict[str, Any]:
    """What a token says. It is not verified."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def run_holder(cluster: Cluster, name: str, account: str, audience: str = AUDIENCE) -> dict[str, Any]:
    """A pod that does nothing but have a token of an account."""
    main = container("main", volumeMounts=[token_mount()])
    return cluster.run_pod(name, serviceAccountName=account, containers=[main], volumes=[token_volume(audience)])


class PodAgent(AgentProcess):
    """An agent in a pod. Use as a context manager, or `start` and `stop` its pod; the folder stays meanwhile."""

    def __init__(self, cluster: Cluster, name: str, account: str, config: str, folder: Path) -> None:
        """`account`: the service account of its pod. `folder`: the machine's, which the pod has at the same path."""
        super().__init__(config=config, folder=folder)
        self.cluster, self.name, self.account = cluster, name, account
        self.pod: dict[str, Any] = {}

    def start(self, *extra: str) -> "PodAgent":
        mounts, volumes = self._volumes()
        command = [PROGRAM, "agent", "run", "--config", str(self.config), *self.places, *extra]
        main = container("main", *command, volumeMounts=[*mounts, token_mount()], securityContext=_RIGHTS)
        spec = {"hostPID": True, "containers": [main], "volumes": [*volumes, token_volume()]}
        self.pod = self.cluster.run_pod(self.name, serviceAccountName=self.account, **spec)
        until(lambda: "ready" in self.said, f"the agent in {self.name} is ready: {self.said}", READY_SECONDS)
        return self

    def stop(self, number: int = 0) -> int:
        self.cluster.delete(self.name)
        return number

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def said(self) -> str:
        """What it has printed, its log too."""
        return self.cluster.log_of(self.name)

    @property
    def token(self) -> str:
        """What the kubelet has put into its pod by now."""
        return token_in(self.cluster, self.pod)

    def _volumes(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The machine's folders with its program, its cgroups, and its own: each only if it is not within another."""
        programs = {"/usr", "/lib", "/lib64", "/sys/fs/cgroup", sys.base_prefix, sys.prefix, str(ROOT)}
        wanted = {Path(each) for each in (*programs, self.folder) if os.path.isdir(each)}
        paths = sorted(each for each in wanted if not wanted.intersection(each.parents))
        mounts = [
            {"name": f"folder-{number}", "mountPath": str(path), "readOnly": path != self.folder}
            for number, path in enumerate(paths)
        ]
        return mounts, [
            {"name": each["name"], "hostPath": {"path": str(path)}} for each, path in zip(mounts, paths, strict=True)
        ]
