"""Signed events about people that the agent fetches itself (RFC 8936), of a transmitter whose keys are by its metadata."""

import time
from collections.abc import Iterator

import pytest
import sojourn
from fakes.signed_events import CAEP, RISC, in_session, iss_sub, issuer_key, signed
from harness.agent import AgentProcess
from harness.authserver import status
from harness.looking import next_second, until
from harness.peopleplace import CHAT, People, people_place
from harness.transmitter import Transmitter
from sojourn.errors import SojournError

pytestmark = pytest.mark.forked

SIGNALS = """
[[signals]]
issuer = "{transmitter}"
people = "corp"
poll = "{transmitter}/poll"
poll_every = "1s"
plain_http = true
"""
REVOKED = {f"{CAEP}session-revoked": {}}


@pytest.fixture(scope="module")
def transmitter() -> Iterator[Transmitter]:
    with Transmitter() as running:
        yield running


@pytest.fixture(scope="module")
def people_running(tmp_path_factory: pytest.TempPathFactory, transmitter: Transmitter) -> Iterator[People]:
    """The place of people, whose agent polls."""
    more = SIGNALS.format(transmitter=transmitter.issuer)
    with people_place(tmp_path_factory.mktemp("polling"), tables=more) as running:
        yield running


def test_a_session_is_revoked(people: People, transmitter: Transmitter) -> None:
    """Alice logs out at the issuer: within a poll her task is over and the service refuses its token; bob's goes on. The
    token for the poll is asked for with a JWT-SVID of the node, and the event is acknowledged.
    """
    url = people.idp.issuer.url
    with (
        sojourn.task("for-many", person=people.idp.token("bob"), spiffe_id=CHAT) as bobs,
        sojourn.task("for-many", person=people.idp.token("alice", sid="a1"), spiffe_id=CHAT) as task,
        sojourn.acting_for(task.person.name),
    ):
        text = task.token().token
        assert '"subject": "alice"' in people.told(text)
        jti = transmitter.say(sub_id=in_session(url, "alice", "a1"), events=REVOKED)
        began = time.monotonic()
        until(lambda: task.ended)
        took = time.monotonic() - began
        print(f"told by poll after {took * 1000:.0f} ms, at one poll a second")
        assert took < 4
        assert ("revoked", "session_ended") == (task.state, task.reason)
        assert "session_ended" in people.told(text)
        assert not bobs.ended
    until(lambda: jti in transmitter.acked)
    claims = transmitter.calls("token")[-1].claims["client_assertion"]
    assert claims["sub"].startswith("spiffe://example.org/spire/agent/sojourn/")
    assert transmitter.issuer == claims["aud"]


@pytest.mark.forked
def test_while_the_agent_was_away(people: People, transmitter: Transmitter) -> None:
    """What happened while the agent was stopped is heard when it runs again; an account stays blocked until enabled."""
    agent, who = people.agent, iss_sub(people.idp.issuer.url, "carol")
    agent.stop()
    transmitter.say(sub_id=who, events={f"{RISC}account-disabled": {}})
    agent.start()
    until(lambda: [] == list(transmitter.outbox))
    with (
        pytest.raises(SojournError) as caught,
        sojourn.task("for-many", person=people.idp.token("carol", sid="new"), spiffe_id=CHAT),
    ):
        pass
    assert "person_blocked" == caught.value.remote_code
    next_second()  # of what happened in one second, the block counts
    transmitter.say(sub_id=who, events={f"{RISC}account-enabled": {}})
    until(lambda: [] == list(transmitter.outbox))
    with sojourn.task("for-many", person=people.idp.token("carol", sid="newer"), spiffe_id=CHAT) as task:
        assert "carol" == task.person.subject


@pytest.mark.forked
def test_forged(people: People, transmitter: Transmitter) -> None:
    """A forged event is refused at the transmitter with its code, and ends nothing."""
    whom = in_session(people.idp.issuer.url, "dave", "d1")
    forged = signed(issuer_key("s1"), time.time(), iss=transmitter.issuer, jti="forged", sub_id=whom, events=REVOKED)
    with sojourn.task("for-many", person=people.idp.token("dave", sid="d1"), spiffe_id=CHAT) as task:
        transmitter.outbox["forged"] = forged
        until(lambda: "forged" in transmitter.refused)
        assert "authentication_failed" == transmitter.refused["forged"]["err"]
        assert not task.ended


@pytest.mark.forked
def test_what_operators_see(people: People, transmitter: Transmitter) -> None:
    """`sojourn status` and the doctor say when the transmitter was polled and what the last poll met; once it answers
    again, so do they.
    """
    agent = people.agent
    [seen] = agent.json("status")["signals"]
    assert ("corp", True, "") == (seen["people"], seen["polled"], seen["poll_fault"])
    assert seen["polled_at"]
    transmitter.always["poll"] = status(503)
    until(lambda: "503" in agent.json("status")["signals"][0]["poll_fault"])
    assert "NOT polled: the transmitter answers 503" in agent.run("status").stdout
    assert "503" in agent.run("doctor", check=False).stdout
    del transmitter.always["poll"]
    until(lambda: "" == agent.json("status")["signals"][0]["poll_fault"])
    lines = [each["event"] for each in agent.log_lines()]
    assert (1, 1) == (lines.count("signal_poll_failed"), lines.count("signal_poll_recovered"))


def test_a_stream_that_is_paused() -> None:
    """`sojourn status` and the doctor say of a stream by which nothing comes that its transmitter has paused it."""
    with Transmitter() as transmitter:
        transmitter.status = "paused"
        table = f'[[signals]]\nissuer = "{transmitter.issuer}"\nstream = "create"\nplain_http = true\n'
        with AgentProcess(config=f'trust_domain = "example.org"\n{table}') as agent:
            until(lambda: "paused" == agent.json("status")["signals"][0]["stream_status"])
            assert "NOTHING comes: its transmitter says of its stream: paused" in agent.run("status").stdout
            assert "its stream is paused" in agent.run("doctor", check=False).stdout
