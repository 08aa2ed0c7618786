"""sink.py and sinks.py over a real journal: what is sent, in which order, and what becomes of the sink's place."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fakes.signed_journals import SignedJournal, started
from fakes.sinks import FakeReceiver, drain, sink_of, table_of
from sojourn.audit.journal import Event, Record
from sojourn.audit.leaves import line_of, record_of
from sojourn.errors import StoreFull
from sojourn.ocsf.translation import OcsfLines
from sojourn.ocsf.within import line_within
from sojourn.operating_limits import SINK_BATCH_BYTES, SINK_BATCH_RECORDS, SINK_OCSF_BATCH_BYTES, SINK_REFUSED_IN_ROW
from sojourn.sinks.items import Item, SinkState, Wanted
from sojourn.sinks.sender import ItemsRefused, SinkDown, Taken
from sojourn.sinks.sinks import Sinks
from sojourn.spiffe.ids import SpiffeId
from sojourn.tlog.notes import Note, VerifierKey


@asynccontextmanager
async def journal(folder: Path, number: int = 20, kept_least: int = 1_000) -> AsyncIterator[SignedJournal]:
    """One with so many records beside the one that its log began."""
    async with started(folder, kept_least=kept_least) as here:
        await here.record(number)
        yield here


def refusing(*seqs: int) -> object:
    """A deed: batches with one of these records are refused."""

    def deed(items: Sequence[Item]) -> None:
        if any(item.kind == "record" and item.seq in seqs for item in items):
            raise ItemsRefused("it answered with status 400")

    return deed


def down(_items: Sequence[Item]) -> None:
    raise SinkDown("nobody listens")


class TestWhatIsSent:
    async def test_each_record_once_in_order(self, tmp_path: Path) -> None:
        """A sink has each record once, in order, in lines that are those of the export; the checkpoint comes behind."""
        async with journal(tmp_path, 1_200) as here:
            receiver = FakeReceiver()
            await drain(sink_of(here, receiver))
            assert list(range(1, 1_202)) == receiver.seqs
            kept = await here.signed.store.records(0, 2_000)
            assert [line_of(each) for each in kept] == [item.line for item in receiver.items if item.kind == "record"]
            (signed,) = receiver.notices("checkpoint")
            assert (1, 1_201, here.signed.state.checkpoint) == (
                signed["first_seq"],
                signed["until_seq"],
                signed["note"],
            )
            assert Note.parse(signed["note"].encode()).text.encode()
            assert VerifierKey.parse(here.vkey)
            assert "checkpoint" == receiver.items[-1].kind
            assert all(len(batch) <= SINK_BATCH_RECORDS for batch in receiver.batches)

    async def test_bytes_of_a_batch(self, tmp_path: Path) -> None:
        """A batch has so many bytes at most, and one record that is longer goes alone."""
        async with journal(tmp_path, 0) as here:
            long = Event(1, "task_begun", json.dumps({"text": "x" * (SINK_BATCH_BYTES + 1)}))
            short = Event(1, "task_begun", json.dumps({"text": "x" * 100_000}))
            await here.journal.append([short, short, short, long, short])
            receiver = FakeReceiver()
            await drain(sink_of(here, receiver, seq=1))
            assert [[2, 3], [4], [5], [6]] == [[i.seq for i in b if i.kind == "record"] for b in receiver.batches]

    async def test_as_it_wants_them(self, tmp_path: Path) -> None:
        """A sink may want other lines of the same records; the bytes of a batch are counted as they are sent."""
        async with journal(tmp_path, 0) as here:
            await here.journal.append([Event(1, "task_begun", '{"text":"%s"}' % ("x" * 6_000))] * 400)
            ocsf = OcsfLines(SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here"))
            own, receiver = FakeReceiver(), FakeReceiver()
            await drain(sink_of(here, own, name="own"))
            await drain(sink_of(here, receiver, wanted=Wanted(lines=ocsf)))
            assert own.seqs == receiver.seqs == list(range(1, 402))
            assert [item.line for item in own.items if item.kind == "record"] == [
                line_within(item.line) for item in receiver.items if item.kind == "record"
            ]
            batches = [sum(len(item.line) + 1 for item in batch) for batch in receiver.batches]
            assert SINK_BATCH_BYTES < max(batches) <= SINK_OCSF_BATCH_BYTES + 2_000  # the checkpoint comes on top
            assert 3 <= len(receiver.batches) < len(own.batches)

    async def test_only_wanted(self, tmp_path: Path) -> None:
        """A filter names the events that a sink gets, or those that it does not; its place passes all the others."""
        async with journal(tmp_path, 10) as here:
            await here.journal.append([Event(1, "task_ended", "{}")])
            await here.signed.settle()
            for wanted, seqs in ((Wanted(("task_ended",)), [12]), (Wanted((), ("task_begun",)), [1, 12])):
                receiver = FakeReceiver()
                sink = sink_of(here, receiver, wanted=wanted, name=f"only-{len(seqs)}")
                await drain(sink)
                assert (seqs, 12) == (receiver.seqs, sink.state.seq)
            receiver = FakeReceiver()
            await drain(sink_of(here, receiver, seq=12, wanted=Wanted(("call_denied",))))
            assert [] == receiver.seqs

    async def test_checkpoints_follow(self, tmp_path: Path) -> None:
        """What is signed later is sent as a checkpoint by itself, once, and none comes that signs what was not sent."""
        async with journal(tmp_path, 3) as here:
            receiver = FakeReceiver()
            sink = sink_of(here, receiver)
            await drain(sink)
            await here.journal.append([Event(1, "task_ended", "{}")])
            await drain(sink)
            assert ["checkpoint", "record"] == [item.kind for item in receiver.items[-2:]]
            assert sink.is_behind(5) is False
            await here.signed.settle()
            assert sink.is_behind(5)
            await drain(sink)
            await drain(sink)
            assert [4, 5] == [each["until_seq"] for each in receiver.notices("checkpoint")]
            assert ["record", "checkpoint"] == [item.kind for item in receiver.items[-2:]]

    async def test_it_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """The next run sends what the last one has not had taken, and nothing else; its place is on disk at the end."""
        async with journal(tmp_path, 30) as here:
            receiver = FakeReceiver()
            await drain(sink_of(here, receiver))
            await here.record(2)
            again = FakeReceiver()
            await drain(sink_of(here, again))
            assert ([32, 33], 33) == (again.seqs, table_of(here).load()["siem"].seq)


class TestWhatFails:
    async def test_down(self, tmp_path: Path) -> None:
        """A sink that takes nothing keeps its place, is tried again after growing pauses, and is told of once."""
        async with journal(tmp_path) as here:
            receiver = FakeReceiver(down)
            sink = sink_of(here, receiver)
            pauses = []
            for _ in range(9):
                with pytest.raises(SinkDown) as caught:
                    await sink.step()
                pauses.append(await sink.failed(caught.value))
            assert [1, 2, 4, 8, 16, 32, 60, 60, 60] == pauses
            assert (0, "nobody listens", here.clock.now().timestamp()) == (
                sink.state.seq,
                sink.fault,
                sink.failing_since,
            )
            here.clock.advance(30)
            assert sink.lag_seconds == 30
            receiver.deed = lambda _items: None
            await drain(sink)
            assert ("", 0.0, 0.0, 21) == (sink.fault, sink.failing_since, sink.lag_seconds, len(receiver.seqs))
            assert 1.0 == await sink.failed(SinkDown("x"))
            assert 40.0 == await sink.failed(SinkDown("x", after=40.0))

    async def test_one_is_refused(self, tmp_path: Path) -> None:
        """The one record that is refused is set aside, with a record that says so; all others arrive, each once."""
        async with journal(tmp_path, 1_000) as here:
            receiver = FakeReceiver(refusing(700))
            sink = sink_of(here, receiver)
            await drain(sink)
            (told,) = [record_of(item.line) for item in receiver.items if item.event == "sink_refused"]
            said = json.loads(told.fields)
            assert {"sink": "siem", "from_seq": 700, "until_seq": 700, "count": 1} == {
                name: said[name] for name in ("sink", "from_seq", "until_seq", "count")
            }
            assert [*range(1, 700), *range(701, 1_003)] == receiver.seqs
            assert (1, 1_002) == (sink.state.refused, table_of(here).load()["siem"].seq)
            assert receiver.asked < 40

    async def test_all_are_refused(self, tmp_path: Path) -> None:
        """A sink that refuses one record after the other has them one at a pause, and what tells of that makes no more."""
        async with journal(tmp_path, 40) as here:
            receiver = FakeReceiver(refusing(*range(1, 1_000)))
            sink = sink_of(here, receiver)
            for _ in range(1_000):
                if sink.state.seq > SINK_REFUSED_IN_ROW:
                    break
                with pytest.raises(SinkDown) if sink.state.seq == SINK_REFUSED_IN_ROW else _nothing():
                    await sink.step()
            assert SINK_REFUSED_IN_ROW + 1 == sink.state.refused
            await sink.failed(SinkDown("x"))
            records = [each.event for each in await here.journal.tail(1_000)]
            assert SINK_REFUSED_IN_ROW + 1 == records.count("sink_refused")
            while sink.is_behind(await here.journal.first() and here.journal.written_seq):
                try:
                    await sink.step()
                except SinkDown:
                    continue
            assert 41 == [each.event for each in await here.journal.tail(1_000)].count("sink_refused")

    async def test_some_are_refused(self, tmp_path: Path) -> None:
        """Of a batch that was taken in part it is recorded how many are missing, and nothing is sent again."""
        async with journal(tmp_path, 5) as here:
            receiver = FakeReceiver(lambda items: Taken(2, "too old") if len(items) > 2 else None)
            sink = sink_of(here, receiver)
            await drain(sink)
            await drain(sink)
            (told,) = [each for each in await here.journal.tail(100) if each.event == "sink_refused"]
            assert {"count": 2, "from_seq": 1, "until_seq": 6, "reason": "too old", "sink": "siem"} == json.loads(
                told.fields
            )
            assert ([1, 2, 3, 4, 5, 6, 7], 2) == (receiver.seqs, sink.state.refused)

    async def test_pruned_before(self, tmp_path: Path) -> None:
        """A sink for which records were pruned is told which, first; the journal has a record of that too."""
        async with journal(tmp_path, 50, kept_least=10) as here:
            assert 30 == await here.journal.prune(30, 1)
            receiver = FakeReceiver()
            sink = sink_of(here, receiver, seq=5)
            await drain(sink)
            await drain(sink)  # with the record that tells of it
            assert "gap" == receiver.items[0].kind
            assert [{"kind": "gap", "from_seq": 6, "until_seq": 30}] == receiver.notices("gap")
            assert [31, 53] == [receiver.seqs[0], receiver.seqs[-1]]
            (told,) = [each for each in await here.journal.tail(100) if each.event == "sink_gap"]
            assert {"sink": "siem", "from_seq": 6, "until_seq": 30} == json.loads(told.fields)
            assert 25 == table_of(here).load()["siem"].gap

    async def test_a_gap_is_refused(self, tmp_path: Path) -> None:
        """A sink that takes no notices has the records all the same, and no record tells of that without end."""
        async with journal(tmp_path, 50, kept_least=10) as here:
            await here.journal.prune(30, 1)

            def deed(items: Sequence[Item]) -> None:
                if any(item.kind != "record" for item in items):
                    raise ItemsRefused("no")

            receiver = FakeReceiver(deed)
            sink = sink_of(here, receiver, seq=5)
            for _ in range(5):
                await drain(sink)
                await here.signed.settle()
            assert set(range(31, 54)) == set(receiver.seqs)
            assert "sink_refused" not in {each.event for each in await here.journal.tail(100)}

    async def test_a_full_disk(self, tmp_path: Path) -> None:
        """Where its place cannot be written the sink fails, loses nothing that is to be recorded, and sends on later."""
        async with journal(tmp_path, 5) as here:
            receiver = FakeReceiver(refusing(3))
            sink = sink_of(here, receiver)
            table, failing = sink._store, True

            class Full:
                passage = table.passage

                async def save(self, state: SinkState, events: Sequence[Event]) -> None:
                    if failing:
                        raise StoreFull("there is no room")
                    await table.save(state, events)

            sink._store = Full()
            with pytest.raises(StoreFull):
                await drain(sink)
            failing = False
            await drain(sink)
            assert ["sink_refused"] == [each.event for each in await here.journal.tail(1)]
            assert [1, 2, 4, 5, 6, 7] == receiver.seqs


@pytest.mark.full
class TestSinks:
    async def test_none_waits_for_another(self, tmp_path: Path) -> None:
        """A sink that hangs holds up neither another one nor the end for longer than it may."""
        async with journal(tmp_path, 10) as here:
            hung, well = FakeReceiver(), FakeReceiver()

            async def hang(_items: Sequence[Item]) -> Taken:
                await asyncio.Event().wait()
                return Taken()

            hung.send = hang  # type: ignore[method-assign]
            one, two = sink_of(here, hung), sink_of(here, well)
            sinks = Sinks((one, two), 11)
            loop = asyncio.get_running_loop()
            here.database.on_commit(lambda _seconds: sinks.heard(loop, here.journal.written_seq))
            running = asyncio.create_task(sinks.run())
            async with asyncio.timeout(20):
                while len(well.seqs) < 11:
                    await asyncio.sleep(0.02)
                await here.record(5)
                while len(well.seqs) < 16:
                    await asyncio.sleep(0.02)
                assert (16, 0) == (sinks.lag_records(one), sinks.lag_records(two))
                await here.record(1)
                await sinks.finish()
            assert running.done()
            assert 17 == len(well.seqs)
            assert 17 == table_of(here).load()["siem"].seq


class TestTable:
    async def test_places(self, tmp_path: Path) -> None:
        """A sink's place is kept by its name, with all that is known of it, and begins with nothing."""
        async with journal(tmp_path, 3) as here:
            table = table_of(here)
            assert ({}, 4) == (table.load(), table.head())
            state = SinkState("siem", 3, log=1, size=2, refused=5, gap=6)
            await table.save(state, [Event(1, "sink_begun", "{}")])
            assert ({"siem": state}, 5) == (table.load(), table.head())

    async def test_few_are_wanted(self, tmp_path: Path) -> None:
        """A read passes a bounded number of records, and says up to where it has looked."""
        async with journal(tmp_path, 6_000) as here:
            passage = await table_of(here).passage(0, 500, Wanted(("task_ended",)))
            assert ((), 5_000, 6_001, 1) == (passage.items, passage.reached, passage.head, passage.first)


def test_lines() -> None:
    """A record's line is read as a record again; a notice's line is none."""
    record = Record(7, 1, "task_begun", "{}", "0" * 64)
    assert record == record_of(Item.of_record(record).line)
    assert b'{"from_seq":1,"kind":"gap","until_seq":5}' == Item.of_gap(1, 5, 0).line


class _nothing:
    def __enter__(self) -> None:
        """Nothing is expected."""

    def __exit__(self, *_: object) -> None:
        """Nothing is hidden."""
