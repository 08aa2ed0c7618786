"""machine.py: in whose mount namespace a path is the machine's. Processes and namespaces are real."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.children import child
from harness.looking import OpenFiles, until
from harness.pidone import PidOne
from sojourn.attestation import machine as machines
from sojourn.attestation.account_files import name_in
from sojourn.attestation.machine import Machine, mount_namespace
from sojourn.attestation.subordinate_ids import Subordinates

HARNESS = Path(__file__).parents[2] / "harness"
ATTESTING = (sys.executable, str(HARNESS / "attesting.py"), "unix")
SHUT_IN = ("unshare", "--mount")
SAYS = """
import json, os, sys
from sojourn.attestation.machine import machine as m
os.setresuid(*[int(sys.argv[1])] * 3)
print(json.dumps([m().doubt, m().apart, m().has_its_files, m().root]))
"""
USER = 4951
ROOT = machines._Mount(number=b"1", device=b"8:1", root=b"/", point=b"/", kind=b"ext4")


class Below(Machine):
    """One that has its files below a folder."""

    def __init__(self, folder):
        self.doubt, self.known_apart, self.has_its_files = "", True, False
        self.folder = str(folder)

    @property
    def root(self):
        return self.folder


@pytest.fixture(scope="module")
def ground():
    """A process namespace whose first process is root's."""
    with PidOne() as ground:
        yield ground


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    shutil.copy(shutil.which("sleep"), path)
    return path


def attested(ground, *pids, under=SHUT_IN):
    """What an agent that is started with `under` says of each process."""
    text = "".join(json.dumps({"pid": pid}) + "\n" for pid in pids)
    return [json.loads(line) for line in ground.run(*under, *ATTESTING, text=text).splitlines()]


def said(ground, *under, uid=0):
    return json.loads(ground.run(*under, sys.executable, "-c", SAYS, str(uid)))


def runs(ground, pid, path):
    """Wait until a process of that number runs the program."""
    until(lambda: ground.run("readlink", f"/proc/{pid}/exe").strip() == str(path), "the program runs")


def path_of(answer):
    return [value for value in answer["values"] if value.startswith("path:")]


@pytest.mark.full
@pytest.mark.root
class TestPaths:
    def test_of_an_agent_with_mounts_of_its_own(self, ground, program):
        """An agent that is shut in gives the path of a program that the machine's first process has there, though it
        sees another file at that path itself.
        """
        pid = ground.start(str(program), "100")
        runs(ground, pid, program)
        hidden = f'mount -t tmpfs none {program.parent} && exec "$@"'
        for under in ((), SHUT_IN, (*SHUT_IN, "sh", "-c", hidden, "sh")):
            (answer,) = attested(ground, pid, under=under)
            assert [f"path:{program}"] == path_of(answer), under

    def test_of_a_caller_with_mounts_of_its_own(self, ground, program):
        """A program that is mounted over another's path in a mount namespace of the caller's own has no path: neither
        to an agent that is shut in nor to one that is not.
        """
        trusted = program.with_name("trusted")
        shutil.copy(shutil.which("cat"), trusted)
        forged = f"mount --bind {program} {trusted} && exec {trusted} 100"
        pid = ground.start(*SHUT_IN, "sh", "-c", forged)
        runs(ground, pid, trusted)
        for under in ((), SHUT_IN):
            (answer,) = attested(ground, pid, under=under)
            assert ([], "the process is in another mount namespace, where paths can be forged") == (
                path_of(answer),
                answer["withheld"]["path"],
            )

    def test_of_a_caller_beside_the_agent(self, ground, program):
        """A process in the agent's own mount namespace is in another one than the machine's, and has no path."""
        script = f'{program} 100 & sleep 0.2; echo "{{\\"pid\\": $!}}" | "$@"; kill $!'
        (answer,) = attested(ground, under=(*SHUT_IN, "sh", "-c", script, "sh"))
        assert ([], True) == (path_of(answer), "another mount namespace" in answer["withheld"]["path"])

    def test_of_a_caller_in_a_root_of_its_own(self, ground):
        """A caller that has changed its root folder has the path that the machine has."""
        python = os.path.realpath(sys.executable)
        pid = ground.start(python, "-c", "import os, time; os.chroot('/usr'); time.sleep(100)")
        runs(ground, pid, python)
        (answer,) = attested(ground, pid)
        assert [f"path:{python}"] == path_of(answer)

    def test_of_a_program_that_was_replaced(self, ground, program):
        """An agent that is shut in gives no path to a program in whose place the machine has another one by now."""
        pid = ground.start(str(program), "100")
        runs(ground, pid, program)
        program.rename(program.with_name("before"))
        shutil.copy(shutil.which("cat"), program)
        program.with_name("before").unlink()
        (answer,) = attested(ground, pid)
        assert ([], "the program was deleted or replaced after it started") == (
            path_of(answer),
            answer["withheld"]["path"],
        )


@pytest.mark.root
class TestFirstProcess:
    @pytest.mark.full
    def test_is_the_machines(self, ground):
        """That from which the agent descends, if it is root's, is the machine's first process."""
        assert ["", False, True, ""] == said(ground)
        assert ["", True, True, "/proc/1/root"] == said(ground, *SHUT_IN)

    @pytest.mark.full
    def test_of_a_container_that_the_agent_was_put_into(self, ground, program):
        """An agent that was put into a container's process namespace does not take that one's first process for the
        machine's: what the container's programs are called is its own word.
        """
        pid = ground.start(str(program), "100")
        runs(ground, pid, program)
        put = ("nsenter", f"--target={ground.pid}", "--pid", "--mount", *SHUT_IN, *ATTESTING)
        asked = json.dumps({"pid": pid}) + "\n"
        done = subprocess.run(put, input=asked, capture_output=True, text=True, check=True, timeout=60)
        answer = json.loads(done.stdout)
        assert ([], True) == (path_of(answer), "which the agent was put into" in answer["withheld"]["path"])

    @pytest.mark.full
    def test_that_is_a_users(self, tmp_path):
        """A first process that is not root's, who alone sets up a machine, is not taken for the machine's."""
        waits = f'until grep -q "^Uid:.{USER}" /proc/1/status; do sleep 0.05; done; "$@" >{tmp_path}/said.new'
        waits += f" && mv {tmp_path}/said.new {tmp_path}/said"
        with PidOne() as ground:
            ground.start("sh", "-c", waits, "sh", sys.executable, "-c", SAYS, "0")
            ground.become(USER)
            until((tmp_path / "said").exists, "it is told")
        assert "process 1 is not root's" == json.loads((tmp_path / "said").read_text())[0]

    @pytest.mark.full
    def test_that_may_not_be_looked_at(self, ground):
        """An agent without the privilege says what it takes, and that its own mount namespace counts."""
        doubt, apart, has_its_files, root = said(ground, *SHUT_IN, uid=USER)
        assert ("CAP_SYS_PTRACE" in doubt, apart, has_its_files, root) == (True, True, True, "")
        doubt, apart, has_its_files, root = said(ground, uid=USER)
        assert ("CAP_SYS_PTRACE" in doubt, apart, has_its_files, root) == (True, False, True, "")

    @pytest.mark.full
    def test_whose_mounts_cannot_be_read(self, ground):
        """An agent from whom the first process is hidden may be in a container, and does not take the names of users
        that it sees for the machine's.
        """
        hiding = ("sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh")
        hidden = (*SHUT_IN, *hiding, "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
        doubt, apart, has_its_files, root = said(ground, *hidden, uid=USER)
        assert (doubt != "", apart, has_its_files, root) == (True, True, False, "")

    @pytest.mark.parametrize(("first", "own"), [([], []), ([ROOT], []), ([], [ROOT])])
    def test_of_mounts_that_are_not_told(self, monkeypatch, first, own):
        """Where one table of mounts or both cannot be read, the agent's files are not the machine's."""
        made = Machine()
        made.doubt = "so it is"
        monkeypatch.setattr(machines, "_mounts_of", lambda pid: first if pid == 1 else own)
        assert (made.known_apart, made.apart, made.has_its_files) == (None, True, False)

    def test_of_mounts_without_a_root(self, monkeypatch):
        """Two tables of mounts that both lack `/` say nothing of whose files the agent has."""
        made = Machine()
        made.doubt = "so it is"
        tables = {1: [replace(ROOT, point=b"/a")], "self": [replace(ROOT, number=b"2", point=b"/a")]}
        monkeypatch.setattr(machines, "_mounts_of", tables.get)
        assert (made.apart, made.has_its_files) == (True, False)

    @pytest.mark.full
    def test_of_another_proc(self, ground):
        """An agent whose /proc shows other processes than it is among takes none of those for the machine's first."""
        doubt = said(ground, "unshare", "--pid", "--fork", "--kill-child")[0]
        assert "what is at /proc is of another process namespace than the agent" == doubt

    def test_that_does_not_answer(self):
        """A mount namespace that cannot be told is equal to none: asking for it fails."""
        with child() as process:
            pid = process.pid
        with pytest.raises(OSError, match="No such"):
            mount_namespace(pid)


class TestFiles:
    def test_below_its_root(self, tmp_path):
        """A path is looked up in the machine's root, not in the agent's own."""
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc" / "passwd").write_text("")
        found = Below(tmp_path).status_of("/etc/passwd")
        assert (tmp_path / "etc" / "passwd").stat().st_ino == found.st_ino

    @pytest.mark.parametrize(
        "path", ["/link/passwd", "/etc/link/passwd", "/etc/../link", "etc/passwd", "/etc/", "", "/"]
    )
    def test_by_links(self, tmp_path, path):
        """No link is followed on the way, which could lead out of the machine's root into the agent's; nor is `..`."""
        (tmp_path / "etc").mkdir()
        (tmp_path / "link").symlink_to("/etc")
        (tmp_path / "etc" / "link").symlink_to("/etc")
        with pytest.raises(OSError, match=r"Not a directory|not the path"):
            Below(tmp_path).status_of(path)
        with pytest.raises(OSError, match=r"Not a directory|not the path"):
            Below(tmp_path).open(path)

    def test_a_link_itself(self, tmp_path):
        """A link at the end is what is there, and is not opened."""
        (tmp_path / "link").symlink_to("/etc/passwd")
        before = OpenFiles()
        assert os.lstat(tmp_path / "link").st_ino == Below(tmp_path).status_of("/link").st_ino
        with pytest.raises(OSError, match="symbolic links"):
            Below(tmp_path).open("/link")
        assert [] == before.opened_since()


class TestAccounts:
    @pytest.fixture
    def machine(self, tmp_path):
        (tmp_path / "etc").mkdir()
        lines = "root:x:0:0:::\n# ann:x:7:\nann:x:1001:1001:::\nbob:x:1001:1:::\nann:x:1002:1:::\n+nis::::::\nx:x:no:\n"
        (tmp_path / "etc" / "passwd").write_text(lines)
        (tmp_path / "etc" / "group").write_bytes(b"web:x:33:ann\nodd\xff:x:34:\nb\x07ell:x:35:\n")
        return Below(tmp_path)

    @pytest.mark.parametrize(("number", "name"), [(0, "root"), (1001, "ann"), (1002, None), (7, None), (33, None)])
    def test_users(self, machine, number, name):
        """The machine's own file says which name an id has: one that means this id and no other."""
        assert name == name_in(machine, "passwd", number)

    @pytest.mark.parametrize(("number", "name"), [(33, "web"), (34, None), (35, None)])
    def test_groups(self, machine, number, name):
        """Groups have theirs in another file; a name that is no text is none."""
        assert name == name_in(machine, "group", number)

    def test_that_cannot_be_read(self, tmp_path):
        """Where the file is not there no name is told, which is not the same as that there is none."""
        with pytest.raises(OSError, match="No such"):
            name_in(Below(tmp_path), "passwd", 0)

    def test_of_subordinate_ids(self, machine, tmp_path):
        """Who has subordinate ids is told by the machine's files too."""
        (tmp_path / "etc" / "subuid").write_text("ann:100000:65536\nbob:200000:65536\nnobody:300000:65536\n")
        found = Subordinates(of=machine)
        found.look()
        assert [1001, 1001, 300_001] == [found.owner(uid) for uid in (100_001, 200_001, 300_001)]
