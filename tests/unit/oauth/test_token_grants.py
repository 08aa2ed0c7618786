"""oauth/token_grants.py: who asks, by what, and what of it becomes a task token."""

import os
from datetime import timedelta

import pytest
from fakes.authorities import authority_in, forging
from fakes.children import child, peer_of
from fakes.granting_room import ISSUER, TRIAGE_ID, WEB_ID, Room
from fakes.task_types import TICKETS, WIKI, task_type
from sojourn.errors import (
    ActionOutsideType,
    InvalidInput,
    InvalidTarget,
    InvalidToken,
    NotFound,
    PolicyDenied,
    StoreFailed,
)
from sojourn.errors.oauth import InvalidGrant, InvalidProof, InvalidSubject
from sojourn.oauth.client_auth import ClientCredentials, ClientSender
from sojourn.oauth.token_request import GRANT_TYPE, TOKEN_TYPE_JWT, read
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.tasktoken.end_reasons import HOLDER_EXITED


@pytest.fixture
async def room(tmp_path):
    room = Room(tmp_path / "keys")
    yield room
    room.close()


def descriptors(room):
    """Those that are open, but for the runners that are kept."""
    return len(os.listdir("/proc/self/fd")) - len(room.runners)


class TestExchange:
    async def test_bare(self, room, tmp_path):
        """A bare exchange opens a one-shot task for the target, which ends with the token's greatest life."""
        token = await room.exchange(audience=TICKETS)
        (task,) = room.engine.tasks.all()
        assert (task.id, TICKETS, ("ticket:read", "ticket:write"), TRIAGE_ID) == (
            token.task_id,
            token.resource,
            token.actions,
            token.spiffe_id,
        )
        assert ("one-shot", 60) == (task.binding, task.deadline - room.clock.boot())
        room.clock.advance(60)
        room.alarms.ring_due()
        assert "expired" == task.state

    @pytest.mark.parametrize("empty", ["", "x"])
    async def test_with_a_proof_header_that_is_none(self, room, empty):
        """A DPoP header is a proof, an empty one as well: no token is given unbound where it is not good."""
        form = {"grant_type": GRANT_TYPE, "subject_token": room.subject(), "subject_token_type": TOKEN_TYPE_JWT}
        request = read([*form.items(), ("audience", TICKETS)], room.granting.provider_of)
        with pytest.raises(InvalidProof):
            await room.granting.grant(ClientSender(room.peer), ClientCredentials.read({}, None, [empty]), request)
        assert [] == room.engine.tasks.all()

    async def test_under_a_task(self, room):
        """With a task's id the token is of that task."""
        task = await room.begin()
        token = await room.exchange(audience=TICKETS, task_id=task.id, scope="ticket:read")
        assert (task.id, ("ticket:read",), [task]) == (token.task_id, token.actions, room.engine.tasks.all())

    async def test_of_its_own_task_looks_for_no_runner(self, room, monkeypatch):
        """Who ran the caller is not looked for when no task begins that it might inherit."""
        task = await room.begin()
        held = await room.engine.token(task, TICKETS, ["ticket:read"])
        monkeypatch.setattr(room.runners, "of", lambda *_: pytest.fail("it was looked for"))
        assert task.id == (await room.derive(ClientSender(room.peer), held.token)).task_id

    async def test_of_its_own_task_looks_at_its_holder(self, room, monkeypatch):
        """A token that is derived has a look at the holder, and one that finds it gone gives none."""
        task = await room.begin()
        held = await room.engine.token(task, TICKETS, ["ticket:read"])
        why, looks = "", []
        monkeypatch.setattr(room.engine.holders, "lost", lambda hold: looks.append(hold) or why)
        assert task.id == (await room.derive(ClientSender(room.peer), held.token)).task_id
        assert {task.holder} == set(looks)
        why = HOLDER_EXITED
        with pytest.raises(InvalidSubject, match="over"):
            await room.derive(ClientSender(room.peer), held.token)
        assert "revoked" == task.state

    async def test_of_a_task_that_passes_to_another_meanwhile(self, room, monkeypatch):
        """A holder whose task is another's by the time that it is answered is not taken for a service."""
        task = await room.begin()
        held = await room.engine.token(task, TICKETS, ["ticket:read"])
        answers = iter([task, None])
        monkeypatch.setattr(room.granting, "_held_by", lambda *_: next(answers))
        with pytest.raises(InvalidSubject, match="passed to another"):
            await room.derive(ClientSender(room.peer), held.token)
        assert [task] == room.engine.tasks.all()

    @pytest.mark.parametrize("audience", [ISSUER, f"{ISSUER}/token", "spiffe://example.org"])
    async def test_our_own_names(self, room, audience):
        """A subject token is for one of our own names."""
        assert await room.exchange(room.subject(audience=[audience]), audience=TICKETS)

    @pytest.mark.parametrize("audience", [[TICKETS], [ISSUER, TICKETS], [ISSUER + "/"], [ISSUER.upper()]])
    async def test_a_token_for_others(self, room, audience):
        """A subject token that is for somebody else, or for others too, is refused."""
        with pytest.raises(InvalidToken) as caught:
            await room.exchange(room.subject(audience=audience), audience=TICKETS)
        assert "wrong_audience" == caught.value.reason_code

    async def test_a_stolen_token(self, room):
        """A good token of an identity that the caller does not have is refused."""
        with pytest.raises(InvalidGrant):
            await room.exchange(room.subject(WEB_ID), audience=TICKETS)

    async def test_an_expired_token(self, room):
        """A subject token has no leeway: it is our own."""
        token = room.subject(ttl=timedelta(seconds=10))
        room.clock.advance(10)
        with pytest.raises(InvalidToken, match="expired"):
            await room.exchange(token, audience=TICKETS)

    async def test_of_another_trust_domain(self, room, tmp_path):
        """A subject token of another trust domain is refused, whatever its issuer calls itself."""
        other = authority_in(tmp_path / "other", room.clock, trust_domain=TrustDomain("other.example"))
        for subject in (SpiffeId.parse("spiffe://other.example/agent/triage"), TRIAGE_ID):
            with forging():
                token = other.issue_jwt(subject, [ISSUER], timedelta(minutes=1)).token
            with pytest.raises(InvalidToken):
                await room.exchange(token, audience=TICKETS)

    async def test_a_task_token_is_no_subject(self, room):
        """A task token cannot be exchanged for another."""
        token = await room.exchange(audience=TICKETS)
        with pytest.raises(InvalidToken):
            await room.exchange(token.token, audience=WIKI)

    async def test_no_longer_than_the_subject_token(self, room):
        """A task token does not outlive the subject token, with or without a task of its own."""
        task = await room.begin()
        for fields in ({}, {"task_id": task.id}):
            token = await room.exchange(room.subject(ttl=timedelta(seconds=7)), audience=TICKETS, **fields)
            assert 7 == token.claims["exp"] - room.clock.now().timestamp()

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ({}, InvalidTarget),
            ({"audience": "https://other.example"}, InvalidTarget),
            ({"audience": TICKETS, "task_id": "tsk_none"}, NotFound),
            ({"audience": TICKETS, "scope": "ticket:read ticket:delete"}, InvalidInput),
        ],
    )
    async def test_refused(self, room, fields, error):
        """What is not the caller's to have is refused, nothing is begun, and no descriptor is left."""
        before = descriptors(room)
        with pytest.raises(error):
            await room.exchange(**fields)
        assert ([], before) == (room.engine.tasks.all(), descriptors(room))

    async def test_details_beyond_the_type(self, room):
        """Details that name an action that the type does not have are refused."""
        details = f'[{{"type":"triage","actions":["ticket:delete"],"locations":["{TICKETS}"]}}]'
        with pytest.raises(ActionOutsideType):
            await room.exchange(authorization_details=details)

    async def test_details_of_another_type_than_the_task(self, room):
        """Details that name another type than the task's are refused."""
        task = await room.begin()
        details = f'[{{"type":"other","actions":["ticket:read"],"locations":["{TICKETS}"]}}]'
        with pytest.raises(InvalidInput):
            await room.exchange(authorization_details=details, task_id=task.id)

    async def test_another_s_task(self, room):
        """A task of another process does not exist, whatever its id is."""
        task = await room.begin()
        with child() as other:
            room.peer, mine = peer_of(other), room.peer
            with pytest.raises(NotFound):
                await room.exchange(audience=TICKETS, task_id=task.id)
            room.peer.close()
            room.peer = mine

    async def test_a_token_of_another_process(self, room):
        """Whose workload a task token is of, but not their process, is told what may be so, and not which."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ("ticket:read",))
        said = []
        with child() as other:
            sibling = peer_of(other)
            for _ in range(2):
                with pytest.raises(InvalidGrant) as error:
                    await room.derive(ClientSender(sibling), token.token)
                said.append(error.value.public)
                if task.live:
                    room.engine.end(task, "revoked", "test")
            sibling.close()
        assert ["subject_token: its task is over, or another process of this workload holds it"] * 2 == said

    async def test_no_token_no_task(self, room, monkeypatch):
        """If no token can be given, the one-shot task ends."""
        before = descriptors(room)

        async def refuse(_event):
            raise StoreFailed("no")

        monkeypatch.setattr(room.store, "record", refuse)
        with pytest.raises(StoreFailed):
            await room.exchange(audience=TICKETS)
        assert ([], before) == (room.engine.tasks.all(), descriptors(room))
        assert ["no_token"] == [task.reason for task in room.engine.tasks.ended()]

    async def test_policy_denies(self, room):
        """What policy denies is not given."""
        room.engine.types["triage"] = task_type(cedar='@id("none") forbid (principal, action, resource);')
        with pytest.raises(PolicyDenied):
            await room.exchange(audience=TICKETS)
