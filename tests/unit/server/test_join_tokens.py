"""join_tokens.py: a token is good once, for a while, and nobody finds it in the database."""

from pathlib import Path

import pytest
from fakes.server_room import BY, ServerRoom, agent_id
from sojourn.errors import AlreadyExists, InvalidInput, LimitExceeded, StoreFailed
from sojourn.limits import JOIN_TOKEN_MAX_SECONDS
from sojourn.server import join_tokens
from sojourn.server.join_tokens import JoinTokens

USED = "failed to attest: join token does not exist or has already been used"


@pytest.fixture
def room(tmp_path: Path) -> ServerRoom:
    return ServerRoom(tmp_path)


async def unasked(_: bytes) -> bytes:
    raise AssertionError("a join token is no conversation")


async def test_it_is_good_once(room: ServerRoom) -> None:
    """Whoever shows a token is the node of it; whoever shows it again is told what SPIRE tells."""
    token, _ = await room.tokens.make(60, name="web-1", by=BY)
    attested = await room.tokens.attest(token.encode(), unasked)
    assert (agent_id(token), frozenset(), False, "web-1") == (
        attested.spiffe_id, attested.selectors, attested.reattestable, attested.name,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match=USED):
        await room.tokens.attest(token.encode(), unasked)
    assert {} == room.token_store.tokens


async def test_after_a_restart(room: ServerRoom) -> None:
    """A token that was used is used at a server that is started again, and one that was not is good there."""
    used, _ = await room.tokens.make(60, by=BY)
    waiting, _ = await room.tokens.make(60, by=BY)
    await room.tokens.attest(used.encode(), unasked)
    again = JoinTokens(room.token_store, room.tokens._trust_domain, room.audit, room.clock)
    with pytest.raises(InvalidInput, match=USED):
        await again.attest(used.encode(), unasked)
    assert agent_id(waiting) == (await again.attest(waiting.encode(), unasked)).spiffe_id


async def test_expired(room: ServerRoom) -> None:
    """A token that has ended is used up by whoever shows it."""
    token, ends = await room.tokens.make(60, by=BY)
    room.clock.advance(61)
    assert ends < room.clock.now().timestamp()
    with pytest.raises(InvalidInput, match="join token expired"):
        await room.tokens.attest(token.encode(), unasked)
    with pytest.raises(InvalidInput, match=USED):
        await room.tokens.attest(token.encode(), unasked)


@pytest.mark.parametrize("shown", [b"", b"unknown", b"\xff", b"../server", b"a/b", b"a" * 5_000])
async def test_what_is_none(room: ServerRoom, shown: bytes) -> None:
    """What is no token is told as one that is not there."""
    with pytest.raises(InvalidInput, match=USED):
        await room.tokens.attest(shown, unasked)


async def test_the_disk_takes_nothing(room: ServerRoom) -> None:
    """A token that cannot be written is none, and one that cannot be used up lets nobody in."""
    token, _ = await room.tokens.make(60, by=BY)
    room.token_store.failure = StoreFailed("no")
    with pytest.raises(StoreFailed):
        await room.tokens.make(60, token="another", by=BY)  # it is one
    with pytest.raises(StoreFailed):
        await room.tokens.attest(token.encode(), unasked)
    room.token_store.failure = None
    for each in (token, "another"):
        with pytest.raises(InvalidInput, match=USED):
            await room.tokens.attest(each.encode(), unasked)


async def test_the_database_has_none(room: ServerRoom) -> None:
    """Neither the database nor the journal has a token that is good."""
    token, ends = await room.tokens.make(60, by=BY)
    (kept,) = room.token_store.tokens.values()
    assert token not in repr(kept)
    (said,) = room.fields("join_token_made")
    assert {"digest": kept.digest[:16], "expires_at": ends, **BY} == said


async def test_ended_ones_make_room(room: ServerRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are so many unused tokens and no more, of which those that have ended go."""
    monkeypatch.setattr(join_tokens, "JOIN_TOKENS", 2)
    for _ in range(2):
        await room.tokens.make(60, by=BY)
    with pytest.raises(LimitExceeded):
        await room.tokens.make(60, by=BY)
    room.clock.advance(61)
    await room.tokens.make(60, by=BY)
    assert 1 == len(room.tokens)


@pytest.mark.parametrize("seconds", [-1, 0, JOIN_TOKEN_MAX_SECONDS + 1])
async def test_lives_that_none_has(room: ServerRoom, seconds: int) -> None:
    """A token has a life, of a week at the most."""
    with pytest.raises(InvalidInput, match="ttl"):
        await room.tokens.make(seconds, by=BY)


@pytest.mark.parametrize("token", ["a/b", "ä", "..", "a" * 256])
async def test_tokens_that_no_node_can_have(room: ServerRoom, token: str) -> None:
    """A token that an operator makes up is a part of a SPIFFE ID."""
    with pytest.raises(InvalidInput):
        await room.tokens.make(60, token=token, by=BY)


async def test_the_same_twice(room: ServerRoom) -> None:
    """There are no two tokens that are the same."""
    await room.tokens.make(60, token="mine", by=BY)  # it is one
    with pytest.raises(AlreadyExists):
        await room.tokens.make(60, token="mine", by=BY)  # it is one
