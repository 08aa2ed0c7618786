"""nodes.py: by which SVID a node is known, and what it is told if it is known by none."""

import asyncio
from pathlib import Path

import pytest
from cryptography import x509
from fakes.registrations import selectors
from fakes.server_room import BY, ServerRoom, agent_id, new_key
from sojourn.errors import AgentDenied, FailedPrecondition, InvalidInput, NotFound, Refused, StoreFailed
from sojourn.server.node_attestor import Attested

A = agent_id("a")


@pytest.fixture
def room(tmp_path: Path) -> ServerRoom:
    return ServerRoom(tmp_path)


async def denied(room: ServerRoom, certificate: x509.Certificate) -> str:
    """Why a node is not admitted by a certificate."""
    with pytest.raises(AgentDenied) as caught:
        await room.nodes.admit(A, certificate)
    return caught.value.reason_code


class TestAdmitting:
    async def test_by_what_it_was_given(self, room: ServerRoom) -> None:
        """A node is known by the SVID that it was given."""
        leaf = await room.joined()
        assert room.node() == await room.nodes.admit(A, leaf)

    async def test_a_stranger(self, room: ServerRoom) -> None:
        """Who shows an SVID of the trust domain and never joined is not attested."""
        leaf = await room.joined("b")
        assert "not_attested" == await denied(room, leaf)

    async def test_by_another_one(self, room: ServerRoom) -> None:
        """An SVID that is not the one by which a node is known is not active, and it is told both numbers, as SPIRE does."""
        first = await room.joined()
        second = await room.joined()
        with pytest.raises(AgentDenied) as caught:
            await room.nodes.admit(A, first)
        assert "not_active" == caught.value.reason_code
        said = f'agent "{A}" expected to have serial number "{second.serial_number}"; has "{first.serial_number}"'
        assert said == caught.value.public

    async def test_expired(self, room: ServerRoom) -> None:
        """An SVID is good until its end, and not behind it."""
        leaf = await room.joined()
        room.clock.advance(3_600)
        await room.nodes.admit(A, leaf)
        room.clock.advance(2)
        assert "expired" == await denied(room, leaf)


class TestRenewing:
    async def test_the_next_counts_from_its_first_use_on(self, room: ServerRoom) -> None:
        """A node that was given its next SVID is known by the one before, until it shows the next one."""
        first = await room.joined()
        (second, *_) = await room.nodes.renew(A, new_key())
        await room.nodes.admit(A, first)
        assert (first.serial_number, second.serial_number) == (room.node().serial, room.node().new_serial)
        await room.nodes.admit(A, second)
        assert "not_active" == await denied(room, first)
        assert (second.serial_number, 0) == (room.node().serial, room.node().new_serial)

    async def test_one_that_is_never_shown(self, room: ServerRoom) -> None:
        """Of several that a node was given and did not show, the last one counts."""
        await room.joined()
        (second, *_) = await room.nodes.renew(A, new_key())
        (third, *_) = await room.nodes.renew(A, new_key())
        assert "not_active" == await denied(room, second)
        await room.nodes.admit(A, third)

    async def test_shown_twice_at_once(self, room: ServerRoom) -> None:
        """Two first uses at once are one change."""
        await room.joined()
        (second, *_) = await room.nodes.renew(A, new_key())
        found = await asyncio.gather(*(room.nodes.admit(A, second) for _ in range(5)))
        assert {room.node()} == set(found)

    async def test_one_that_attests_anew(self, room: ServerRoom) -> None:
        """A node that can attest anew does, and renews by nothing else."""
        await room.joined(reattestable=True)
        with pytest.raises(AgentDenied) as caught:
            await room.nodes.renew(A, new_key())
        assert "must_reattest" == caught.value.reason_code

    async def test_attesting_anew_counts_at_once(self, room: ServerRoom) -> None:
        """What a node was given aside is gone once it attests anew."""
        await room.joined()
        (second, *_) = await room.nodes.renew(A, new_key())
        third = await room.joined()
        assert "not_active" == await denied(room, second)
        await room.nodes.admit(A, third)

    async def test_the_disk_takes_nothing(self, room: ServerRoom) -> None:
        """A node that cannot be written is not given what it would be known by, and stays as it was."""
        leaf = await room.joined()
        (second, *_) = await room.nodes.renew(A, new_key())
        room.store.failure = StoreFailed("no")
        with pytest.raises(StoreFailed):
            await room.nodes.admit(A, second)
        with pytest.raises(StoreFailed):
            await room.nodes.renew(A, new_key())
        room.store.failure = None
        await room.nodes.admit(A, leaf)

    async def test_after_a_restart(self, room: ServerRoom) -> None:
        """A server that is started again knows its nodes, and what they have not shown yet."""
        await room.joined("a", "x509pop:subject:cn:a", called="web-1")
        (second, *_) = await room.nodes.renew(A, new_key())
        again = room.nodes_again()
        assert room.node() == again.get(A)
        await again.admit(A, second)


class TestBanning:
    async def test_from_then_on(self, room: ServerRoom) -> None:
        """A banned node is given nothing by any of its SVIDs, and cannot join again."""
        leaf = await room.joined()
        (second, *_) = await room.nodes.renew(A, new_key())
        await room.nodes.ban(A, BY)
        assert ["banned", "banned"] == [await denied(room, leaf), await denied(room, second)]
        with pytest.raises(Refused, match="failed to attest: agent is banned"):
            await room.joined()
        with pytest.raises(AgentDenied):
            await room.nodes.renew(A, new_key())
        assert [{"spiffe_id": str(A), **BY}] == room.fields("node_banned_by_operator")

    async def test_in_the_middle_of_a_call(self, room: ServerRoom) -> None:
        """A call that goes on for long learns of a ban, and of an eviction."""
        await room.joined()
        node = room.node()
        room.nodes.check_stands(node)
        await room.nodes.ban(A, BY)
        with pytest.raises(AgentDenied):
            room.nodes.check_stands(node)
        await room.nodes.evict(A, BY)
        with pytest.raises(AgentDenied):
            room.nodes.check_stands(node)

    async def test_evicted(self, room: ServerRoom) -> None:
        """An evicted node is not attested, and may join again; that ends a ban as well."""
        leaf = await room.joined()
        await room.nodes.ban(A, BY)
        await room.nodes.evict(A, BY)
        assert "not_attested" == await denied(room, leaf)
        await room.nodes.admit(A, await room.joined())

    async def test_unbanned(self, room: ServerRoom) -> None:
        """A ban that has ended lets a node attest anew, and gives it nothing by the SVIDs of before."""
        leaf = await room.joined(reattestable=True)
        with pytest.raises(FailedPrecondition, match="is not banned"):
            await room.nodes.unban(A, BY)
        await room.nodes.ban(A, BY)
        await room.nodes.unban(A, BY)
        assert "not_active" == await denied(room, leaf)
        await room.nodes.admit(A, await room.joined(reattestable=True))
        assert [{"spiffe_id": str(A), **BY}] == room.fields("node_unbanned_by_operator")

    async def test_unbanned_without_another_token(self, room: ServerRoom) -> None:
        """A node that joined by a token cannot attest anew: that is said, and it stays banned."""
        await room.joined()
        await room.nodes.ban(A, BY)
        with pytest.raises(FailedPrecondition, match="make another token"):
            await room.nodes.unban(A, BY)
        assert room.node().banned

    async def test_who_is_not_there(self, room: ServerRoom) -> None:
        """Nobody is banned or evicted who is no node."""
        for change in (room.nodes.ban, room.nodes.unban, room.nodes.evict):
            with pytest.raises(NotFound, match="agent not found"):
                await change(A, BY)


class TestNames:
    async def test_the_newest_is_meant(self, room: ServerRoom) -> None:
        """Of two nodes that are called the same the one that joined last is, and the other is called nothing."""
        await room.joined("a", called="web-1")
        room.clock.advance(1)
        await room.joined("b", called="web-1")
        assert ("", "web-1") == (room.node("a").name, room.node("b").name)

    async def test_a_server_that_ended_between(self, room: ServerRoom) -> None:
        """A server that has ended before it took the name from the other finds one node of it."""
        await room.joined("a", called="web-1")
        room.clock.advance(1)
        room.store.nodes |= {each.spiffe_id: each for each in [room.node("a")]}
        await room.joined("b", called="web-2")
        newest = room.store.nodes[agent_id("b")]
        room.store.nodes[agent_id("b")] = type(newest)(**{**_fields(newest), "name": "web-1"})
        again = room.nodes_again()
        assert {"a": "", "b": "web-1"} == {
            each.spiffe_id.path.rpartition("/")[2]: each.name for each in sorted(again, key=lambda n: str(n.spiffe_id))
        }

    async def test_it_is_kept(self, room: ServerRoom) -> None:
        """A node that attests anew is called what it was, and its selectors are those of now."""
        await room.joined("a", "x509pop:subject:cn:old", called="web-1")
        await room.joined("a", "x509pop:subject:cn:new")
        assert ("web-1", selectors("x509pop:subject:cn:new")) == (room.node().name, room.node().selectors)


class TestVersions:
    async def test_it_is_noted(self, room: ServerRoom) -> None:
        """A node says of which release it is."""
        await room.joined()
        await room.nodes.note_version(A, "1.2.3")
        assert "1.2.3" == room.node().version

    async def test_too_long(self, room: ServerRoom) -> None:
        """A release of more than 255 characters is refused, as by SPIRE."""
        await room.joined()
        with pytest.raises(InvalidInput, match="max 255"):
            await room.nodes.note_version(A, "x" * 256)


async def test_joining_is_recorded(room: ServerRoom) -> None:
    """The journal has who joined, from where, and by which serial number it is known."""
    leaf = await room.joined()
    again = await room.joined()
    first, second = room.fields("node_joined")
    assert (str(A), "192.0.2.7", f"{leaf.serial_number:x}") == (first["spiffe_id"], first["address"], first["serial"])
    assert (None, True) == (first.get("again"), second["again"])
    assert f"{again.serial_number:x}" == second["serial"]


async def test_two_join_as_one(room: ServerRoom) -> None:
    """Two who attest as the same node at once are one after the other: one of the two SVIDs counts."""
    attested = Attested(A, frozenset(), reattestable=True)
    chains = await asyncio.gather(*(room.nodes.join("x509pop", attested, new_key(), "192.0.2.7") for _ in range(2)))
    assert room.node().serial in {each[0].serial_number for each in chains}
    assert 1 == len(room.nodes)


def _fields(node: object) -> dict[str, object]:
    return {name: getattr(node, name) for name in type(node).__slots__}  # type: ignore[attr-defined]  # it has slots
