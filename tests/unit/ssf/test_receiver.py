"""receiver.py and store/security_events.py: each event counts once, whatever happens in between."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from fakes.signed_events import AUDIENCE, CAEP, IDP, TASK, WEB, FakeFacts, issuer_key, jwks, risk, signed
from sojourn.audit.journal import Audit
from sojourn.errors import InvalidEvent, LimitExceeded, StoreFailed, Unavailable
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf.issuer_keys import SignalKeys
from sojourn.ssf.receiver import ACCEPTED, REPEATED, Issuer, Signals
from sojourn.ssf.security_events import Rules, parse_unverified_event
from sojourn.store.audit import AuditTable
from sojourn.store.security_events import SignalTable

KEY, OTHER_KEY = issuer_key(), issuer_key()
OTHER = "https://other.example.net"
BY = {"by_uid": 1, "by_pid": 2}


class Receiver:
    """Signals of two issuers over a real database, which can be opened again."""

    def __init__(self, folder, remembered=100):
        self.clock = FakeClock()
        self.facts = FakeFacts()
        self.folder = folder
        self.max_age = 600
        self.live = {TASK}
        self.remembered = remembered
        for name, key in ((IDP, KEY), (OTHER, OTHER_KEY)):
            self.file(name).write_text(jwks(key))

    def file(self, issuer):
        return self.folder / f"{issuer.split('/')[2]}.json"

    @asynccontextmanager
    async def running(self):
        """As the agent runs: what it had in memory is new each time."""
        with opened(self.folder / "sojourn.db") as database:
            self.journal = AuditTable(database)
            self.audit = Audit(self.journal, self.clock)
            self.store = SignalTable(database, self.journal, self.remembered)
            issuers = [
                Issuer(Rules(IDP, AUDIENCE, self.max_age), SignalKeys(self.file(IDP)), 300.0),
                Issuer(Rules(OTHER, AUDIENCE, self.max_age), SignalKeys(self.file(OTHER))),
            ]
            self.signals = Signals(
                issuers,
                self.facts,
                self.live.__contains__,
                self.store,
                self.audit,
                self.clock,
                TrustDomain("example.org"),
            )
            yield self

    @property
    def at(self):
        return self.clock.now().timestamp()

    async def take(self, token):
        return await self.signals.take(parse_unverified_event(token), BY)

    async def records(self, event="signal_accepted"):
        await self.audit.flush()
        return [json.loads(each.fields) for each in await self.journal.tail(100) if each.event == event]


@pytest.fixture
def receiver(tmp_path):
    return Receiver(tmp_path)


class TestTaking:
    async def test_is_published(self, receiver):
        """A good event is a fact of its issuer's, with its validity and time, and is on record."""
        async with receiver.running():
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))
            (made,) = receiver.facts.publications
            assert ("risk_level", WEB, "HIGH", IDP, 300.0) == (
                made.name,
                made.subject,
                made.value,
                made.source,
                made.valid_seconds,
            )
            assert receiver.clock.now() == made.happened_at
            (record,) = await receiver.records()
            assert {"issuer": IDP, "facts": {"risk_level": "HIGH"}, "changed": ["risk_level"], "subjects": [WEB]} == {
                name: record[name] for name in ("issuer", "facts", "changed", "subjects")
            }
            issuer = receiver.signals.issuers[IDP]
            assert (1, 0, receiver.clock.now()) == (issuer.accepted, issuer.repeated, issuer.last_at)

    async def test_without_a_jti_in_the_clear(self, receiver):
        """The record names the event by a digest: a jti may be anything."""
        async with receiver.running():
            await receiver.take(signed(KEY, receiver.at, jti="canary-jti"))
            (record,) = await receiver.records()
            assert "canary" not in json.dumps(record)
            assert 64 == len(record["signal"])

    @pytest.mark.parametrize(
        "changes",
        [
            {"events": {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "s"}}},
            {"events": {"https://example.net/unknown": {}}, "sub_id": None},
            {"sub_id": {"format": "email", "email": "a@example.net"}},
        ],
    )
    async def test_what_tells_nothing_is_taken_and_recorded(self, receiver, changes):
        """Events and subjects that are none of ours change nothing, and are on record."""
        async with receiver.running():
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, **changes))
            assert [] == receiver.facts.publications
            (record,) = await receiver.records()
            assert ([], {}) == (record["changed"], record["facts"])

    async def test_nothing_of_a_bad_token_is_published(self, receiver):
        """A token of which one event is malformed changes nothing, and may come again in order."""
        async with receiver.running():
            bad = {f"{CAEP}session-revoked": {}, **risk("none")}
            with pytest.raises(InvalidEvent):
                await receiver.take(signed(KEY, receiver.at, jti="x", events=bad))
            assert [] == receiver.facts.publications
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, jti="x"))

    async def test_issuers_have_their_own_keys(self, receiver):
        """A key of one issuer signs nothing of another's, under the same kid either."""
        async with receiver.running():
            for issuer, key in ((IDP, OTHER_KEY), (OTHER, KEY)):
                with pytest.raises(InvalidEvent) as caught:
                    await receiver.take(signed(key, receiver.at, iss=issuer))
                assert "authentication_failed" == caught.value.err
            assert ACCEPTED == await receiver.take(signed(OTHER_KEY, receiver.at, iss=OTHER))
            assert "HIGH" == receiver.facts.value(source=OTHER)
            assert receiver.facts.value(source=IDP) is None

    async def test_an_unknown_issuer(self, receiver):
        """An issuer that is not configured is not heard."""
        async with receiver.running():
            with pytest.raises(InvalidEvent) as caught:
                await receiver.take(signed(KEY, receiver.at, iss="https://nobody/"))
            assert "invalid_issuer" == caught.value.err

    async def test_keys_that_cannot_be_read(self, receiver):
        """Without keys an event is neither good nor bad: it may come again."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            receiver.file(IDP).write_text("{")
            with pytest.raises(Unavailable):
                await receiver.take(token)
            receiver.file(IDP).write_text(jwks(KEY))
            assert ACCEPTED == await receiver.take(token)

    @pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1), (2, 0, 1), (1, 0, 2)])
    async def test_flapping_ends_in_the_newest_state(self, receiver, order):
        """Whatever the order in which events arrive, the one that happened last counts."""
        async with receiver.running():
            levels = ("LOW", "HIGH", "MEDIUM")
            tokens = [
                signed(KEY, receiver.at, events=risk(level, event_timestamp=receiver.at - 30 + number))
                for number, level in enumerate(levels)
            ]
            for number in order:
                assert ACCEPTED == await receiver.take(tokens[number])
            assert "MEDIUM" == receiver.facts.value()

    async def test_tasks_are_subjects(self, receiver):
        """An event may be about one task."""
        async with receiver.running():
            subject = {"format": "complex", "session": {"format": "opaque", "id": TASK}}
            await receiver.take(signed(KEY, receiver.at, sub_id=subject, events={f"{CAEP}session-revoked": {}}))
            assert receiver.facts.value("session_revoked", TASK) is True

    async def test_a_task_that_is_over_is_of_no_account(self, receiver):
        """An event about a task that does not live is taken, tells no fact, and takes no room."""
        async with receiver.running():
            receiver.live.clear()
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, sub_id={"format": "opaque", "id": TASK}))
            assert [] == receiver.facts.publications


class TestOnce:
    async def test_a_replay_has_no_effect(self, receiver):
        """The same event again is answered as before and changes nothing."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            assert ACCEPTED == await receiver.take(token)
            receiver.facts.known.clear()  # an operator unset the fact
            assert REPEATED == await receiver.take(token)
            assert 1 == len(receiver.facts.publications)
            assert 1 == len(await receiver.records())

    async def test_over_a_restart(self, receiver):
        """What was taken stays taken when the agent starts again."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            await receiver.take(token)
        async with receiver.running():
            assert REPEATED == await receiver.take(token)
        assert 1 == len(receiver.facts.publications)

    async def test_another_event_with_the_same_jti(self, receiver):
        """A jti is used once: a second event under it is refused, aloud."""
        async with receiver.running():
            await receiver.take(signed(KEY, receiver.at, jti="x"))
            with pytest.raises(InvalidEvent, match="jti"):
                await receiver.take(signed(KEY, receiver.at, jti="x", events=risk("LOW")))
            assert "HIGH" == receiver.facts.value()

    async def test_the_same_jti_of_two_issuers(self, receiver):
        """A jti is its issuer's own."""
        async with receiver.running():
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, jti="x"))
            assert ACCEPTED == await receiver.take(signed(OTHER_KEY, receiver.at, jti="x", iss=OTHER))

    async def test_fifty_racers(self, receiver):
        """Of fifty deliveries at once one has an effect; all are answered well."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            results = await asyncio.gather(*(receiver.take(token) for _ in range(50)))
            assert [ACCEPTED, *[REPEATED] * 49] == sorted(results)
            assert 1 == len(receiver.facts.publications)
            assert 1 == len(await receiver.records())

    async def test_what_failed_may_come_again(self, receiver):
        """An event that was claimed and not published is taken when it is delivered again."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            receiver.facts.failure = StoreFailed("no room")
            with pytest.raises(StoreFailed):
                await receiver.take(token)
            assert [] == await receiver.records()
            receiver.facts.failure = None
            assert ACCEPTED == await receiver.take(token)
            assert REPEATED == await receiver.take(token)

    async def test_fifty_racers_of_an_event_that_fails(self, receiver):
        """When all deliveries of a race fail, the event is not lost."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            receiver.facts.failure = StoreFailed("no room")
            results = await asyncio.gather(*(receiver.take(token) for _ in range(50)), return_exceptions=True)
            assert {StoreFailed} == {type(each) for each in results}
            receiver.facts.failure = None
            assert ACCEPTED == await receiver.take(token)

    @pytest.mark.parametrize("published", [False, True])
    async def test_killed_in_the_middle(self, receiver, published):
        """Killed after the claim, before or after the fact was published: the event is taken when it comes again."""
        async with receiver.running():
            token = signed(KEY, receiver.at)

            async def die(*_):
                raise asyncio.CancelledError

            if published:
                receiver.store.done = die
            else:
                receiver.facts.publish = die
            with pytest.raises(asyncio.CancelledError):
                await receiver.take(token)
            receiver.facts.__dict__.pop("publish", None)
        async with receiver.running():
            assert ACCEPTED == await receiver.take(token)
            assert REPEATED == await receiver.take(token)
        assert 1 == len(receiver.facts.publications)

    async def test_nothing_is_published_that_cannot_be_claimed(self, receiver):
        """Without a claim on disk there is no fact."""
        async with receiver.running():

            async def fail(*_):
                raise StoreFailed("read-only")

            receiver.store.claim = fail
            with pytest.raises(StoreFailed):
                await receiver.take(signed(KEY, receiver.at))
            assert [] == receiver.facts.publications


class TestMemory:
    async def test_when_full_events_are_refused(self, tmp_path):
        """With no room for another event of an issuer it is refused, and none is forgotten; others have their own."""
        receiver = Receiver(tmp_path, remembered=3)
        async with receiver.running():
            tokens = [signed(KEY, receiver.at) for _ in range(3)]
            for token in tokens:
                await receiver.take(token)
            late = signed(KEY, receiver.at)
            with pytest.raises(LimitExceeded):
                await receiver.take(late)
            assert [REPEATED] * 3 == [await receiver.take(token) for token in tokens]
            assert ACCEPTED == await receiver.take(signed(OTHER_KEY, receiver.at, iss=OTHER))
            receiver.clock.advance(600 + JWT_LEEWAY_SECONDS + 1)
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))

    async def test_a_step_back_revives_nothing(self, receiver):
        """What was forgotten when the clock was ahead is not taken again when it is set right."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            await receiver.take(token)
            receiver.clock.step_wall(3600)
            await receiver.take(signed(KEY, receiver.at))
            receiver.clock.step_wall(-3600)
            with pytest.raises(InvalidEvent, match="forgotten"):
                await receiver.take(token)
            receiver.clock.advance(1)
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))

    @pytest.mark.parametrize("again", [False, True], ids=["same run", "restarted"])
    async def test_a_clock_that_stood_days_ahead(self, receiver, again):
        """Events of days ahead that were taken and forgotten shut none out once both clocks are right again, and are never
        taken again, when their time has come either.
        """
        day = 86_400
        async with receiver.running():
            receiver.clock.step_wall(10 * day)
            used = signed(KEY, receiver.at)
            assert ACCEPTED == await receiver.take(used)
            receiver.clock.step_wall(2 * day)
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))
            receiver.clock.step_wall(-12 * day)
            if not again:
                assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))
        async with receiver.running():
            receiver.clock.advance(1)
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))
            receiver.clock.step_wall(10 * day)
            with pytest.raises(InvalidEvent, match="forgotten"):
                await receiver.take(used)
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at))

    async def test_a_longer_age_revives_nothing(self, receiver):
        """What was forgotten under a short `max_age` is not taken again under a longer one, restart included."""
        async with receiver.running():
            token = signed(KEY, receiver.at)
            await receiver.take(token)
            receiver.clock.advance(700)
            await receiver.take(signed(KEY, receiver.at))
        receiver.max_age = 3600
        async with receiver.running():
            with pytest.raises(InvalidEvent, match="forgotten"):
                await receiver.take(token)
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at - 300))


class TestRefusals:
    async def test_are_recorded_and_counted(self, receiver):
        """A refusal is on record with its code, and counts for the issuer that the token names."""
        async with receiver.running():
            unverified = parse_unverified_event(signed(OTHER_KEY, receiver.at))
            receiver.signals.refused(unverified, InvalidEvent("x", err="invalid_key"), 7, {"pid": 8})
            receiver.signals.refused(None, InvalidEvent("y"), 7, {"pid": 8})
            receiver.signals.refused(None, StoreFailed("z"), 7, {"pid": 8})
            found = [(each.get("issuer"), each["code"]) for each in await receiver.records("signal_refused")]
            assert [(IDP, "invalid_key"), (None, "invalid_request"), (None, "store_failed")] == found
            assert (1, 0) == (receiver.signals.issuers[IDP].refused, receiver.signals.issuers[OTHER].refused)

    async def test_a_flood_is_counted_not_recorded(self, receiver):
        """Refusals without end do not fill the journal."""
        async with receiver.running():
            for _ in range(500):
                receiver.signals.refused(None, InvalidEvent("x"), 7, {"pid": 8})
            assert 20 == len(await receiver.records("signal_refused"))
