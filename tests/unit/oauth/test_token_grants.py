"""oauth/token_grants.py: who asks, by what, and what of it becomes a task token."""

import asyncio
from datetime import timedelta

import pytest
from fakes.authorities import authority_in, forging
from fakes.children import child, peer_of
from fakes.exchangeroom import DELEGATION
from fakes.granting_room import ISSUER, TRIAGE_ID, WEB_ID, Room
from fakes.registrations import entry
from fakes.runners import helper_of
from fakes.task_types import TICKETS, TRIAGE, WIKI, task_type
from harness.looking import OpenFiles
from sojourn.attestation.peer import Peer
from sojourn.errors import (
    ActionOutsideType,
    InvalidInput,
    InvalidTarget,
    InvalidToken,
    NotFound,
    PolicyDenied,
    StoreFailed,
)
from sojourn.errors.oauth import AuthorizationPending, InvalidGrant, InvalidProof, InvalidSubject
from sojourn.oauth.client_auth import ClientCredentials, ClientSender
from sojourn.oauth.token_request import GRANT_TYPE, TOKEN_TYPE_JWT, read
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.tasks.begin import BeginRequest, Bond
from sojourn.tasktoken.end_reasons import HOLDER_EXITED


@pytest.fixture
async def room(tmp_path):
    room = Room(tmp_path / "keys")
    yield room
    room.close()


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
        monkeypatch.setattr(room.verification, "held_by", lambda *_: next(answers))
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
        before = OpenFiles()
        with pytest.raises(error):
            await room.exchange(**fields)
        assert ([], len(room.runners)) == (room.engine.tasks.all(), len(before.opened_since()))

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
        before = OpenFiles()

        async def refuse(_event):
            raise StoreFailed("no")

        monkeypatch.setattr(room.store, "record", refuse)
        with pytest.raises(StoreFailed):
            await room.exchange(audience=TICKETS)
        assert ([], len(room.runners)) == (room.engine.tasks.all(), len(before.opened_since()))
        assert ["no_token"] == [task.reason for task in room.engine.tasks.ended()]

    async def test_policy_denies(self, room):
        """What policy denies is not given."""
        room.engine.types["triage"] = task_type(cedar='@id("none") forbid (principal, action, resource);')
        with pytest.raises(PolicyDenied):
            await room.exchange(audience=TICKETS)

    async def test_what_is_left_of_the_subject_token(self, tmp_path):
        """A token is derived for as long as the subject token is good, and none if that is less than a second."""
        room = Room(tmp_path / "others", {"triage": task_type(delegation=DELEGATION)})
        try:
            task = await room.begin()
            token = await room.engine.token(task, TICKETS, ("ticket:read",))
            room.clock.advance(58.5)
            derived = await room.derive(room.shows(WEB_ID), token.token, audience=TICKETS)
            assert (token.expires_at, token.claims["jti"]) == (
                derived.expires_at,
                room.store.fields("delegation_accepted")[0]["by_token"],
            )
            room.clock.advance(0.6)
            with pytest.raises(InvalidSubject, match="less than a second is left of subject_token"):
                await room.derive(room.shows(WEB_ID), token.token, audience=TICKETS)
        finally:
            room.close()

    async def test_for_how_long_it_waits(self, tmp_path):
        """Who must wait for approval is told of which task, by whom, and for how many seconds at the most."""
        room = Room(tmp_path / "others", {"triage": task_type(approval='{within = "60s"}')})
        try:
            with pytest.raises(AuthorizationPending) as first:
                await room.exchange(audience=TICKETS)
            (task,) = room.engine.tasks.all()
            assert (task.id, 60, task.approval.request.id) == (
                first.value.task_id,
                first.value.seconds,
                first.value.approval_id,
            )
            room.clock.advance(10.5)
            with pytest.raises(AuthorizationPending) as again:
                await room.exchange(audience=TICKETS, task_id=task.id)
            assert (task.id, 49) == (again.value.task_id, again.value.seconds)
        finally:
            room.close()

    async def test_it_is_due_to_what_was_shown_from_the_beginning(self, room):
        """A one-shot task ends with the SVID that was shown for it also while its own beginning is being written."""
        room.store.gate = asyncio.Event()
        asking = asyncio.ensure_future(room.exchange(audience=TICKETS))
        await asyncio.wait_for(room.store.writing.wait(), 20)
        (task,) = room.engine.tasks.all()
        ((kind, _),) = task.svids
        room.store.gate.set()
        room.store.gate = None
        assert ("jwt", task.id) == (kind, (await asking).task_id)


class TestWhoseTask:
    async def test_of_a_descendant_of_its_holder(self, room):
        """A process's task is that process's alone: what it runs has no token of it by a token that it was passed."""
        with helper_of() as (runner, helper):
            holder = Peer.of_pid(runner.pid)
            task = await room.beginning.begin(
                holder,
                [entry("/agent/triage")],
                BeginRequest("triage", {}),
                Bond(holder.process.again(), "process"),
            )
            token = await room.engine.token(task, TICKETS, ("ticket:read",))
            assert task.id == (await room.derive(ClientSender(holder), token.token)).task_id
            with pytest.raises(InvalidSubject, match="another process of this workload holds it"):
                await room.derive(ClientSender(helper), token.token)
            holder.close()

    async def test_an_actor_token(self, tmp_path):
        """Beside a task token an actor token is of the client that has it, and of no other."""
        room = Room(tmp_path / "others", {"triage": task_type(delegation=DELEGATION)})
        try:
            token = await room.engine.token(await room.begin(), TICKETS, ("ticket:read",))
            actor = {"actor_token": room.subject(WEB_ID), "actor_token_type": TOKEN_TYPE_JWT}
            assert WEB_ID == (await room.derive(room.shows(WEB_ID), token.token, **actor)).actor
            actor["actor_token"] = room.subject(TRIAGE_ID)
            with pytest.raises(InvalidInput, match="actor_token: it is not the client's"):
                await room.derive(room.shows(WEB_ID), token.token, **actor)
        finally:
            room.close()

    async def test_whose_proof_it_is(self, room, monkeypatch):
        """A proof counts for the client that has authenticated, and is the socket's only if the client is there."""
        seen = []
        monkeypatch.setattr(room, "by_proof", lambda proof, who, *, at_socket: seen.append((proof, who, at_socket)))
        form = {"grant_type": GRANT_TYPE, "subject_token": room.subject(), "subject_token_type": TOKEN_TYPE_JWT}
        await room.ask(ClientSender(room.peer), proof=True, audience=TICKETS, **form)
        form["subject_token"] = room.subject()
        await room.ask(room.shows(TRIAGE_ID), proof=True, audience=TICKETS, **form)
        assert [("a proof", room.peer.uid, True), ("a proof", TRIAGE, False)] == seen

    async def test_what_is_told_of_a_token(self, room):
        """What is told of a token is what it says itself."""
        task = await room.begin()
        form = {"grant_type": GRANT_TYPE, "subject_token": room.subject(), "subject_token_type": TOKEN_TYPE_JWT}
        request = read([*form.items(), ("audience", TICKETS), ("task_id", task.id)], room.granting.provider_of)
        given = await room.granting.grant(ClientSender(room.peer), ClientCredentials(), request)
        token = room._read(given)
        assert (token.resource, token.actions, token.task_id, token.expires_at, "Bearer") == (
            given.resource,
            given.actions,
            given.task_id,
            given.expires_at,
            given.token_type,
        )

    async def test_why_a_subject_is_refused(self, room):
        """A task token that is not good is refused with the code that says why."""
        token = await room.engine.token(await room.begin(), TICKETS, ("ticket:read",))
        room.clock.advance(61)
        with pytest.raises(InvalidToken, match="subject_token: token has expired") as refused:
            await room.derive(ClientSender(room.peer), token.token)
        assert "expired" == refused.value.reason_code
