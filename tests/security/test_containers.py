"""Processes that try to pass for a container's: case 25 of docs/security-cases.md and what is around it.

The containers are real. A process passes for one if it is located in it and found inside.
"""

import contextlib
import os
import random
import subprocess
import threading
from pathlib import Path

import pytest
from harness.disguises import Ground, entering
from harness.engines import HOST_IMAGE, Container, Engine
from harness.inmates import Cgroups, Inmate, inmate, subject_of
from harness.looking import until
from sojourn.errors import AttestationFailed
from sojourn_attestors.containers.place import Containers, NotInside, OfUser, Place

USER = 61_240
DISGUISES = 150
HOPS = 1_000
DEATHS = 100
POD = "1b2c3d4e-89ab-4def-8123-456789abcdef"
pytestmark = [pytest.mark.full, pytest.mark.root]


@pytest.fixture
def target(engine: Engine) -> Container:
    """The container that all want to be in."""
    return engine.run()


async def passes(containers: Containers, pid: int, target: Container) -> bool:
    """Whether a process passes for one of the target's."""
    try:
        subject = subject_of(pid)
        place = await containers.locate(subject)
        for each in () if place is None else (place, *place.enclosing):
            if each.id == target.id and not each.owner:
                await containers.check_inside(subject, each, target.pid)
                return True
    except AttestationFailed:
        return False
    return False


async def until_refused(containers: Containers, process: Inmate, place: Place, first: int) -> None:
    """Check again and again until the process is inside no more."""
    with contextlib.suppress(AttestationFailed):
        while True:
            await containers.check_inside(process.subject, place, first)


class TestDisguises:
    async def test_one_thing_missing(self, engine: Engine, containers: Containers, target: Container) -> None:
        """Whoever has all of a container's cgroups and namespaces but one is not inside; with all of them it would be."""
        ground = Ground.of(target)
        with ground.disguised(ground.folders, list(ground.kinds)) as process:
            assert await passes(containers, process.pid, target)
        for missing in ground.kinds:
            with ground.disguised(ground.folders, [kind for kind in ground.kinds if kind != missing]) as process:
                assert not await passes(containers, process.pid, target), missing
        for missing in ground.folders:
            with ground.disguised([each for each in ground.folders if each != missing], list(ground.kinds)) as process:
                assert not await passes(containers, process.pid, target), missing

    async def test_by_chance(self, docker: Engine, containers: Containers) -> None:
        """Processes with any part of a container's cgroups and namespaces pass if they have all, and none of their own."""
        target = _with_programs(docker)
        ground = Ground.of(target)
        chance = random.Random(25)
        passed = whole = 0
        for _ in range(DISGUISES):
            folders = [each for each in ground.folders if chance.random() < 0.9]
            kinds = [kind for kind in ground.kinds if chance.random() < 0.8]
            new = [flag for flag in ("--mount", "--uts", "--ipc", "--net", "--cgroup") if chance.random() < 0.2]
            with ground.disguised(folders, kinds, *new) as process:
                passed += await passes(containers, process.pid, target)
            whole += (folders, kinds, new) == (ground.folders, list(ground.kinds), [])
        assert whole == passed
        assert 0 < whole < DISGUISES / 4

    async def test_in_its_root_folder(self, engine: Engine, containers: Containers, target: Container) -> None:
        """Whoever makes the container's root folder its own, from its cgroup, is not inside."""
        ground = Ground.of(target)
        argv = ["chroot", f"/proc/{target.pid}/root", "/bin/sleep", "600"]
        process = subprocess.Popen(["sh", "-c", entering(ground.folders), "sh", *argv])
        try:
            until(lambda: os.readlink(f"/proc/{process.pid}/exe").endswith("busybox"), "it runs in there")
            assert target.id in subject_of(process.pid).cgroup
            assert not await passes(containers, process.pid, target)
        finally:
            process.kill()
            process.wait()


class TestRaces:
    async def test_in_and_out(self, docker: Engine, containers: Containers) -> None:
        """A process that moves into the container's cgroup and out of it all the time never passes."""
        target = docker.run()
        ground = Ground.of(target)
        ways = [(folder, folder.parent.parent) for folder in ground.folders]
        moves = "; ".join(f"echo 0 > {inside}/cgroup.procs; echo 0 > {out}/cgroup.procs" for inside, out in ways)
        process = subprocess.Popen(["sh", "-c", f"while :; do {moves}; done"])
        try:
            seen, passed = set(), 0
            for _ in range(HOPS):
                seen.add(target.id in subject_of(process.pid).cgroup)
                passed += await passes(containers, process.pid, target)
            assert {True, False} == seen
            assert 0 == passed
        finally:
            process.kill()
            process.wait()
            until(lambda: process.pid not in _members(ground.folders), "it has left")

    async def test_the_first_process_dies(self, containers: Containers, cgroups: Cgroups) -> None:
        """Whoever outlives the first process is not inside from then on, at whatever moment that dies."""
        for number in range(DEATHS):
            name = f"{number:064x}"
            folders = cgroups.make(f"/sojourn-test-{os.getpid()}/docker-{name}.scope", "cgroup2")
            with (
                inmate(folders, "--mount") as first,
                inmate(folders, join=[f"--target={first.pid}", "--mount"]) as process,
            ):
                place = await containers.locate(process.subject)
                assert place is not None
                await containers.check_inside(process.subject, place, first.pid)
                death = threading.Timer(number / 50_000, first.end)
                death.start()
                await until_refused(containers, process, place, first.pid)
                death.join()
                with pytest.raises(AttestationFailed):
                    await containers.check_inside(process.subject, place, first.pid)


class TestUsers:
    async def test_forged_files(
        self, engine: Engine, containers: Containers, target: Container, tmp_path: Path
    ) -> None:
        """A user who mounts other files over /proc, /sys/fs/cgroup and the engine's files changes what they see alone."""
        cgroup = Path(f"/proc/{target.pid}/cgroup").read_text()
        own = tmp_path / "containers" / target.id
        own.mkdir(parents=True)
        (own / "hostname").write_text("x\n")
        (own / "cgroup").write_text(cgroup)
        _open_to_all(tmp_path)
        prepare = " && ".join(
            [
                "mount -t proc none /proc",
                "mount -t tmpfs none /sys/fs/cgroup",
                f"mkdir -p /sys/fs/cgroup/docker/{target.id}",
                "mount --bind /sys/fs/cgroup/docker /sys/fs/cgroup",
                f"mount --bind {own}/cgroup /proc/self/cgroup",
                f"mount --bind {own}/cgroup /proc/$$/cgroup",
                f"mount --bind {own}/hostname /etc/hostname",
            ]
        )
        new = ("--user", "--map-root-user", "--mount", "--pid", "--cgroup", "--net", "--ipc", "--uts")
        with inmate((), *new, uid=USER, prepare=prepare) as process:
            inside = Path(f"/proc/{process.pid}/root/proc/1/cgroup").read_text()
            assert cgroup == inside, "the forgery did not take"
            with pytest.raises(OfUser) as refused:
                await containers.locate(process.subject)
            assert USER == refused.value.uid

    async def test_a_cgroup_that_anyone_may_join(
        self, engine: Engine, containers: Containers, target: Container
    ) -> None:
        """A user who may, by mistake, move into the container's cgroup gets nothing by it."""
        ground = Ground.of(target)
        for folder in ground.folders:
            (folder / "cgroup.procs").chmod(0o666)
        for above in {folder.parent for folder in ground.folders} | set(Cgroups.every_root()):
            with contextlib.suppress(OSError):
                assert above.stat().st_uid == 0
        with inmate(ground.folders, "--user", "--map-root-user", "--mount", "--pid", uid=USER) as process:
            place = await containers.locate(process.subject)
            assert place is not None
            assert target.id == place.id
            with pytest.raises(NotInside):
                await containers.check_inside(process.subject, place, target.pid)
            with pytest.raises(NotInside):
                await containers.first_process(place)

    @pytest.mark.parametrize("form", ["docker-{id}.scope", "libpod-{id}.scope", "{id}", f"kubepods/pod{POD}/{{id}}"])
    async def test_a_cgroup_named_like_a_container(
        self, docker: Engine, containers: Containers, cgroups: Cgroups, form: str
    ) -> None:
        """A user who was given a cgroup names one below it like a running container, and gets nothing by it."""
        target = docker.run()
        (own,) = cgroups.make(f"/sojourn-test-{os.getpid()}/user@{USER}.service", "cgroup2")
        for each in (own, own / "cgroup.procs", own / "cgroup.subtree_control", own / "cgroup.threads"):
            os.chown(each, USER, USER)
        with inmate([own], "--user", "--map-root-user", "--mount", "--pid", uid=USER) as process:
            path = form.replace("{id}", target.id)
            script = f"mkdir -p {own}/{path} && echo {process.pid} > {own}/{path}/cgroup.procs"
            subprocess.run(["setpriv", f"--reuid={USER}", "--clear-groups", "sh", "-c", script], check=True)
            cgroups.adopt(own, path)
            assert path in process.subject.cgroup
            with pytest.raises(OfUser) as refused:
                await containers.locate(process.subject)
            assert USER == refused.value.uid


class TestContainersInContainers:
    @pytest.mark.parametrize("engine", ["_docker", "_docker_v2"], indirect=True)
    async def test_of_its_own_making(self, engine: Engine, containers: Containers, target: Container) -> None:
        """Root of one container names a cgroup in it like another container, moves there, and does not pass for that."""
        nest = engine.run(flags=["--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined"])
        own = f"/tmp/c/docker-{target.id}.scope" if engine.v2 else f"/tmp/c/docker/{nest.id}/docker-{target.id}.scope"
        steps = ["mkdir /tmp/c", "mount -t cgroup2 none /tmp/c", f"mkdir {own}"]
        script = " && ".join([*(f"busybox {step}" for step in steps), f"echo 0 > {own}/cgroup.procs", "exec sleep 400"])
        engine.command("exec", "--detach", nest.id, "sh", "-c", script)
        pid = until(lambda: _sleeper(nest.pids(), 400), "it is in the cgroup that it made")
        try:
            assert target.id in subject_of(pid).cgroup
            assert nest.id in subject_of(pid).cgroup
            assert not await passes(containers, pid, target)
        finally:
            os.kill(pid, 9)
            for folder in Ground.of(nest).folders:
                until(lambda folder=folder: _removed(folder / f"docker-{target.id}.scope"), "its cgroup is gone")

    async def test_that_shares_all_it_can(self, docker: Engine, containers: Containers) -> None:
        """A container that was given another's process, IPC and network namespaces joins its mounts, and is not inside."""
        target = docker.run(flags=["--ipc", "shareable"])
        shared = [f"--{kind}=container:{target.id}" for kind in ("pid", "ipc")]
        nest = docker.run(flags=[*shared, "--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE", "--uts", "host"])
        pids = set(target.pids())
        assert nest.pid in pids
        assert not await passes(containers, nest.pid, target)
        ground = Ground.of(target)
        own = Ground.of(nest)
        with ground.disguised(own.folders, list(ground.kinds)) as process:  # as its nsenter would have it
            assert nest.id in process.subject.cgroup
            assert not await passes(containers, process.pid, target)
            assert not await passes(containers, process.pid, nest)

    async def test_with_namespaces_of_its_own(self, docker: Engine, containers: Containers) -> None:
        """Whoever makes itself a namespace inside a container is told as the container's no more."""
        target = _with_programs(docker)
        ground = Ground.of(target)
        with ground.disguised(ground.folders, list(ground.kinds)) as process:
            assert await passes(containers, process.pid, target)
        for flag in ("--mount", "--net", "--uts", "--ipc", "--pid", "--cgroup", "--user"):
            with ground.disguised(ground.folders, list(ground.kinds), flag) as process:
                assert not await passes(containers, process.pid, target), flag


def _with_programs(engine: Engine) -> Container:
    """A container that has this machine's programs."""
    return engine.run("sleep", "1000", image=HOST_IMAGE, flags=["--volume", "/usr:/usr:ro"])


def _members(folders: list[Path]) -> set[int]:
    return {int(line) for folder in folders for line in (folder / "cgroup.procs").read_text().split()}


def _open_to_all(folder: Path) -> None:
    """Let all users come as far as this folder of the test's, and read what is in it."""
    for each in folder.rglob("*"):
        each.chmod(0o755 if each.is_dir() else 0o644)
    for each in (folder, *folder.parents):
        if each.stat().st_uid == os.geteuid() and each != Path("/"):
            each.chmod(each.stat().st_mode | 0o055)


def _sleeper(pids: list[int], seconds: int) -> int:
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes() == f"sleep\0{seconds}\0".encode():
                return pid
    return 0


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()
