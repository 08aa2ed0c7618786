"""The attestor `k8s` keeps what sojourn.testing asks of every attestor, before a stand-in for the kubelet."""

import contextlib
import tempfile
from pathlib import Path

import pytest
from harness.inmates import Cgroups
from harness.kubeletstandin import Kubelet
from harness.podlike import CGROUP_ROOT, PodContainer
from harness.ports import free_port
from harness.subjects import subject_of
from sojourn.testing.attestors import AttestorCase, AttestorContract
from sojourn_attestors.kubernetes import KubernetesAttestor

pytestmark = [pytest.mark.full, pytest.mark.root]
KINDS = {
    *("ns", "sa", "node-name", "pod-name", "pod-uid", "pod-label", "pod-owner", "pod-owner-uid", "pod-image"),
    *("pod-image-count", "pod-init-image", "pod-init-image-count", "container-name", "container-image"),
}


class Ground:
    """A kubelet, and a process in a container of a pod that it lists, while `known` is open."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.gettempdir()) / f"sojourn-test-{free_port()}"
        self.port = free_port()
        self.kubelet: Kubelet | None = None

    @property
    def settings(self) -> dict[str, object]:
        paths = {"kubelet_ca_path": str(self.folder / "kubelet" / "ca.pem"), "token_path": str(self.folder / "token")}
        return {
            "kubelet_secure_port": self.port,
            "node_name": "node1",
            "max_age": "0s",
            "cgroup_root": CGROUP_ROOT,
            **paths,
        }

    @contextlib.contextmanager
    def known(self):
        with tempfile.TemporaryDirectory() as folder, Kubelet(Path(folder), port=self.port) as kubelet:
            self.folder.symlink_to(folder)
            try:
                kubelet.settings(self.folder)
                with Cgroups() as cgroups:
                    container = PodContainer(cgroups, kubelet)
                    container.list()
                    self.kubelet = kubelet
                    with container.process() as process, subject_of(process.pid) as subject:
                        yield subject
            finally:
                self.folder.unlink()

    @contextlib.contextmanager
    def changed(self, **changes):
        before = {name: getattr(self.kubelet, name) for name in changes}
        for name, value in changes.items():
            setattr(self.kubelet, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self.kubelet, name, value)

    @contextlib.contextmanager
    def hanging(self):
        self.kubelet.gate.clear()
        try:
            yield
        finally:
            self.kubelet.gate.set()

    @contextlib.contextmanager
    def without_token(self):
        token = self.folder / "token"
        text = token.read_text()
        token.unlink()
        try:
            yield
        finally:
            token.write_text(text)


GROUND = Ground()
CASE = AttestorCase(
    plugin=KubernetesAttestor,
    kinds=KINDS,
    settings=GROUND.settings,
    known=GROUND.known,
    expected={"ns:default", "sa:web", "pod-name:web", "container-name:main"},
    broken={
        "hangs": GROUND.hanging,
        "has no token": GROUND.without_token,
        "refuses": lambda: GROUND.changed(token="another"),
        "is unwell": lambda: GROUND.changed(status=503),
        "hangs up": lambda: GROUND.changed(short=True),
        "answers HTML": lambda: GROUND.changed(answer=b"<html>"),
        "lists nothing": lambda: GROUND.changed(answer=b'{"kind":"PodList","items":null}'),
    },
    quiet=True,
)


@pytest.mark.parametrize("promise", AttestorContract(CASE).promises, ids=str)
def test_contract(promise):
    """The attestor keeps the promise, whatever process it is asked about and whatever the kubelet does."""
    promise.run()
