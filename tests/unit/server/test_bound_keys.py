"""bound_keys.py: a token binds a name to a key once, the key proves it from then on, and copies lock the node."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.server_room import BY, ServerRoom, agent_id, new_key
from sojourn.errors import (
    AgentDenied,
    FailedPrecondition,
    InvalidInput,
    Refused,
    SojournError,
    StoreFailed,
    Unavailable,
)
from sojourn.server.bound_keys import BoundKeys, check_free
from sojourn.server.join_tokens import JoinTokens
from sojourn.server.node_attestor import Attested
from sojourn.spiffe.ids import TrustDomain
from sojourn.spireapi import bound_key as messages
from sojourn.spireapi.bound_key import Answer, Asked, digest_of

DOMAIN = TrustDomain.parse("example.org")
WEB, DB = agent_id("web", "sojourn"), agent_id("db", "sojourn")
USED = "join token does not exist or has already been used"


class Machine:
    """Files of one node: copy them with `copied`. `signs` is the key that it signs by, which may be another one."""

    def __init__(self, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        self.signs = self.key
        self.held: tuple[bytes, ...] = ()
        self.following = os.urandom(32)
        self.domain = DOMAIN.name

    def copied(self) -> "Machine":
        other = Machine(self.key)
        other.held = self.held
        return other

    def asked(self, token: str = "", name: str = "") -> Asked:
        return Asked(self.key.public_key(), token, name)

    def answer(self, challenge: bytes, asked: Asked) -> bytes:
        ours, following = os.urandom(32), bytes.fromhex(digest_of(self.following))
        said = messages.proof(self.domain, messages.nonce_of(challenge), ours, asked, following)
        return Answer(ours, self.signs.sign(said, ec.ECDSA(hashes.SHA256())), self.held, following).text()

    async def attested(self, room: "Room", token: str = "", name: str = "") -> Attested:
        asked = self.asked(token, name)

        async def challenge(content: bytes) -> bytes:
            return self.answer(content, asked)

        return await room.keys.attest(asked.text(), challenge)

    def settled(self) -> None:
        """Have heard that the server knows it by the new stamp."""
        self.held, self.following = (self.following,), os.urandom(32)

    async def join(self, room: "Room", token: str = "", name: str = "") -> int:
        """Join, and return the serial number of the SVID that it is given."""
        found = await self.attested(room, token, name)
        chain = await room.nodes.join(messages.TYPE, found, new_key(), "192.0.2.7")
        self.settled()
        return chain[0].serial_number


class Room(ServerRoom):
    """With keys that are bound."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keys = BoundKeys(self.nodes, self.tokens, DOMAIN)

    def restarted(self, restored_at: int = 0) -> None:
        self.nodes = self.nodes_again()
        self.tokens = JoinTokens(self.token_store, DOMAIN, self.audit, self.clock)
        self.keys = BoundKeys(self.nodes, self.tokens, DOMAIN, restored_at)

    async def token(self, name: str = "web") -> str:
        return (await self.tokens.make(60, name=name, bound=True, by=BY))[0]

    async def bound(self, name: str = "web") -> Machine:
        machine = Machine()
        await machine.join(self, await self.token(name))
        return machine


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


async def refused(machine: Machine, room: Room, token: str = "", name: str = "") -> str:
    with pytest.raises(SojournError) as error:
        await machine.join(room, token, name)
    return error.value.public


class TestAToken:
    async def test_it_binds_a_name(self, room: Room) -> None:
        """Who shows it is the node of its name, by its key from then on; the database has neither key nor stamp."""
        machine = Machine()
        token = await room.token()
        found = await machine.attested(room, token)
        assert (WEB, True, "web") == (found.spiffe_id, found.reattestable, found.name)
        assert {"bound_key:node:web"} == {str(each) for each in found.selectors}
        assert found.bound is not None
        assert (digest_of(machine.key.public_key().public_bytes(*_DER)), 1) == (found.bound.key, found.bound.joins)
        assert digest_of(digest_of(b"").encode()) != found.bound.stamp
        assert machine.following.hex() not in repr(found)
        assert token not in repr(room.fields("join_token_made"))

    async def test_once(self, room: Room) -> None:
        """Another key has nothing by a token that was used, also at the same moment and after a restart."""
        token = await room.token()
        machines = [Machine() for _ in range(4)]
        done = await asyncio.gather(*(each.join(room, token) for each in machines), return_exceptions=True)
        assert 1 == sum(isinstance(each, int) for each in done)
        assert all(USED in each.public for each in done if isinstance(each, SojournError))
        room.restarted()
        assert USED in await refused(Machine(), room, token)

    async def test_for_its_attestor_alone(self, room: Room) -> None:
        """It makes nobody a node without a key, and a token without a key binds none."""

        async def unasked(_: bytes) -> bytes:
            raise AssertionError("a join token is no conversation")

        token, plain = await room.token(), (await room.tokens.make(60, name="db", by=BY))[0]
        with pytest.raises(InvalidInput, match=USED):
            await room.tokens.attest(token.encode(), unasked)
        assert USED in await refused(Machine(), room, plain)
        assert await Machine().join(room, token)
        assert await room.tokens.attest(plain.encode(), unasked)

    async def test_made_up(self, room: Room) -> None:
        """Nobody makes up one that looks like it, nor one for no name."""
        for more in ({"token": "bound.me"}, {"bound": True}, {"bound": True, "name": "a", "token": "me"}):
            with pytest.raises(InvalidInput):
                await room.tokens.make(60, by=BY, **more)  # type: ignore[arg-type]  # as the rows have it

    async def test_expired(self, room: Room) -> None:
        """One that has ended binds nothing."""
        token = await room.token()
        room.clock.advance(61)
        assert "join token expired" == await refused(Machine(), room, token)
        assert not len(room.nodes)

    async def test_of_another_name(self, room: Room) -> None:
        """A node that has a name gets no other by a token that was not meant for it, which stays good."""
        await room.bound()
        token = await room.token("db")
        assert '"db"' in await refused(Machine(), room, token, name="web")
        assert await Machine().join(room, token, name="db")

    async def test_for_a_key_that_is_bound(self, room: Room) -> None:
        """A token binds a new key: neither another node's, nor the one of before, which others may have."""
        machine = await room.bound()
        for name in ("db", "web"):
            token = await room.token(name)
            assert "bound already" in await refused(machine, room, token)
            assert await Machine().join(room, token)

    async def test_of_a_banned_node(self, room: Room) -> None:
        """A token ends no ban, and is not used up by trying."""
        await room.bound()
        await room.nodes.ban(WEB, BY)
        token = await room.token()
        assert "agent is banned" in await refused(Machine(), room, token)
        await room.nodes.unban(WEB, BY)
        assert await Machine().join(room, token)

    async def test_its_answer_is_lost(self, room: Room) -> None:
        """Who was bound and has not heard of it says the same again, and is the node."""
        machine, token = Machine(), await room.token()
        found = await machine.attested(room, token)
        await room.nodes.join(messages.TYPE, found, new_key(), "192.0.2.7")
        machine.held = (machine.following,)
        assert await machine.join(room, token)
        assert WEB in {each.spiffe_id for each in room.nodes}

    async def test_plain_ones_of_a_bound_name(self, room: Room) -> None:
        """What is a bound node's own is given to no other by a token without a key, whenever that was made."""
        early = (await room.tokens.make(60, name="web", by=BY))[0]
        await room.bound()
        with pytest.raises(FailedPrecondition, match="bound to a key"):
            check_free(room.nodes, DOMAIN, "web")
        check_free(room.nodes, DOMAIN, "db")
        with pytest.raises(Refused, match="bound to a key"):
            await room.joined(early, called="web")

    async def test_of_a_node_that_has_no_key(self, room: Room) -> None:
        """A node that has such an ID by other means joins on by those, until a token binds a key."""
        attested = Attested(WEB, frozenset(), reattestable=False, name="web")
        for _ in range(2):
            await room.nodes.join("join_token", attested, new_key(), "192.0.2.7")
        check_free(room.nodes, DOMAIN, "web")
        assert await Machine().join(room, await room.token())
        with pytest.raises(Refused, match="bound to a key"):
            await room.nodes.join("join_token", attested, new_key(), "192.0.2.7")


_DER = (messages.Encoding.DER, messages.PublicFormat.SubjectPublicKeyInfo)


class TestAKey:
    async def test_it_joins_again(self, room: Room) -> None:
        """It is the same node as often as it joins, without a token, over restarts; its older SVIDs are good no more."""
        machine = await room.bound()
        serials = []
        for _ in range(3):
            serials.append(await machine.join(room))
            room.restarted()
        node = room.nodes.get(WEB)
        assert node is not None
        assert node.bound is not None
        assert (serials[-1], 4, True) == (node.serial, node.bound.joins, len(set(serials)) == 3)
        assert [None, True, True, True] == [each.get("again") for each in room.fields("node_joined")]

    async def test_nobodys(self, room: Room) -> None:
        """A key that no token has bound is no node's, whatever is said with it."""
        await room.bound()
        assert "no node is bound to this key" in await refused(Machine(), room, name="web")

    async def test_anothers(self, room: Room) -> None:
        """Who shows a node's key and cannot sign by it is refused, and locks nobody."""
        machine = await room.bound()
        thief = machine.copied()
        thief.signs = Machine().key
        assert "signature" in await refused(thief, room)
        assert "signature" in await refused(thief, room, await room.token())
        assert await machine.join(room)

    async def test_replayed(self, room: Room) -> None:
        """An answer that somebody has heard is good for its own nonce, and not in another trust domain."""
        machine = await room.bound()
        asked, heard = machine.asked(), []

        async def challenge(content: bytes) -> bytes:
            heard.append(machine.answer(content, asked))
            return heard[-1]

        await room.keys.attest(asked.text(), challenge)

        async def replay(_: bytes) -> bytes:
            return heard[0]

        with pytest.raises(Refused, match="signature"):
            await room.keys.attest(asked.text(), replay)
        machine.domain = "example.net"
        assert "signature" in await refused(machine, room)
        machine.domain = DOMAIN.name
        assert await machine.join(room)

    async def test_what_is_signed_is_all_that_is_said(self, room: Room) -> None:
        """Neither the token nor the next stamp can be another than what the key has signed."""
        machine, token = Machine(), await room.token()
        asked = machine.asked()

        async def challenge(content: bytes) -> bytes:
            return machine.answer(content, asked)

        with pytest.raises(Refused, match="signature"):
            await room.keys.attest(machine.asked(token).text(), challenge)
        asked = machine.asked(token)

        async def changed(content: bytes) -> bytes:
            return replace(Answer.parse(machine.answer(content, asked)), following=bytes(32)).text()

        with pytest.raises(Refused, match="signature"):
            await room.keys.attest(asked.text(), changed)
        assert await machine.join(room, token)

    async def test_banned_and_evicted(self, room: Room) -> None:
        """A ban counts for the key, until it is lifted; an evicted node's key is nobody's."""
        machine = await room.bound()
        await room.nodes.ban(WEB, BY)
        assert "agent is banned" in await refused(machine, room)
        await room.nodes.unban(WEB, BY)
        assert await machine.join(room)
        await room.nodes.evict(WEB, BY)
        assert "no node is bound to this key" in await refused(machine, room)


class TestACopy:
    async def test_the_original_joins_after_it(self, room: Room) -> None:
        """A copy that has joined is found when the other one does: nothing is given to either, by SVID or by key."""
        machine = await room.bound()
        copy = machine.copied()
        await copy.join(room)
        node = room.nodes.get(WEB)
        assert node is not None
        assert "locked" in await refused(machine, room)
        assert "locked" in await refused(copy, room)
        assert "locked" in await refused(machine, room)
        locked = room.nodes.get(WEB)
        assert locked is not None
        assert (True, 0, 0) == (locked.locked, locked.serial, locked.new_serial)
        assert [2] == [each["joins"] for each in room.fields("node_locked")]
        room.restarted()
        assert "locked" in await refused(copy, room)

    async def test_it_joins_after_the_original(self, room: Room) -> None:
        """A copy of a folder of before, or a backup of it that was put back, is found at once."""
        machine = await room.bound()
        copy = machine.copied()
        leaf = await machine.join(room)
        assert "locked" in await refused(copy, room)
        node = room.nodes.get(WEB)
        assert node is not None
        assert leaf != node.serial

    async def test_its_svid_is_good_no_more(self, room: Room) -> None:
        """What was given before the lock opens nothing after it."""
        machine = await room.bound()
        copy = machine.copied()
        found = await copy.attested(room)
        (leaf, *_) = await room.nodes.join(messages.TYPE, found, new_key(), "192.0.2.7")
        assert await room.nodes.admit(WEB, leaf)
        assert "locked" in await refused(machine, room)
        with pytest.raises(AgentDenied):
            await room.nodes.admit(WEB, leaf)

    async def test_a_token_unlocks(self, room: Room) -> None:
        """A token binds another key, and the node is good again; who has the key of before is nobody."""
        machine = await room.bound()
        copy = machine.copied()
        await copy.join(room)
        assert "locked" in await refused(machine, room)
        fresh = Machine()
        await fresh.join(room, await room.token(), name="web")
        assert await fresh.join(room)
        for each in (machine, copy):
            assert "no node is bound to this key" in await refused(each, room)
        node = room.nodes.get(WEB)
        assert node is not None
        assert not node.locked

    async def test_a_lock_that_cannot_be_written(self, room: Room) -> None:
        """Where the lock cannot be written, the copy is refused all the same, and locked the next time."""
        machine = await room.bound()
        copy = machine.copied()
        await machine.join(room)
        room.store.failure = StoreFailed("disk")
        with pytest.raises(StoreFailed):
            await copy.join(room)
        room.store.failure = None
        assert "locked" in await refused(copy, room)

    async def test_two_at_the_same_moment(self, room: Room) -> None:
        """Of two that join by the same stamp at once one is told to try again, and is found then."""
        machine = await room.bound()
        copy = machine.copied()
        found = [await each.attested(room) for each in (machine, copy)]
        await room.nodes.join(messages.TYPE, found[0], new_key(), "192.0.2.7")
        with pytest.raises(Unavailable):
            await room.nodes.join(messages.TYPE, found[1], new_key(), "192.0.2.7")
        assert "locked" in await refused(copy, room)


class TestWhatIsBrokenOff:
    async def test_the_answer_is_lost(self, room: Room) -> None:
        """A node that has not heard of its new stamp shows both, and goes on."""
        machine = await room.bound()
        for _ in range(3):  # each time the server has another one than the node was told
            found = await machine.attested(room)
            await room.nodes.join(messages.TYPE, found, new_key(), "192.0.2.7")
            machine.held = (machine.held[0], machine.following)
        assert await machine.join(room)
        assert await machine.join(room)

    async def test_a_restored_server(self, room: Room) -> None:
        """A server of a backup takes each node by its key once more, whatever its stamp, and then looks again."""
        machine = await room.bound()
        kept = dict(room.store.nodes)
        copy = machine.copied()
        room.clock.advance(5)
        await machine.join(room)
        room.store.nodes = kept
        room.clock.advance(5)
        room.restarted(int(room.clock.now().timestamp()))
        room.clock.advance(5)
        assert await machine.join(room)
        assert "locked" in await refused(copy, room)


class TestWhatIsNoneOfIt:
    @pytest.mark.parametrize(
        "payload",
        [
            *(b"", b"no", b"[]", b"{}", b'{"key":1}', b'{"key":"!"}', b'{"key":"AAAA"}', b"[" * 4_000, b" " * 5_000),
            Asked(ec.generate_private_key(ec.SECP384R1()).public_key()).text(),
            Asked(ec.generate_private_key(ec.SECP256R1()).public_key()).text().replace(b'"token":""', b'"token":1'),
        ],
    )  # fmt: skip
    async def test_payloads(self, room: Room, payload: bytes) -> None:
        """What cannot be read, and keys of other kinds, are refused before anything is asked."""

        async def unasked(_: bytes) -> bytes:
            raise AssertionError("nothing is asked")

        with pytest.raises(InvalidInput):
            await room.keys.attest(payload, unasked)

    @pytest.mark.parametrize(
        "answer",
        [
            *(b"", b"no", b"[]", b"{}", b'{"nonce":"","signature":"","held":[],"following":""}'),
            Answer(bytes(32), b"", [b"", b"", b""], bytes(32)).text(),
            Answer(bytes(31), b"", [], bytes(32)).text(),
            Answer(bytes(32), b"", [], bytes(33)).text(),
            Answer(bytes(32), b"", [], bytes(32)).text().replace(b"[]", b"[1]"),
        ],
    )
    async def test_answers(self, room: Room, answer: bytes) -> None:
        """The same of answers; a token is not used up by one."""
        token = await room.token()

        async def answered(_: bytes) -> bytes:
            return answer

        with pytest.raises(InvalidInput):
            await room.keys.attest(Machine().asked(token).text(), answered)
        assert await Machine().join(room, token)
