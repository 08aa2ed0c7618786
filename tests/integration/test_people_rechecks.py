"""Issuers that are asked again and again whether a person's token is active, and tasks that outlive the token."""

import subprocess
import time
from collections.abc import Iterator

import httpx
import pytest
import sojourn
from fakes.logouts import logout_token
from harness.looking import until
from harness.peopleplace import CHAT, People, people_place
from sojourn.errors import SojournError, TaskOver

RECHECK = 5  # seconds: the least that may be configured


@pytest.fixture(scope="module")
def people_running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with people_place(tmp_path_factory.mktemp("people"), f'recheck = "{RECHECK}s"\nrecheck_grace = "10s"') as running:
        yield running


@pytest.fixture(autouse=True)
def _as_ever(people: People) -> Iterator[None]:
    yield
    people.idp.silent = False
    people.idp.dead.clear()


class TestRecheck:
    def test_refused(self, people: People) -> None:
        """A token that is not active begins no task, and the program is told what it may be."""
        text = people.idp.text("alice")
        people.idp.dead.add(text)
        for silent, code in ((False, "not_active"), (True, "issuer_unavailable")):
            people.idp.silent = silent
            wanted = sojourn.task("for-one", person=sojourn.PersonToken.id_token(text), spiffe_id=CHAT)
            with pytest.raises(SojournError) as refused, wanted:
                pass
            assert code == refused.value.remote_code

    @pytest.mark.forked
    def test_ends(self, people: People) -> None:
        """Somebody is disabled, and nobody says so: their task is over at every service within the time between two
        questions, and the task of somebody else goes on.
        """
        text, bobs = people.idp.text("alice"), people.idp.token("bob")
        with (
            sojourn.task("for-many", person=sojourn.PersonToken.id_token(text), spiffe_id=CHAT) as task,
            sojourn.task("for-many", person=bobs, spiffe_id=CHAT) as other,
        ):
            with sojourn.acting_for("corp|alice"):
                token = task.token().token
            people.idp.dead.add(text)
            began = time.monotonic()
            until(lambda: task.ended, seconds=RECHECK + 10)
            print(f"over {time.monotonic() - began:.2f} s after it was not active")
            assert ("revoked", "session_ended") == (task.state, task.reason)
            assert "session_ended" in people.told(token)
            with sojourn.acting_for("corp|bob"):
                assert other.token()

    @pytest.mark.forked
    def test_no_answer(self, people: People) -> None:
        """While the issuer says nothing the task is suspended after the grace, by its name; when it answers, it is back."""
        with sojourn.task("for-one", person=people.idp.token("alice"), spiffe_id=CHAT) as task:
            people.idp.silent = True
            until(lambda: task.state == "suspended", seconds=RECHECK + 10 + 10)
            assert "person_unchecked" == task.reason
            assert "person_unchecked" == people.agent.json("task", "show", task.id)["reason"]
            people.idp.silent = False
            until(lambda: task.state == "active", seconds=15)
            with task.client(people.url, verify=people.trust) as client:
                assert "alice" == client.get("/orders/mine").json()["subject"]

    @pytest.mark.forked
    def test_restarted(self, people: People) -> None:
        """An agent that has started again has no text of any token: the task waits until its holder brings one, and its
        holder hears of it where it would before the token ends.
        """
        text, told = people.idp.text("alice"), list[str]()
        token = sojourn.PersonToken.id_token(text)
        with sojourn.task(
            "for-one", person=token, spiffe_id=CHAT, on_person_expires=lambda task: told.append(task.id)
        ) as task:
            people.agent.stop()
            people.agent.start()
            until(lambda: task.state == "suspended" and task.reason == "person_unchecked", seconds=20)
            until(lambda: told == [task.id])
            with pytest.raises(TaskOver):
                task.token()
            task.renew_person(sojourn.PersonToken.id_token(text))
            until(lambda: task.state == "active", seconds=15)
            assert task.token()

    def test_checked_by_hand(self, people: People) -> None:
        """`sojourn person check` says at its end whether the issuer tells the agent of the token."""
        text = people.idp.text("alice")
        file = people.agent.folder / "token"
        file.write_text(text)
        file.chmod(0o600)
        command = ("person", "check", "corp", "--token-file", str(file), "--spiffe-id", CHAT)
        assert "recheck" == people.agent.json(*command)["steps"][-1]["name"]
        people.idp.dead.add(text)
        found: subprocess.CompletedProcess[str] = people.agent.run(*command, check=False)
        assert 0 != found.returncode
        assert "docs/people.md#recheck" in found.stdout + found.stderr


@pytest.mark.forked
def test_outlives_the_token(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tasks end with the session, one goes on when the token has expired, and ends by the logout."""
    with people_place(tmp_path_factory.mktemp("people"), 'ends = "session"') as people:
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{people.agent.socket}")
        time.sleep(1.1)  # a token of before the agent could hear of its logout ends the task itself
        with sojourn.task("for-one", person=people.idp.token("alice", seconds=2), spiffe_id=CHAT) as task:
            time.sleep(3)
            with task.client(people.url, verify=people.trust) as client:
                assert "alice" == client.get("/orders/mine").json()["subject"]
            token = task.token().token
            people.idp.issuer.at = int(time.time())
            said = logout_token(people.idp.issuer, jti="j1", sid="session-of-alice", sub="alice")
            with httpx.Client(verify=people.trust) as browser:
                url = f"https://{people.agent.people}/people/corp/logout"
                assert 200 == browser.post(url, data={"logout_token": said}).status_code
            until(lambda: task.ended)
            assert "session_ended" == task.reason
            assert "session_ended" in people.told(token)
