"""oauth/token_grants.py, for targets whose credentials a provider outside gives."""

import asyncio
from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from fakes.granting_room import TRIAGE_ID, WEB_ID, Room
from fakes.handing_room import CLOUD, ORDERS
from fakes.providers import ScriptedProvider
from fakes.task_room import writing
from fakes.task_types import TICKETS, task_type
from sojourn.errors import InvalidInput, TaskOver
from sojourn.errors.oauth import BindingNotOffered
from sojourn.oauth.client_auth import ClientSender
from sojourn.oauth.token_request import CLIENT_CREDENTIALS, TOKEN_TYPE_ACCESS, TOKEN_TYPE_JWT
from sojourn.providers.errors import ProviderRefused
from sojourn.tasktoken.sender_constraint import JKT, Binding

KEYS = "urn:example:keys"
CEILING = (
    f'[{{resource = "{TICKETS}", actions = ["read"]}},'
    f' {{resource = "{ORDERS}", actions = ["list", "read"], provider = "corp"}},'
    f' {{resource = "{CLOUD}", actions = ["use"], provider = "cloud"}}]'
)
DIGEST = "A" * 43


@pytest.fixture
async def room(tmp_path):
    clock = FakeClock()
    corp = ScriptedProvider(clock, recall="revoke")
    cloud = ScriptedProvider(clock, token_type="N_A", issued_type=KEYS)
    kind = task_type(ceiling=CEILING, params=None, delegation=f'{{to = ["{WEB_ID}"]}}')
    made = Room(tmp_path / "keys", {"triage": kind}, {"corp": corp, "cloud": cloud})
    made.corp, made.cloud = corp, cloud
    corp.clock = cloud.clock = made.clock
    async with writing(made.engine):
        yield made
    made.close()


class TestBare:
    async def test_a_one_shot_task_has_it(self, room):
        """A bare exchange for a provider's target begins a one-shot task, whose credential ends with it."""
        given = await room.exchange(audience=ORDERS, scope="read")
        (task,) = room.engine.tasks.all()
        assert (task.id, "one-shot", "corp") == (given.task_id, task.binding, given.provider)
        assert given.token == f"{task.id}|{ORDERS}|read|1"
        assert given.expires_at == room.clock.now() + timedelta(seconds=60)
        assert room.corp.wanted[0].ends == task.expires_at

    async def test_what_the_provider_refuses_leaves_no_task(self, room):
        """Without its credential a one-shot task has no purpose."""
        room.corp.script = [ProviderRefused("no")]
        with pytest.raises(ProviderRefused):
            await room.exchange(audience=ORDERS)
        assert [] == room.engine.tasks.all()

    async def test_no_longer_than_what_was_shown(self, room):
        """A credential is told to end with the subject token, though the provider's is good for longer."""
        subject = room.subject(ttl=timedelta(seconds=20))
        given = await room.exchange(subject, audience=ORDERS)
        assert given.expires_at == room.clock.now() + timedelta(seconds=20)


class TestUnderATask:
    async def test_it_is_the_task_s(self, room):
        """With a task's ID it is that task's, and the same again for whoever asks for the same."""
        task = await room.begin()
        first = await room.exchange(audience=ORDERS, task_id=task.id)
        again = await room.exchange(audience=ORDERS, task_id=task.id)
        assert (first.token, 1) == (again.token, len(room.corp.wanted))

    async def test_it_may_end_meanwhile(self, room):
        """What comes when the task is over is not answered."""
        task = await room.begin()
        room.corp.gate = asyncio.Event()
        asking = asyncio.ensure_future(room.exchange(audience=ORDERS, task_id=task.id))
        await room.corp.came.wait()
        room.engine.end(task, "revoked", "test")
        room.corp.gate.set()
        with pytest.raises(TaskOver):
            await asking

    async def test_on_from_a_token(self, room):
        """A service that was given a token of ours exchanges it for a provider's: a task of its own, with its identity."""
        token = await room.exchange(audience=TICKETS, task_id=(await room.begin()).id)
        given = await room.derive(room.shows(WEB_ID), token.token, audience=ORDERS)
        child = room.engine.tasks.find(given.task_id)
        assert (WEB_ID, token.task_id) == (child.spiffe_id, child.parent_id)
        assert (WEB_ID, ("read",)) == (room.corp.wanted[0].spiffe_id, room.corp.wanted[0].actions)
        room.engine.end(room.engine.tasks.find(token.task_id), "completed", "success")
        assert not child.live
        assert len(room.handing.handing) == 0


class TestBindings:
    async def test_a_proof_is_refused(self, room):
        """A client that wants it bound to its key is told that there is none such, before a provider is asked."""
        task = await room.begin()
        with pytest.raises(BindingNotOffered, match="without a key"):
            await room.ask(
                ClientSender(room.peer),
                proof=Binding(JKT, DIGEST),
                grant_type=CLIENT_CREDENTIALS,
                resource=ORDERS,
                task_id=task.id,
            )
        assert [] == room.corp.wanted

    async def test_one_request_is_refused(self, room):
        """A client that wants a provider's token for one request alone is refused; the task that was begun for it is over."""
        details = f'[{{"type": "triage", "actions": ["read"], "locations": ["{ORDERS}"], "params_digest": "{DIGEST}"}}]'
        with pytest.raises(BindingNotOffered, match="without params_digest"):
            await room.exchange(authorization_details=details)
        assert ([], []) == (room.corp.wanted, room.engine.tasks.all())

    async def test_a_certificate_is_who_the_client_is(self, room):
        """A client that authenticates by its certificate has not asked for a binding: it is given what there is."""
        given = await room.ask(room.shows(TRIAGE_ID, seconds=30), grant_type=CLIENT_CREDENTIALS, resource=ORDERS)
        assert ("corp", "Bearer") == (given.provider, given.token_type)
        assert given.expires_at == room.clock.now() + timedelta(seconds=30)


class TestTypes:
    @pytest.mark.parametrize(
        ("target", "wanted", "issued"),
        [
            (ORDERS, "", TOKEN_TYPE_ACCESS),
            (ORDERS, TOKEN_TYPE_ACCESS, TOKEN_TYPE_ACCESS),
            (CLOUD, "", KEYS),
            (CLOUD, KEYS, KEYS),
        ],
    )
    async def test_kept_to(self, room, target, wanted, issued):
        """A type that the client names is the one that it is given."""
        fields = {"requested_token_type": wanted} if wanted else {}
        assert issued == (await room.exchange(audience=target, **fields)).issued_type

    @pytest.mark.parametrize(
        ("target", "wanted"), [(ORDERS, TOKEN_TYPE_JWT), (ORDERS, KEYS), (CLOUD, TOKEN_TYPE_ACCESS)]
    )
    async def test_or_refused(self, room, target, wanted):
        """A type that the provider does not give is refused, and no task is left."""
        with pytest.raises(InvalidInput, match="requested_token_type"):
            await room.exchange(audience=target, requested_token_type=wanted)
        assert [] == room.engine.tasks.all()

    async def test_of_ours_as_ever(self, room):
        """For a target of ours it is one of ours."""
        with pytest.raises(InvalidInput, match="requested_token_type"):
            await room.exchange(audience=TICKETS, requested_token_type=KEYS)
        await room.exchange(audience=TICKETS, requested_token_type=TOKEN_TYPE_JWT)
