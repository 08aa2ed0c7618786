"""jwt_svid_cache.py with a signer that keeps callers waiting, fails, or never answers."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.registrations import entry
from fakes.signers import LateSigner
from harness.looking import idle
from sojourn.errors import LimitExceeded, Unavailable
from sojourn.identity import signatures as signatures_module
from sojourn.identity.jwt_svid_cache import JwtSvids
from sojourn.identity.signatures import Overtaken
from sojourn.identity.svid_signers import JwtSignerAtOnce
from sojourn.limits import JWT_SIGNATURES_PER_ENTRY, SIGNATURE_RETRY_SECONDS
from structlog.testing import capture_logs

TTL = timedelta(minutes=5)
WEB, DB = entry("/web"), entry("/db")


@pytest.fixture
async def signer(tmp_path, clock):
    return LateSigner(JwtSignerAtOnce(authority_in(tmp_path / "keys", clock), TTL))


@pytest.fixture
def svids(signer, clock):
    return JwtSvids(signer, clock, each_anew=["once"])


async def again():
    """The caller may have it still."""


def ask(svids, *entries, audience="a", still=again):
    return asyncio.ensure_future(svids.get(entries or [WEB], [audience], still))


async def first(svids, signer):
    signer.let_go()
    (svid,) = await svids.get([WEB], ["a"], again)
    signer.hold()
    return svid


async def test_once_for_all_who_ask(svids, signer):
    """All who wait for the same audience get the same, and it is there then; another audience gets another."""
    asking = [ask(svids) for _ in range(5)]
    other = ask(svids, audience="b")
    await idle()
    signer.let_go()
    found = {svid.token for [svid] in await asyncio.gather(*asking)}
    assert {svids.look(WEB, ["a"]).token} == found
    assert ({svid.token for svid in await other} == found, 2) == (False, len(signer.asked))


async def test_each_anew(svids, signer):
    """For an audience that takes each once, all who wait get their own, and none is kept."""
    asking = [ask(svids, audience="once") for _ in range(5)]
    await idle()
    signer.let_go()
    assert 5 == len({svid.token for [svid] in await asyncio.gather(*asking)})
    assert 0 == len(svids)


async def test_several_entries(svids, signer):
    """Those of several entries come in their order, when the last is signed; one that is there is not signed again."""
    await first(svids, signer)
    asking = ask(svids, DB, WEB)
    await idle()
    assert not asking.done()
    signer.let_go()
    assert [DB.spiffe_id, WEB.spiffe_id] == [svid.spiffe_id for svid in await asking]
    assert [WEB.id, DB.id] == [each.id for each in signer.asked]


async def test_renewed_behind_it(svids, signer, clock):
    """Past half of its life one is served at once, and renewed behind that, once."""
    old = await first(svids, signer)
    clock.advance(TTL.total_seconds() * 0.6)
    assert all(old is svids.look(WEB, ["a"]) for _ in range(5))
    assert [[old]] == [await svids.get([WEB], ["a"], again)]
    await idle()
    signer.let_go()
    await idle()
    assert (True, 2) == (svids.look(WEB, ["a"]).issued_at > old.issued_at, len(signer.asked))


async def test_renewing_that_fails(svids, signer, clock):
    """If renewing fails, the one at hand is served to its end; it is not tried with each call, and works again soon."""
    old = await first(svids, signer)
    signer.let_go()
    signer.failing = Unavailable("away")
    clock.advance(TTL.total_seconds() * 0.6)
    for _ in range(20):
        assert old is svids.look(WEB, ["a"])
        await idle()
    assert 2 == len(signer.asked)
    clock.advance(31)
    assert old is svids.look(WEB, ["a"])
    await idle()
    assert 3 == len(signer.asked)
    signer.failing = None
    clock.advance(31)
    assert old is svids.look(WEB, ["a"])
    await idle()
    assert old is not svids.look(WEB, ["a"])


async def test_its_end(svids, signer, clock):
    """One that has ended is not served; who asks waits, or is told why there is none."""
    await first(svids, signer)
    clock.advance(TTL.total_seconds())
    assert svids.look(WEB, ["a"]) is None
    signer.let_go()
    signer.failing = Unavailable("away")
    with pytest.raises(Unavailable, match="away"):
        await svids.get([WEB], ["a"], again)


async def test_never_answered(svids, monkeypatch):
    """Who waits for a signer that never answers is told so in time."""
    monkeypatch.setattr(signatures_module, "SIGNATURE_WAIT_SECONDS", 0.02)
    with pytest.raises(Unavailable, match="not signed within"):
        await svids.get([WEB], ["a"], again)


@pytest.mark.parametrize("audience", ["a", "once"])
@pytest.mark.parametrize(
    "how",
    [
        lambda svids: svids.forget_entry(WEB.id),
        lambda svids: svids.forget_some(lambda key: key == WEB.key),
        lambda svids: svids.forget(),
    ],
    ids=["the entry", "the identity", "all: a key was tainted, or the clock set"],
)
@pytest.mark.parametrize("when", ["before", "after"])
async def test_what_changes_meanwhile(svids, signer, how, audience, when):
    """What was asked for before its entry went, or it was revoked, is given to nobody: neither while it is signed nor
    while its caller is looked at again.
    """

    async def looked_at():
        how(svids)

    asking = ask(svids, audience=audience, still=looked_at if when == "after" else again)
    await idle()
    if when == "before":
        how(svids)
    signer.let_go()
    with pytest.raises(Overtaken):
        await asking
    assert 0 == len(svids)


async def test_the_caller_may_not_have_it_any_more(svids, signer):
    """What the second look raises, the caller is told."""

    async def not_any_more():
        raise Overtaken

    signer.let_go()
    with pytest.raises(Overtaken):
        await svids.get([WEB], ["a"], not_any_more)


async def test_its_key_is_tainted(svids, signer):
    """What a key has signed that is tainted by then is signed again; if that is so too, nobody gets it."""
    signer.let_go()
    signer.trusted = False
    with pytest.raises(Unavailable, match="key"):
        await svids.get([WEB], ["a"], again)
    assert (0, 2) == (len(svids), len(signer.asked))


async def test_ever_other_audiences(svids, signer):
    """Who asks for ever other audiences is refused at a limit, and keeps nobody else waiting."""
    asking = [ask(svids, audience=f"a{number}") for number in range(JWT_SIGNATURES_PER_ENTRY)]
    await idle()
    with pytest.raises(LimitExceeded):
        await svids.get([WEB], ["one more"], again)
    other = ask(svids, DB)
    await idle()
    assert DB in signer.asked
    signer.let_go()
    await asyncio.gather(other, *asking)


async def test_an_outage_is_told_once(svids, signer, clock):
    """That one is not renewed since a server is away is one warning, without a traceback, however often it is tried."""
    await first(svids, signer)
    signer.failing = Unavailable("the server is away")
    signer.let_go()
    with capture_logs() as lines:
        for _ in range(6):
            clock.advance(TTL.total_seconds() * 0.15)
            svids.look(WEB, ["a"])
            await idle()
    assert 1 < len(signer.asked) - 1
    (line,) = (each for each in lines if each["event"] == "jwt_svid_not_renewed")
    assert ("warning", "unavailable", "the server is away") == (line["log_level"], line["code"], line["reason"])
    assert "exc_info" not in line


async def test_asked_again_at_once(svids, signer, clock):
    """What could not be signed is not asked of the signer again for a second, whoever asks; another audience is."""
    signer.failing = Unavailable("the server fails")
    signer.let_go()
    for _ in range(5):
        with pytest.raises(Unavailable, match="the server fails"):
            await ask(svids)
    assert 1 == len(signer.asked)
    with pytest.raises(Unavailable):
        await ask(svids, audience="b")
    assert 2 == len(signer.asked)
    signer.failing = None
    clock.advance(SIGNATURE_RETRY_SECONDS + 0.1)
    assert [WEB.spiffe_id] == [each.spiffe_id for each in await ask(svids)]


async def test_a_failure_of_before_a_change(svids, signer):
    """An entry that has changed is asked for at once, and so is all after a change of the keys."""
    signer.failing = Unavailable("the server fails")
    signer.let_go()
    for asked in (WEB, replace(WEB, priority=7)):
        with pytest.raises(Unavailable):
            await ask(svids, asked)
    svids.forget()
    with pytest.raises(Unavailable):
        await ask(svids, replace(WEB, priority=7))
    assert 3 == len(signer.asked)
