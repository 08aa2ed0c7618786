"""receiver.py and store/security_events.py: each event counts once, whatever happens in between."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from fakes.clock import FakeClock
from fakes.databases import opened
from fakes.signed_events import (
    AUDIENCE,
    CAEP,
    IDP,
    RISC,
    TASK,
    WEB,
    FakeFacts,
    FakePeople,
    in_session,
    iss_sub,
    issuer_key,
    jwks,
    risk,
    signed,
)
from sojourn.audit.journal import Audit
from sojourn.errors import InvalidEvent, LimitExceeded, StoreFailed, Unavailable
from sojourn.limits import JWT_LEEWAY_SECONDS
from sojourn.spiffe.ids import TrustDomain
from sojourn.ssf.issuer_keys import SignalKeys
from sojourn.ssf.receiver import ACCEPTED, REPEATED, Issuer, Signals
from sojourn.ssf.security_events import Rules, parse_unverified_event
from sojourn.ssf.subjects import PeopleIssuer
from sojourn.store.audit import AuditTable
from sojourn.store.restorations import Replaced, RestorationTable
from sojourn.store.security_events import SignalTable

KEY, OTHER_KEY = issuer_key(), issuer_key()
OTHER = "https://other.example.net"
URL = "https://kc.example.org/realms/corp"
CORP = PeopleIssuer("corp", URL, is_itself=False)
REVOKED = {f"{CAEP}session-revoked": {}}
DISABLED, ENABLED = ({f"{RISC}account-{what}": {}} for what in ("disabled", "enabled"))
BY = {"by_uid": 1, "by_pid": 2}


class Receiver:
    """Signals of two issuers over a real database, which can be opened again."""

    def __init__(self, folder, remembered=100):
        self.clock = FakeClock()
        self.facts = FakeFacts()
        self.people = FakePeople()
        self.folder = folder
        self.max_age = 600
        self.live = {TASK}
        self.believed = {("risk_level", IDP)}  # of people, by some type
        self.remembered = remembered
        for name, key in ((IDP, KEY), (OTHER, OTHER_KEY)):
            self.file(name).write_text(jwks(key))

    def file(self, issuer):
        return self.folder / f"{issuer.split('/')[2]}.json"

    @asynccontextmanager
    async def running(self):
        """As the agent runs: what it had in memory is new each time."""
        with opened(self.folder / "sojourn.db") as database:
            self.database, self.journal = database, AuditTable(database)
            self.audit = Audit(self.journal, self.clock)
            self.store = SignalTable(database, self.journal, self.remembered)
            issuers = [
                Issuer(Rules(IDP, AUDIENCE, self.max_age), SignalKeys(self.file(IDP)), 300.0, people=CORP),
                Issuer(Rules(OTHER, AUDIENCE, self.max_age), SignalKeys(self.file(OTHER))),
            ]
            self.signals = Signals(
                issuers,
                self.facts,
                self.live.__contains__,
                lambda name, source, value: (name, source) in self.believed and isinstance(value, str),
                self.store,
                self.audit,
                self.clock,
                TrustDomain("example.org"),
                self.people,
            )
            yield self

    @property
    def at(self):
        return self.clock.now().timestamp()

    async def take(self, token):
        return await self.signals.take(parse_unverified_event(token), BY)

    async def replaced(self):
        """Have the database be one that was put in the place of another, as of now."""
        event = self.audit.event("database_restored", {})
        table = RestorationTable(self.database, self.journal)
        await table.begin(0, lambda _: Replaced("{}", event, int(self.at)))

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


class TestPeople:
    ALICE = iss_sub(URL, "alice")

    async def test_are_told_of(self, receiver):
        """What an event says of a person is done, once, and the record says what, and not to whom."""
        async with receiver.running():
            token = signed(KEY, receiver.at, sub_id=in_session(URL, "alice", "s1"), events=REVOKED)
            assert [ACCEPTED, REPEATED] == [await receiver.take(token) for _ in range(2)]
            assert [("end", "alice", "s1")] == receiver.people.deeds
            assert [(CORP, IDP)] == [(people, source) for people, _, source in receiver.people.done]
            assert [] == receiver.facts.publications
            (record,) = await receiver.records()
            assert (["end by session-revoked"], [], []) == (record["people"], record["not_ours"], record["subjects"])
            assert "alice" not in json.dumps(record)
            assert 0 == receiver.signals.issuers[IDP].not_ours

    @pytest.mark.parametrize(
        "sub_id",
        [iss_sub(f"{URL}/", "alice"), iss_sub(IDP, "alice"), {"format": "email", "email": "alice@example.org"}],
    )
    async def test_of_others(self, receiver, sub_id):
        """An event about somebody who is nobody of ours is taken, recorded and counted as such, and does nothing."""
        async with receiver.running():
            for events in (REVOKED, DISABLED, ENABLED):
                assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, sub_id=sub_id, events=events))
            assert [] == receiver.people.done
            assert {1} == {len(each["not_ours"]) for each in await receiver.records()}
            assert 3 == receiver.signals.issuers[IDP].not_ours

    async def test_of_an_issuer_without_people(self, receiver):
        """An issuer of events that is tied to no people ends nothing of theirs, whatever it signs."""
        async with receiver.running():
            for events in (REVOKED, DISABLED, ENABLED):
                token = signed(OTHER_KEY, receiver.at, iss=OTHER, sub_id=self.ALICE, events=events)
                assert ACCEPTED == await receiver.take(token)
            assert [] == receiver.people.done

    async def test_what_is_no_end(self, receiver):
        """What is said of a person and ends nothing is a fact about them, kept by their pseudonym."""
        async with receiver.running():
            await receiver.take(signed(KEY, receiver.at, sub_id=self.ALICE))
            (record,) = await receiver.records()
            found = (record["not_ours"], record["facts"], record["changed"], record["subjects"])
            assert ([], {"risk_level": "HIGH"}, ["risk_level"], ["psn_of_alice"]) == found
            (fact,) = receiver.facts.publications
            assert ("risk_level", "psn_of_alice", IDP) == (fact.name, fact.subject, fact.source)
            assert [] == receiver.people.done

    async def test_that_no_type_takes(self, receiver):
        """A fact about a person that no task type takes from the issuer takes no room: it is recorded as not ours. One
        that is known already is not left to be older than what the issuer said since.
        """
        update = {f"{CAEP}credential-change": {"credential_type": "password", "change_type": "update"}}
        async with receiver.running():
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, sub_id=self.ALICE, events=update))
            (record,) = await receiver.records()
            assert ({}, [], []) == (record["facts"], record["changed"], receiver.facts.publications)
            assert ["credential_change that no task type takes"] == record["not_ours"]
            assert 1 == receiver.signals.issuers[IDP].not_ours
            await receiver.take(signed(KEY, receiver.at, sub_id=self.ALICE, events=risk("LOW")))
            receiver.believed.clear()
            receiver.clock.advance(1)
            await receiver.take(signed(KEY, receiver.at, sub_id=self.ALICE, events=risk("HIGH")))
            await receiver.take(signed(KEY, receiver.at, sub_id=iss_sub(URL, "bob"), events=risk("HIGH")))
            assert ["LOW", "HIGH"] == [each.value for each in receiver.facts.publications]

    async def test_of_a_session_alone(self, receiver):
        """A fact about a session alone is nobody's: it is recorded, and changes nothing."""
        subject = {"format": "complex", "session": {"format": "opaque", "id": "s1"}}
        async with receiver.running():
            await receiver.take(signed(KEY, receiver.at, sub_id=subject))
            (record,) = await receiver.records()
            assert ({}, []) == (record["facts"], receiver.facts.publications)
            assert 1 == len(record["not_ours"])

    @pytest.mark.parametrize(
        "changes", [{"aud": "https://another.example.org"}, {"iss": OTHER}, {"exp": 1}, {"sub": "alice"}]
    )
    async def test_nothing_by_a_bad_token(self, receiver, changes):
        """By a token that is forged, or for another, nothing is done to anybody."""
        async with receiver.running():
            with pytest.raises(InvalidEvent):
                await receiver.take(signed(KEY, receiver.at, sub_id=self.ALICE, events=DISABLED, **changes))
            assert [] == receiver.people.done

    async def test_one_of_two_is_malformed(self, receiver):
        """Where one event of a token is malformed, the other does nothing either."""
        async with receiver.running():
            for bad in (risk("none"), {f"{RISC}account-disabled": {"reason": 5}}):
                with pytest.raises(InvalidEvent):
                    await receiver.take(signed(KEY, receiver.at, sub_id=self.ALICE, events={**REVOKED, **bad}))
            assert [] == receiver.people.done

    async def test_another_persons_session(self, receiver):
        """An event that names somebody whom there cannot be is refused before anything is done or remembered."""
        async with receiver.running():
            receiver.people.unfit = InvalidEvent("x")
            token = signed(KEY, receiver.at, sub_id=self.ALICE, events=REVOKED)
            with pytest.raises(InvalidEvent):
                await receiver.take(token)
            receiver.people.unfit = None
            assert ACCEPTED == await receiver.take(token)

    @pytest.mark.parametrize("failure", [StoreFailed("read-only"), LimitExceeded("full")])
    async def test_an_end_does_not_wait_for_room(self, receiver, failure):
        """Where an event cannot be remembered it is told so, and ends and blocks all the same; it unblocks nobody."""
        async with receiver.running():
            claim = receiver.store.claim

            async def fail(*_):
                raise failure

            receiver.store.claim = fail
            tokens = [signed(KEY, receiver.at, sub_id=self.ALICE, events=each) for each in (REVOKED, DISABLED, ENABLED)]
            for token in tokens:
                with pytest.raises(type(failure)):
                    await receiver.take(token)
            assert ["end", "end", "block"] == [deed for deed, _, _ in receiver.people.deeds]
            receiver.store.claim = claim
            receiver.people.done.clear()
            assert [ACCEPTED] * 3 == [await receiver.take(token) for token in tokens]
            assert ["end", "end", "block", "unblock"] == [deed for deed, _, _ in receiver.people.deeds]

    async def test_what_failed_comes_again(self, receiver):
        """Where an end is not on disk the event is told so, the rest of it is done, and it may come again."""
        async with receiver.running():
            token = signed(KEY, receiver.at, sub_id=self.ALICE, events=DISABLED)
            receiver.people.failure = StoreFailed("no room")
            with pytest.raises(StoreFailed):
                await receiver.take(token)
            assert [("end", "alice", ""), ("block", "alice", "")] == receiver.people.deeds
            assert [] == await receiver.records()
            receiver.people.failure = None
            assert [ACCEPTED, REPEATED] == [await receiver.take(token) for _ in range(2)]
            assert 4 == len(receiver.people.deeds)


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
            with pytest.raises(InvalidEvent, match="jti"):
                await receiver.take(signed(KEY, receiver.at, jti="x", sub_id=iss_sub(URL, "alice"), events=DISABLED))
            assert [] == receiver.people.done

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


class TestRestored:
    """A backup does not know which events were used since it was made."""

    async def test_of_before(self, receiver):
        """After a restore no event is taken that was issued until then, whether it was used before or not."""
        old = signed(KEY, receiver.at)
        receiver.clock.advance(30)
        unused = signed(KEY, receiver.at, jti="unused")
        async with receiver.running():
            await receiver.replaced()
        receiver.clock.advance(1)
        async with receiver.running():
            for token in (old, unused):
                with pytest.raises(InvalidEvent, match="may have been used"):
                    await receiver.take(token)
            assert [] == receiver.facts.publications
            assert ACCEPTED == await receiver.take(signed(KEY, receiver.at, jti="after"))

    async def test_ends_people_all_the_same(self, receiver):
        """After a restore an event of before is refused, and ends and blocks all the same: what it has done may have
        been lost. It unblocks nobody, and what failed of it may come again.
        """
        alice = iss_sub(URL, "alice")
        tokens = [signed(KEY, receiver.at, sub_id=alice, events=each) for each in (REVOKED, DISABLED, ENABLED, risk())]
        async with receiver.running():
            await receiver.replaced()
        receiver.clock.advance(1)
        async with receiver.running():
            for token in tokens:
                with pytest.raises(InvalidEvent, match="may have been used"):
                    await receiver.take(token)
            assert ["end", "end", "block"] == [deed for deed, _, _ in receiver.people.deeds]
            assert [] == receiver.facts.publications
            receiver.people.failure = StoreFailed("no room")
            with pytest.raises(StoreFailed):
                await receiver.take(tokens[1])

    async def test_that_the_backup_knows(self, receiver):
        """An event that the backup has as taken is a repetition after a restore, as it was before."""
        token = signed(KEY, receiver.at)
        async with receiver.running():
            await receiver.take(token)
            await receiver.replaced()
            assert REPEATED == await receiver.take(token)
