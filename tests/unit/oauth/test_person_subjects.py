"""person_subjects.py: token requests by which a client asks for a person whose token it was given."""

import json
from dataclasses import replace

import pytest
from fakes.exchangeroom import details
from fakes.granting_room import ISSUER, WEB_ID, Room
from fakes.persons import CORP, LIFE, for_people, person, refused
from fakes.task_types import TICKETS, TRIAGE, task_type
from sojourn.errors import InvalidInput, InvalidToken, NotFound
from sojourn.errors.oauth import AuthorizationPending
from sojourn.jose.jws import SigningKey
from sojourn.oauth import person_subjects
from sojourn.oauth.token_request import TOKEN_TYPE_ACCESS, TOKEN_TYPE_ID
from sojourn.policy.task_types import TypeSet

TYPES = TypeSet(
    {
        "for-people": for_people(),
        "for-many": for_people("for-many", several="true"),
        "triage": task_type(params=None),
        "approved": task_type("approved", params=None, person='{need = "required"}', approval='{within = "10m"}'),
    }
)
ALICE, BOB = person("alice"), person("bob")
LATER = replace(ALICE, issued_at=ALICE.issued_at + 10, expires_at=ALICE.expires_at + 10)
KEY = SigningKey.generate("k")


def access_token(**claims):
    """A JWT by which only its `iss` is read here: what verifies it is a script."""
    return KEY.sign({"iss": CORP, "sub": "alice", **claims}, typ="JWT")


ALICES, BOBS = access_token(), access_token(sub="bob")


@pytest.fixture
async def room(tmp_path):
    made = Room(tmp_path, TYPES)
    made.people.people |= {"a": ALICE, "b": BOB, "later": LATER, ALICES: ALICE, BOBS: BOB}
    yield made
    await made.renewal.quiet()
    made.close()


def of(name="for-people", action="ticket:read"):
    return {"authorization_details": details(action, name=name)}


async def for_person(room, token="a", kind=TOKEN_TYPE_ID, **fields):
    return await room.exchange(token, subject_token_type=kind, **({"resource": TICKETS} | (fields or of())))


class TestOneShot:
    @pytest.mark.parametrize(("token", "kind"), [("a", TOKEN_TYPE_ID), (ALICES, TOKEN_TYPE_ACCESS)])
    async def test_for_whom(self, room, token, kind):
        """By a person's ID token or access token a client that is attested gets a token of a task for that person."""
        given = await for_person(room, token, kind)
        assert ((CORP, "alice"), TRIAGE) == (given.person[:2], str(given.actor))
        task = room.engine.tasks.find(given.task_id)
        assert (ALICE, "one-shot") == (task.person, task.binding)
        assert [(token, kind, TRIAGE)] == [(*each[:2], str(each[2])) for each in room.people.asked]

    async def test_no_longer_than_theirs(self, room):
        """The token ends no later than the person's."""
        room.clock.advance(LIFE - 20)
        assert ALICE.expires_at == (await for_person(room)).claims["exp"]

    @pytest.mark.parametrize(("token", "name", "code"), [
        ("x", "for-people", "unknown_issuer"), ("a", "triage", "person_not_taken"),
    ])  # fmt: skip
    async def test_refused(self, room, token, name, code):
        """A token that is not good begins nothing, and a type that is for nobody takes no person."""
        with refused(code):
            await for_person(room, token, **of(name))
        assert 0 == len(room.engine.tasks)

    async def test_one_of_ours_that_comes_back(self, room, monkeypatch):
        """A token of ours that is exchanged again is not read once more to find whose it is, and any other is."""
        ours = (await for_person(room)).token
        again = {"subject_token_type": TOKEN_TYPE_ACCESS, "resource": TICKETS}
        await room.exchange(ours, **again)
        monkeypatch.setattr(person_subjects, "parse_unverified_person", lambda text: pytest.fail(f"read: {text}"))
        assert ALICE == room.engine.tasks.find((await room.exchange(ours, **again)).task_id).person
        with pytest.raises(pytest.fail.Exception, match="read"):
            await for_person(room, ALICES, TOKEN_TYPE_ACCESS)

    async def test_opaque(self, room):
        """An access token that is no JWT is a person's where such are taken, and a subject that is malformed elsewhere."""
        room.people.people["opaque"] = ALICE
        with pytest.raises(InvalidToken):
            await for_person(room, "opaque", TOKEN_TYPE_ACCESS)
        room.people.opaque.add("opaque")
        assert (CORP, "alice") == (await for_person(room, "opaque", TOKEN_TYPE_ACCESS)).person[:2]

    async def test_needed(self, room):
        """A type for people gives a client nothing that brings no person's token."""
        with refused("person_required"):
            await room.exchange(**of())

    async def test_the_type_that_reaches_the_target(self, room):
        """Where the client names no type, the one is taken that reaches the target."""
        room.engine.types = TypeSet({"for-people": TYPES["for-people"]})
        assert "for-people" == (await for_person(room, resource=TICKETS)).task_type

    async def test_by_the_scope_of_theirs(self, room):
        """A client that names no actions gets those that the scope of the person's access token lets be done; one that
        names another is refused, and so is one whose token lets nothing be done.
        """
        room.engine.types = TypeSet({"for-people": TYPES["for-people"]})
        room.people.people |= {"reads": replace(ALICE, may=("ticket:read",)), "none": replace(ALICE, may=())}
        assert ("ticket:read",) == (await for_person(room, "reads", resource=TICKETS)).actions
        assert ("ticket:read",) == (await for_person(room, "reads")).actions
        for token, fields in (
            ("reads", of(action="ticket:write")),
            ("reads", {"resource": TICKETS, "scope": "ticket:read ticket:write"}),
            ("none", {"resource": TICKETS}),
        ):
            with refused("not_in_scope"):
                await for_person(room, token, **fields)

    async def test_another_beside(self, room):
        """While the process has a task for one person, it gets no token for another."""
        await for_person(room)
        with refused("other_person_here"):
            await for_person(room, "b")

    async def test_its_own_svid_beside(self, room):
        """A client may show its own JWT-SVID as the actor, and no other's."""
        kind = {"actor_token_type": "urn:ietf:params:oauth:token-type:jwt"}
        assert (await for_person(room, actor_token=room.subject(), **kind, **of())).person.subject == "alice"
        with pytest.raises(InvalidInput, match="actor_token"):
            await for_person(room, actor_token=room.subject(WEB_ID), **kind, **of())


class TestRouted:
    @pytest.mark.parametrize("claims", [
        {"iss": "https://other.example"}, {"iss": CORP + "/"}, {"iss": ISSUER}, {"iss": None}, {"iss": [CORP]},
    ])  # fmt: skip
    async def test_by_its_issuer_alone(self, room, claims):
        """An access token that is of no issuer of people is read as one of ours, which it is not."""
        with pytest.raises(InvalidToken):
            await for_person(room, access_token(**claims), TOKEN_TYPE_ACCESS)
        assert [] == room.people.asked

    async def test_ours(self, room):
        """An access token of ours is a task token, whatever else comes with it: it is not verified as a person's."""
        task = await room.begin("triage")
        token = (await room.engine.token(task, TICKETS, ())).token
        again = await room.exchange(token, subject_token_type=TOKEN_TYPE_ACCESS, resource=TICKETS)
        assert (task.id, None) == (again.task_id, again.person)
        with refused("unknown_issuer"):
            await for_person(room, token)


class TestOfATask:
    async def begin(self, room, name="for-people", whom=ALICE):
        return await room.begin(name, person=whom)

    async def test_renewed(self, room):
        """With the task's ID a newer token of its person renews it, and gives a token that is good as long."""
        task = await self.begin(room)
        given = await for_person(room, "later", task_id=task.id, scope="ticket:read")
        assert (task.id, LATER) == (given.task_id, task.person)

    async def test_the_same_again(self, room):
        """The token that it began with renews nothing, and says whom the token is asked for."""
        task = await self.begin(room, "for-many")
        assert task.id == (await for_person(room, task_id=task.id, scope="ticket:read")).task_id
        with refused("person_not_named"):
            await room.exchange(task_id=task.id, scope="ticket:read", resource=TICKETS)

    @pytest.mark.parametrize("token", ["b", BOBS])
    async def test_of_another(self, room, token):
        """A token of somebody else gives nothing of the task."""
        task = await self.begin(room)
        with refused("other_person"):
            await for_person(room, token, TOKEN_TYPE_ID, task_id=task.id, scope="ticket:read")
        assert ALICE == task.person

    async def test_for_nobody(self, room):
        """A task that is for nobody gains no person."""
        task = await self.begin(room, "triage", None)
        with refused("person_not_taken"):
            await for_person(room, task_id=task.id, scope="ticket:read")
        assert task.person is None

    async def test_unknown(self, room):
        """Of a task that is not the client's nothing is said, and nobody's token is verified for it."""
        with pytest.raises(NotFound):
            await for_person(room, task_id="tsk_AAAAAAAAAAAAAAAAAAAAAA")
        assert [] == room.people.asked

    async def test_pending(self, room):
        """While somebody has to agree, the same request again is told to wait, and one for another person is refused."""
        with pytest.raises(AuthorizationPending) as waits:
            await for_person(room, **of("approved"))
        for token, error in (("a", AuthorizationPending), ("b", None)):
            again = for_person(room, token, task_id=waits.value.task_id, **of("approved"))
            if error is None:
                with refused("other_person"):
                    await again
            else:
                with pytest.raises(error):
                    await again


async def test_no_token_in_the_audit(room):
    """Neither what is given nor what is refused leaves the person's token, or who they are, in a record."""
    await for_person(room, ALICES, TOKEN_TYPE_ACCESS)
    with refused("other_person_here"):
        await for_person(room, BOBS, TOKEN_TYPE_ACCESS)
    await room.audit.flush()
    text = json.dumps([each.fields for each in room.store.events])
    assert not any(each in text for each in (ALICES, BOBS, "alice", "bob"))
