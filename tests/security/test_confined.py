"""Commands that never hold a token: what descends from one gets nothing of the agent, however it goes about it."""

import json
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import knocker
from harness.agent import COMMAND, AgentProcess
from harness.looking import until
from harness.ticketshop import Shop, ticket_shop
from sojourn import SyncClient
from sojourn.attestation.confined_mark import RLIMIT_LOCKS
from sojourn.sdk.confinement.command import Confinement

pytestmark = pytest.mark.full

CONFINED = [403, "confined"]
needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
KNOCKER = [sys.executable, knocker.__file__]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ticket_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


@pytest.fixture(scope="module")
def agent(shop: Shop) -> AgentProcess:
    return shop.agent


def run(agent: AgentProcess, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`sojourn task run --proxy`."""
    return subprocess.run(
        [*COMMAND, "task", "run", "--type", "read-tickets", "--proxy", *options, "--", *command],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def confined(agent: AgentProcess, how: str) -> dict[str, Any]:
    """What the knocker is answered when it is started as such a command."""
    command = Confinement().command([*KNOCKER, str(agent.socket), how])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


HAS_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
TYPES = """
import errno, fcntl, os, sys, termios
tried = []
for request in (termios.TIOCSTI, 0x541C):
    try:
        fcntl.ioctl(0, request, b"x")
        tried.append("typed")
    except OSError as error:
        tried.append(errno.errorcode[error.errno])
print(*tried, os.isatty(0), os.tcgetpgrp(0) == os.getpgrp())
"""


def test_no_typing_for_others() -> None:
    """A command types nothing into the terminal that it shares with its shell, which it has for all else."""
    terminal, end = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", HAS_TERMINAL, *Confinement().command([sys.executable, "-c", TYPES])],
            stdin=end, capture_output=True, text=True, timeout=60, start_new_session=True, check=False,
        )  # fmt: skip
    finally:
        os.close(terminal)
        os.close(end)
    assert ("EPERM EPERM True True", "") == (done.stdout.strip(), done.stderr)


class TestEveryDoor:
    def test_without_confinement(self, agent: AgentProcess) -> None:
        """The same program of the same user gets identities and a task where it is not confined."""
        done = subprocess.run([*KNOCKER, str(agent.socket), "all"], capture_output=True, text=True, timeout=60)
        answers = json.loads(done.stdout)
        assert {"x509", "jwt", "begin", "run", "sds"} == {name for name, (code, _) in answers.items() if code == "OK"}

    def test_in_a_run(self, agent: AgentProcess) -> None:
        """A command behind --proxy gets no X.509-SVID, JWT-SVID, SDS secret, task or token: each answer says why."""
        done = run(agent, *KNOCKER, str(agent.socket), "all")
        answers = json.loads(done.stdout)
        assert CONFINED == answers.pop("http")
        assert {name: ["PERMISSION_DENIED", "confined"] for name in knocker.CALLS} == answers

    def test_the_admin_socket(self, agent: AgentProcess) -> None:
        """Nor may it use the admin socket, although its user may."""
        listed = ("entry", "list", "--admin-socket", str(agent.admin_socket))
        done = run(agent, *COMMAND, *listed)
        assert (1, "") == (done.returncode, done.stdout)
        assert "never holds a token" in done.stderr

    def test_a_run_of_its_own(self, agent: AgentProcess) -> None:
        """`sojourn task run … -- sojourn task token` inside of it begins nothing, and says why."""
        inner = (
            "task",
            "run",
            "--socket",
            str(agent.socket),
            "--type",
            "read-tickets",
            "--",
            *COMMAND,
            "task",
            "token",
        )
        done = run(agent, *COMMAND, *inner)
        assert (1, "") == (done.returncode, done.stdout)
        assert "never holds a token" in done.stderr

    def test_it_is_recorded(self, agent: AgentProcess) -> None:
        """What it was refused is in the audit journal, by its own code."""
        confined(agent, "plain")
        records = agent.json("audit", "tail", "--lines", "20")["records"]
        assert "confined" in {record["fields"].get("code") for record in records}

    def test_it_is_explained(self, agent: AgentProcess) -> None:
        """`sojourn explain` says of such a process that it gets nothing, whichever entries match it."""
        with subprocess.Popen(Confinement().command(["sleep", "600"])) as child:
            until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n", "it has started")
            said = agent.json("explain", "--pid", str(child.pid))["conclusion"]
            child.kill()
        assert "never holds a token: it gets nothing" in said

    def test_where_the_agent_is(self, agent: AgentProcess) -> None:
        """Its environment names no agent and no task."""
        done = run(agent, "env")
        names = {line.partition("=")[0] for line in done.stdout.splitlines()}
        assert not {name for name in names if name.startswith("SOJOURN_") or name == "SPIFFE_ENDPOINT_SOCKET"}
        assert "HTTPS_PROXY" in names


class TestEscapes:
    @pytest.mark.parametrize("how", ["plain", "orphan", "sibling", "namespaces", "exec"])
    def test_by_process(self, agent: AgentProcess, how: str) -> None:
        """An orphan in a session of its own, a child by CLONE_PARENT, root of a new user and process namespace, and
        another program are as confined as the command.
        """
        if how == "namespaces" and subprocess.run(["unshare", "-Urp", "true"], capture_output=True).returncode:
            pytest.skip("this kernel gives nobody a user namespace here")
        assert CONFINED == confined(agent, how)["http"]

    def test_when_the_runner_is_killed(self, agent: AgentProcess, tmp_path: Path) -> None:
        """What outlives `sojourn task run` after SIGKILL is as confined as before."""
        said = tmp_path / "said"
        script = f"exec {' '.join(KNOCKER)} {agent.socket} after > {said}"
        arguments = ["task", "run", "--type", "read-tickets", "--proxy", "--", "sh", "-c", script]
        with subprocess.Popen([*COMMAND, *arguments], env=agent.environment) as running:
            until(lambda: said.exists() and said.read_text(), "the command runs")
            running.send_signal(signal.SIGKILL)
        answers = until(lambda: said.read_text().partition("ready\n")[2], "it has knocked")
        assert CONFINED == json.loads(answers)["http"]

    def test_the_mark_stays(self) -> None:
        """The limit that marks the command cannot be raised by it, nor in a user namespace of its own."""
        code = "import resource; resource.setrlimit(10, (1, 1))"
        command = [sys.executable, "-c", f"{code}"]
        for started in (command, ["unshare", "-Ur", *command]):
            done = subprocess.run(Confinement().command(started), capture_output=True, text=True)
            assert done.returncode != 0
            assert "Error" in done.stderr or "unshare" in done.stderr

    def test_nothing_else_is_confined(self) -> None:
        """This process, which started the others, has no such mark."""
        assert resource.getrlimit(RLIMIT_LOCKS)[1] != 0

    def test_no_privileges_come_back(self) -> None:
        """A program with set-user-ID gains nothing there, and no capability is left that could take the mark off."""
        done = subprocess.run(Confinement().command(["cat", "/proc/self/status"]), capture_output=True, text=True)
        fields = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
        assert "1" == fields["NoNewPrivs"]
        assert 0 == sum(int(fields[name], 16) >> 24 & 1 for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"))

    def test_other_processes_of_the_user(self, agent: AgentProcess) -> None:
        """It cannot take the connection of a process outside of it, by its memory or its descriptors."""
        with socket.socket(socket.AF_UNIX) as mine:
            mine.connect(str(agent.socket))
            code = (
                "import ctypes, os, sys; libc = ctypes.CDLL(None);"
                "print(libc.syscall(438, os.pidfd_open(int(sys.argv[1])), int(sys.argv[2]), 0));"  # pidfd_getfd
                "open(f'/proc/{sys.argv[1]}/mem', 'rb')"
            )
            arguments = [sys.executable, "-c", code, str(os.getpid()), str(mine.fileno())]
            before = subprocess.run(arguments, capture_output=True, text=True)
            done = subprocess.run(Confinement().command(arguments), capture_output=True, text=True)
        if before.returncode:
            pytest.skip("no process may do that to another here")
        assert "-1\n" == done.stdout
        assert "PermissionError" in done.stderr

    def test_the_sdk(self, agent: AgentProcess) -> None:
        """`proxy.command` starts a program of one's own in the same way."""
        with SyncClient(agent.socket) as client, client.task("read-tickets") as task, task.proxy() as proxy:
            command = proxy.command([*KNOCKER, str(agent.socket), "plain"])
            done = subprocess.run(command, env=proxy.of(os.environ), capture_output=True, text=True, timeout=60)
        assert CONFINED == json.loads(done.stdout)["http"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
class TestAsAnotherUser:
    def test_who_it_is(self, agent: AgentProcess) -> None:
        """--user: the command has that user's IDs, groups and home, no capability, and can still read its certificate."""
        script = (
            'id -u; id -G; echo $HOME $USER; grep CapEff /proc/self/status; test -r "$SSL_CERT_FILE" && echo readable'
        )
        done = run(agent, "sh", "-c", script, options=("--user", "nobody"))
        nobody = pwd.getpwnam("nobody")
        expected = [
            str(nobody.pw_uid),
            str(nobody.pw_gid),
            f"{nobody.pw_dir} nobody",
            "CapEff:\t0000000000000000",
            "readable",
        ]
        assert expected == done.stdout.splitlines(), done.stderr

    @needs_curl
    def test_it_reaches_the_service(self, shop: Shop) -> None:
        """What runs as another user reads a ticket through the proxy, with a bound token."""
        options = ("--user", "nobody", "--param", "ticket=42", "--proxy-ca", str(shop.tls.ca))
        done = run(shop.agent, "curl", "-sS", f"{shop.resource}/tickets/42", options=options)
        assert json.loads(done.stdout)["bound"]

    def test_no_such_user(self, agent: AgentProcess) -> None:
        """A user that there is not is named, and nothing runs."""
        done = run(agent, "echo", "ran", options=("--user", "no-such-user"))
        assert (1, "") == (done.returncode, done.stdout)
        assert "there is no user 'no-such-user'" in done.stderr

    def test_by_somebody_else(self) -> None:
        """Whoever is not root cannot run a command as another, and is told so."""
        start = Confinement("daemon").command(["id"])
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", *start[1:]]
        if not Path("/usr/bin/python3").exists() or not os.access("/usr/bin/setpriv", os.X_OK):
            pytest.skip("needs a Python that everybody can run, and setpriv")
        source = Path(start[3]).read_text()
        command[command.index(start[3])] = "-"
        done = subprocess.run(command, input=source, capture_output=True, text=True)
        assert (1, "") == (done.returncode, done.stdout)
        assert "'nobody' may not run a command as 'daemon': only root may" in done.stderr


class TestIsolated:
    @pytest.fixture(autouse=True)
    def _possible(self) -> None:
        if subprocess.run(["unshare", "-Urn", "true"], capture_output=True).returncode:
            pytest.skip("this kernel gives nobody a network of its own here")

    @needs_curl
    @pytest.mark.parametrize(
        "user", [(), pytest.param(("--user", "nobody"), marks=pytest.mark.skipif("os.geteuid() != 0"))]
    )
    def test_the_proxy_is_all_there_is(self, shop: Shop, user: tuple[str, ...]) -> None:
        """--isolate: the proxy is reached and the service through it, and past the proxy nothing is."""
        url = f"{shop.resource}/tickets/42"
        past = f"curl -sS --noproxy '*' {url}; echo $?; cat /proc/net/route | wc -l"
        options = (*user, "--isolate", "--param", "ticket=42", "--proxy-ca", str(shop.tls.ca))
        done = run(shop.agent, "sh", "-c", f"curl -sS {url}; echo; {past}", options=options)
        answer, *rest = done.stdout.splitlines()
        assert json.loads(answer)["bound"]
        assert ["7", "1"] == rest  # nobody there, and no route but the heading

    def test_it_cannot_go_back(self, agent: AgentProcess) -> None:
        """From inside nobody enters the network that the rest of the machine has."""
        code = (
            "import os, sys; print(os.readlink('/proc/self/ns/net')); os.setns(os.open('/proc/1/ns/net', os.O_RDONLY))"
        )
        if not hasattr(os, "setns"):
            code = code.replace("os.setns(", "__import__('ctypes').CDLL(None).setns(").replace(
                "RDONLY))", "RDONLY), 0)"
            )
        code += "; print(os.readlink('/proc/self/ns/net'))"
        done = run(agent, sys.executable, "-c", code, options=("--isolate",))
        inside = done.stdout.split()
        assert {inside[0]} == set(inside)
        assert os.readlink("/proc/self/ns/net") not in inside

    def test_it_is_confined_there(self, agent: AgentProcess) -> None:
        """The agent's socket is a file and can be reached; it gives nothing."""
        done = run(agent, *KNOCKER, str(agent.socket), "plain", options=("--isolate",))
        assert CONFINED == json.loads(done.stdout)["http"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root forbids user namespaces")
def test_isolation_that_the_kernel_forbids(agent: AgentProcess) -> None:
    """Where there is no network to be had, the error names what forbids it, and the command does not run."""
    arguments = ["task", "run", "--type", "read-tickets", "--proxy", "--isolate", "--", "echo", "ran"]
    script = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'  # of a user namespace of its own
    if subprocess.run(["unshare", "-Ur", "sh", "-c", script, "sh", "true"], capture_output=True).returncode:
        pytest.skip("this kernel gives nobody a user namespace here")
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script, "sh", *COMMAND, *arguments],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ran" not in done.stdout
    assert "there is no network for the command alone here" in done.stderr
    assert "user.max_net_namespaces is 0" in done.stderr
