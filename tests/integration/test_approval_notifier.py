"""Who is told that a task waits for someone to agree: a real agent with a real webhook or command, also over kill -9."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import approvals as room
from harness.agent import AgentProcess
from harness.approvals import ask, register
from harness.authserver import redirect, status
from harness.callers import Caller
from harness.looking import gone, until
from harness.taskagent import OTHER_UID
from harness.webhook import Webhook

pytestmark = [pytest.mark.full, pytest.mark.root]
SECRET = "s3cret-of-the-hook"


def notified(agent: AgentProcess, *lines: str) -> None:
    """Have the agent start anew with these lines in [approval_notifier]."""
    text = agent.config.read_text().partition("\n[approval_notifier]")[0]
    agent.stop()
    agent.config.write_text(text + "\n[approval_notifier]\n" + "\n".join(lines) + "\n")
    agent.start()


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with room.make_approval_agent() as made:
        register(made)
        yield made
        assert SECRET not in json.dumps(made.log_lines())


@pytest.fixture
def hook() -> Iterator[Webhook]:
    with Webhook() as running:
        yield running


def failures(agent: AgentProcess, what: str) -> list[dict[str, Any]]:
    return [each for each in agent.json("status")["failures"] if each["what"] == what]


class TestWebhook:
    def test_from_the_request_to_the_decision(self, agent: AgentProcess, hook: Webhook, tmp_path: Path) -> None:
        """The webhook hears what `approval show` shows, once it answers: until then the failures are in the status; and
        then what was decided. The token stands in no log.
        """
        token = agent.folder / "hook-token"
        token.write_text(SECRET + "\n")
        token.chmod(0o600)
        notified(agent, f'webhook = "{hook.url}"', f'token_file = "{token}"', 'timeout = "5s"')
        hook.deeds = [status(500), redirect("http://127.0.0.1:1/")]
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            asked = ask(caller, params={"amount": "7", "note": "n" * 500})
            (shown,) = agent.json("approval", "list")["approvals"]
            (said,) = hook.wait(lambda found: found.of(asked["approval"], "approval_requested"))
            assert ["note"] == shown.pop("cut")  # a list says of itself what it cut
            assert ({**shown, "params": {"amount": "7", "note": "n" * 200}}, ["params.note"]) == (
                said["approval"],
                said["cut"],
            )
            assert [said["id"]] == hook.ids(asked["approval"])[-1:]
            assert {f"Bearer {SECRET}"} == {each["authorization"] for each in hook.headers}
            (failed,) = failures(agent, "approval_notice_not_delivered")
            assert "webhook" in failed["reason"]
            assert "active" == room.decide(agent, asked)
            (closed,) = hook.wait(lambda found: found.of(asked["approval"], "approval_closed"))
            assert ("approved", "operator") == (closed["outcome"], closed["approval"]["given"][0]["role"])

    @pytest.mark.parametrize("heard", [True, False], ids=["heard", "unheard"])
    def test_killed(self, agent: AgentProcess, hook: Webhook, heard: bool) -> None:
        """An agent that is killed ends the requests; its next run tells of those that somebody heard of, or may have,
        as often as it takes.
        """
        notified(agent, f'webhook = "{hook.url}"')
        hook.always = None if heard else status(503)
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            asked = ask(caller)
            hook.wait(
                lambda found: found.taken_of(asked["approval"]) if heard else len(found.ids(asked["approval"])) > 1
            )
            agent.kill()
            agent.start()
            hook.always = None
            (closed,) = hook.wait(lambda found: found.of(asked["approval"], "approval_closed"))
        assert ("ended", "agent_restart") == (closed["outcome"], closed["reason"])
        assert {f"{asked['approval']}.approval_requested", f"{asked['approval']}.approval_closed"} == {
            *hook.ids(asked["approval"])
        }

    def test_what_is_not_told_is_after_a_kill(self, agent: AgentProcess, hook: Webhook) -> None:
        """A decision that the webhook did not take is told by the next run as what it was."""
        notified(agent, f'webhook = "{hook.url}"')
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            asked = ask(caller)
            hook.wait(lambda found: found.taken_of(asked["approval"]))
            hook.always = status(503)
            room.decide(agent, asked, "deny")
            hook.wait(lambda found: len(found.ids(asked["approval"])) > 1)
            agent.kill()
            hook.always = None
            agent.start()
            (closed,) = hook.wait(lambda found: found.of(asked["approval"], "approval_closed"))
        assert "denied" == closed["outcome"]

    def test_nobody_listens(self, agent: AgentProcess) -> None:
        """A webhook that nobody answers at holds no request up."""
        notified(agent, 'webhook = "http://127.0.0.1:1025/"')
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            asked = ask(caller)
            assert "active" == room.decide(agent, asked)
            assert "active" == caller.hear("task")["state"]
        until(lambda: failures(agent, "approval_notice_not_delivered"))


class TestCommand:
    def test_a_command(self, agent: AgentProcess) -> None:
        """A command gets each notice on its standard input; one that fails is told in status with what it said, and
        tried again.
        """
        told = agent.folder / "told"
        program = agent.folder / "notify"
        program.write_text(
            f"#!/bin/sh\n[ -e {told} ] || {{ touch {told}; echo not yet >&2; exit 3; }}\ncat >> {told}\n"
        )
        program.chmod(0o755)
        notified(agent, f'command = ["{program}", "--urgent"]')
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            asked = ask(caller)
            until(lambda: events(told, asked["approval"]) == ["approval_requested"])
            room.decide(agent, asked, "deny")
            until(lambda: events(told, asked["approval"]) == ["approval_requested", "approval_closed"])
        (failed,) = failures(agent, "approval_notice_not_delivered")
        assert 'status 3: "not yet"' in failed["reason"]

    def test_one_that_does_not_end(self, agent: AgentProcess) -> None:
        """A command that does not end is killed, also with the agent; nothing else waits for it."""
        pids = agent.folder / "pids"
        program = agent.folder / "slow"
        program.write_text(f"#!/bin/sh\necho $$ >> {pids}\nexec sleep 600\n")
        program.chmod(0o755)
        notified(agent, f'command = ["{program}"]', 'timeout = "60s"')
        with Caller(agent.socket, uid=OTHER_UID) as caller:
            assert "active" == room.decide(agent, ask(caller))
            until(lambda: pids.exists() and pids.read_text())
            agent.stop()
        until(lambda: all(gone(int(pid)) for pid in pids.read_text().split()))
        agent.start()


def events(file: Path, approval: str) -> list[str]:
    """What a command was told of a request."""
    said = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return [each["event"] for each in said if each["approval"]["id"] == approval]
