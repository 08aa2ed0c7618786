"""revocation.py: what clients may do to a token; and TaskChanges.supersede."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from fakes.clock import FakeClock
from fakes.registrations import entry
from fakes.task_room import KEY, TRIAGE_ENTRY, Room
from fakes.task_types import TICKETS, task_type
from sojourn.errors import StoreFailed, TaskOver
from sojourn.errors.oauth import UnsupportedTokenType
from sojourn.limits import REVOCATION_WRITE_SECONDS
from sojourn.oauth.client_auth import SOCKET, OAuthClient
from sojourn.oauth.resource_servers import Audiences, Service
from sojourn.oauth.revocation import TokenRevocation
from sojourn.oauth.token_query import TokenQuery
from sojourn.tasks.suspension import TaskChanges

SERVICE_ENTRY, STRANGER_ENTRY = entry("/tickets"), entry("/stranger")
HOLDER, SERVICE, STRANGER = (OAuthClient(SOCKET, (each,)) for each in (TRIAGE_ENTRY, SERVICE_ENTRY, STRANGER_ENTRY))


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with Room(FakeClock(), {"triage": task_type()}).running() as room:
        yield room


def revoking(room: Room, write_seconds: float = REVOCATION_WRITE_SECONDS) -> TokenRevocation:
    services = Audiences([Service(TICKETS, frozenset({SERVICE_ENTRY.spiffe_id}))])
    return TokenRevocation(room.engine, TaskChanges(room.engine), services, write_seconds)


@pytest.fixture
def revocation(room: Room) -> TokenRevocation:
    return revoking(room)


class TestRevocation:
    async def test_the_task_lives_on(self, room: Room, revocation: TokenRevocation) -> None:
        """All tokens of the task until now are dead, at validators too, and journaled; new ones are good."""
        task = await room.begin()
        old = [await room.engine.token(task, TICKETS, ()) for _ in range(2)]
        with room.engine.feed.watch([TICKETS]) as watcher:
            assert task is await revocation.revoke(SERVICE, TokenQuery(old[0].token))
            assert [(True, task.version)] == [(state.live, state.version) for state in watcher.take()]
        for each in old:
            with pytest.raises(TaskOver, match="changed since"):
                room.engine.check_token(each)
        room.engine.check_token(await room.engine.token(task, TICKETS, ()))
        (record,) = room.store.fields("tokens_revoked")
        assert (task.id, str(SERVICE_ENTRY.spiffe_id), old[0].claims["jti"]) == (
            record["task"],
            record["by"],
            record["jti"],
        )

    async def test_strangers_change_nothing(self, room: Room, revocation: TokenRevocation) -> None:
        """Whoever is neither holder nor audience changes nothing."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        version = task.version
        for hint in ("", "task"):
            assert await revocation.revoke(STRANGER, TokenQuery(token.token, hint)) is None
        assert version == task.version

    async def test_the_whole_task(self, room: Room, revocation: TokenRevocation) -> None:
        """Its holder ends the task by the hint `task`: all its tokens are dead, and no further one is given."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        assert task is await revocation.revoke(HOLDER, TokenQuery(token.token, "task"))
        assert ("completed", "cancelled") == (task.state, task.reason)
        (ended,) = room.store.fields("task_ended")
        assert (str(TRIAGE_ENTRY.spiffe_id), token.claims["jti"]) == (ended["by"], ended["jti"])
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        assert task is await revocation.revoke(HOLDER, TokenQuery(token.token, "task"))  # it stays what it is
        assert "completed" == task.state

    @pytest.mark.parametrize(("client", "hint"), [(HOLDER, ""), (HOLDER, "access_token"), (SERVICE, "task")])
    async def test_not_the_whole_task(
        self, room: Room, revocation: TokenRevocation, client: OAuthClient, hint: str
    ) -> None:
        """Without that hint, and for whoever is not its holder, the task lives on without its tokens."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        assert task is await revocation.revoke(client, TokenQuery(token.token, hint))
        assert "active" == task.state
        with pytest.raises(TaskOver, match="changed since"):
            room.engine.check_token(token)

    async def test_expired_tokens_revoke_nothing(self, room: Room, revocation: TokenRevocation) -> None:
        """A token whose time is up takes no other with it."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        room.clock.advance(61)
        fresh = await room.engine.token(task, TICKETS, ())
        await revocation.revoke(SERVICE, TokenQuery(token.token))
        room.engine.check_token(fresh)

    async def test_in_force_before_it_is_on_disk(self, room: Room) -> None:
        """When the store cannot write, the token is dead, validators know it, and the client is told to come again;
        coming again is good only once it is on disk.
        """
        revocation, patient = revoking(room, 0.05), revoking(room, 20)
        token = await room.engine.token(await room.begin(), TICKETS, ())
        room.store.failure = StoreFailed("disk full")
        with room.engine.feed.watch([TICKETS]) as watcher:
            for _ in range(2):
                with pytest.raises(StoreFailed, match="could not be written"):
                    await revocation.revoke(SERVICE, TokenQuery(token.token))
            assert 1 == len(watcher.take())
        with pytest.raises(TaskOver):
            room.engine.check_token(token)
        room.store.failure = None
        await patient.revoke(SERVICE, TokenQuery(token.token))
        assert ["tokens_revoked"] == [name for name in room.store.names if name == "tokens_revoked"]

    async def test_racing_with_a_token_that_is_being_issued(self, room: Room, revocation: TokenRevocation) -> None:
        """A token whose record is being written when the task's tokens are revoked never leaves."""
        task = await room.begin()
        token = await room.engine.token(task, TICKETS, ())
        room.store.gate, room.store.writing = asyncio.Event(), asyncio.Event()
        asking = asyncio.ensure_future(room.engine.token(task, TICKETS, ()))
        await room.store.writing.wait()
        revoking = asyncio.ensure_future(revocation.revoke(SERVICE, TokenQuery(token.token)))
        await asyncio.sleep(0)
        room.store.gate.set()
        with pytest.raises(TaskOver, match="changed meanwhile"):
            await asking
        await revoking

    @pytest.mark.parametrize("typ", ["JWT", "logout+jwt"])
    async def test_other_kinds(self, revocation: TokenRevocation, typ: str) -> None:
        """A token of a kind that cannot be revoked here is said to be one."""
        with pytest.raises(UnsupportedTokenType):
            await revocation.revoke(HOLDER, TokenQuery(KEY.sign({"sub": "x"}, typ=typ)))

    async def test_garbage(self, revocation: TokenRevocation) -> None:
        """What is no token at all is none that is good."""
        assert await revocation.revoke(HOLDER, TokenQuery("x")) is None
