"""containers.py: in which container a process is, and whether it truly is. Processes, cgroups and namespaces are real."""

import os
import secrets
import subprocess
from types import SimpleNamespace

import pytest
from harness.inmates import inmate
from sojourn.errors import AttestationFailed
from sojourn_attestors.containers import processes as containerprocesses
from sojourn_attestors.containers.place import NotInside, OfUser, Place
from sojourn_attestors.kernel.cgroupfolders import CgroupFolders

pytestmark = pytest.mark.root

UID = "1b2c3d4e-89ab-4def-8123-456789abcdef"
USER, ANOTHER = 61_234, 61_235


def hand_over(folder, uid):
    """Give a cgroup and its files to a user, as whoever delegates it does."""
    for each in (folder, *folder.iterdir()):
        if each == folder or each.name.startswith("cgroup."):
            os.chown(each, uid, uid)


def seen(text):
    """A process whose cgroups read so, and are out of this machine's sight."""
    return SimpleNamespace(pid=os.getpid(), uid=0, who=0, cgroup=text)


class TestCgroups:
    @pytest.mark.full
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


class TestFirstProcess:
    @pytest.fixture
    def folders(self, cgroups, base, name):
        return cgroups.make(f"{base}/kubepods/pod{UID}/{name}")

    @pytest.fixture(params=["in sight", "out of sight"])
    def sight(self, request, monkeypatch):
        if request.param == "out of sight":
            monkeypatch.setattr(CgroupFolders, "folder", lambda *_: None)

    @pytest.mark.full
    async def test_is_the_oldest(self, containers, folders, sight):
        """It is the oldest that came from outside, not a child of its, nor what was started inside later."""
        with (
            inmate(folders, "--mount", prepare="sleep 500 & sleep 500 & true") as first,
            inmate(folders, join=[f"--target={first.pid}", "--mount"]) as second,
        ):
            place = await containers.locate(second.subject)
            assert first.pid == await containers.first_process(place)
            await containers.check_inside(second.subject, place, first.pid)

    @pytest.mark.full
    async def test_in_cgroups_below(self, containers, cgroups, base, name, folders, sight):
        """It is found in cgroups that the container made for itself."""
        with inmate(cgroups.make(f"{base}/kubepods/pod{UID}/{name}/a/b"), "--mount") as first:
            assert first.pid == await containers.first_process(await containers.locate(first.subject))

    @pytest.mark.full
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

    @pytest.mark.full
    async def test_in_a_part_of_the_cgroups(self, containers, cgroups, folders, sight):
        """A process that is in some of the container's cgroups is none of the container's."""
        cgroups.need("cgroup2", "pids")
        with inmate(folders[:1], "--mount") as stranger, inmate(folders, "--mount") as first:
            assert stranger.pid != first.pid == await containers.first_process(await containers.locate(first.subject))

    @pytest.mark.full
    async def test_mounts_of_children(self, containers, folders, sight):
        """A process of the container's that makes a mount namespace harms itself alone."""
        with inmate(folders, "--mount", prepare="unshare --mount sleep 500 & true") as first:
            assert first.pid == await containers.first_process(await containers.locate(first.subject))

    @pytest.mark.full
    async def test_of_an_empty_container(self, containers, folders, sight):
        """A container without processes has no first one."""
        with inmate(folders, "--mount") as first:
            place = await containers.locate(first.subject)
        with pytest.raises(AttestationFailed, match="no process"):
            await containers.first_process(place)

    @pytest.mark.full
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
