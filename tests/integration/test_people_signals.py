"""What an issuer's signed events say of people, as a transmitter pushes it: what is done for them is over at once."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sojourn
from fakes.signed_events import CAEP, IDP, RISC, in_session, iss_sub, jwks
from harness.agent import AgentProcess
from harness.eventsender import KEY, OTHER, OTHER_KEY, event, post, records, refused, taken
from harness.looking import next_second, until
from harness.peopleplace import CHAT, HELPER, People, people_place
from sojourn.errors import SojournError

SIGNALS = f"""
[[signals]]
issuer = "{IDP}"
jwks = "{{folder}}/idp.json"
people = "corp"
[[signals]]
issuer = "{OTHER}"
jwks = "{{folder}}/other.json"
"""
CHANGED = {"credential_type": "password", "change_type": "update"}
REVOKED = {f"{CAEP}session-revoked": {"reason_admin": {"en": "User logout"}}}


@pytest.fixture(scope="module")
def people_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """The place of people, whose agent hears one issuer of events about them, and another that is tied to nobody."""
    folder = tmp_path_factory.mktemp("signals")
    for name, key in (("idp", KEY), ("other", OTHER_KEY)):
        (folder / f"{name}.json").write_text(jwks(key))
    with people_place(folder, tables=SIGNALS) as running:
        yield running


def account(what: str) -> dict[str, Any]:
    return {f"{RISC}account-{what}": {}}


def why_not(people: People, subject: str, **changes: Any) -> str:
    """With which code a task for somebody is refused who logs in now."""
    token = people.idp.token(subject, **changes)
    with pytest.raises(SojournError) as caught, sojourn.task("for-many", person=token, spiffe_id=CHAT):
        pass
    return caught.value.remote_code


def test_a_session_is_revoked(people: People) -> None:
    """Alice's session is revoked: her task and what was handed on are over, the service refuses the token that it took
    before, and her ID token begins nothing; her other session and bob's go on.
    """
    url, token = people.idp.issuer.url, people.idp.token("alice", sid="a1")
    with (
        sojourn.task("for-many", person=people.idp.token("bob"), spiffe_id=CHAT) as bobs,
        sojourn.task("for-many", person=people.idp.token("alice", sid="a2"), spiffe_id=CHAT) as home,
        sojourn.task("for-many", person=token, spiffe_id=CHAT) as task,
        sojourn.acting_for(task.person.name),
    ):
        text, ticket = task.token().token, task.delegate(to=HELPER)
        with sojourn.task(ticket=ticket) as handed_on:
            assert '"subject": "alice"' in people.told(text)
            taken(post(people.agent.socket, event(sub_id=in_session(url, "alice", "a1"), events=REVOKED)))
            until(lambda: task.ended and handed_on.ended)
        assert ("revoked", "session_ended") == (task.state, task.reason)
        assert "session_ended" in people.told(text)
        assert not bobs.ended
        assert not home.ended
    assert "session_ended" == why_not(people, "alice", sid="a1")


def test_all_sessions(people: People) -> None:
    """`ALL` in the place of a session ends every task of the person, by whichever session."""
    url = people.idp.issuer.url
    tokens = [people.idp.token("carol", sid=each) for each in ("c1", "c2")]
    with (
        sojourn.task("for-many", person=tokens[0], spiffe_id=CHAT) as one,
        sojourn.task("for-many", person=tokens[1], spiffe_id=CHAT) as two,
    ):
        taken(post(people.agent.socket, event(sub_id=in_session(url, "carol", "ALL"), events=REVOKED)))
        until(lambda: one.ended and two.ended)


@pytest.mark.forked
def test_an_account(people: People) -> None:
    """Whose account is disabled gets no task however they log in, over a restart too, until the account is enabled."""
    agent, who = people.agent, iss_sub(people.idp.issuer.url, "dave")
    with sojourn.task("for-many", person=people.idp.token("dave"), spiffe_id=CHAT) as task:
        taken(post(agent.socket, event(sub_id=who, events=account("disabled"))))
        until(lambda: task.ended)
    assert "person_blocked" == why_not(people, "dave", sid="new")
    agent.stop()
    agent.start()
    assert "person_blocked" == why_not(people, "dave", sid="new")
    name = agent.json("person", "show", "corp/dave")["pseudonym"]
    next_second()  # of what happened in one second, the block counts
    [block] = [each for each in agent.json("task", "blocks")["blocks"] if each["person"] == name]
    assert (f"account-disabled, as {IDP} says", None) == (block["reason"], block["type"])
    taken(post(agent.socket, event(sub_id=who, events=account("enabled"))))
    assert name not in str(agent.json("task", "blocks"))
    agent.json("task", "block", "--person", "corp/dave", "--reason", "under review")
    taken(post(agent.socket, event(sub_id=who, events=account("enabled"))))
    assert "person_blocked" == why_not(people, "dave", sid="newer")
    agent.json("task", "unblock", "--person", "corp/dave")


def test_of_nobody_of_ours(people: People) -> None:
    """An event of an issuer that is tied to nobody, about people of another issuer, or by an e-mail address, is taken
    and recorded as nobody's of ours, and ends nothing.
    """
    url, blocked = people.idp.issuer.url, people.agent.json("task", "blocks")
    with sojourn.task("for-many", person=people.idp.token("erin", sid="e1"), spiffe_id=CHAT) as task:
        untied = event(OTHER_KEY, iss=OTHER, sub_id=in_session(url, "erin", "e1"), events=REVOKED)
        strangers = [iss_sub(f"{url}/", "erin"), iss_sub(IDP, "erin"), {"format": "email", "email": "erin@example.org"}]
        for text in (untied, *(event(sub_id=each, events=account("disabled")) for each in strangers)):
            taken(post(people.agent.socket, text))
            assert records(people.agent, "signal_accepted")[-1]["not_ours"]
        assert not task.ended
    assert blocked == people.agent.json("task", "blocks")


def test_forged(people: People) -> None:
    """A forged event, one for another, one that is malformed in part, and one about a person in another's session are
    refused, and end nothing.
    """
    url = people.idp.issuer.url
    with (
        sojourn.task("for-many", person=people.idp.token("bob", sid="b9"), spiffe_id=CHAT) as bobs,
        sojourn.task("for-many", person=people.idp.token("frank", sid="f1"), spiffe_id=CHAT) as task,
    ):
        whom = in_session(url, "frank", "f1")
        bad = {
            "authentication_failed": event(OTHER_KEY, sub_id=whom, events=REVOKED),
            "invalid_audience": event(sub_id=whom, events=REVOKED, aud="https://another.example.org"),
            "invalid_request": event(sub_id=whom, events={**REVOKED, f"{RISC}account-disabled": {"reason": 5}}),
        }
        for code, text in bad.items():
            assert (400, code) == refused(post(people.agent.socket, text))
        crossed = event(sub_id=in_session(url, "frank", "b9"), events=REVOKED)
        assert (400, "invalid_request") == refused(post(people.agent.socket, crossed))
        assert not task.ended
        assert not bobs.ended


def test_names_are_nowhere(people: People) -> None:
    """Neither the log nor the disk says whose session it was."""
    subject, session = "grace-of-accounts", "session-of-grace-to-be-searched-for"
    events = {**REVOKED, **account("purged")}
    taken(post(people.agent.socket, event(sub_id=in_session(people.idp.issuer.url, subject, session), events=events)))
    kept = b"".join(each.read_bytes() for each in people.agent.data_dir.rglob("*") if each.is_file())
    kept += str(people.agent.log_lines()).encode()
    assert [False, False] == [each.encode() in kept for each in (session, subject)]


def test_no_such_people(tmp_path: Path) -> None:
    """An issuer of events that is tied to people whom the configuration does not have is a mistake, and named."""
    (tmp_path / "idp.json").write_text(jwks(KEY))
    config = SIGNALS.format(folder=tmp_path)
    agent = AgentProcess(config=f'trust_domain = "example.org"\n{config}')
    done = agent.run("config", "show", "--config", str(agent.config), check=False)
    assert 0 != done.returncode
    assert "[people.corp]" in done.stdout + done.stderr


def test_of_no_end(people: People) -> None:
    """That grace's password has changed is a fact about her, by her pseudonym, which a type takes from this
    issuer; what none takes is not kept.
    """
    url = people.idp.issuer.url
    name = people.agent.run("person", "pseudonym", url, "grace").stdout.strip()
    taken(post(people.agent.socket, event(sub_id=iss_sub(url, "grace"), events={f"{CAEP}credential-change": CHANGED})))
    unread = {f"{CAEP}assurance-level-change": {"current_level": "aal1", "namespace": "NIST-AAL"}}
    taken(post(people.agent.socket, event(sub_id=iss_sub(url, "grace"), events=unread)))
    (fact,) = people.agent.json("fact", "list", "--person", "corp/grace")["facts"]
    assert ("credential_change", name, "update", IDP) == (fact["name"], fact["subject"], fact["value"], fact["source"])
    assert "grace" not in str(people.agent.json("audit", "tail", "-n", "1000")) + people.agent.log.read_text()
