"""containers.py: in which container a process is, and whether it truly is. Processes, cgroups and namespaces are real."""

import asyncio
import os
import secrets
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness.inmates import inmate
from harness.looking import until
from sojourn.errors import AttestationFailed
from sojourn_attestors.containers import place as module
from sojourn_attestors.containers import processes as containerprocesses
from sojourn_attestors.containers.place import Containers, NotInside, OfUser, Place
from sojourn_attestors.kernel import mounts
from sojourn_attestors.kernel.cgroupfolders import CgroupFolders

pytestmark = pytest.mark.root

UID = "1b2c3d4e-89ab-4def-8123-456789abcdef"
USER, ANOTHER = 61_234, 61_235


@pytest.fixture
def rootless():
    with ThreadPoolExecutor(2) as pool:
        yield Containers(pool, rootless=True)


@pytest.fixture
def base():
    """A folder of this test's own for its cgroups."""
    return f"/sojourn-test-{secrets.token_hex(8)}"


@pytest.fixture
def name():
    """An id such as engines give."""
    return secrets.token_hex(32)


def hand_over(folder, uid):
    """Give a cgroup and its files to a user, as whoever delegates it does."""
    for each in (folder, *folder.iterdir()):
        if each == folder or each.name.startswith("cgroup."):
            os.chown(each, uid, uid)


def seen(text):
    """A process whose cgroups read so, and are out of this machine's sight."""
    return SimpleNamespace(pid=os.getpid(), uid=0, cgroup=text)


class TestCgroups:
    async def test_none(self, containers):
        """A process whose cgroups name no container is in none, with a mount namespace of its own or without."""
        with inmate() as plain, inmate((), "--mount") as apart:
            assert await containers.locate(plain.subject) is None
            assert await containers.locate(apart.subject) is None

    @pytest.mark.parametrize("hierarchies", [("cgroup2",), ("name=systemd",), ("pids", "name=systemd"), ()])
    async def test_in_any_hierarchy(self, containers, cgroups, base, name, hierarchies):
        """The container is told by whichever hierarchies name it, of v1 and v2."""
        path = f"{base}/docker-{name}.scope"
        with inmate(cgroups.make(f"{path}/below", *hierarchies)) as process:
            place = await containers.locate(process.subject)
            assert (name, "docker", "", "cgroup", 0, ()) == (
                *(place.id, place.runtime, place.pod, place.found),
                *(place.owner, place.enclosing),
            )
            assert {path} == {cgroup.path for cgroup in place.cgroups}
            assert len(hierarchies or cgroups.roots) == len(place.cgroups)

    async def test_of_the_kubelet(self, containers, cgroups, base, name):
        """The pod is told along with the container."""
        with inmate(cgroups.make(f"{base}/kubepods/burstable/pod{UID}/{name}")) as process:
            place = await containers.locate(process.subject)
            assert (name, "", UID) == (place.id, place.runtime, place.pod)

    async def test_that_name_two(self, containers, cgroups, base, name):
        """Cgroups that name different containers are refused."""
        folders = cgroups.make(f"{base}/{name}", "cgroup2") + cgroups.make(f"{base}/{name[::-1]}", "pids")
        with inmate(folders) as process, pytest.raises(AttestationFailed, match="name different containers"):
            await containers.locate(process.subject)

    async def test_that_nest_differently(self, containers, cgroups, base, name):
        """Cgroups of which one goes a container further than the other are refused."""
        folders = cgroups.make(f"{base}/{name}", "cgroup2") + cgroups.make(f"{base}/{name}/{name[::-1]}", "pids")
        with inmate(folders) as process, pytest.raises(AttestationFailed, match="name different containers"):
            await containers.locate(process.subject)

    async def test_nested(self, containers, cgroups, base, name):
        """The innermost container comes first, then those around it."""
        inner = secrets.token_hex(32)
        with inmate(cgroups.make(f"{base}/docker/{name}/kubepods/pod{UID}/{inner}/x", "cgroup2")) as process:
            place = await containers.locate(process.subject)
            (outer,) = place.enclosing
            assert [(inner, UID), (name, "")] == [(each.id, each.pod) for each in (place, outer)]
            assert {f"{base}/docker/{name}"} == {cgroup.path for cgroup in outer.cgroups}

    async def test_nested_too_deep(self, containers, base):
        """A path of very many containers is refused before its folders are looked at."""
        path = "/".join(secrets.token_hex(32) for _ in range(9))
        with pytest.raises(AttestationFailed, match="more than 8 containers"):
            await containers.locate(seen(f"0::{base}/{path}\n"))

    @pytest.mark.parametrize("text", ["0:/x", "x::/", "0::x", "0::/docker/{name} (deleted)", "0::/a/../docker/{name}"])
    async def test_that_no_kernel_writes(self, containers, name, text):
        """What is no list of living cgroups is refused."""
        with pytest.raises(AttestationFailed, match="cannot be read"):
            await containers.locate(seen(text.replace("{name}", name)))


class TestOwners:
    async def test_a_users_folder(self, containers, rootless, cgroups, base, name):
        """Below a folder of a user's a name is the user's: refused, or told as theirs if that is asked for."""
        (above,) = cgroups.make(f"{base}/user@{USER}.service", "cgroup2")
        hand_over(above, USER)
        folders = cgroups.make(f"{base}/user@{USER}.service/user.slice/libpod-{name}.scope", "cgroup2")
        with inmate(folders) as process:
            with pytest.raises(OfUser, match=f"of user {USER}") as refused:
                await containers.locate(process.subject)
            assert USER == refused.value.uid
            assert USER == (await rootless.locate(process.subject)).owner

    async def test_made_by_the_user(self, containers, cgroups, base, name):
        """A user who was given a cgroup makes one in it that is named like Docker's, and gets nothing by it."""
        (above,) = cgroups.make(base, "cgroup2")
        hand_over(above, USER)
        (own,) = cgroups.make(f"{base}/own", "cgroup2")
        hand_over(own, USER)
        with inmate([own], uid=USER) as process:
            made = own / f"docker-{name}.scope"
            become = f"mkdir {made} && echo {process.pid} > {made}/cgroup.procs"
            subprocess.run(["setpriv", f"--reuid={USER}", "--clear-groups", "sh", "-c", become], check=True)
            cgroups.adopt(own, made.name)
            with pytest.raises(OfUser):
                await containers.locate(process.subject)

    async def test_in_one_hierarchy(self, containers, cgroups, base, name):
        """One hierarchy in which a user made the folder is enough to refuse."""
        (above,) = cgroups.make(base, "name=systemd")
        hand_over(above, USER)
        with inmate(cgroups.make(f"{base}/{name}")) as process, pytest.raises(OfUser):
            await containers.locate(process.subject)

    async def test_the_containers_own_folder(self, containers, cgroups, base, name):
        """What happens below the container's folder is the container's affair, whose ever that is."""
        folders = cgroups.make(f"{base}/{name}", "cgroup2")
        hand_over(folders[0], USER)
        with inmate(cgroups.make(f"{base}/{name}/below", "cgroup2")) as process:
            assert 0 == (await containers.locate(process.subject)).owner

    async def test_several_users(self, rootless, cgroups, base, name):
        """A folder of one user in a folder of another's is refused."""
        for path, uid in ((base, USER), (f"{base}/inner", ANOTHER)):
            hand_over(cgroups.make(path, "cgroup2")[0], uid)
        with (
            inmate(cgroups.make(f"{base}/inner/{name}", "cgroup2")) as process,
            pytest.raises(AttestationFailed, match="several users"),
        ):
            await rootless.locate(process.subject)

    async def test_several_users_in_several_hierarchies(self, rootless, cgroups, base, name):
        """Folders of different users in different hierarchies are refused."""
        for hierarchy, uid in (("cgroup2", USER), ("pids", ANOTHER)):
            hand_over(cgroups.make(base, hierarchy)[0], uid)
        with (
            inmate(cgroups.make(f"{base}/{name}")) as process,
            pytest.raises(AttestationFailed, match="several users"),
        ):
            await rootless.locate(process.subject)

    @pytest.mark.parametrize("mode", [0o775, 0o757])
    async def test_that_others_may_write(self, rootless, cgroups, base, name, mode):
        """A folder that more than its owner may write to is refused."""
        cgroups.make(base, "cgroup2")[0].chmod(mode)
        with (
            inmate(cgroups.make(f"{base}/{name}", "cgroup2")) as process,
            pytest.raises(AttestationFailed, match="others may write"),
        ):
            await rootless.locate(process.subject)

    @pytest.mark.parametrize(
        "path",
        [
            "/../../kubepods-besteffort-pod{pod}.slice/cri-containerd-{name}.scope",
            "/../cri-containerd-{name}.scope",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{pod}.slice/crio-{name}.scope/x",
            "/../../kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{pod}.slice/crio-{name}.scope",
            "/../../docker/{name}",
            "/../../system.slice/docker-{name}.scope",
        ],
    )
    async def test_out_of_sight(self, containers, name, path):
        """A folder that this agent does not see counts if nobody but root makes any of that name."""
        place = await containers.locate(seen("0::" + path.format(name=name, pod=UID.replace("-", "_"))))
        assert (name, 0) == (place.id, place.owner)

    @pytest.mark.parametrize(
        "path",
        [
            "/../../user.slice/user-1000.slice/user@1000.service/docker-{name}.scope",
            "/../mine/kubepods/pod{pod}/{name}",
            "/../docker/{name}/docker/{name}",
        ],
    )
    async def test_out_of_sight_of_any_name(self, rootless, name, path):
        """Else it is refused, with what to do about it."""
        with pytest.raises(AttestationFailed, match="machine's cgroup namespace"):
            await rootless.locate(seen("0::" + path.format(name=name, pod=UID)))


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
            going_on.wait(10)

        with ThreadPoolExecutor(8) as pool:
            containers = Containers(pool)
            slow = SimpleNamespace(pid=1, uid=USER, cgroup="0::/\n")
            waiting = [asyncio.ensure_future(containers.locate(slow)) for _ in range(64)]
            await asyncio.sleep(0.05)
            other = SimpleNamespace(pid=2, uid=0, cgroup="0::/\n")
            try:
                assert await asyncio.wait_for(containers.locate(other), 5) is None
            finally:
                going_on.set()
            assert [None] * 64 == await asyncio.gather(*waiting)

    async def test_of_docker(self, containers, lent, name):
        """Where no cgroup names a container, Docker's own files in the mount table do."""
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with inmate((), "--mount", prepare=prepare) as process:
            place = await containers.locate(process.subject)
            assert Place(name, "docker", "", "mounts", frozenset(), 0) == place

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

    async def test_of_cgroups(self, containers, cgroups, base, name, tmp_path):
        """Where no cgroup names a container, its cgroup does where that is mounted."""
        (folder,) = cgroups.make(f"{base}/crio-{name}.scope", "cgroup2")
        with inmate((), "--mount", prepare=shows(folder, tmp_path)) as process:
            place = await containers.locate(process.subject)
            assert (name, "crio", "mounts") == (place.id, place.runtime, place.found)

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
            assert USER == (await rootless.locate(SimpleNamespace(pid=deep, uid=USER, cgroup="0::/\n"))).owner

    async def test_very_many(self, containers, monkeypatch):
        """A mount table over the limit is refused."""
        monkeypatch.setattr(mounts, "MOUNT_TABLE_MAX_BYTES", 100)
        with inmate((), "--mount") as process, pytest.raises(AttestationFailed, match="larger than 100 bytes"):
            await containers.locate(process.subject)

    async def test_where_the_agent_may_not_look(self, containers, lent, name, monkeypatch):
        """An agent that may not look at namespaces goes by the mounts, which anyone may: and tells no container by them."""
        monkeypatch.setattr(module, "namespace_of", not_allowed)
        monkeypatch.setattr(module, "user_namespace_owner", not_allowed)
        prepare = shows(lent / f"docker/containers/{name}/hostname", "/etc/hostname")
        with inmate((), "--mount") as plain, inmate((), "--mount", prepare=prepare) as process:
            assert await containers.locate(plain.subject) is None
            with pytest.raises(AttestationFailed, match="namespaces cannot be read"):
                await containers.locate(process.subject)

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

    async def test_who_shares_all(self, containers, cgroups, base, name, folders):
        """Whoever shares cgroups and namespaces with the first process is inside, in cgroups below too."""
        below = cgroups.make(f"{base}/docker-{name}.scope/below")
        with inmate(folders, "--mount", "--pid") as first:
            join = [f"--target={first.pid}", "--mount", "--pid"]
            with inmate(folders, join=join) as second, inmate(below, join=join) as third:
                for process in (first, second, third):
                    place = await containers.locate(process.subject)
                    await containers.check_inside(process.subject, place, first.pid)

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

    @pytest.mark.parametrize("left_out", KINDS)
    async def test_who_joined_a_part(self, containers, folders, left_out):
        """Whoever joined all namespaces but one is outside."""
        with inmate(folders, *KINDS.values(), "--map-root-user") as first:
            join = [f"--target={first.pid}", *(flag for kind, flag in KINDS.items() if kind != left_out)]
            with inmate(folders, join=join) as process:
                place = await containers.locate(process.subject)
                with pytest.raises(NotInside, match=f"namespaces: .*{left_out}"):
                    await containers.check_inside(process.subject, place, first.pid)

    async def test_who_came_into_the_cgroup(self, containers, folders):
        """Whoever merely moved into the container's cgroup is outside."""
        with inmate(folders, "--mount", "--pid") as first, inmate() as process:
            for folder in folders:
                (folder / "cgroup.procs").write_text(str(process.pid))
            place = await containers.locate(process.subject)
            with pytest.raises(NotInside, match="namespaces: mnt, pid"):
                await containers.check_inside(process.subject, place, first.pid)

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

    async def test_another_process_of_that_pid(self, containers, folders):
        """A number that has passed to a process elsewhere proves nothing."""
        with (
            inmate(folders, "--mount") as process,
            inmate() as elsewhere,
            pytest.raises(NotInside, match="not in the cgroups"),
        ):
            await containers.check_inside(process.subject, await containers.locate(process.subject), elsewhere.pid)


class TestFirstProcess:
    @pytest.fixture
    def folders(self, cgroups, base, name):
        return cgroups.make(f"{base}/kubepods/pod{UID}/{name}")

    @pytest.fixture(params=["in sight", "out of sight"])
    def sight(self, request, monkeypatch):
        if request.param == "out of sight":
            monkeypatch.setattr(CgroupFolders, "folder", lambda *_: None)

    async def test_is_the_oldest(self, containers, folders, sight):
        """It is the oldest that came from outside, not a child of its, nor what was started inside later."""
        with (
            inmate(folders, "--mount", prepare="sleep 500 & sleep 500 & true") as first,
            inmate(folders, join=[f"--target={first.pid}", "--mount"]) as second,
        ):
            place = await containers.locate(second.subject)
            assert first.pid == await containers.first_process(place)
            await containers.check_inside(second.subject, place, first.pid)

    async def test_in_cgroups_below(self, containers, cgroups, base, name, folders, sight):
        """It is found in cgroups that the container made for itself."""
        with inmate(cgroups.make(f"{base}/kubepods/pod{UID}/{name}/a/b"), "--mount") as first:
            assert first.pid == await containers.first_process(await containers.locate(first.subject))

    @pytest.mark.parametrize("older", [True, False])
    @pytest.mark.parametrize("flags", [(), ("--mount",)])
    async def test_among_strangers(self, containers, folders, older, flags, sight):
        """Whoever came into the cgroup with other mounts makes it unsure which process is the container's."""
        with inmate((), *flags) as stranger, inmate(folders, "--mount") as first, inmate((), *flags) as younger:
            place = await containers.locate(first.subject)
            for folder in folders:
                (folder / "cgroup.procs").write_text(str((stranger if older else younger).pid))
            with pytest.raises(NotInside, match="cgroup"):
                await containers.first_process(place)

    async def test_a_stranger_alone(self, containers, folders, sight):
        """A process of the machine's own is not a container's, however alone it is in its cgroup."""
        with inmate(folders) as stranger, pytest.raises(NotInside, match="in no container"):
            await containers.first_process(await containers.locate(stranger.subject))

    async def test_in_a_part_of_the_cgroups(self, containers, cgroups, folders, sight):
        """A process that is in some of the container's cgroups is none of the container's."""
        cgroups.need("cgroup2", "pids")
        with inmate(folders[:1], "--mount") as stranger, inmate(folders, "--mount") as first:
            assert stranger.pid != first.pid == await containers.first_process(await containers.locate(first.subject))

    async def test_mounts_of_children(self, containers, folders, sight):
        """A process of the container's that makes a mount namespace harms itself alone."""
        with inmate(folders, "--mount", prepare="unshare --mount sleep 500 & true") as first:
            assert first.pid == await containers.first_process(await containers.locate(first.subject))

    async def test_of_an_empty_container(self, containers, folders, sight):
        """A container without processes has no first one."""
        with inmate(folders, "--mount") as first:
            place = await containers.locate(first.subject)
        with pytest.raises(AttestationFailed, match="no process"):
            await containers.first_process(place)

    async def test_of_very_many(self, containers, folders, monkeypatch):
        """A container with more processes than can be looked through is refused."""
        monkeypatch.setattr(containerprocesses, "CONTAINER_PROCESSES_MAX", 2)
        with (
            inmate(folders, "--mount", prepare="sleep 500 & sleep 500 & true") as first,
            pytest.raises(AttestationFailed, match="more than 2 processes"),
        ):
            await containers.first_process(await containers.locate(first.subject))

    async def test_found_by_mounts(self, containers, name):
        """Without a cgroup of its own there is nothing to look in."""
        with pytest.raises(AttestationFailed, match="no cgroup"):
            await containers.first_process(Place(name, "docker", "", "mounts", frozenset(), 0))
