"""upstream/bound_key.py: a node's key and stamps on disk, against a server's side of the same attestor."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fakes.server_room import BY, ServerRoom, agent_id, new_key
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import InvalidInput, Refused, SojournError, StoreFailed
from sojourn.server.bound_keys import BoundKeys
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spireapi import bound_key as messages
from sojourn.upstream.bound_key import BoundKey, BoundKeyFiles
from sojourn.upstream.node_attestation import NodeAttestor, Remembering
from sojourn.upstream.sealed_files import FileUnreadable

DOMAIN = TrustDomain.parse("example.org")
WEB = agent_id("web", "sojourn")


class Place:
    """A machine with its folders, and a server. What reads and writes is for threads, so it is called in one."""

    def __init__(self, folder: Path, room: ServerRoom, seal: KeySeal | None = None) -> None:
        self.folder, self.room, self.seal = folder, room, seal
        self.folder.mkdir(exist_ok=True)
        self.token_file = self.folder / "token"
        self.keys = BoundKeys(room.nodes, room.tokens, DOMAIN)
        self.restarted()

    def restarted(self) -> None:
        self.files = BoundKeyFiles(self.folder / "node-key", DOMAIN, self.token_file, self.seal)

    async def token(self, name: str = "web") -> None:
        token, _ = await self.room.tokens.make(60, name=name, bound=True, by=BY)
        self.token_file.write_text(f"{token}\n")
        self.token_file.chmod(0o600)

    async def made(self) -> BoundKey:
        import asyncio

        return await asyncio.to_thread(self.files)

    async def proved(self, attestor: BoundKey) -> SpiffeId:
        """Have the server know this machine by it."""

        async def challenge(content: bytes) -> bytes:
            return attestor.answer(content)

        found = await self.keys.attest(attestor.payload, challenge)
        await self.room.nodes.join(messages.TYPE, found, new_key(), "192.0.2.7")
        return found.spiffe_id

    async def join(self) -> SpiffeId:
        import asyncio

        attestor = await self.made()
        spiffe_id = await self.proved(attestor)
        await asyncio.to_thread(attestor.taken_as, spiffe_id)
        return spiffe_id

    def copied(self, to: str) -> "Place":
        """Another machine with the same files, at the same server."""
        folder = self.folder.with_name(to)
        shutil.copytree(self.folder, folder)
        other = Place(folder, self.room, self.seal)
        other.keys = self.keys
        return other


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "one", ServerRoom(tmp_path / "server"))


@contextmanager
def refused(said: str) -> Iterator[None]:
    with pytest.raises(SojournError) as error:
        yield
    assert said in error.value.public


def test_it_is_an_attestor(place: Place) -> None:
    """It is one that has to hear what has become of it."""
    made: NodeAttestor = BoundKey.__new__(BoundKey)
    assert isinstance(made, Remembering)


async def test_from_nothing(place: Place) -> None:
    """By a token it is bound, and by its key it joins again and again, with the token still there or not."""
    await place.token()
    assert WEB == await place.join()
    assert "" == (await place.made()).token
    assert [WEB] * 2 == [await place.join() for _ in range(2)]
    place.token_file.unlink()
    place.restarted()
    assert WEB == await place.join()
    node = place.room.nodes.get(WEB)
    assert node is not None
    assert node.bound is not None
    assert 4 == node.bound.joins


async def test_with_nothing(place: Place) -> None:
    """Without a key and a token it is told what is missing, and with another token what that is."""
    with refused("token"):
        await place.made()
    place.files = BoundKeyFiles(place.folder / "node-key", DOMAIN, None, None)
    with refused("token_file"):
        await place.made()
    place.restarted()
    place.token_file.write_text("f3b1e0f6-0000-4000-8000-000000000000\n")
    place.token_file.chmod(0o600)
    with refused("--bound"):
        await place.made()


@pytest.mark.parametrize("sealed", [False, True], ids=["in clear", "sealed"])
async def test_what_lies_on_disk(place: Place, sealed: bool) -> None:
    """Key and stamps lie sealed in files of the owner's alone, before the server hears of them."""
    if sealed:
        place.seal = KeySeal(bytes(range(32)))
        place.restarted()
    await place.token()
    attestor = await place.made()
    folder = place.folder / "node-key"
    assert 0o700 == folder.stat().st_mode & 0o777
    assert {"seal.key", "bound.sealed"} == {each.name for each in folder.iterdir()}
    assert {0o600} == {each.stat().st_mode & 0o777 for each in folder.iterdir()}
    assert attestor.binding.following is not None
    text = b"".join(each.read_bytes() for each in folder.iterdir())
    assert attestor.binding.following not in text
    assert place.token_file.read_text().strip() not in repr(attestor)
    if sealed:
        place.seal = None
        place.restarted()
        with pytest.raises(SojournError):
            await place.made()


async def test_the_answer_is_lost(place: Place) -> None:
    """Whatever answers are lost, of the first join too, the node goes on as itself, by a new process as well."""
    await place.token()
    for _ in range(3):
        assert WEB == await place.proved(await place.made())
        place.restarted()
    assert WEB == await place.join()
    for _ in range(3):
        assert WEB == await place.proved(await place.made())
        place.restarted()
    assert [WEB] * 2 == [await place.join() for _ in range(2)]


async def test_nothing_is_heard(place: Place) -> None:
    """Tries of which the server has heard nothing change nothing."""
    await place.token()
    first = await place.made()
    again = await place.made()
    assert (first.binding.held, first.payload) == (again.binding.held, again.payload)
    assert WEB == await place.join()
    for _ in range(3):
        await place.made()
    assert WEB == await place.join()


async def test_a_copy(place: Place) -> None:
    """A copy of the files joins once at most, and then neither it nor the original is anything."""
    await place.token()
    await place.join()
    copy = place.copied("two")
    assert WEB == await copy.join()
    with refused("locked"):
        await place.join()
    with refused("locked"):
        await copy.join()


async def test_older_files_that_are_put_back(place: Place) -> None:
    """Files of before a join are a copy of the node: it is locked, and a token has it go on with another key."""
    await place.token()
    await place.join()
    before = place.copied("two")
    await place.join()
    with refused("locked"):
        await before.join()
    key = (await before.made()).binding.key.public_key()
    await before.token()
    attestor = await before.made()
    assert ("web", True) == (attestor.name, attestor.binding.key.public_key() != key)
    before.restarted()
    assert [WEB] * 2 == [await before.join() for _ in range(2)]
    with refused("no node is bound"):
        await place.join()


async def test_a_token_of_another_name(place: Place) -> None:
    """A node does not become another one by a token that was mixed up; its own key is tried in turn, and is good."""
    await place.token()
    await place.join()
    await place.token("db")
    with refused('"db"'):
        await place.join()
    assert WEB == await place.join()
    with refused('"db"'):
        await place.join()


async def test_a_token_that_is_good_no_more(place: Place) -> None:
    """A stale token in the file does not keep a node from joining by its key."""
    await place.token()
    await place.join()
    await place.token()
    place.room.clock.advance(61)
    with refused("expired"):
        await place.join()
    assert WEB == await place.join()


async def test_a_token_that_cannot_be_read(place: Place) -> None:
    """A token file that others could have written is not believed, and does not keep a node from its key."""
    await place.token()
    await place.join()
    place.token_file.chmod(0o666)
    assert WEB == await place.join()


async def test_files_that_were_changed(place: Place) -> None:
    """What was changed on disk is not believed, nor replaced by a new key."""
    await place.token()
    await place.join()
    file = place.folder / "node-key" / "bound.sealed"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(FileUnreadable):
        await place.made()


async def test_of_another_trust_domain(place: Place) -> None:
    """Files of another trust domain's node are nothing here."""
    await place.token()
    await place.join()
    place.files = BoundKeyFiles(place.folder / "node-key", TrustDomain.parse("example.net"), place.token_file, None)
    with pytest.raises(FileUnreadable):
        await place.made()


async def test_a_disk_that_takes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said to the server that is not on disk; what it has said and cannot be written is mended later."""
    import asyncio

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    await place.token()
    await place.join()
    attestor = await place.made()
    with monkeypatch.context() as patched:
        patched.setattr("sojourn.files.atomic.write", full)
        with pytest.raises(StoreFailed):
            await place.made()
        await place.proved(attestor)
        await asyncio.to_thread(attestor.taken_as, WEB)
    assert [WEB] * 2 == [await place.join() for _ in range(2)]


@pytest.mark.parametrize("challenge", [b"", b"no", b"{}", b'{"nonce":"AAAA"}', b'{"nonce":1}'])
async def test_challenges_that_are_none(place: Place, challenge: bytes) -> None:
    """It signs nothing but an answer to a challenge of the right form."""
    await place.token()
    attestor = await place.made()
    with pytest.raises(InvalidInput):
        attestor.answer(challenge)


async def test_another_servers_challenge(place: Place, tmp_path: Path) -> None:
    """What a node has signed for one nonce is no answer to another."""
    await place.token()
    attestor = await place.made()
    signed = attestor.answer(messages.challenge(bytes(32)))

    async def replayed(_: bytes) -> bytes:
        return signed

    with pytest.raises(Refused, match="signature"):
        await place.keys.attest(attestor.payload, replayed)
