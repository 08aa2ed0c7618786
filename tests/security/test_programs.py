"""What a process can do about which program it is taken for (facts C1 1, 4, 15 and C2 16 to 24)."""

import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND, AgentProcess, becoming, clean_environment
from harness.borrowed import Borrowed
from harness.lacking import lacking
from harness.looking import until
from harness.program import as_user, published
from harness.raw import Admin, refusal
from sojourn.limits import PROGRAM_SETTLED_SECONDS

pytestmark = pytest.mark.root
ROUNDS = int(os.environ.get("SOJOURN_RACE_ROUNDS", "400"))
IMPOSTORS = str(Path(__file__).parent.parent / "harness" / "impostors.py")
RENAMED = Path(__file__).parent.parent / "harness" / "renamed.c"
SLEEP = os.path.realpath("/bin/sleep")
PYTHON = os.path.realpath(sys.executable)


def paths(explained: Any) -> list[str]:
    return [each for each in explained.selectors if each.startswith("unix:path:")]


def reasons(explained: Any) -> dict[str, str]:
    return {each.what: each.reason for each in explained.withheld}


def rounds(*arguments: str, below: bool = False) -> dict[str, int]:
    """How often each outcome came."""
    command = [sys.executable, IMPOSTORS, *arguments]
    if below:
        command = ["unshare", "-pf", "--mount-proc", "--kill-child", *command]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), timeout=1800, check=False)
    assert 0 == done.returncode, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


class TestRaces:
    @pytest.mark.forked
    def test_a_number_that_is_used_again(self) -> None:
        """A connection whose process has ended is refused, though a process of root's has its number: each time.

        With the kernel's handle on the process that connected and without, before the connection was looked at and
        after.
        """
        assert {"refused": ROUNDS} == rounds("reuse", str(ROUNDS), below=True)

    @pytest.mark.forked
    def test_another_program_at_any_moment(self) -> None:
        """A process that becomes another program while it is attested is refused, or is what it was at the connect."""
        found = rounds("exec", str(ROUNDS // 2), PYTHON, SLEEP)
        assert 0 == found.pop("wrong", 0)
        assert found["refused"] > 0
        assert sum(found.values()) >= ROUNDS // 2

    @pytest.mark.forked
    def test_S9_another_program_before_the_accept(self) -> None:
        """What a process runs when its connection is accepted counts, and nothing that it ran before or runs after: who
        connects and becomes another program while the agent is busy is taken for that program.
        """
        found = rounds("backlog", str(ROUNDS // 4), PYTHON, SLEEP)
        assert 0 == found.pop("wrong", 0)
        assert found[f"served as {SLEEP}"] > 0
        assert sum(found.values()) >= ROUNDS // 4

    def test_a_path_that_is_turned(self, admin: Admin, tmp_path: Path) -> None:
        """While a link and the name of a program are turned to another file and back, the other's path is never given.

        What runs has at each moment the path that leads to it without links, or none.
        """
        folder = Path(f"/tmp/sojourn-turned-{os.getpid()}")
        folder.mkdir()
        good, evil = published(SLEEP, folder, "good"), published(SLEEP, folder, "evil")
        (folder / "link").symlink_to(evil)
        turner = (
            "import os, sys\nos.chdir(sys.argv[1])\nwhile True:\n"
            "  os.symlink('good', 'l'); os.rename('l', 'link'); os.rename('good', 'g'); os.link('g', 'good')\n"
            "  os.symlink('evil', 'l'); os.rename('l', 'link'); os.unlink('g')\n"
        )
        seen: set[str] = set()
        try:
            with subprocess.Popen([sys.executable, "-I", "-S", "-c", turner, str(folder)]) as turning:
                with subprocess.Popen([str(evil), "60"]) as running:
                    for _ in range(ROUNDS):
                        seen.update(paths(admin.explain(running.pid)))
                    running.kill()
                assert turning.poll() is None
                turning.kill()
        finally:
            shutil.rmtree(folder)
        assert good.name == "good"
        assert {f"unix:path:{evil}"} == seen


class TestFiles:
    def test_in_memory(self, agent: AgentProcess, admin: Admin) -> None:
        """A program that runs from memory has no path, and the digest of what runs."""
        script = (
            "import os, sys\nfd = os.memfd_create('good')\nos.write(fd, open('/bin/sleep', 'rb').read())\n"
            "os.execv(f'/proc/self/fd/{fd}', ['sleep', '60'])"
        )
        with subprocess.Popen([sys.executable, "-I", "-c", script]) as running:
            until(lambda: "memfd:" in os.readlink(f"/proc/{running.pid}/exe"))
            explained = admin.explain(running.pid)
            running.kill()
        digest = hashlib.sha256(Path(SLEEP).read_bytes()).hexdigest()
        assert ([], True) == (paths(explained), f"unix:sha256:{digest}" in explained.selectors)
        assert "deleted or replaced" in reasons(explained)["unix:path"]

    @pytest.mark.forked
    @pytest.mark.parametrize("kind", ["disk", "memory"])
    def test_rewritten_in_place(self, admin: Admin, tmp_path: Path, kind: str) -> None:
        """A program that was rewritten in place between two runs, with size and mtime as before, has the new digest.

        Written through a mapping: on a file system in memory nothing that the kernel tells of the file changes then.
        """
        folder = tmp_path / "programs"
        folder.mkdir()
        if kind == "memory":
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)
        try:
            program = published(SLEEP, folder, "program")
            with program.open("ab") as file:
                file.write(b"good")
            os.utime(program, (1, 1))
            until(lambda: time.time() > program.stat().st_ctime + PROGRAM_SETTLED_SECONDS + 0.1)
            first = self.digest(admin, program)
            assert first == self.digest(admin, program)
            self.rewrite(program)
            second = self.digest(admin, program)
            content = program.read_bytes()
        finally:
            if kind == "memory":
                subprocess.run(["umount", str(folder)], check=True)
        assert (b"evil", hashlib.sha256(content).hexdigest()) == (content[-4:], second)
        assert first != second

    @staticmethod
    def digest(admin: Admin, program: Path) -> str:
        with subprocess.Popen([str(program), "60"]) as running:
            until(lambda: os.readlink(f"/proc/{running.pid}/exe") == str(program))
            [found] = [each for each in admin.explain(running.pid).selectors if each.startswith("unix:sha256:")]
            running.kill()
        return str(found).removeprefix("unix:sha256:")

    @staticmethod
    def rewrite(program: Path) -> None:
        with program.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
            assert b"good" == mapping[-4:]
            mapping[-4:] = b"evil"
        os.utime(program, (1, 1))


class TestScripts:
    def test_are_not_told(self, admin: Admin, tmp_path: Path) -> None:
        """Which script an interpreter runs is withheld, with the reason, and an entry that asks for it matches nobody."""
        script = tmp_path / "job.py"
        script.write_text("import sys; sys.stdin.read()")
        made = admin.register("/script", f"unix:path:{PYTHON}", f"unix:script_path:{script}")
        with subprocess.Popen([PYTHON, str(script)], stdin=subprocess.PIPE) as running:
            until(lambda: os.readlink(f"/proc/{running.pid}/exe") == PYTHON)
            explained = admin.explain(running.pid)
            running.kill()
        assert {f"unix:path:{PYTHON}"} == set(paths(explained))
        assert "does not record which script" in reasons(explained)["unix:script_path"]
        [verdict] = [each for each in explained.verdicts if each.entry_id == made.id]
        assert ("missing_selectors", [f"unix:script_path:{script}"]) == (verdict.verdict, list(verdict.missing))
        admin.delete(made.id)


@pytest.fixture(scope="module")
def renamed(agent: AgentProcess) -> Path:
    """The program renamed.c."""
    compiler = shutil.which("cc")
    if compiler is None:
        lacking("needs a C compiler (Debian, Ubuntu: apt install gcc libc6-dev)")
    program = agent.folder / "renamed"
    subprocess.run([compiler, "-static", "-o", str(program), str(RENAMED)], check=True)
    program.chmod(0o755)
    return program


class TestRenamed:
    """A process that has the kernel name a file as its program, though it runs code of its own."""

    def test_by_who_may_run_it(self, agent: AgentProcess, admin: Admin, renamed: Path) -> None:
        """Who may read and run a program may have own code taken for it: path and digest do not prove whose code runs.

        That is the documented rule: this test is there so that a change is noticed. As the user is proved all the same,
        an entry that also asks for the user is safe from all other users.
        """
        with subprocess.Popen([*as_user(4951), str(renamed), SLEEP, agent.socket], stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            said = running.stdout.readline()
            if said != b"ready\n":
                pytest.skip("this kernel lets no user make user namespaces, or keeps them from naming a program")
            explained = admin.explain(running.pid)
            running.kill()
        assert [f"unix:path:{SLEEP}"] == paths(explained)
        assert {"unix:uid:4951"} == {each for each in explained.selectors if each.startswith("unix:uid:")}

    @pytest.mark.parametrize("mode", [0o700, 0o711, 0o744])
    def test_by_who_may_not(self, agent: AgentProcess, admin: Admin, renamed: Path, mode: int) -> None:
        """Who may not both read and run a program cannot have the kernel name it."""
        program = published(SLEEP, agent.folder, f"guarded-{mode:o}")
        program.chmod(mode)
        command = [*as_user(4951), str(renamed), str(program), agent.socket]
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
        assert (1, b"") == (done.returncode, done.stdout)


class Hidden(AgentProcess):
    """An agent of an ordinary user, where /proc shows each user their own processes alone."""

    def __init__(self, uid: int) -> None:
        script = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
        super().__init__(as_user=uid, under=("unshare", "-m", "sh", "-c", script, "sh"))
        self._becoming = becoming(uid)

    def own(self, *arguments: str) -> str:
        """What the command prints, run by the agent's own user: nobody else is seen by it."""
        command = [*self._becoming, *COMMAND, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.forked
def test_processes_that_are_hidden() -> None:
    """An agent that /proc hides other users' processes from says so, serves its own user, and refuses all others."""
    with Hidden(4952) as agent:
        for uid in ("4952", "4953"):
            agent.own("entry", "create", "--spiffe-id", f"spiffe://example.org/{uid}", "--selector", f"unix:uid:{uid}")
        assert "spiffe://example.org/4952" in agent.own("svid", "x509")
        with Borrowed(agent.socket, 4953) as borrowed, borrowed.wire() as wire:
            assert "UNAVAILABLE" == refusal(wire.x509)[0]
        assert "hidepid" in agent.own("status")
