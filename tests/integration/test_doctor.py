"""`sojourn doctor` on real agents: the fault is made, the check finds it, and after it is mended all is well again."""

import json
import os
import signal
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND, ROOT, AgentProcess, becoming
from harness.callers import Caller
from harness.cgroups import CgroupAgent
from harness.clioutput import check_error, keys_of
from harness.disks import small_disk, taken_away
from harness.looking import until
from harness.taskagent import ISSUER, make_agent

PAGE = ROOT / "docs" / "operate" / "doctor.md"
CANARY = "canary-8c1f52e07ad94b"


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """An agent of this test's own, with task types."""
    with make_agent() as running:
        running.run("explain", "--pid", str(os.getpid()))  # so that each attestor was asked
        yield running


def doctor(agent: AgentProcess, *arguments: str) -> dict[str, Any]:
    """What the doctor says, with the exit status."""
    done = agent.run("doctor", *arguments, "--output", "json", check=False)
    assert "" == done.stderr
    return {**json.loads(done.stdout), "status": done.returncode}


def verdicts(agent: AgentProcess, *arguments: str) -> dict[str, tuple[str, str]]:
    """Verdict and what was found, by check."""
    return {each["id"]: (each["verdict"], each["found"]) for each in doctor(agent, *arguments)["checks"]}


def config_of(agent: AgentProcess) -> str:
    """A file that says where an agent's folder and sockets are, for when it does not answer."""
    path = agent.folder / "doctor.toml"
    path.write_text(
        f'data_dir = "{agent.data_dir}"\nsocket = "{agent.socket}"\nadmin_socket = "{agent.admin_socket}"\n'
    )
    return str(path)


class TestWell:
    def test_a_healthy_agent(self, agent: AgentProcess) -> None:
        """An agent that is well has no check that fails; what it keeps and serves is ok, and each check has its link."""
        found = doctor(agent)
        assert {"verdict", "checks", "id", "found", "do", "link", "bundle", "status"} == keys_of(found)
        by_id = {each["id"]: each for each in found["checks"]}
        told = {name: each["verdict"] for name, each in by_id.items()}
        own = ("agent", "ready", "version", "configuration", "sockets", "listeners", "attestors", "authority", "keys",
               "task-types", "nodes", "data-folder", "store", "journal", "kernel", "loop")  # fmt: skip
        assert dict.fromkeys(own, "ok") == {name: told[name] for name in own}
        assert "fail" not in {told[name] for name in told if name not in {"code", "disk"}}
        assert {f"docs/operate/doctor.md#{name}" for name in told} == {each["link"] for each in by_id.values()}

    def test_in_words(self, agent: AgentProcess) -> None:
        """For people each check is a line, with what to do below it if it is not well; the last line counts them."""
        lines = agent.run("doctor", check=False).stdout.splitlines()
        assert lines[0].startswith("ok       agent ")
        assert f"process {agent.pid}, trust domain example.org" in lines[0]
        assert lines[-1].startswith("0 failed, ") or " failed, " in lines[-1]


class TestFaults:
    def test_a_key_and_a_socket_that_are_open(self, agent: AgentProcess) -> None:
        """A key that others may read, and a public socket that is closed, are failures with the command that mends them."""
        key = agent.data_dir / "keys" / "root.pem"
        key.chmod(0o644)
        Path(agent.socket).chmod(0o700)
        found = doctor(agent)
        told = {each["id"]: each for each in found["checks"]}
        assert (1, "fail") == (found["status"], found["verdict"])
        assert f"{key} is open to others (mode 0644)" == told["keys"]["found"]
        assert f"chmod 0777 {agent.socket}" == told["sockets"]["do"]
        subprocess.run(told["sockets"]["do"].split(), check=True)
        key.chmod(0o600)
        assert {"ok"} == {verdict for name, (verdict, _) in verdicts(agent).items() if name in {"keys", "sockets"}}

    def test_a_store_that_refuses(self, agent: AgentProcess) -> None:
        """A store that takes no writes is what is told of readiness, with what the disk said."""
        with taken_away(agent):
            agent.run(
                "entry", "create", "--spiffe-id", "spiffe://example.org/a", "--selector", "unix:uid:1", check=False
            )
            verdict, found = verdicts(agent)["ready"]
        assert ("fail", True) == (verdict, found.startswith("store: the database's file "))

    def test_a_configuration_with_a_fault(self, agent: AgentProcess) -> None:
        """A file that was broken under the running agent is found, as the agent has it and as it can be read."""
        whole = agent.config.read_text()
        agent.config.write_text(whole + "\n[metrics]\nlisen = '127.0.0.1:1'\n")
        verdict, found = verdicts(agent)["configuration"]
        assert ("fail", True) == (verdict, "listen is meant?" in found)
        agent.config.write_text(whole + "\n[metrics]\nlisten = '127.0.0.1:1'\n")
        edited = f"{agent.config} was edited since the agent has read it, and that is not in force"
        assert ("warn", edited) == verdicts(agent)["configuration"]
        os.kill(agent.pid, signal.SIGHUP)
        until(lambda: verdicts(agent)["configuration"] == ("warn", "not in force: metrics.listen"), "it was read")
        waits = "metrics.listen 127.0.0.1:1 waits for a restart of the agent"
        assert ("warn", waits) == verdicts(agent)["listeners"]

    @pytest.mark.forked
    def test_task_types_that_cannot_be_used(self, agent: AgentProcess) -> None:
        """A broken file of task types is found, with which types are in force meanwhile."""
        types = Path(next(each["value"] for each in agent.json("config", "show", "--config", str(agent.config))["values"]
                          if each["key"] == "tasks.types_dir"))  # fmt: skip
        (types / "broken.toml").write_text("nonsense = [")
        try:
            until(lambda: verdicts(agent)["task-types"][0] == "warn", "the broken set was looked at")
            assert "broken.toml" in verdicts(agent)["task-types"][1]
        finally:
            (types / "broken.toml").unlink()
        until(lambda: verdicts(agent)["task-types"][0] == "ok", "the mended set is in force")

    @pytest.mark.forked
    def test_an_agent_that_stood_still(self, agent: AgentProcess) -> None:
        """An agent that was stopped for more than a second is found to have stood still."""
        os.kill(agent.pid, signal.SIGSTOP)
        try:
            with pytest.raises(AssertionError):
                until(lambda: False, seconds=1.5)
        finally:
            os.kill(agent.pid, signal.SIGCONT)
        until(lambda: verdicts(agent)["loop"][0] == "warn", "the standstill was noticed")

    def test_a_host_that_was_renamed(self) -> None:
        """Entries of the node that this host was before are found, with how to adopt them."""
        made = make_agent()
        made.start()
        made.register("/a", "unix:uid:1")
        made.stop()
        made.config.write_text('node_name = "renamed"\n' + made.config.read_text())
        with made as agent:
            verdict, found = verdicts(agent)["nodes"]
            assert ("warn", True) == (verdict, "1 of spiffe://example.org/spire/agent/sojourn/" in found)

    @pytest.mark.forked
    @pytest.mark.root
    def test_an_attestor_that_fails(self) -> None:
        """An attestor that cannot tell is a failure, with its reason."""
        with CgroupAgent() as agent:
            agent.switch.touch()
            agent.run("explain", "--pid", str(os.getpid()))
            verdict, found = verdicts(agent)["attestors"]
            assert ("fail", True) == (verdict, found.startswith("cgroup: "))

    @pytest.mark.root
    @pytest.mark.full
    def test_a_small_disk(self) -> None:
        """A data folder on a disk without room is a failure."""
        made = AgentProcess()
        with small_disk(made, "60m"):
            made.start()
            assert "fail" == verdicts(made)["disk"][0]
        made.__exit__()

    @pytest.mark.forked
    @pytest.mark.root
    def test_an_ordinary_users_agent_behind_hidepid(self) -> None:
        """An agent without capabilities that answers nobody, since /proc hides them from it, is found to be so all the same."""
        hiding = ["unshare", "--mount", "sh", "-c", 'mount -t proc -o hidepid=2 proc /proc && exec "$@"', "sh"]
        with AgentProcess(as_user=4398, under=hiding) as agent:
            found = verdicts(agent, "--config", config_of(agent))
            assert ("fail", True) == (found["agent"][0], "nothing answered" in found["agent"][1])
            assert ("fail", True) == (found["proc"][0], "hidepid=" in found["proc"][1])
            assert ("warn", True) == (found["capabilities"][0], "without CAP_SYS_PTRACE" in found["capabilities"][1])
            assert "ok" == found["data-folder"][0] == found["keys"][0]

    @pytest.mark.forked
    @pytest.mark.root
    def test_few_descriptors(self) -> None:
        """An agent that may open few files is told so, with what to set."""
        with AgentProcess(under=["prlimit", "--nofile=900:900"]) as agent:
            assert ("warn", True) == (verdicts(agent)["descriptors"][0], "900" in verdicts(agent)["descriptors"][1])


class TestWithout:
    def test_an_agent_that_was_killed(self, agent: AgentProcess) -> None:
        """Without an agent the files are looked at all the same, what only it knows is unknown, and the status is 1."""
        agent.kill()
        config = config_of(agent)
        found = doctor(agent, "--config", config)
        told = {each["id"]: each["verdict"] for each in found["checks"]}
        assert (1, "fail") == (found["status"], told["agent"])
        assert {"ok"} == {told[name] for name in ("store", "keys", "data-folder", "kernel", "configuration")}
        assert {"unknown"} == {told[name] for name in ("ready", "attestors", "authority", "task-types", "capabilities")}
        lines = agent.run("doctor", "--config", config, check=False).stdout
        assert "unknown  the agent does not answer, and cannot be asked about: ready, version, " in lines

    def test_keys_of_another_trust_domain(self, agent: AgentProcess) -> None:
        """An agent whose configuration has another trust domain than its keys does not start, and doctor says why."""
        agent.stop()
        config = Path(config_of(agent))
        config.write_text(config.read_text() + 'trust_domain = "corp.example"\n')
        found = {each["id"]: each for each in doctor(agent, "--config", str(config))["checks"]}
        root = agent.data_dir / "keys" / "root.pem"
        why = f"{root} is of trust domain example.org, and the configuration says corp.example"
        assert ("fail", why) == (found["keys"]["verdict"], found["keys"]["found"])
        assert f"; it does not start: {why}" in found["agent"]["found"]

    @pytest.mark.forked
    @pytest.mark.root
    def test_another_user(self, agent: AgentProcess) -> None:
        """A user who may not look into the agent's folder is told that it is unknown, and never that it is well."""
        asked = [*becoming(4397), *COMMAND, "doctor", "-o", "json"]
        done = subprocess.run(asked, env=agent.environment, capture_output=True, text=True, timeout=120)
        told = {each["id"]: each["verdict"] for each in json.loads(done.stdout)["checks"]}
        assert "fail" == told["agent"]
        assert {"unknown"} == {told[name] for name in ("ready", "attestors", "authority", "nodes")}


class TestBundle:
    def test_no_secret_is_in_it(self, tmp_path: Path) -> None:
        """Neither parameters of tasks, nor tokens, keys, secrets of the configuration or of its URLs are in an archive."""
        hook = f'\n[approval_notifier]\nwebhook = "https://hooks.example/{CANARY}-url?key={CANARY}-query"\n'
        with make_agent(extra=hook) as agent:
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            with Caller(agent.socket) as caller:
                task = caller.ask("begin_process", type="triage-ticket", params={"ticket": f"{CANARY}-param"})
                secrets = [caller.ask("token", task=task["id"])["token"], caller.ask("jwt", audience=ISSUER)["token"]]
                caller.ask("begin_process", type=f"{CANARY}-type")
                path = tmp_path / "support.tar.gz"
                found = doctor(agent, "--bundle", str(path))
                assert str(path) == found["bundle"]
                assert 0o600 == stat.S_IMODE(path.stat().st_mode)
                with tarfile.open(path) as archive:
                    parts = {each.name: archive.extractfile(each).read().decode() for each in archive}
            pems = "".join(each.read_text() for each in (agent.data_dir / "keys").glob("*.pem"))
        names = ("README.txt", "doctor.json", "status.json", "configuration.json", "machine.json", "packages.json",
                 "journal.json")  # fmt: skip
        assert {f"sojourn-support/{name}" for name in names} == set(parts)
        text = "".join(parts.values())
        assert CANARY not in text
        assert [] == [secret for secret in secrets if secret.split(".")[-1] in text or secret.split(".")[1] in text]
        lines = [line for line in pems.splitlines() if len(line) > 30 and not line.startswith(("-", "#"))]
        assert lines
        assert [] == [line for line in lines if line in text]
        status = json.loads(parts["sojourn-support/status.json"])
        assert ("example.org", 1) == (status["trust_domain"], status["live_tasks"])
        assert "task_begun" in json.loads(parts["sojourn-support/journal.json"])
        assert "https://hooks.example/..." in parts["sojourn-support/configuration.json"]

    def test_what_is_there_is_left_alone(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A file that exists, or a link, is never written over."""
        path = tmp_path / "mine"
        path.write_text("mine")
        (tmp_path / "link").symlink_to(path)
        for each in (path, tmp_path / "link"):
            check_error(agent.run("doctor", "--bundle", str(each), check=False), 2, "invalid_input")
        assert "mine" == path.read_text()


def test_the_pages_commands(agent: AgentProcess, tmp_path: Path) -> None:
    """Each command of the page runs as it is printed, with this agent's configuration in the place of the usual one."""
    commands = [line[4:] for line in PAGE.read_text().splitlines() if line.startswith("    sojourn ")]
    assert len(commands) > 5
    for line in commands:
        typed = line.replace("/etc/sojourn/agent.toml", str(agent.config)).replace("support", str(tmp_path / "support"))
        done = agent.run(*typed.split()[1:], check=False)
        assert done.returncode in {0, 1, 4, 5}, f"{line}: {done.stderr}"
        assert done.stdout
