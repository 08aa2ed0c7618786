"""Processes in cgroups that a kubelet would give to containers of pods, and a stand-in kubelet that lists them."""

import contextlib
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.inmates import Cgroups, Inmate, inmate
from harness.kubeletstandin import Kubelet, listed, pod_of

ALONE = ("--mount", "--ipc", "--uts")  # what a container has of its own; no PIDs, for which unshare(1) stays in between
CGROUP_ROOT = f"/sojourn-test-{secrets.token_hex(8)}"  # the kubelet's
SHAPES = {
    "cgroupfs": "/kubepods/besteffort/pod{uid}/{id}",
    "guaranteed": "/kubepods/pod{uid}/{id}",
    "systemd": "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope",
    "cri-o": "/kubepods.slice/kubepods-pod{slice}.slice/crio-{id}.scope",
}


class PodContainer:
    """A container of the recorded pod `web`: its id, and the folders of its cgroups."""

    def __init__(
        self,
        cgroups: Cgroups,
        kubelet: Kubelet,
        name: str = "main",
        shape: str = "cgroupfs",
        pod: str = "web",
    ) -> None:
        """`kubelet` does not list it until `list` is called."""
        self._kubelet = kubelet
        self._pod = pod
        self.name = name
        self.id = secrets.token_hex(32)
        self.uid = str(pod_of(kubelet.pods, pod)["metadata"]["uid"])
        self.shape = SHAPES[shape].format(uid=self.uid, id=self.id, slice=self.uid.replace("-", "_"))
        self.path = f"{CGROUP_ROOT}{self.shape}"
        self.folders: Sequence[Path] = cgroups.make(self.path)

    def list(self, pod: str = "") -> None:
        """Have the kubelet list it, as the container of its name in its pod, or in another."""
        listed(self._kubelet.pods, pod or self._pod, self.name, self.id)

    @contextlib.contextmanager
    def process(self, *unshare: str) -> Iterator[Inmate]:
        """Its first process, in namespaces of its own."""
        with inmate(self.folders, *(unshare or ALONE)) as running:
            yield running
