"""containers.py: whether a process that is in a container's cgroup is truly inside. Processes and namespaces are real."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.inmates import inmate
from harness.looking import WAIT_SECONDS, until
from sojourn.errors import AttestationFailed
from sojourn_attestors.containers import place as module
from sojourn_attestors.containers import processes as containerprocesses
from sojourn_attestors.containers.place import Containers, NotInside, OfUser, Place
from sojourn_attestors.kernel import mounts

pytestmark = pytest.mark.root

UID = "1b2c3d4e-89ab-4def-8123-456789abcdef"
USER, ANOTHER = 61_234, 61_235


def not_allowed(*_):
    raise PermissionError


def shows(source, target):
    """Shell text by which a process has a file mounted."""
    return f"mount --bind '{source}' '{target}'"


def sleepers(pids):
    return [int(pid) for pid in pids.split() if Path(f"/proc/{pid}/comm").read_text() == "sleep\n"]


@pytest.fixture
def lent(tmp_path, name):
    """Files such as engines mount into the container `name`; a path in a folder of any user's."""
    tmp_path.chmod(0o755)
    for folder in (f"docker/containers/{name}", f"storage/overlay-containers/{name}/userdata"):
        (tmp_path / folder).mkdir(parents=True)
        for file in ("hostname", "hosts", "resolv.conf", ".containerenv"):
            (tmp_path / folder / file).touch()
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o055)
    return tmp_path


class TestMounts:
    async def test_of_one_user(self, monkeypatch):
        """Whose mounts take long to look through does not take the threads of all others."""
        going_on = threading.Event()
        monkeypatch.setattr(module, "_by_mounts", lambda pid: None if pid == 2 else slowly())

        def slowly():
            going_on.wait()

        with ThreadPoolExecutor(8) as pool:
            containers = Containers(pool)
            slow = SimpleNamespace(pid=1, uid=USER, who=USER, cgroup="0::/\n")
            waiting = [asyncio.ensure_future(containers.locate(slow)) for _ in range(64)]
            await asyncio.sleep(0.05)
            other = SimpleNamespace(pid=2, uid=0, who=0, cgroup="0::/\n")
            try:
                assert await asyncio.wait_for(containers.locate(other), WAIT_SECONDS) is None
            finally:
                going_on.set()
            assert [None] * 64 == await asyncio.gather(*waiting)

    @pytest.mark.full
    async def test_of_docker(self, containers, lent, name):
        """Where no cgroup names a container, Docker's own files in the mount table do."""
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with inmate((), "--mount", prepare=prepare) as process:
            place = await containers.locate(process.subject)
            assert Place(name, "docker", "", "mounts", frozenset(), 0) == place

    @pytest.mark.full
    async def test_of_podman(self, containers, lent, name):
        """Where no cgroup names a container, Podman's own files do: the container itself, and not one whose network it shares."""
        (lent / "docker/containers" / name).rename(lent / "docker/containers" / name[::-1])
        prepare = " && ".join(
            [
                "mount -t tmpfs none /run && touch /run/.containerenv",
                shows(lent / f"storage/overlay-containers/{name}/userdata/.containerenv", "/run/.containerenv"),
                shows(lent / f"docker/containers/{name[::-1]}/hosts", "/etc/hosts"),
            ]
        )
        with inmate((), "--mount", prepare=prepare) as process:
            place = await containers.locate(process.subject)
            assert (name, "libpod", "mounts") == (place.id, place.runtime, place.found)

    @pytest.mark.full
    async def test_of_cgroups(self, containers, cgroups, base, name, tmp_path):
        """Where no cgroup names a container, its cgroup does where that is mounted."""
        (folder,) = cgroups.make(f"{base}/crio-{name}.scope", "cgroup2")
        with inmate((), "--mount", prepare=shows(folder, tmp_path)) as process:
            place = await containers.locate(process.subject)
            assert (name, "crio", "mounts") == (place.id, place.runtime, place.found)

    @pytest.mark.full
    async def test_that_name_two(self, containers, lent, name):
        """A mount table that names two containers is refused."""
        (lent / "docker/containers/other").mkdir()
        other = lent / "docker/containers" / name[::-1]
        (lent / "docker/containers/other").rename(other)
        (other / "hosts").touch()
        prepare = f"{shows(lent / f'docker/containers/{name}/hostname', '/etc/hostname')} && {shows(other / 'hosts', '/etc/hosts')}"
        with (
            inmate((), "--mount", prepare=prepare) as process,
            pytest.raises(AttestationFailed, match="several containers"),
        ):
            await containers.locate(process.subject)

    @pytest.mark.full
    async def test_elsewhere(self, containers, lent, name):
        """Such files at other places, as the machine itself may have them, name nothing."""
        (lent / "place").touch()
        prepare = shows(lent / f"docker/containers/{name}/hostname", lent / "place")
        with inmate((), "--mount", prepare=prepare) as process:
            assert await containers.locate(process.subject) is None

    async def test_made_by_a_user(self, containers, rootless, lent, name):
        """A user can show such mounts in a user namespace: they count as the user's own container."""
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with inmate((), "--user", "--map-root-user", "--mount", uid=USER, prepare=prepare) as process:
            with pytest.raises(OfUser) as refused:
                await containers.locate(process.subject)
            assert USER == refused.value.uid == (await rootless.locate(process.subject)).owner

    async def test_made_by_a_user_deep_inside(self, rootless, lent, name):
        """Of user namespaces in each other the outermost tells whose it is."""
        mounting = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        inner = f'unshare --user --map-root-user --mount sh -c "{mounting} && exec sleep 500" & true'
        with inmate((), "--user", "--map-root-user", "--mount", uid=USER, prepare=inner) as process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            deep = until(lambda: sleepers(children.read_text()), "the inner one sleeps")[0]
            assert USER == (await rootless.locate(SimpleNamespace(pid=deep, uid=USER, who=USER, cgroup="0::/\n"))).owner

    @pytest.mark.full
    async def test_very_many(self, containers, monkeypatch):
        """A mount table over the limit is refused."""
        monkeypatch.setattr(mounts, "MOUNT_TABLE_MAX_BYTES", 100)
        with inmate((), "--mount") as process, pytest.raises(AttestationFailed, match="larger than 100 bytes"):
            await containers.locate(process.subject)

    @pytest.mark.full
    async def test_where_the_agent_may_not_look(self, containers, lent, name, monkeypatch):
        """An agent that may not look at namespaces goes by the mounts, which anyone may: and tells no container by them."""
        monkeypatch.setattr(module, "mount_namespace", not_allowed)
        monkeypatch.setattr(module, "user_namespace_owner", not_allowed)
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with inmate((), "--mount") as plain, inmate((), "--mount", prepare=prepare) as process:
            assert await containers.locate(plain.subject) is None
            with pytest.raises(AttestationFailed, match="namespaces cannot be read"):
                await containers.locate(process.subject)

    @pytest.mark.full
    async def test_of_one_that_has_gone(self, containers):
        """A process that ends meanwhile is refused."""
        with inmate((), "--mount") as process:
            subject = process.subject
        with pytest.raises(AttestationFailed, match="cannot be read"):
            await containers.locate(subject)


KINDS = {
    "cgroup": "--cgroup",
    "ipc": "--ipc",
    "mnt": "--mount",
    "net": "--net",
    "pid": "--pid",
    "time": "--time",
    "user": "--user",
    "uts": "--uts",
}


class TestInside:
    @pytest.fixture
    def folders(self, cgroups, base, name):
        return cgroups.make(f"{base}/docker-{name}.scope")

    @pytest.mark.full
    async def test_who_shares_all(self, containers, cgroups, base, name, folders):
        """Whoever shares cgroups and namespaces with the first process is inside, in cgroups below too."""
        below = cgroups.make(f"{base}/docker-{name}.scope/below")
        with inmate(folders, "--mount", "--pid") as first:
            join = [f"--target={first.pid}", "--mount", "--pid"]
            with inmate(folders, join=join) as second, inmate(below, join=join) as third:
                for process in (first, second, third):
                    place = await containers.locate(process.subject)
                    await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    @pytest.mark.parametrize("kind", KINDS)
    async def test_who_has_a_namespace_of_its_own(self, containers, folders, kind):
        """One namespace that is not the first process's is enough to be outside, of whichever kind."""
        with (
            inmate(folders, "--mount") as first,
            inmate(folders, KINDS[kind], join=[f"--target={first.pid}", "--mount"]) as process,
        ):
            place = await containers.locate(process.subject)
            with pytest.raises(NotInside, match=f"namespaces: .*{kind}"):
                await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    @pytest.mark.parametrize("left_out", KINDS)
    async def test_who_joined_a_part(self, containers, folders, left_out):
        """Whoever joined all namespaces but one is outside."""
        with inmate(folders, *KINDS.values(), "--map-root-user") as first:
            join = [f"--target={first.pid}", *(flag for kind, flag in KINDS.items() if kind != left_out)]
            with inmate(folders, join=join) as process:
                place = await containers.locate(process.subject)
                with pytest.raises(NotInside, match=f"namespaces: .*{left_out}"):
                    await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    async def test_who_came_into_the_cgroup(self, containers, folders):
        """Whoever merely moved into the container's cgroup is outside."""
        with inmate(folders, "--mount", "--pid") as first, inmate() as process:
            for folder in folders:
                (folder / "cgroup.procs").write_text(str(process.pid))
            place = await containers.locate(process.subject)
            with pytest.raises(NotInside, match="namespaces: mnt, pid"):
                await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    async def test_who_is_in_another_cgroup_of_that_name(self, containers, cgroups, base, name, folders):
        """The same name at another place is not the container's cgroup, whatever namespaces are shared."""
        elsewhere = cgroups.make(f"{base}/elsewhere/docker-{name}.scope")
        with (
            inmate(folders, "--mount") as first,
            inmate(elsewhere, join=[f"--target={first.pid}", "--mount"]) as process,
        ):
            place = await containers.locate(process.subject)
            with pytest.raises(NotInside, match="not in the cgroups"):
                await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    async def test_who_is_in_one_of_the_cgroups(self, containers, cgroups, folders):
        """To be in the container's cgroup in one hierarchy and not in the others is not enough."""
        cgroups.need("cgroup2", "pids")
        with (
            inmate(folders, "--mount") as first,
            inmate(folders[:1], join=[f"--target={first.pid}", "--mount"]) as process,
        ):
            place = await containers.locate(process.subject)
            with pytest.raises(NotInside, match="not in the cgroups"):
                await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    async def test_who_joined_the_namespaces_alone(self, containers, lent, name, folders):
        """Whoever joined the namespaces and stayed in a cgroup of its own is outside, whatever it mounts."""
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with (
            inmate(folders, "--mount", prepare=prepare) as first,
            inmate(join=[f"--target={first.pid}", "--mount"]) as process,
        ):
            place = await containers.locate(process.subject)
            assert (name, "mounts") == (place.id, place.found)
            with pytest.raises(NotInside, match="not in the cgroups"):
                await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    async def test_a_container_without_cgroup(self, containers, lent, name):
        """Where the container has no cgroup, its namespaces decide."""
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with inmate((), "--mount", prepare=prepare) as first, inmate((), "--mount", prepare=prepare) as forger:
            with inmate(join=[f"--target={first.pid}", "--mount"]) as second:
                place = await containers.locate(second.subject)
                await containers.check_inside(second.subject, place, first.pid)
            assert place == await containers.locate(forger.subject)
            with pytest.raises(NotInside, match="namespaces: mnt"):
                await containers.check_inside(forger.subject, place, first.pid)

    @pytest.mark.full
    async def test_an_enclosing_container(self, containers, cgroups, base, name, folders):
        """A process in a cgroup that only looks like a nested container is inside the one around it."""
        inner = cgroups.make(f"{base}/docker-{name}.scope/{name[::-1]}")
        with (
            inmate(folders, "--mount") as first,
            inmate(inner, join=[f"--target={first.pid}", "--mount"]) as process,
        ):
            place = await containers.locate(process.subject)
            assert name[::-1] == place.id
            await containers.check_inside(process.subject, place.enclosing[0], first.pid)
            with pytest.raises(NotInside, match="not in the cgroups"):
                await containers.check_inside(process.subject, place, first.pid)

    @pytest.mark.full
    async def test_after_the_first_process(self, containers, folders):
        """Nobody is inside once the first process has ended, whether it was collected or not."""
        with inmate(folders, "--mount") as first, inmate(folders, join=[f"--target={first.pid}", "--mount"]) as second:
            place = await containers.locate(second.subject)
            os.kill(first.pid, 9)
            os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
            with pytest.raises(AttestationFailed, match="first process has gone"):
                await containers.check_inside(second.subject, place, first.pid)
            first.process.wait()
            with pytest.raises(AttestationFailed, match="first process has gone"):
                await containers.check_inside(second.subject, place, first.pid)

    async def test_where_the_agent_may_not_look(self, containers, folders, monkeypatch):
        """An agent that may not look at namespaces says what it takes."""
        with inmate(folders) as process:
            place = await containers.locate(process.subject)
            monkeypatch.setattr(containerprocesses, "namespaces_of", not_allowed)
            with pytest.raises(AttestationFailed, match="CAP_SYS_PTRACE"):
                await containers.check_inside(process.subject, place, process.pid)

    @pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**80])
    async def test_no_pid(self, containers, folders, pid):
        """What no process has for a number is refused."""
        with inmate(folders) as process, pytest.raises(AttestationFailed, match="first process has gone"):
            await containers.check_inside(process.subject, await containers.locate(process.subject), pid)

    @pytest.mark.full
    async def test_another_process_of_that_pid(self, containers, folders):
        """A number that has passed to a process elsewhere proves nothing."""
        with (
            inmate(folders, "--mount") as process,
            inmate() as elsewhere,
            pytest.raises(NotInside, match="not in the cgroups"),
        ):
            await containers.check_inside(process.subject, await containers.locate(process.subject), elsewhere.pid)
