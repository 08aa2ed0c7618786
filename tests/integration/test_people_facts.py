"""What is said of one person, at a real agent: their tasks hear of it at once, and nobody else's."""

import json
import sqlite3

import pytest
import sojourn
from harness.looking import until
from harness.peopleplace import CHAT, HELPER, People
from sojourn.errors import Refused, SojournError

LISTS = ("fact", "list")


def begin(people: People, name: str) -> sojourn.Task:
    return sojourn.task("watched", person=people.idp.token(name), spiffe_id=CHAT)


def test_said_by_an_operator(people: People) -> None:
    """`fact set --person` ends what is done for her before it returns, and begins nothing more until it is taken back;
    bob's task goes on. The list has it, by her pseudonym; who she is stands in no record, list or table.
    """
    run, url = people.agent.run, people.idp.issuer.url
    with begin(people, "grace") as hers, begin(people, "bob") as bobs:
        run("fact", "set", "credential_lost", "true", "--person", "corp/grace")
        until(lambda: hers.ended)
        assert "context_changed" == hers.reason
        with sojourn.acting_for("corp|bob"):
            assert "bob" == json.loads(people.told(bobs.token().token))["subject"]
        with pytest.raises(SojournError) as refused, begin(people, "grace"):
            pass
        assert "policy_denied" == refused.value.remote_code
    name = run("person", "pseudonym", url, "grace").stdout.strip()
    (fact,) = people.agent.json(*LISTS, "--person", "corp/grace")["facts"]
    assert ("credential_lost", name, True) == (fact["name"], fact["subject"], fact["value"])
    assert [] == people.agent.json(*LISTS, "--person", "corp/nobody")["facts"]
    kept = json.dumps(people.agent.json(*LISTS)) + json.dumps(people.agent.json("audit", "tail", "-n", "1000"))
    with sqlite3.connect(f"file:{people.agent.data_dir}/sojourn.db?mode=ro", uri=True) as database:
        kept += "\n".join(database.iterdump())
    assert name in kept
    assert "grace" not in kept
    explained = run(
        "policy",
        "explain",
        "watched",
        "--workload",
        CHAT,
        "--action",
        "order:read",
        "--resource",
        people.url,
        "--user",
        "corp/grace",
        "--group",
        "support",
        check=False,
    ).stdout
    assert explained.startswith("denied")
    run("fact", "unset", "credential_lost", "--person", "corp/grace")
    with begin(people, "grace") as task:
        assert "corp|grace" == task.person.name


def test_said_by_a_workload(people: People) -> None:
    """A workload that a type believes says it of a person, as it says other facts; one that it does not believe is told
    no more than that, and not whether there is such an issuer.
    """
    with sojourn.SyncClient() as client, begin(people, "heidi") as task:
        client.publish_fact("credential_lost", True, person="corp|bob", spiffe_id=HELPER)
        with sojourn.acting_for(task.person):
            assert "heidi" == json.loads(people.told(task.token().token))["subject"]
        client.publish_fact("credential_lost", True, person=task.person, spiffe_id=HELPER)
        until(lambda: task.ended)
        for whom in ("corp|heidi", "elsewhere|heidi"):
            with pytest.raises(Refused):
                client.publish_fact("credential_lost", True, person=whom, spiffe_id=CHAT)
        for name in ("bob", "heidi"):
            client.publish_fact("credential_lost", False, person=f"{people.idp.issuer.url}|{name}", spiffe_id=HELPER)
    with begin(people, "heidi") as task:
        assert not task.ended


@pytest.mark.parametrize("whom", ["elsewhere/grace", "grace", "corp/", "corp/spiffe://a/b"])
def test_nobody(people: People, whom: str) -> None:
    """Somebody whom no issuer of the configuration has, or no name at all, is refused: the fact would be of nobody."""
    done = people.agent.run("fact", "set", "credential_lost", "true", "--person", whom, check=False)
    assert 0 != done.returncode
    both = people.agent.run(
        "fact", "set", "credential_lost", "true", "--person", "corp/x", "--subject", CHAT, check=False
    )
    assert "not about both" in both.stderr
