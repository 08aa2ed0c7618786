"""doctor/machine.py and process.py: what keeps the agent from seeing who calls is told, with what to do."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes.doctors import process_in, put, scene_of, status_of
from sojourn.doctor import machine, process
from sojourn.doctor.findings import Finding, Verdict
from sojourn.doctor.scene import Scene

WITHOUT_PTRACE = "0000000000000000"


@pytest.fixture
def seen(tmp_path: Path) -> Scene:
    """An agent that runs as root on the machine itself."""
    process_in(tmp_path)
    return scene_of(tmp_path, status_of(tmp_path))


def test_what_runs_here_is_told() -> None:
    """The kernel of this machine gives pidfds, and is named."""
    assert Verdict.OK == machine.kernel(Scene(None, "", None)).verdict
    assert os.uname().release in machine.kernel(Scene(None, "", None)).found


def test_a_kernel_without_pidfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel, or a seccomp profile, that gives no pidfd is a failure."""

    def refuse(_pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert Verdict.FAIL == machine.kernel(Scene(None, "", None)).verdict


class TestHidepid:
    def test_all_processes_are_seen(self, seen: Scene) -> None:
        """Without hidepid all is well."""
        assert Verdict.OK == machine.proc(seen).verdict

    @pytest.mark.parametrize(
        ("capabilities", "verdict"), [("0000000000080000", Verdict.OK), (WITHOUT_PTRACE, Verdict.FAIL)]
    )
    def test_with_and_without_the_capability(self, tmp_path: Path, capabilities: str, verdict: Verdict) -> None:
        """hidepid hides others' processes from an agent without CAP_SYS_PTRACE alone; the last mount at /proc counts."""
        process_in(tmp_path, capabilities, 990)
        put(
            tmp_path / "proc" / "1234" / "mountinfo",
            "24 30 0:22 / /proc rw - proc proc rw\n25 30 0:23 / /proc rw - proc proc rw,hidepid=invisible\n",
        )
        assert verdict == machine.proc(scene_of(tmp_path, status_of(tmp_path))).verdict

    def test_an_agent_that_does_not_answer(self, tmp_path: Path) -> None:
        """An agent that runs and answers nobody is found by the lock of its data folder."""
        process_in(tmp_path, WITHOUT_PTRACE, 990)
        put(tmp_path / "proc" / "1234" / "mountinfo", "25 30 0:23 / /proc rw - proc proc rw,hidepid=invisible\n")
        put(tmp_path / "data" / "lock", "1234\n")
        scene = scene_of(tmp_path)
        assert [Verdict.FAIL, Verdict.WARN] == [machine.proc(scene).verdict, process.capabilities(scene).verdict]

    def test_nobody_runs(self, tmp_path: Path) -> None:
        """Where the agent's capabilities are not known, hidepid is unknown, and not well."""
        put(tmp_path / "proc" / "self" / "mountinfo", "24 30 0:22 / /proc rw - proc proc rw,hidepid=2\n")
        assert Verdict.UNKNOWN == machine.proc(scene_of(tmp_path)).verdict
        put(tmp_path / "proc" / "self" / "mountinfo", "")
        assert Verdict.UNKNOWN == machine.proc(scene_of(tmp_path)).verdict


class TestNamespaces:
    def test_the_machines_own(self, seen: Scene) -> None:
        """In the machine's first namespaces all is well."""
        assert [Verdict.OK] * 2 == [machine.pid_namespace(seen).verdict, machine.user_namespace(seen).verdict]

    @pytest.mark.parametrize(("kind", "check"), [("pid", machine.pid_namespace), ("user", machine.user_namespace)])
    def test_a_containers(self, tmp_path: Path, kind: str, check: Callable[[Scene], Finding]) -> None:
        """In a container's own namespaces it is said what cannot be attested there."""
        link = process_in(tmp_path) / "ns" / kind
        link.unlink()
        link.symlink_to(f"{kind}:[4026532999]")
        found = check(scene_of(tmp_path, status_of(tmp_path)))
        assert (Verdict.WARN, True) == (found.verdict, "the agent's" in found.found)

    def test_an_agent_whose_process_has_another_number_here(self, tmp_path: Path) -> None:
        """An agent that answers and is no process of its number here runs in a namespace of its own."""
        (tmp_path / "proc" / "self" / "ns").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "ns" / "pid").symlink_to("pid:[4026531836]")
        scene = scene_of(tmp_path, status_of(tmp_path))
        assert "another PID namespace" in machine.pid_namespace(scene).found
        assert Verdict.UNKNOWN == process.code(scene).verdict
        assert Verdict.UNKNOWN == process.capabilities(scene).verdict

    def test_what_cannot_be_read(self, tmp_path: Path) -> None:
        """A namespace that cannot be read is unknown."""
        assert Verdict.UNKNOWN == machine.pid_namespace(scene_of(tmp_path)).verdict
        assert Verdict.UNKNOWN == machine.user_namespace(scene_of(tmp_path)).verdict


class TestCgroups:
    def test_versions(self, tmp_path: Path) -> None:
        """Cgroups of version 2 are well; those of version 1, and none, are told."""
        scene = scene_of(tmp_path)
        assert "there are no cgroups" in machine.cgroup(scene).found
        put(tmp_path / "sys" / "fs" / "cgroup" / "memory" / "tasks", "")
        assert "version 1" in machine.cgroup(scene).found
        put(tmp_path / "sys" / "fs" / "cgroup" / "cgroup.controllers", "cpu memory")
        assert Verdict.OK == machine.cgroup(scene).verdict


class TestSecurityModules:
    @pytest.mark.parametrize(
        ("label", "verdict"),
        [
            ("unconfined", Verdict.OK),
            ("sojourn (complain)", Verdict.OK),
            ("docker-default (enforce)", Verdict.WARN),
        ],
    )
    def test_apparmor(self, tmp_path: Path, label: str, verdict: Verdict) -> None:
        """A profile that is enforced is told, with what to do; none, and one that only complains, are well."""
        put(tmp_path / "sys" / "module" / "apparmor" / "parameters" / "enabled", "Y\n")
        put(process_in(tmp_path) / "attr" / "current", f"{label}\n")
        assert verdict == machine.apparmor(scene_of(tmp_path, status_of(tmp_path))).verdict

    @pytest.mark.parametrize(
        ("label", "verdict"),
        [
            ("system_u:system_r:spc_t:s0", Verdict.OK),
            ("system_u:system_r:container_t:s0:c1,c2", Verdict.WARN),
        ],
    )
    def test_selinux(self, tmp_path: Path, label: str, verdict: Verdict) -> None:
        """A container's type, which may not look out of it, is told, with what to do."""
        put(tmp_path / "sys" / "fs" / "selinux" / "enforce", "1")
        put(process_in(tmp_path) / "attr" / "current", f"{label}\0")
        assert verdict == machine.selinux(scene_of(tmp_path, status_of(tmp_path))).verdict

    def test_none_and_unknown(self, tmp_path: Path) -> None:
        """A kernel without either is well; with either, and no agent to look at, it is unknown."""
        scene = scene_of(tmp_path)
        assert [Verdict.OK] * 2 == [machine.apparmor(scene).verdict, machine.selinux(scene).verdict]
        put(tmp_path / "sys" / "module" / "apparmor" / "parameters" / "enabled", "Y\n")
        put(tmp_path / "sys" / "fs" / "selinux" / "enforce", "1")
        assert [Verdict.UNKNOWN] * 2 == [machine.apparmor(scene).verdict, machine.selinux(scene).verdict]
        put(tmp_path / "sys" / "fs" / "selinux" / "enforce", "0")
        assert Verdict.OK == machine.selinux(scene).verdict


@pytest.mark.parametrize(("right", "verdict"), [(True, Verdict.OK), (False, Verdict.WARN)])
def test_the_clock(monkeypatch: pytest.MonkeyPatch, *, right: bool, verdict: Verdict) -> None:
    """A clock that nothing keeps right is told, by what the kernel says of it."""
    monkeypatch.setattr(machine, "synchronised", lambda: right)
    assert verdict == machine.clock(Scene(None, "", None)).verdict


@pytest.mark.parametrize(("most", "verdict"), [("128", Verdict.WARN), ("4096", Verdict.OK), ("", Verdict.UNKNOWN)])
def test_the_backlog(tmp_path: Path, most: str, verdict: Verdict) -> None:
    """A kernel that lets fewer connections wait than the agent wants is told."""
    put(tmp_path / "proc" / "sys" / "net" / "core" / "somaxconn", f"{most}\n")
    assert verdict == machine.backlog(scene_of(tmp_path)).verdict


class TestCapabilities:
    def test_all_of_them(self, seen: Scene) -> None:
        """Root, and a user with both capabilities, may look at everybody."""
        assert Verdict.OK == process.capabilities(seen).verdict

    def test_those_that_are_missing(self, tmp_path: Path) -> None:
        """Each capability that is missing is told with what is lost without it, and so is what the agent says itself."""
        process_in(tmp_path, "0000000000000004", 990)
        status = status_of(tmp_path)
        status.limitations.add(what="callers of other users", reason="hidepid")
        found = process.capabilities(scene_of(tmp_path, status))
        assert Verdict.WARN == found.verdict
        assert "without CAP_SYS_PTRACE" in found.found
        assert "CAP_DAC_READ_SEARCH" not in found.found
        assert "callers of other users: hidepid" in found.found


class TestDescriptors:
    @pytest.mark.parametrize(
        ("most", "used", "verdict"),
        [
            ("65536", 10, Verdict.OK),
            ("1024", 10, Verdict.WARN),
            ("2000", 1700, Verdict.WARN),
            ("2000", 1950, Verdict.FAIL),
            ("unlimited", 10, Verdict.OK),
        ],
    )
    def test_how_many_there_may_be(self, tmp_path: Path, most: str, used: int, verdict: Verdict) -> None:
        """Few that may be open are a warning, and so are four fifths of all; nearly all are a failure."""
        folder = process_in(tmp_path)
        put(folder / "limits", f"Max open files            {most}                {most}                files")
        for number in range(used):
            (folder / "fd" / str(number)).touch()
        assert verdict == process.descriptors(scene_of(tmp_path, status_of(tmp_path))).verdict

    def test_nobody_runs(self, tmp_path: Path) -> None:
        """Without an agent it is unknown."""
        assert Verdict.UNKNOWN == process.descriptors(scene_of(tmp_path)).verdict


class TestCode:
    @pytest.fixture
    def package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A package below a folder of ours, in the place of the real one."""
        home = tmp_path / "opt"
        put(home / "sojourn" / "__init__.py", "")
        put(home / "sojourn" / "agent" / "run.py", "")
        monkeypatch.setattr(process.sojourn, "__file__", str(home / "sojourn" / "__init__.py"))
        monkeypatch.setattr(process, "walk", lambda path, *_: os.lstat(path))
        return home / "sojourn"

    def test_a_file_that_others_may_write(self, tmp_path: Path, package: Path) -> None:
        """A file of the package that others may write is found, wherever it lies in it."""
        process_in(tmp_path, uid=os.geteuid())
        scene = scene_of(tmp_path, status_of(tmp_path))
        assert Verdict.OK == process.code(scene).verdict, process.code(scene).found
        (package / "agent" / "run.py").chmod(0o666)
        found = process.code(scene)
        assert Verdict.FAIL == found.verdict
        assert f"{package / 'agent' / 'run.py'} can be written by others" == found.found

    def test_a_folder_on_the_way(self, tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A folder on the way to the package that others may write is found too."""
        monkeypatch.undo()
        monkeypatch.setattr(process.sojourn, "__file__", str(package / "__init__.py"))
        process_in(tmp_path, uid=os.geteuid())
        package.parent.chmod(0o777)
        found = process.code(scene_of(tmp_path, status_of(tmp_path)))
        assert Verdict.FAIL == found.verdict
        assert "that others may write" in found.found
