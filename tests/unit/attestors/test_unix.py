"""unix.py: who runs a process, and which program it runs. Processes and files are real."""

import grp
import hashlib
import os
import pwd
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from fakes.children import child
from harness.looking import OpenFiles
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.limits import BLOCKING_THREADS
from sojourn_attestors import unix
from sojourn_attestors.asking.names import Names
from sojourn_attestors.kernel import programs
from sojourn_attestors.unix import UnixAttestor


@pytest.fixture
def pool():
    with ThreadPoolExecutor(2) as pool:
        yield pool


names_pool = pool


@pytest.fixture
def program(tmp_path):
    """A program of our own, `sleep` under another name."""
    path = tmp_path / "my program"
    shutil.copy(shutil.which("sleep"), path)
    return path


@pytest.fixture
def running(program):
    with child(str(program), "60") as process:
        yield process


def subject(pid, **changes):
    uid, gid, groups = os.geteuid(), os.getegid(), frozenset(os.getgroups())
    fields = {"pid": pid, "uid": uid, "who": uid, "gid": gid, "groups": groups, "cgroup": ""}
    return SimpleNamespace(**{**fields, **changes})


def refuse_to_open(monkeypatch, what):
    """Have files whose path holds `what` refused by their permissions."""
    real = os.open

    def refuse(path, *arguments):
        if what in str(path):
            raise PermissionError(13, "no")
        return real(path, *arguments)

    monkeypatch.setattr(programs.os, "open", refuse)


def kinds(answer):
    return {value.partition(":")[0] for value in answer.values}


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestIdentity:
    async def test_ids_and_names(self, pool, running):
        """User, group and further groups are given by number and by name."""
        answer = await UnixAttestor({}, pool).attest(subject(running.pid, groups=frozenset({0})))
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        assert {
            f"uid:{os.geteuid()}",
            f"user:{user}",
            f"gid:{os.getegid()}",
            f"group:{group}",
            "supplementary_gid:0",
            f"supplementary_group:{grp.getgrgid(0).gr_name}",
        } <= answer.values

    async def test_ids_without_name(self, pool, running):
        """An id without a name is given by number, and the name is said to be missing."""
        answer = await UnixAttestor({}, pool).attest(subject(running.pid, uid=54321, gid=54321, groups=frozenset()))
        assert {"uid:54321", "gid:54321"} <= answer.values
        assert {"user", "group"} <= set(answer.withheld)
        assert not {"user", "group"} & kinds(answer)

    @pytest.mark.parametrize("mapped", [True, False])
    async def test_the_overflow_id(self, pool, running, mapped):
        """Where not all ids are mapped, 65534 stands for anyone, and is no selector."""
        attestor = UnixAttestor({}, pool)
        attestor._all_ids_mapped = mapped
        answer = await attestor.attest(subject(running.pid, uid=65534))
        assert mapped is ("uid:65534" in answer.values)
        assert mapped is not ("uid" in answer.withheld)


class TestProgram:
    async def test_path_and_digest(self, pool, program, running):
        """The program is given by the path at which this host has it, and by its digest."""
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert {f"path:{program}", f"sha256:{digest_of(program)}"} <= answer.values
        assert not {"path", "sha256"} & set(answer.withheld)

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"path": False}, {"sha256"}),
            ({"sha256": False}, {"path"}),
            ({"path": False, "sha256": False}, set()),
        ],
    )
    async def test_settings(self, pool, running, settings, expected):
        """Path and digest are not given where they are switched off."""
        answer = await UnixAttestor(settings, pool).attest(subject(running.pid))
        assert expected == kinds(answer) & {"path", "sha256"}

    @pytest.mark.parametrize("how", ["deleted", "replaced", "link"])
    async def test_another_file_at_the_path(self, pool, program, running, how, tmp_path):
        """A program that was deleted or replaced after its start has no path; its digest is of what runs."""
        digest = digest_of(program)
        program.unlink()
        if how == "replaced":
            program.write_bytes(b"another")
        elif how == "link":
            shutil.copy(shutil.which("sleep"), tmp_path / "copy")
            program.symlink_to(tmp_path / "copy")
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert f"sha256:{digest}" in answer.values
        assert "path" not in kinds(answer)
        assert "deleted or replaced" in answer.withheld["path"]

    async def test_a_name_that_ends_like_a_deleted_one(self, pool, tmp_path):
        """A program whose name ends with ` (deleted)` is what it is."""
        path = tmp_path / "x (deleted)"
        shutil.copy(shutil.which("sleep"), path)
        with child(str(path), "60") as process:
            answer = await UnixAttestor({}, pool).attest(subject(process.pid))
        assert f"path:{path}" in answer.values

    async def test_another_mount_namespace(self, pool, running, monkeypatch):
        """A process in another mount namespace has no path: there it could be forged."""
        real = programs.mount_namespace
        monkeypatch.setattr(programs, "mount_namespace", lambda pid: (4, 1) if pid == running.pid else real(pid))
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert ("path" not in kinds(answer), "sha256" in kinds(answer)) == (True, True)
        assert "namespace" in answer.withheld["path"]

    async def test_no_privilege(self, pool, running, monkeypatch):
        """Where the agent may not look, path and digest are withheld, with what it takes."""
        refuse_to_open(monkeypatch, "/exe")
        answer = await UnixAttestor({"path": False}, pool).attest(subject(running.pid))
        assert ({"sha256"}, True) == (set(answer.withheld) & {"path", "sha256"}, "uid" in kinds(answer))
        assert "CAP_SYS_PTRACE" in answer.withheld["sha256"]

    async def test_no_privilege_to_read(self, pool, program, running, monkeypatch):
        """Where the agent may look at the program and not read it, its path is proved, and the digest withheld."""
        refuse_to_open(monkeypatch, "/proc/self/fd/")
        answer = await UnixAttestor({}, pool).attest(subject(running.pid))
        assert f"path:{program}" in answer.values
        assert "CAP_DAC_READ_SEARCH" in answer.withheld["sha256"]

    async def test_gone(self, pool, running):
        """For a process that has gone it cannot be told: that is an error and not an empty answer."""
        running.kill()
        running.wait()
        with pytest.raises(AttestationFailed, match="gone or runs no program"):
            await UnixAttestor({}, pool).attest(subject(running.pid))

    async def test_of_one_user_of_many_uids(self, running, monkeypatch):
        """Programs that cannot be read take no more threads of the others if their user is many uids."""
        going_on = threading.Event()
        monkeypatch.setattr(programs.Digests, "_read", staticmethod(lambda *_: going_on.wait(20)))
        monkeypatch.setattr(unix, "PROGRAM_READ_SECONDS", 0.05)
        with ThreadPoolExecutor(BLOCKING_THREADS) as pool:
            attestor = UnixAttestor({"names": False}, pool)
            for uid in range(165_536, 165_536 + BLOCKING_THREADS):
                last = await attestor.attest(subject(running.pid, uid=uid, who=14_001))
            assert "still being read" in last.untold["path"]
            another = await attestor.attest(subject(running.pid, uid=14_002, who=14_002))
            going_on.set()
        assert "path" in kinds(another)

    async def test_descriptors(self, pool, running):
        """Looking at a program leaves no descriptor behind."""
        attestor = UnixAttestor({}, pool)
        await attestor.attest(subject(running.pid))
        before = OpenFiles()
        await attestor.attest(subject(running.pid))
        assert [] == before.opened_since()


class TestScripts:
    async def test_of_an_interpreter(self, pool):
        """What an interpreter runs is withheld: its command line and its memory are its own to write."""
        with child(sys.executable, "-c", "import sys; sys.stdin.read()") as process:
            answer = await UnixAttestor({}, pool).attest(subject(process.pid))
        assert not {"script_path", "script_sha256"} & kinds(answer)
        for kind in ("script_path", "script_sha256"):
            assert "does not record which script" in answer.withheld[kind]

    async def test_of_another_program(self, pool, running):
        """Of what is no interpreter nothing is said of scripts."""
        assert "script_path" not in (await UnixAttestor({}, pool).attest(subject(running.pid))).withheld


class TestCgroups:
    async def found(self, pool, running, text, **settings):
        attestor = UnixAttestor({"path": False, "sha256": False, **settings}, pool)
        attestor._sees_whole_cgroups = True
        answer = await attestor.attest(subject(running.pid, cgroup=text))
        return {each for each in answer.values if each.startswith("cgroup:")}, answer.withheld.get("cgroup", "")

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("0::/system.slice/web.service\n", {"cgroup:/system.slice/web.service"}),
            ("0::/\n", set()),
            ("", set()),
            (
                "5:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/\n",
                {"cgroup:cpu:/a", "cgroup:cpuacct:/a", "cgroup:name=systemd:/b"},
            ),
            ("0::/a:b/memory:/c\n", {"cgroup:/a:b/memory:/c"}),
        ],
    )
    async def test_values(self, pool, running, text, expected):
        """Each cgroup is a value by its whole path; of version 1 with its controller, which no path begins with."""
        assert (expected, "") == await self.found(pool, running, text)

    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("/../x", "namespace of its own"),
            ("/..", "namespace of its own"),
            ("/a (deleted)", "removed"),
            ("/a\x1b[2J", "no text"),
            ("/a\udcff", "no text"),
            ("/" + "a" * 5000, "too long"),
        ],
    )
    async def test_doubtful(self, pool, running, path, reason):
        """A path that could be read two ways is withheld."""
        values, withheld = await self.found(pool, running, f"0::{path}\n")
        assert (set(), True) == (values, reason in withheld)

    async def test_like_one_above(self, pool, running):
        """A cgroup whose name only begins like the way up is a cgroup."""
        assert ({"cgroup:/..x"}, "") == await self.found(pool, running, "0::/..x\n")

    async def test_seen_from_a_namespace(self, pool, running):
        """An agent that does not see whole paths gives none."""
        attestor = UnixAttestor({}, pool)
        attestor._sees_whole_cgroups = False
        answer = await attestor.attest(subject(running.pid, cgroup="0::/a\n"))
        assert ("cgroup" not in kinds(answer), True) == (True, "namespace" in answer.withheld["cgroup"])

    async def test_off(self, pool, running):
        """Cgroups are not given where they are switched off."""
        assert (set(), "") == await self.found(pool, running, "0::/a\n", cgroup=False)

    async def test_garbage(self, pool, running):
        """What no kernel writes is a failure, not an empty answer."""
        with pytest.raises(AttestationFailed, match="list of cgroups"):
            await self.found(pool, running, "nothing like it\n")


class TestNames:
    async def test_that_cannot_be_told(self, pool, names_pool, running, monkeypatch):
        """A name that is not told in time is neither there nor withheld: it is not known, and all else is."""
        going_on = threading.Event()
        attestor = UnixAttestor({}, pool)
        attestor._names = Names(names_pool, lambda *_: going_on.wait(20) and None)
        monkeypatch.setattr(unix, "NAMES_WAITED_FOR_SECONDS", 0.05)
        answer = await attestor.attest(subject(running.pid))
        going_on.set()
        assert {"user", "group"} <= answer.untold.keys()
        assert not {"user", "group"} & (kinds(answer) | answer.withheld.keys())
        assert {"uid", "gid", "path", "sha256"} <= kinds(answer)

    async def test_off(self, pool, running):
        """Names are not given where they are switched off."""
        answer = await UnixAttestor({"names": False}, pool).attest(subject(running.pid))
        assert not {"user", "group"} & (kinds(answer) | answer.withheld.keys())


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "faults"),
        [
            ({"colour": True}, 1),
            ({"path": "yes"}, 1),
            ({"sha256": 1}, 1),
            ({"a": 1, "path": None}, 2),
            ({"sha256_max_bytes": 0}, 1),
            ({"sha256_max_bytes": 2**40}, 1),
            ({"sha256_max_bytes": True}, 1),
        ],
    )
    def test_faults(self, pool, settings, faults):
        """All that is wrong with the settings is told at once, by its key."""
        with pytest.raises(InvalidConfig) as caught:
            UnixAttestor(settings, pool)
        assert faults == len(caught.value.faults)
        assert set(settings) == {each.partition(":")[0] for each in caught.value.faults}

    async def test_size_limit(self, pool, program, running):
        """A program over the set limit has no digest, with the limit as the reason, and has its path."""
        answer = await UnixAttestor({"sha256_max_bytes": 1000}, pool).attest(subject(running.pid))
        assert ("sha256" not in kinds(answer), "larger than 1000 bytes") == (
            True,
            answer.withheld["sha256"].removeprefix("the program is "),
        )
        assert f"path:{program}" in answer.values
