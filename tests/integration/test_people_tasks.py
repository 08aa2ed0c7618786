"""Tasks for people, as programs write them: a person's token in, their name at the service, and nobody else's order."""

import asyncio
import base64
import hashlib
import json
import os
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import sojourn
from harness.agent import COMMAND
from harness.looking import until
from harness.peopleplace import CHAT, HELPER, People
from sojourn.errors import SojournError, TaskOver
from sojourn.errors.people import OtherPersonHere, PersonNotNamed, WrongPerson
from sojourn.jose.jws import parse_unverified
from sojourn.web import Action

HALF_A_PROGRAM = """
import sys, sojourn
token = sojourn.PersonToken.id_token(sys.stdin.read())
with sojourn.task("for-one", person=token, spiffe_id="spiffe://example.org/agent/chat") as task:
    print(task.person.name, task.token().actions[0])
"""
# What whoever has the records and no key could try of a name that they guess.
TRIED = [
    lambda text: base64.b64encode(text.encode()).decode().rstrip("="),
    lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("="),
    lambda text: text.encode().hex(),
    lambda text: hashlib.sha256(text.encode()).hexdigest(),
    lambda text: base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("="),
]


class TestForAlice:
    def test_the_ordinary_program(self, people: People) -> None:
        """An attested program brings alice's ID token, begins a task for her, and the service sees whose orders it is
        to show, by which issuer, and who acts for her.
        """
        with sojourn.task("for-one", person=people.idp.token("alice"), spiffe_id=CHAT) as task:
            assert ("corp", "alice", "corp|alice") == (task.person.issuer, task.person.subject, task.person.name)
            with task.client(people.url, verify=people.trust) as client:
                seen = client.get("/orders/mine").json()
            assert {
                "issuer": people.idp.issuer.url,
                "subject": "alice",
                "actor": CHAT,
                "actors": [CHAT],
                "task": task.id,
            } == seen
            text = task.token().token
        assert "completed" == people.agent.json("task", "show", task.id)["state"]
        assert "completed: success" in people.told(text)

    def test_what_the_service_may_read(self, people: People) -> None:
        """A service reads of alice what the type lets it read: in the token at its guard, of the command and by
        introspection; and at no other type's tasks.
        """
        told = {"department": "toys", "groups": ["corp/support"]}
        token = people.idp.token("alice", department="toys", groups=["/support"])
        with (
            sojourn.task("telling", person=token, spiffe_id=CHAT) as task,
            task.client(people.url, verify=people.trust) as client,
        ):
            assert told == client.get("/orders/mine").json()["claims"]
            text = task.token().token
            done = people.agent.run("validate", text, "--audience", people.url, "--output", "json")
            said = json.loads(done.stdout)
            assert (told, told) == (said["person"]["claims"], said["claims"]["person"])
            asked = httpx.Client(transport=httpx.HTTPTransport(uds=people.agent.socket.removeprefix("unix://")))
            with asked:
                answer = asked.post("http://localhost/introspect", data={"token": text}).json()
            assert (True, told) == (answer["active"], answer["person"])
        with sojourn.task("for-one", person=token, spiffe_id=CHAT) as task:
            assert "toys" not in str(parse_unverified(task.token().token).unverified_claims)

    async def test_in_asynchronous_code(self, people: People) -> None:
        """The same in code with an event loop, by an access token that her browser sent to the front end."""
        token = sojourn.PersonToken.access_token(people.idp.text("alice", kind="access"))
        block = sojourn.task("for-one", person=token, spiffe_id=CHAT)
        async with block as task, task.client(people.url, verify=people.trust) as client:
            seen = (await client.get("/orders/mine")).json()
        assert ("alice", task.id) == (seen["subject"], seen["task"])

    def test_nobody_else_beside_her(self, people: People) -> None:
        """While the process has alice's task it begins none for bob; another process does, and so does this one after."""
        bobs = sojourn.task("for-one", person=people.idp.token("bob"), spiffe_id=CHAT)
        with sojourn.task("for-one", person=people.idp.token("alice"), spiffe_id=CHAT):  # noqa: SIM117  # one in the other
            with pytest.raises(OtherPersonHere), bobs:
                pass
        with sojourn.task("for-one", person=people.idp.token("bob"), spiffe_id=CHAT) as task:
            assert "bob" == task.person.subject

    def test_handed_on(self, people: People) -> None:
        """What is handed on is for alice still: the service sees her, and both workloads in the order in which they act."""
        with (
            sojourn.task("for-one", person=people.idp.token("alice"), spiffe_id=CHAT) as task,
            sojourn.task(ticket=task.delegate(to=HELPER)) as below,
            below.client(people.url, verify=people.trust) as client,
        ):
            seen = client.get("/orders/mine").json()
            assert "corp|alice" == below.person.name
        assert ("alice", HELPER, [HELPER, CHAT]) == (seen["subject"], seen["actor"], seen["actors"])

    @pytest.mark.forked
    def test_her_token_ends(self, people: People) -> None:
        """The task ends with alice's token, and with it what it was given; the holder is told before, and why after."""
        told: list[str] = []
        token = people.idp.token("alice", seconds=3)
        with sojourn.task(
            "for-one",
            person=token,
            spiffe_id=CHAT,
            on_person_expires=lambda task: told.append(task.id),
            on_end=told.append,
        ) as task:
            text = task.token().token
            until(lambda: task.ended)
            assert ("expired", "person_expired") == (task.state, task.reason)
            with pytest.raises(TaskOver):
                task.token()
        assert [task.id, "person_expired"] == told
        assert "invalid_token" in people.told(text) or "expired" in people.told(text)

    def test_renewed(self, people: People) -> None:
        """A newer token of alice has the task go on, one of bob does not, and the listing says whose task it is."""
        with sojourn.task("for-one", person=people.idp.token("alice", seconds=60), spiffe_id=CHAT) as task:
            before = task.expires_at
            with pytest.raises(SojournError) as refused:
                task.renew_person(people.idp.token("bob"))
            assert "other_person" == refused.value.code
            task.renew_person(people.idp.token("alice"))
            assert (task.expires_at - before).total_seconds() > 200
            assert [task.id] == [
                each["id"] for each in people.agent.json("task", "list", "--person", "corp/alice")["tasks"]
            ]
            assert [] == people.agent.json("task", "list", "--person", "corp/bob")["tasks"]

    def test_refused(self, people: People) -> None:
        """Who is not in the group gets no task, nor does a token that was given to another application; and a type that
        is for nobody takes no person.
        """
        for name, changes, code in (
            ("for-one", {"groups": ["guests"]}, "policy_denied"),
            ("for-one", {"aud": "another-app", "azp": "another-app"}, "wrong_presenter"),
            ("for-one", {"exp": 1}, "invalid_token"),
            ("for-nobody", {}, "person_not_taken"),
        ):
            wanted = sojourn.task(name, person=people.idp.token("alice", **changes), spiffe_id=CHAT)
            with pytest.raises(SojournError) as refused, wanted:
                pass
            assert code == refused.value.remote_code
        with pytest.raises(SojournError) as refused, sojourn.task("for-one", spiffe_id=CHAT):
            pass
        assert "person_required" == refused.value.remote_code


class TestForMany:
    def test_each_request_for_its_own(self, people: People) -> None:
        """A server that has tasks for many people says with each request whose it is: with the wrong task it gets
        nothing, though a token for it is at hand.
        """
        options = {"spiffe_id": CHAT}
        with (
            sojourn.task("for-many", person=people.idp.token("alice"), **options) as alices,
            sojourn.task("for-many", person=people.idp.token("bob"), **options) as bobs,
            alices.client(people.url, verify=people.trust) as client,
        ):
            with sojourn.acting_for("corp|alice"):
                assert "alice" == client.get("/orders/mine").json()["subject"]
                with pytest.raises(WrongPerson):
                    bobs.token()
            with sojourn.acting_for(f"{people.idp.issuer.url}|bob"):
                with pytest.raises(WrongPerson):
                    client.get("/orders/mine")
                assert "bob" == bobs.person.subject
                bobs.token()
            with pytest.raises(PersonNotNamed):
                client.get("/orders/mine")
            with pytest.raises(PersonNotNamed):
                bobs.token()

    async def test_interleaved(self, people: People) -> None:
        """However requests of ten people interleave in one process, each is answered as its own person."""

        async def one(number: int) -> None:
            name = f"user-{number}"
            block = sojourn.task("for-many", person=people.idp.token(name), spiffe_id=CHAT)
            async with block as task, task.client(people.url, verify=people.trust) as requests:
                with sojourn.acting_for(task.person):
                    for _ in range(5):
                        assert name == (await requests.get("/orders/mine")).json()["subject"]

        async with asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(one(number))

    @pytest.mark.forked
    async def test_behind_a_guard(self, people: People) -> None:
        """A server whose guard lets in two people's requests uses the task of each for their own, and never the
        other's, whichever task the program takes: of a thousand requests, fifty at once, none is mixed up.
        """
        tasks: dict[str, Any] = {}

        async def desk(scope: Any, _receive: Any, send: Any) -> None:
            whose = scope["query_string"].decode()
            try:
                text = (await tasks[whose].token()).token
                said = parse_unverified(text).unverified_claims["sub"]
            except WrongPerson:
                said = "refused"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": said.encode()})

        async def begun(name: str, stack: AsyncExitStack) -> str:
            tasks[name] = await stack.enter_async_context(
                sojourn.task("for-many", person=people.idp.token(name), spiffe_id=CHAT)
            )
            with sojourn.acting_for(f"corp|{name}"):
                return str((await tasks[name].token()).token)

        actions = {"GET /desk": Action("order:read", person="required")}
        guarded = sojourn.TaskTokenMiddleware(desk, audience=people.url, actions=actions, socket=people.agent.socket)
        async with AsyncExitStack() as stack:
            callers = {name: await begun(name, stack) for name in ("alice", "bob")}
            transport = httpx.ASGITransport(guarded)
            http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=people.url))
            stack.push_async_callback(guarded.close)

            at_once = asyncio.Semaphore(50)  # of one user no more than 64 are answered

            async def one(caller: str, whose: str) -> bool:
                headers = {"authorization": f"Bearer {callers[caller]}"}
                async with at_once:
                    said = (await http.get(f"/desk?{whose}", headers=headers)).text
                return said == (whose if caller == whose else "refused")

            pairs = [("alice", "alice"), ("bob", "alice"), ("bob", "bob"), ("alice", "bob")]
            assert all(await asyncio.gather(*(one(*pairs[number % 4]) for number in range(1000))))


class TestCommand:
    def test_run(self, people: People, tmp_path: Path) -> None:
        """`sojourn task run` begins a task for whose token a file has, and the command gets tokens for that person."""
        file = tmp_path / "token"
        file.write_text(people.idp.text("alice") + "\n")
        inner = [*COMMAND, "task", "token", "--output", "json"]
        done = people.agent.run("task", "run", "--type", "for-one", "--person-token-file", str(file), "--", *inner)
        assert "Bearer" == json.loads(done.stdout)["token_type"]

    def test_the_token_is_nowhere(self, people: People) -> None:
        """The person's token is in no log and no audit record, and neither is who they are; their pseudonym finds what
        was done for them.
        """
        text = people.idp.text("carol")
        program = subprocess.run(
            [sys.executable, "-c", HALF_A_PROGRAM],
            input=text,
            env={**os.environ, **people.agent.environment},
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert "corp|carol order:read" == program.stdout.strip()
        name = people.agent.run("person", "pseudonym", people.idp.issuer.url, "carol").stdout.strip()
        records = people.agent.run("audit", "tail", "-n", "1000", "--output", "json").stdout
        assert records.count(name) >= 3
        url = people.idp.issuer.url
        guessed = ["carol", "corp|carol", f"{url}|carol", json.dumps([url, "carol"]), "session-of-carol"]
        tried = [made(each) for each in guessed for made in TRIED]
        for said in (records, people.agent.log.read_text()):
            assert not any(each in said for each in (text, text.split(".")[2], "carol"))
            assert not any(each in said for each in tried), "somebody is found by trying names, without the agent's key"

    def test_nor_if_it_is_refused(self, people: People, tmp_path: Path) -> None:
        """A token that is refused is in no error either, nor in a log."""
        bad, file = people.idp.text("dave", aud="another-app", azp="another-app"), tmp_path / "token"
        file.write_text(bad)
        run = ("task", "run", "--type", "for-one", "--person-token-file", str(file), "--", "true")
        refused = people.agent.run(*run, check=False)
        assert (1, True) == (refused.returncode, "wrong_presenter" in refused.stderr)
        said = refused.stderr + people.agent.log.read_text() + people.agent.run("audit", "tail", "-n", "1000").stdout
        assert not any(each in said for each in (bad, bad.split(".")[2], "dave"))
