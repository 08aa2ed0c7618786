"""How the command ends: interrupted at any moment, with streams that are closed or full, and with what is no text."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import COMMAND, AgentProcess
from harness.lines import lines_of

pytestmark = pytest.mark.full

# Python runs it first. The process sends itself the signal when it imports the module, or once it has called the function.
WHEN_IMPORTED = """
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {what!r} and self in sys.meta_path:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Finder())
"""
WHEN_CALLED = """
import os
before = os.{what}
def call(*args, **more):
    os.{what} = before
    os.kill(os.getpid(), {number})
    return before(*args, **more)
os.{what} = call
"""
AS_IN_A_TERMINAL = ("env", "--default-signal=HUP,INT,TERM")  # however these tests were started
CTRL_C = (signal.SIGINT, 130)
TERMINATED, HUNG_UP = (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with AgentProcess() as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running


def ended(
    agent: AgentProcess, folder: Path, code: str, arguments: list[str], under: tuple[str, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    (folder / "custom").mkdir()
    (folder / "custom" / "sitecustomize.py").write_text(code)
    environment = {**agent.environment, "PYTHONPATH": str(folder / "custom")}
    return subprocess.run(
        [*AS_IN_A_TERMINAL, *under, *COMMAND, *arguments],
        env=environment, capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip


def scratch(folder: Path) -> list[Path]:
    """What files are written as before they have their names."""
    return [each for each in folder.rglob("*") if each.name.endswith(".new")]


class TestInterrupted:
    @pytest.mark.parametrize(("number", "status"), [CTRL_C, TERMINATED, HUNG_UP])
    @pytest.mark.parametrize(
        "module", ["sojourn.errors", "typer.exceptions", "sojourn.cli.root", "sojourn.cli.svid", "grpc"]
    )
    def test_while_it_loads(
        self, agent: AgentProcess, tmp_path: Path, module: str, number: signal.Signals, status: int
    ) -> None:
        """A command that is interrupted while it is still being loaded ends with a status, and says nothing."""
        code = WHEN_IMPORTED.format(what=module, number=int(number))
        done = ended(agent, tmp_path, code, ["svid", "x509"])
        assert (status, "", "") == (done.returncode, done.stdout, done.stderr)

    @pytest.mark.parametrize(("number", "status"), [CTRL_C, TERMINATED, HUNG_UP])
    @pytest.mark.parametrize("command", [["svid", "x509", "--write"], ["bundle", "publish", "--to"]])
    def test_while_it_writes(
        self, agent: AgentProcess, tmp_path: Path, command: list[str], number: signal.Signals, status: int
    ) -> None:
        """What a command was writing when it was interrupted is whole or gone, and the status says how it ended."""
        done = ended(
            agent, tmp_path, WHEN_CALLED.format(what="fsync", number=int(number)), [*command, str(tmp_path / "w")]
        )
        assert (status, "") == (done.returncode, done.stderr)
        assert [] == scratch(tmp_path / "w")

    @pytest.mark.parametrize("under", [(), ("sh", "-c", 'trap "" INT; exec "$@"', "sh")])
    @pytest.mark.parametrize(
        "command", [["svid", "x509", "--watch", "--write"], ["bundle", "publish", "--watch", "--to"]]
    )
    def test_a_watch_that_is_stopped(
        self, agent: AgentProcess, tmp_path: Path, command: list[str], under: tuple[str, ...]
    ) -> None:
        """A `--watch` that a supervisor stops leaves nothing half written, also where a script ignores Ctrl-C."""
        code = WHEN_CALLED.format(what="rename", number=int(signal.SIGTERM))
        done = ended(agent, tmp_path, code, [*command, str(tmp_path / "w")], under)
        assert (-signal.SIGTERM, "") == (done.returncode, done.stderr)
        assert [] == scratch(tmp_path / "w")

    @pytest.mark.parametrize("gap_ms", [0, 0.1, 0.3, 1, 5, 20])
    @pytest.mark.parametrize(
        "command", [["status", "--watch"], ["svid", "x509", "--watch"], ["bundle", "publish", "--watch", "--to"]]
    )
    def test_a_watch_that_is_told_twice(
        self, agent: AgentProcess, tmp_path: Path, command: list[str], gap_ms: float
    ) -> None:
        """Ctrl-C that comes twice within a moment, as of `timeout -s INT`, ends a `--watch` as well as one does."""
        more = [str(tmp_path / "w")] if "--to" in command else []
        watching = subprocess.Popen(
            [*AS_IN_A_TERMINAL, *COMMAND, *command, *more],
            env=agent.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        with watching:
            lines = lines_of(watching)
            assert next(lines)
            lines.close()
            watching.send_signal(signal.SIGINT)
            time.sleep(gap_ms / 1000)
            watching.send_signal(signal.SIGINT)
            _, said = watching.communicate(timeout=60)
        assert (0, "") == (watching.returncode, said)

    def test_again_as_it_ends(self, agent: AgentProcess, tmp_path: Path) -> None:
        """Ctrl-C that comes once more when nothing is left to do changes neither the status nor what is said."""
        again = f"import atexit\natexit.register(lambda: os.kill(os.getpid(), {int(signal.SIGINT)}))\n"
        code = WHEN_IMPORTED.format(what="grpc", number=int(signal.SIGINT)) + again
        done = ended(agent, tmp_path, code, ["svid", "x509"])
        assert (130, "", "") == (done.returncode, done.stdout, done.stderr)

    def test_hung_up_under_nohup(self, agent: AgentProcess, tmp_path: Path) -> None:
        """Who ignores SIGHUP for a command has it ignored."""
        code = WHEN_CALLED.format(what="fsync", number=int(signal.SIGHUP))
        done = ended(agent, tmp_path, code, ["svid", "x509", "--write", str(tmp_path / "w")], ("nohup",))
        assert (0, 3) == (done.returncode, len(list((tmp_path / "w").iterdir())))


def shell(agent: AgentProcess, line: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", line.replace("sojourn", COMMAND[0])],
        env={**agent.environment, **environment},
        capture_output=True, text=True, errors="replace", check=False, timeout=30,
    )  # fmt: skip


class TestStreams:
    @pytest.mark.parametrize(
        "command",
        ["svid jwt --audience https://x.example", "status -o pretty", "status --watch", "entry list", "--help"],
    )
    def test_full(self, agent: AgentProcess, command: str) -> None:
        """Results that cannot be written, as on a full disk, are an error in one sentence, and no traceback."""
        done = shell(agent, f"sojourn {command} >/dev/full")
        assert (1, "error: the output cannot be written: No space left on device [unavailable]\n") == (
            done.returncode,
            done.stderr,
        )

    @pytest.mark.parametrize(
        ("line", "status"),
        [
            ("sojourn bundle publish --to {folder}/site >&-", 0),
            ("sojourn status <&- >&- 2>&-", 0),
            ("timeout -s INT --preserve-status 5 sojourn status --watch >&-", 0),
            ("sojourn task accept <&-", 2),
            ("sojourn nonsense 2>&-", 2),
        ],
    )
    def test_closed(self, agent: AgentProcess, tmp_path: Path, line: str, status: int) -> None:
        """A stream that is closed leads nowhere: the command does its work."""
        done = shell(agent, line.format(folder=tmp_path))
        assert (status, False) == (done.returncode, "Traceback" in done.stderr), done.stderr
        assert "" == done.stdout


class TestNoText:
    @pytest.mark.parametrize(
        "arguments",
        [
            r"svid jwt --audience $'\xff'",
            r"svid x509 --socket $'/tmp/\xff'",
            r"entry create --spiffe-id spiffe://example.org/a --selector $'unix:path:/\xff'",
            r"task begin --type x --param $'a=\xff'",
            r"task revoke $'\xff'",
        ],
    )
    def test_argument(self, agent: AgentProcess, arguments: str) -> None:
        """An argument that is no text is an error that shows it."""
        done = shell(agent, f"sojourn {arguments}")
        assert (2, True) == (done.returncode, done.stderr.startswith("error: the argument '")), done.stderr
        assert r"\udcff' is not UTF-8 [usage]" in done.stderr

    def test_input(self, agent: AgentProcess) -> None:
        """An input that is no text is an error that shows nothing of it: it may be a token in part."""
        done = shell(agent, r"printf 'secret\xff' | sojourn validate - --audience a", PYTHONUTF8="1")
        assert (2, True) == (done.returncode, "is not UTF-8 [usage]" in done.stderr)
        assert "secret" not in done.stderr

    def test_file_names(self, agent: AgentProcess, tmp_path: Path) -> None:
        """Names of files need not be texts."""
        done = shell(agent, rf"sojourn svid x509 --write $'{tmp_path}/\xff'", LANG="C.UTF-8", PYTHONIOENCODING="utf-8")
        assert (0, "") == (done.returncode, done.stderr)
        assert r"\udcff/svid.0.key" in done.stdout

    @pytest.mark.parametrize(
        "arguments",
        ["explain --pid 9999999999", "svid rotate --pid 9999999999", "task begin --type x --holder-pid 9999999999"],
    )
    def test_a_number_beyond_all_processes(self, agent: AgentProcess, arguments: str) -> None:
        """A number that no process can have is an error of usage."""
        done = shell(agent, f"sojourn {arguments}")
        assert (2, True) == (done.returncode, "must be less than or equal to" in done.stderr)
