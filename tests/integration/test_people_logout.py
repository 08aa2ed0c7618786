"""A logout at the issuer, as it comes by the back channel: what an agent does for that person is over at once."""

import time

import httpx
import pytest
import sojourn
from fakes.logouts import logout_token
from fakes.people import PeopleIssuer
from harness.agent import AgentProcess
from harness.looking import until
from harness.peopleplace import CHAT, HELPER, People
from sojourn.errors import SojournError
from sojourn.limits import PUBLISHED_KEYS_ANEW_SECONDS


def say(people: People, text: str, path: str = "/people/corp/logout") -> httpx.Response:
    """As the issuer's server does."""
    with httpx.Client(verify=people.trust) as client:
        return client.post(f"https://{people.agent.people}{path}", data={"logout_token": text})


def logged_out(people: People, jti: str, **changes: str | None) -> str:
    people.idp.issuer.at = int(time.time())
    return logout_token(people.idp.issuer, jti=jti, **changes)


def refused(people: People, token: sojourn.PersonToken) -> str:
    """With which code a task for somebody is refused."""
    with pytest.raises(SojournError) as caught, sojourn.task("for-many", person=token, spiffe_id=CHAT):
        pass
    return caught.value.remote_code


class TestLogout:
    def test_she_logs_out(self, people: People) -> None:
        """Alice logs out: her task and what was handed on are over, the service refuses the token that it took before,
        and her ID token begins nothing any more; bob's task goes on, and she may log in again.
        """
        token, bobs = people.idp.token("alice", sid="a1"), people.idp.token("bob", sid="b1")
        with (
            sojourn.task("for-many", person=bobs, spiffe_id=CHAT) as other,
            sojourn.task("for-many", person=token, spiffe_id=CHAT) as task,
        ):
            whom = task.person.name
            with sojourn.acting_for(whom):
                text, ticket = task.token().token, task.delegate(to=HELPER)
                below = sojourn.task(ticket=ticket)
                with below as handed_on:
                    assert '"subject": "alice"' in people.told(text)
                    assert 200 == say(people, logged_out(people, "j1", sid="a1", sub="alice")).status_code
                    until(lambda: task.ended and handed_on.ended)
            assert ("revoked", "session_ended") == (task.state, task.reason)
            assert "session_ended" in people.told(text)
            assert "session_ended" == refused(people, token)
            assert not other.ended
        with sojourn.task("for-many", person=people.idp.token("alice", sid="a2"), spiffe_id=CHAT) as again:
            assert "alice" == again.person.subject

    @pytest.mark.forked
    def test_over_a_restart(self, people: People) -> None:
        """The agent that starts again knows who had logged out, and nothing on its disk says who that is."""
        subject, session = "carol-of-finance", "session-to-be-searched-for"
        token = people.idp.token(subject, sid=session)
        assert 200 == say(people, logged_out(people, "j2", sid=session, sub=subject)).status_code
        people.agent.stop()
        people.agent.start()
        assert "session_ended" == refused(people, token)
        kept = b"".join(each.read_bytes() for each in people.agent.data_dir.rglob("*") if each.is_file())
        assert [False, False] == [each.encode() in kept for each in (session, subject)]

    def test_what_is_no_logout(self, people: People) -> None:
        """A forged token, one for another client, an ID token and one that comes twice are refused; no other path is
        served there.
        """
        good = logged_out(people, "j3", sid="x1")
        assert [200, 400] == [say(people, good).status_code for _ in range(2)]
        for text in (good[:-8] + "AAAAAAAA", logged_out(people, "j4", aud="another-app"), people.idp.text("alice")):
            answer = say(people, text)
            assert (400, "invalid_request", "no-store") == (
                answer.status_code,
                answer.json()["error"],
                answer.headers["cache-control"],
            )
        for path in ("/people/other/logout", "/token", "/people/corp/logout/x"):
            assert 404 == say(people, good, path).status_code


@pytest.mark.full
def test_by_a_key_of_just_now(people: People) -> None:
    """A logout that the issuer says once, by a key that it has made since its keys were fetched, is done by itself with
    the next fetch: it is answered 503, and never comes again.
    """
    token, before = people.idp.token("frank", sid="f1"), people.idp.issuer
    rotated = PeopleIssuer(time.time(), url=before.url, kid="k2", algorithm="RS256")
    with sojourn.task("for-many", person=token, spiffe_id=CHAT) as task:
        asked = people.idp.asked.count("/keys")
        people.idp.issuer = before
        for number in range(2):  # the first has the keys fetched, unless that was just now
            unknown = logout_token(before, {"kid": f"x{number}"}, jti=f"x{number}", iat=int(time.time()))
            assert say(people, unknown).status_code in {400, 503}
        people.idp.issuer = rotated
        answer = say(people, logged_out(people, "j9", sid="f1", sub="frank"))
        assert (503, True) == (answer.status_code, "retry-after" in answer.headers)
        until(lambda: task.ended, seconds=PUBLISHED_KEYS_ANEW_SECONDS + 10)
        assert "session_ended" == task.reason
        assert people.idp.asked.count("/keys") <= asked + 2


class TestOperators:
    def test_who_there_is(self, people: People) -> None:
        """Operators see whom tasks are for, with their sessions and tasks, and end what is done for one; who logs in
        again begins anew.
        """
        agent, token = people.agent, people.idp.token("dave", sid="d1")
        with sojourn.task("for-one", person=token, spiffe_id=CHAT) as task:
            [listed] = [each for each in agent.json("person", "list")["people"] if each["subject"] == "dave"]
            assert ("corp", 1, 1) == (listed["issuer"], listed["sessions"], listed["tasks"])
            pseudonym = agent.json("person", "pseudonym", people.idp.issuer.url, "dave")["pseudonym"]
            assert pseudonym == listed["pseudonym"]
            shown = agent.json("person", "show", "corp/dave")
            assert [task.id] == [each["id"] for each in shown["live"]]
            assert shown["blocked"] is None
            ended = agent.json("person", "end", "corp/dave", "--reason", "left the company")
            assert [(task.id, "left the company")] == [(each["id"], each["explanation"]) for each in ended["ended"]]
            until(lambda: task.ended)
        assert "session_ended" == refused(people, token)
        assert 0 == agent.json("person", "show", "corp/dave")["tasks"]

    @pytest.mark.forked
    def test_blocked(self, people: People) -> None:
        """Who is blocked gets no task, however they log in, over a restart of the agent too, until they are unblocked;
        the list names them by their pseudonym.
        """
        agent = people.agent
        agent.json("task", "block", "--person", "corp/erin", "--reason", "under review")
        assert "person_blocked" == refused(people, people.idp.token("erin"))
        agent.stop()
        agent.start()
        assert "person_blocked" == refused(people, people.idp.token("erin", sid="another"))
        [block] = agent.json("task", "blocks")["blocks"]
        assert (None, None, "under review") == (block["type"], block["spiffe_id"], block["reason"])
        assert block["person"] == agent.json("person", "show", "corp/erin")["pseudonym"]
        assert "under review" == agent.json("person", "show", "corp/erin")["blocked"]["reason"]
        agent.json("task", "unblock", "--person", "corp/erin")
        with sojourn.task("for-many", person=people.idp.token("erin"), spiffe_id=CHAT) as task:
            assert "erin" == task.person.subject

    def test_nobody(self, people: People) -> None:
        """An issuer that is not configured, or a name without one, is a mistake that is told."""
        for command in (
            ("person", "end", "other/dave"),
            ("person", "show", "dave"),
            ("task", "block", "--person", "x"),
        ):
            assert 0 != people.agent.run(*command, check=False).returncode


def test_no_issuer() -> None:
    """The listener without an issuer of the configuration is a mistake, and named as one."""
    agent = AgentProcess(config='trust_domain = "example.org"\n[listen]\npeople = "127.0.0.1:0"\n')
    done = agent.run("config", "show", "--config", str(agent.config), check=False)
    assert 0 != done.returncode
    assert "listen.people" in done.stdout + done.stderr
