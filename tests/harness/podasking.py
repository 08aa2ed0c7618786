"""An attestor that asks a stand-in for the kubelet about a process's pod, and what it answers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sojourn.errors import AttestationFailed
from sojourn_attestors.kubernetes import KubernetesAttestor

from harness.kubeletstandin import Kubelet
from harness.podlike import CGROUP_ROOT
from harness.subjects import subject_of


async def ask(attestor, pid):
    with subject_of(pid) as subject:
        return await attestor.attest(subject)


async def reason(attestor, pid):
    """Why it cannot tell."""
    with pytest.raises(AttestationFailed) as raised:
        await ask(attestor, pid)
    return raised.value.public.removeprefix("workload attestation failed: ")


@pytest.fixture(name="pool")
def pool_fixture():
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture(name="kubelet")
def kubelet_fixture(tmp_path):
    with Kubelet(tmp_path) as kubelet:
        yield kubelet


@pytest.fixture(name="make")
async def make_fixture(kubelet, pool, tmp_path):
    """Makes an attestor that asks the stand-in; closes all in the end."""
    made = []

    def one(**settings):
        made.append(KubernetesAttestor(kubelet.settings(tmp_path, cgroup_root=CGROUP_ROOT, **settings), pool))
        return made[-1]

    yield one
    for each in made:
        await each.close()
