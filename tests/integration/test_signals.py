"""Signed events and what becomes of tasks: a real agent, real keys, real holders."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.signed_events import CAEP, IDP, TASK, risk, uri
from harness.agent import AgentProcess
from harness.eventsender import OTHER, OTHER_KEY, event, events_agent, post, records, taken
from harness.taskcalls import Feed
from sojourn import SyncClient
from sojourn.errors import PolicyDenied, TaskOver

TRIAGE = "spiffe://example.org/agent/triage"
PLACE = "https://a.example.org"
CEDAR = """
@id("all") permit (principal, action, resource);
@id("risk") forbid (principal, action, resource)
when { context.facts has risk_level && context.facts.risk_level == "HIGH" };
@id("session") forbid (principal, action, resource)
when { context.facts has session_revoked && context.facts.session_revoked };
"""
TOML = f"""
allowed_workloads = ["{TRIAGE}"]
[facts]
risk_level = {{ type = "string", sources = ["{IDP}"] }}
session_revoked = {{ type = "boolean", sources = ["{IDP}"] }}
[[ceiling]]
resource = "{PLACE}"
actions = ["doc:read"]
"""
CALM = TOML.replace(IDP, "operator")
TYPES = {"watched": (TOML, CEDAR), "calm": (CALM, CEDAR)}


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    with events_agent(types=TYPES) as running:
        running.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield running
        assert [] == [line for line in running.log_lines() if line["event"] in {"call_failed", "http_failed"}]


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(agent.socket) as opened:
        yield opened


def state(agent: AgentProcess, task_id: str) -> tuple[str, str]:
    task = agent.json("task", "show", task_id)
    return task["state"], task["reason"]


class TestTasks:
    def test_a_risk_ends_the_task_and_its_tokens(self, agent: AgentProcess, client: SyncClient) -> None:
        """When the issuer raises the risk of a workload, its task is over and validators refuse its token."""
        with client.task("watched") as task, Feed(agent.socket, [PLACE]) as feed:
            feed.hear("snapshot")
            token = task.token().token
            assert client.validate_token(token, PLACE).valid
            taken(post(agent.socket, event(sub_id=uri(TRIAGE), events=risk("MEDIUM"))))
            assert client.validate_token(token, PLACE).valid
            taken(post(agent.socket, event(sub_id=uri(TRIAGE))))
            assert not feed.delta(task.id, live=False).live
            verdict = client.validate_token(token, PLACE)
            assert (False, "task_over") == (verdict.valid, verdict.code)
            assert ("revoked", "context_changed") == state(agent, task.id)
            with pytest.raises(TaskOver):
                task.token()
        with pytest.raises(PolicyDenied), client.task("watched"):
            pass
        taken(post(agent.socket, event(sub_id=uri(TRIAGE), events=risk("LOW", event_timestamp=time.time() + 2))))
        with client.task("watched") as again:
            assert client.validate_token(again.token().token, PLACE).valid

    def test_an_issuer_that_the_type_does_not_believe_ends_nothing(
        self, agent: AgentProcess, client: SyncClient
    ) -> None:
        """Whatever an issuer says that a type does not list, its tasks go on; so do those that believe operators only."""
        with client.task("watched") as watched, client.task("calm") as calm:
            tokens = [watched.token().token, calm.token().token]
            taken(post(agent.socket, event(OTHER_KEY, iss=OTHER, sub_id=uri(TRIAGE))))
            assert all(client.validate_token(token, PLACE).valid for token in tokens)
            taken(post(agent.socket, event(sub_id=uri(TRIAGE))))
            assert [False, True] == [client.validate_token(token, PLACE).valid for token in tokens]
            assert "active" == state(agent, calm.id)[0]

    def test_an_event_about_one_task(self, agent: AgentProcess, client: SyncClient) -> None:
        """A session that is a task ends as that task, and no other; one about an unknown task changes nothing."""
        revoked = {f"{CAEP}session-revoked": {}}
        with client.task("watched") as one, client.task("watched") as other:
            for task_id in (TASK, other.id):
                named = {"format": "opaque", "id": task_id}
                taken(post(agent.socket, event(sub_id={"format": "complex", "session": named}, events=revoked)))
            assert "revoked" == state(agent, other.id)[0]
            assert "active" == state(agent, one.id)[0]
            assert client.validate_token(one.token().token, PLACE).valid
        assert [other.id] == [each["subject"] for each in records(agent, "fact_published")]

    def test_another_workload_goes_on(self, agent: AgentProcess, client: SyncClient) -> None:
        """An event is about its subject and nobody else."""
        with client.task("watched") as task:
            for subject in ("spiffe://example.org/agent/triag", TRIAGE + "/x", "spiffe://example.com/agent/triage"):
                taken(post(agent.socket, event(sub_id=uri(subject))))
            assert client.validate_token(task.token().token, PLACE).valid

    def test_a_risk_outlives_the_agent(self, agent: AgentProcess, client: SyncClient) -> None:
        """What was answered holds when the agent is killed right after."""
        taken(post(agent.socket, event(sub_id=uri(TRIAGE))))
        agent.kill()
        agent.start()
        with SyncClient(agent.socket) as again, pytest.raises(PolicyDenied), again.task("watched"):
            pass


def test_a_line(agent: AgentProcess) -> None:
    """An event from a file that ends with its line, as files do, is taken, and is the same event without it."""
    text = event()
    for body in (f"{text}\n", f"{text}\r\n", text):
        taken(post(agent.socket, body))
    assert 1 == len(records(agent, "signal_accepted"))


def test_as_a_forwarder_sends_it(agent: AgentProcess) -> None:
    """A forwarder such as nginx speaks HTTP/1.0 with headers of its own, and has the answer."""
    body = event().encode()
    with socket.socket(socket.AF_UNIX) as sent:
        sent.settimeout(15)
        sent.connect(agent.socket)
        head = (
            "POST /events HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\nX-Forwarded-For: 192.0.2.1\r\n"
            f"Content-Type: application/secevent+jwt\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        sent.sendall(head.encode() + body)
        answer = b""
        while block := sent.recv(4096):
            answer += block
    assert b"202" == answer.split()[1]


class TestCommand:
    def test_deliver(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A file or standard input is handed in; the answer is plain, and the exit status says it too."""
        file = tmp_path / "event.jwt"
        file.write_text(event() + "\n")
        assert "accepted" in agent.run("fact", "deliver", str(file)).stdout
        assert {"accepted": True} == agent.json("fact", "deliver", str(file))
        piped = subprocess.run(
            [sys.executable, "-m", "sojourn", "fact", "deliver", "-"],
            input=event(),
            env=agent.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert (0, "") == (piped.returncode, piped.stderr)

    def test_deliver_refused(self, agent: AgentProcess, tmp_path: Path) -> None:
        """A refusal is told with its code and what to do; so are a file that is not there and an agent that is not."""
        file = tmp_path / "event.jwt"
        file.write_text(event(aud="https://other"))
        done = agent.run("fact", "deliver", str(file), check=False)
        assert 1 == done.returncode
        assert "[invalid_audience]" in done.stderr
        assert "audience" in done.stderr.splitlines()[1]
        done = agent.run("fact", "deliver", str(file), "--output", "json", check=False)
        assert "invalid_audience" == json.loads(done.stderr)["error"]["code"]
        file.write_text("x" * 40_000)
        assert "[too_large]" in agent.run("fact", "deliver", str(file), check=False).stderr
        assert 2 == agent.run("fact", "deliver", str(tmp_path / "nothing"), check=False).returncode
        done = agent.run("fact", "deliver", str(file), "--socket", str(tmp_path / "no.sock"), check=False)
        assert (3, True) == (done.returncode, "cannot be reached" in done.stderr)

    def test_status(self, agent: AgentProcess) -> None:
        """`sojourn status` shows each issuer: its last event, what was refused, and keys that cannot be used."""
        token = event()
        for each in (token, token, event(aud="x")):
            post(agent.socket, each)
        (agent.folder / "other.json").unlink()
        idp, other = agent.json("status")["signals"]
        assert (IDP, 1, 1, 1, "") == tuple(idp[name] for name in ("issuer", "accepted", "repeated", "refused", "fault"))
        assert idp["last_at"]
        assert (OTHER, None, "cannot be read: No such file or directory") == (
            other["issuer"],
            other["last_at"],
            other["fault"],
        )
        text = agent.run("status").stdout
        assert f"{IDP}: last " in text
        assert "NOT heard, its keys cannot be used" in text

    def test_config_show(self, agent: AgentProcess) -> None:
        """The configuration names its issuers, and in JSON tells all of them as it was written."""
        show = ["config", "show", "--config", str(agent.config)]
        assert IDP in agent.run(*show).stdout
        assert str(agent.folder / "idp.json") in agent.run(*show, "-o", "json").stdout
