"""poll.py: events are fetched from a transmitter, none is lost, and a hostile one takes nothing but a few turns."""

import asyncio

import pytest
from fakes.polling import REVOKED, URL
from fakes.signed_events import iss_sub, issuer_key, risk, signed
from harness.authserver import bomb, drop, huge, redirect, refuse, slow, status
from harness.transmitter import Transmitter
from sojourn.errors import LimitExceeded, StoreFailed
from sojourn.limits import (
    SIGNAL_JTI_TOLD_MAX,
    SIGNAL_POLL_PAUSE_SECONDS,
    SIGNAL_POLL_TRIES,
    SIGNAL_POLLS_IN_A_ROW,
    SIGNALS_PER_POLL,
)
from sojourn.providers import published_keys
from sojourn.ssf import poll

OTHER = "https://other.example.net"


class TestFetching:
    async def test_taken_and_acknowledged(self, polling):
        """What is fetched is taken as what is handed in, and acknowledged at once, with a token of the node's."""
        async with polling.running(client_id="sojourn"):
            jtis = [polling.say(), polling.say("bob")]
            await polling.poller.turn()
            assert [("end", "alice"), ("end", "bob")] == polling.done
            assert (jtis, {}, {}) == (
                polling.transmitter.acked,
                polling.transmitter.refused,
                polling.transmitter.outbox,
            )
            [token] = polling.transmitter.calls("token")
            assert ("client_credentials", "ssf.read", "sojourn") == tuple(
                token.form[name] for name in ("grant_type", "scope", "client_id")
            )
            assert polling.transmitter.issuer == token.form["resource"]
            assert token.form["client_assertion_type"].endswith(":jwt-spiffe")
            assert [(polling.transmitter.issuer, "ES256")] == polling.minted
            assert ["accepted"] * 2 == polling.counted
            assert (2, 0, "") == (polling.state.polls, polling.state.failures, polling.state.fault)
            assert polling.state.last_at is not None

    @pytest.mark.parametrize("resource", ["", "https://api.example.org/ssf"])
    async def test_another_resource(self, polling, resource):
        """The token is asked for as one for the transmitter alone, unless the configuration says otherwise."""
        async with polling.running(resource=resource):
            await polling.poller.turn()
            [token] = polling.transmitter.calls("token")
            assert resource == token.form.get("resource", "")

    async def test_nothing_there(self, polling):
        """Where there is nothing it is asked once a turn, does not wait there, and the token is kept."""
        async with polling.running():
            for _ in range(3):
                await polling.poller.turn()
            assert [{"maxEvents": SIGNALS_PER_POLL, "returnImmediately": True}] * 3 == polling.transmitter.polls
            assert 1 == len(polling.transmitter.calls("token"))

    async def test_more_than_one_answer(self, polling):
        """Where there is more it is fetched in the same turn."""
        polling.transmitter.most = 2
        async with polling.running():
            jtis = [polling.say(f"p{number}") for number in range(7)]
            await polling.poller.turn()
            assert (7, jtis) == (len(polling.done), polling.transmitter.acked)

    async def test_refused(self, polling, monkeypatch):
        """What is not good is told to the transmitter with its code, once, and keeps nothing else away."""
        monkeypatch.setattr(published_keys, "PUBLISHED_KEYS_ANEW_SECONDS", 0)
        async with polling.running():
            key, now = issuer_key("s1"), polling.clock.now().timestamp()
            issuer = polling.transmitter.issuer
            bad = {
                "audience": ("invalid_audience", polling.transmitter.event("audience", aud="https://another")),
                "forged": ("authentication_failed", signed(key, now, iss=issuer, jti="forged")),
                "kid": ("invalid_key", signed(issuer_key("s2"), now, iss=issuer, jti="kid")),
                "issuer": ("invalid_issuer", signed(key, now, iss=OTHER, jti="issuer")),
                "old": ("invalid_request", polling.transmitter.event("old", iat=int(now) - 3_700)),
                "another jti": ("invalid_request", polling.transmitter.event("of another")),
                "no token": ("invalid_request", "x"),
                "too long": ("invalid_request", "x" * 20_000),
                "no text": ("invalid_request", 5),
                "nothing": ("invalid_request", None),
                "": ("invalid_request", "x"),
                "x" * 257: ("invalid_request", polling.transmitter.event("x" * 257)),
                "\ud800": ("invalid_request", "x"),
            }
            polling.transmitter.outbox |= {jti: text for jti, (_, text) in bad.items()}
            good = polling.say()
            await polling.poller.turn()
            assert {jti: code for jti, (code, _) in bad.items()} == {
                jti: each["err"] for jti, each in polling.transmitter.refused.items()
            }
            assert all(each["description"] for each in polling.transmitter.refused.values())
            assert [good] == polling.transmitter.acked
            assert [("end", "alice")] == polling.done
            polls = len(polling.transmitter.polls)
            await polling.poller.turn()
            assert polls + 1 == len(polling.transmitter.polls)

    async def test_odd_ones(self, polling):
        """One odd event, whatever it is, is judged alone: the others of its answer are taken, and those to come."""
        async with polling.running():
            odd = {"x" * 257: "x", "": "x", "no text": 5, "a list": ["x"], "x" * (SIGNAL_JTI_TOLD_MAX + 1): "x"}
            polling.transmitter.outbox |= odd
            jtis = [polling.say(), polling.say("bob")]
            for _ in range(3):
                await polling.poller.turn()
            assert (jtis, "") == (polling.transmitter.acked, polling.state.fault)
            assert list(odd)[:4] == list(polling.transmitter.refused)
            assert [("end", "alice"), ("end", "bob")] == polling.done

    async def test_an_hour_old(self, polling):
        """An event that has waited is taken for an hour, unless `max_age` says otherwise."""
        async with polling.running():
            polling.say(iat=int(polling.clock.now().timestamp()) - 3_500)
            await polling.poller.turn()
            assert 1 == len(polling.done)


class TestNoneIsLost:
    @pytest.mark.parametrize("failure", [StoreFailed("no room"), LimitExceeded("full")])
    async def test_what_cannot_be_taken_now(self, polling, failure):
        """An event that cannot be taken now is neither acknowledged nor refused, and comes again."""
        async with polling.running():
            jti = polling.say()
            polling.people.failure = failure
            await polling.poller.turn()
            await polling.poller.turn()
            assert ([], {}, [jti]) == (
                polling.transmitter.acked,
                polling.transmitter.refused,
                list(polling.transmitter.outbox),
            )
            polling.people.failure = None
            await polling.poller.turn()
            assert [jti] == polling.transmitter.acked

    async def test_an_acknowledgement_that_does_not_arrive(self, polling):
        """What was taken, and whose acknowledgement was lost, is acknowledged later, and has no second effect."""
        async with polling.running():
            jti = polling.say()
            polling.transmitter.script("poll", lambda _: True, status(503), status(503))
            await polling.poller.turn()
            await polling.poller.turn()
            assert [] == polling.transmitter.acked
            await polling.poller.turn()
            assert [jti] == polling.transmitter.acked
            assert [("end", "alice")] == polling.done

    async def test_over_a_restart(self, polling):
        """An event that was taken and not acknowledged when the agent ended is acknowledged by the next."""
        polling.transmitter.script("poll", lambda _: True, status(503))
        async with polling.running():
            jti = polling.say()
            await polling.poller.turn()
        async with polling.running():
            for _ in range(2):
                await polling.poller.turn()
            assert ([jti], [("end", "alice")]) == (polling.transmitter.acked, polling.done)
            assert ["accepted", "repeated"] == polling.counted

    async def test_what_fails_in_a_way_that_nobody_foresaw(self, polling):
        """One event whose taking fails inside is told in the log, and keeps the others from nothing."""
        async with polling.running():
            polling.people.failure = RuntimeError("x")
            first = polling.say()
            await polling.poller.turn()
            polling.people.failure = None
            second = polling.say("bob")
            await polling.poller.turn()
            assert [first, second] == polling.transmitter.acked

    async def test_those_that_find_no_room(self, polling, monkeypatch):
        """Events that find no room for long are given up, and told, only where they keep others away."""
        monkeypatch.setattr(poll, "SIGNALS_PER_POLL", 4)
        async with polling.running():
            polling.poller._most = 4
            polling.people.failure = LimitExceeded("full")
            stuck = [polling.say(f"p{number}") for number in range(4)]
            for _ in range(SIGNAL_POLL_TRIES - 1):
                await polling.poller.turn()
            assert {} == polling.transmitter.refused
            await polling.poller.turn()
            polling.people.failure = None
            last = polling.say("last")
            await polling.poller.turn()
            assert ["access_denied"] * 4 == [polling.transmitter.refused[each]["err"] for each in stuck]
            await polling.poller.turn()
            assert last in polling.transmitter.acked

    async def test_a_few_without_room(self, polling):
        """A few events that find no room wait for it however long."""
        async with polling.running():
            polling.people.failure = LimitExceeded("full")
            jti = polling.say()
            for _ in range(SIGNAL_POLL_TRIES + 2):
                await polling.poller.turn()
            assert ([jti], {}) == (list(polling.transmitter.outbox), polling.transmitter.refused)


class TestFaults:
    @pytest.mark.parametrize(
        "deed",
        [
            status(503),
            status(200, b"{"),
            status(200, b"[]"),
            status(200, {"sets": []}),
            status(200, b'{"sets": {}, "sets": {}}'),
            status(200, b'{"sets": {"a": "x", "a": "y"}}'),
            status(200, {"sets": {}, "moreAvailable": "yes"}),
            status(202),
            redirect("https://elsewhere.example.net/"),
            drop,
            huge(),
            bomb(),
            slow(5),
        ],
    )
    async def test_an_answer_that_is_none(self, polling, deed):
        """An answer that is none, too large, too slow or elsewhere is a fault of this poll, and the next goes on."""
        async with polling.running(timeout="1s"):
            jti = polling.say()
            polling.transmitter.script("poll", deed)
            await polling.poller.turn()
            assert (1, []) == (polling.state.failures, polling.done)
            assert polling.state.fault
            await polling.poller.turn()
            assert ("", [jti]) == (polling.state.fault, polling.transmitter.acked)

    async def test_pauses_grow(self, polling):
        """Each fault in a row doubles the pause up to a minute, and one good poll makes it short again."""
        async with polling.running(poll_every="5s"):
            polling.transmitter.always["poll"] = status(500)
            pauses = [polling.poller.pause]
            for _ in range(6):
                await polling.poller.turn()
                pauses.append(polling.poller.pause)
            assert [5, 10, 20, 40, SIGNAL_POLL_PAUSE_SECONDS, SIGNAL_POLL_PAUSE_SECONDS] == pauses[:6]
            del polling.transmitter.always["poll"]
            await polling.poller.turn()
            assert 5 == polling.poller.pause

    async def test_less_is_asked_for(self, polling):
        """After a fault less is asked for at once, down to one event: the answer may have been too large."""
        async with polling.running():
            polling.transmitter.always["poll"] = huge()
            for _ in range(9):
                await polling.poller.turn()
            asked = [each["maxEvents"] for each in polling.transmitter.polls]
            assert [100, 50, 25, 12, 6, 3, 1, 1, 1] == asked
            del polling.transmitter.always["poll"]
            for _ in range(8):
                await polling.poller.turn()
            assert SIGNALS_PER_POLL == polling.transmitter.polls[-1]["maxEvents"]

    async def test_no_token(self, polling):
        """Where the authorization server gives no token nothing is polled, and what it says is told."""
        async with polling.running():
            polling.transmitter.script("token", refuse("invalid_client", code=401))
            await polling.poller.turn()
            assert ([], 1) == (polling.transmitter.polls, polling.state.failures)
            assert "invalid_client" in polling.state.fault
            await polling.poller.turn()
            assert "" == polling.state.fault

    async def test_a_token_that_is_taken_no_more(self, polling):
        """A token that the transmitter refuses is thrown away, and the poll goes on with another, once."""
        async with polling.running():
            await polling.poller.turn()
            polling.transmitter._tokens.clear()
            polling.say()
            await polling.poller.turn()
            assert (1, 2) == (len(polling.done), len(polling.transmitter.calls("token")))
            polling.transmitter.always["poll"] = status(401)
            await polling.poller.turn()
            assert 3 == len(polling.transmitter.calls("token"))
            assert "401" in polling.state.fault


class TestHostile:
    async def test_more_than_was_asked_for(self, polling):
        """Of ten times as many events as were asked for no more are looked at in one answer; the others come again."""
        polling.transmitter.most = 10_000
        async with polling.running():
            polling.poller._most = 3
            for number in range(30):
                polling.say(f"p{number}")
            answer = await polling.poller._ask()
            await polling.poller._take(answer)
            assert (30, 3) == (len(answer.sets), len(polling.done))

    async def test_more_without_end(self, polling):
        """A transmitter that always says that there is more, and forgets nothing, has a few polls in a turn."""
        polling.transmitter.more, polling.transmitter.forgets = True, False
        async with polling.running():
            polling.say()
            for _ in range(3):
                await polling.poller.turn()
            assert 3 * SIGNAL_POLLS_IN_A_ROW >= len(polling.transmitter.polls)
            assert [("end", "alice")] == polling.done
            assert 1 == len(polling.poller._acks)

    async def test_ever_new_ones(self, polling):
        """One that has new events without end has a few polls in a turn, too."""
        polling.transmitter.most = 1
        async with polling.running():
            for number in range(3 * SIGNAL_POLLS_IN_A_ROW):
                polling.say(f"p{number}")
            await polling.poller.turn()
            assert SIGNAL_POLLS_IN_A_ROW == len(polling.done)

    async def test_the_same_jti_for_another(self, polling):
        """Another event under a `jti` that was used is refused, aloud."""
        async with polling.running():
            polling.say(jti="same")
            await polling.poller.turn()
            polling.say("bob", jti="same")
            await polling.poller.turn()
            await polling.poller.turn()
            assert [("end", "alice")] == polling.done
            assert "invalid_request" == polling.transmitter.refused["same"]["err"]

    async def test_of_another_issuer(self, polling, tmp_path):
        """A transmitter hands in no events of another issuer, were they as good as can be."""
        with Transmitter(path="/realms/y") as another:
            async with polling.running():
                polling.transmitter.outbox["x"] = another.event("x", sub_id=iss_sub(URL, "alice"), events=REVOKED)
                await polling.poller.turn()
                await polling.poller.turn()
                assert ([], "invalid_issuer") == (polling.done, polling.transmitter.refused["x"]["err"])

    async def test_refused_ones_without_end(self, polling):
        """Bad events that come again and again are asked for once a turn, and nothing of them piles up."""
        polling.transmitter.forgets = False
        async with polling.running():
            for number in range(50):
                polling.transmitter.outbox[f"bad-{number}"] = "x"
            for _ in range(5):
                await polling.poller.turn()
            assert (5, 50) == (len(polling.transmitter.polls), len(polling.poller._errors))

    async def test_a_private_address(self, polling):
        """Where a poll leads into a private network that is not named, it is not sent."""
        async with polling.running(poll="https://10.1.2.3/poll", jwks=None):
            await polling.poller.turn()
            assert "not public" in polling.state.fault


async def test_each_by_itself(polling):
    """Polling goes on by itself until the agent stops, and a fact comes by it as by a push."""
    async with polling.running(poll_every="1s"):
        running = asyncio.ensure_future(polling.poller.run())
        polling.transmitter.say(events=risk())
        async with asyncio.timeout(10):
            while not polling.published:
                await asyncio.sleep(0.02)
        running.cancel()
        assert "risk_level" == polling.published[0].name
