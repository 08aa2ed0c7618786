"""A bus with a unit's systemd on it, a process, the cgroups that it may be in, and the attestor that tells its unit."""

import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from fakes.children import child, holder_of
from fakes.systembus import FakeSystemBus
from sojourn.errors import AttestationFailed
from sojourn_attestors.systemd import SystemdAttestor

CGROUP = "/system.slice/web.service"
VALUES = {
    "id:web.service",
    "fragment_path:/etc/systemd/system/web.service",
    "slice:system.slice",
    "invocation_id:000102030405060708090a0b0c0d0e0f",
    "manager:system",
}
UNITS = {"id", "fragment_path", "slice", "invocation_id", "template", "instance", "manager"}


class Folders:
    """Folders as cgroups have them, below one of the test's, and the users who own some."""

    def __init__(self, root):
        self._root = root
        self.visible = True

    def folder(self, cgroup):
        if not self.visible:
            return None
        return str(self.make(cgroup.path))

    def make(self, path):
        names = [name for name in path.split("/") if name]
        for length in range(len(names) + 1):
            folder = self._root.joinpath(*names[:length])
            if not folder.exists():
                folder.mkdir(mode=0o755)
                (folder / "cgroup.procs").touch(0o644)
                self._give(folder, 0)
        return folder

    def give(self, path, uid):
        self._give(self.make(path), uid)

    @staticmethod
    def _give(folder, uid):
        if os.geteuid() == 0:
            for each in (folder, folder / "cgroup.procs"):
                os.chown(each, uid, uid)


def made(bus, cgroups, **settings):
    attestor = SystemdAttestor({"socket": bus.socket, **settings}, ThreadPoolExecutor(1))
    attestor._folders = cgroups
    return attestor


def subject(process, cgroup=f"0::{CGROUP}\n"):
    return SimpleNamespace(pid=process.pid, pidfd=process.pidfd, cgroup=cgroup, uid=0, who=0, gid=0, groups=frozenset())


async def values_of(bus, cgroups, process, cgroup=f"0::{CGROUP}\n", **settings):
    attestor = made(bus, cgroups, **settings)
    try:
        return await attestor.attest(subject(process, cgroup))
    finally:
        await attestor.close()


async def reason_of(attestor, process, cgroup=f"0::{CGROUP}\n"):
    with pytest.raises(AttestationFailed) as refused:
        await attestor.attest(subject(process, cgroup))
    return refused.value.public.removeprefix("workload attestation failed: ")


@pytest.fixture(name="bus")
def bus_fixture(tmp_path):
    with FakeSystemBus(tmp_path) as bus:
        yield bus


@pytest.fixture(name="process")
def process_fixture():
    with child() as process:
        pinned = holder_of(process)
        yield pinned
        pinned.close()


@pytest.fixture(name="attestor")
async def attestor_fixture(bus, cgroups):
    attestor = made(bus, cgroups)
    yield attestor
    await attestor.close()


@pytest.fixture(name="cgroups")
def cgroups_fixture(tmp_path):
    return Folders(tmp_path / "cgroups")
