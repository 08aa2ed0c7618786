"""Tasks that begin with a person's access token do what its scope lets be done, by the configuration of a real agent."""

import json

import pytest
import sojourn
from harness.peopleplace import CHAT, People
from sojourn.errors import SojournError, TaskOver
from sojourn.sdk.task.values import PersonToken


def of_scope(people: People, scope: str, **more: object) -> PersonToken:
    return PersonToken.access_token(people.idp.text("alice", kind="access", scope=scope, **more))


def begin(person: PersonToken, **options: object) -> sojourn.Task:
    return sojourn.task("writing", person=person, spiffe_id=CHAT, **options)


def actions(task: sojourn.Task) -> list[str]:
    return [action for grant in task.grants for action in grant.actions]


class TestScopes:
    def test_what_her_token_lets(self, people: People) -> None:
        """A task has the actions that alice's scope is mapped to, of those that it may have; an ID token has no scope."""
        for scope, may in (("openid orders.read", ["order:read"]), ("orders.write", ["order:read", "order:write"])):
            with begin(of_scope(people, scope)) as task:
                assert may == actions(task)
        with begin(people.idp.token("alice")) as task:
            assert ["order:read", "order:write"] == actions(task)

    @pytest.mark.parametrize("scope", ["", "openid", "order:read"])
    def test_nothing(self, people: People, scope: str) -> None:
        """A scope of which nothing is mapped begins no task, and what is asked for beyond it is refused."""
        with pytest.raises(SojournError) as refused, begin(of_scope(people, scope)):
            pass
        assert "not_in_scope" == refused.value.remote_code
        wanted = [sojourn.Grant(people.url, ("order:write",))]
        with pytest.raises(SojournError) as refused, begin(of_scope(people, "orders.read"), grants=wanted):
            pass
        assert "not_in_scope" == refused.value.remote_code

    def test_renewed(self, people: People) -> None:
        """A newer token with a wider scope has the task go on and gives it nothing; a narrower one takes away."""
        with begin(of_scope(people, "orders.write", seconds=60)) as task, sojourn.acting_for("corp|alice"):
            task.renew_person(of_scope(people, "orders.read", seconds=120))
            assert ["order:read"] == people.agent.json("task", "show", task.id)["grants"][0]["actions"]
            task.renew_person(of_scope(people, "orders.write", seconds=240))
            assert ["order:read"] == people.agent.json("task", "show", task.id)["grants"][0]["actions"]
            assert ("order:read",) == task.token().actions
            with pytest.raises(TaskOver):
                task.renew_person(of_scope(people, "openid", seconds=300))
            assert "policy_changed" in json.dumps(people.agent.json("task", "show", task.id))

    def test_seen_beforehand(self, people: People) -> None:
        """`person check` says how much the scope of a token lets be done, and what helps where that is nothing."""
        for scope, said in (("orders.write", "lets 2 actions"), ("openid", "lets 0 actions")):
            text = people.idp.text("alice", kind="access", scope=scope)
            file = people.agent.folder / "shown"
            file.write_text(text)
            done = people.agent.run("person", "check", "corp", "--token-file", str(file), "--spiffe-id", CHAT)
            assert said in done.stdout
