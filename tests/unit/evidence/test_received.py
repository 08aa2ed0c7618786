"""received.py: what a sink's receiver has, of a real journal by a real sink, and each way in which something is wrong."""

import json
import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from fakes.signed_journals import started
from fakes.sinks import FakeReceiver, drain, sink_of
from sojourn.evidence.received import ReceivedCheck
from sojourn.ocsf.translation import OcsfLines
from sojourn.sinks.items import OWN, Lines, Wanted
from sojourn.spiffe.ids import SpiffeId
from sojourn.tlog.notes import VerifierKey


async def received(
    folder: Path, *numbers: int, rotate: bool = False, start: int = 0, lines: Lines = OWN
) -> tuple[list[bytes], str]:
    """The lines that a receiver has of a journal with so many records, one batch of them after the other, and the key."""
    async with started(folder, kept_least=5) as here:
        vkey, receiver = here.vkey, FakeReceiver()
        sink = sink_of(here, receiver, seq=start, wanted=Wanted(lines=lines))
        for number in numbers:
            await here.record(number)
            await drain(sink)
        if rotate:
            await here.signed.rotate({"by_uid": 0})
            await drain(sink)
            await here.record(3)
            await drain(sink)
        return [item.line + b"\n" for item in receiver.items], vkey


def checked(lines: Iterable[bytes], *keys: str) -> ReceivedCheck:
    found = ReceivedCheck([VerifierKey.parse(each) for each in keys])
    found.read(lines)
    found.finish()
    return found


def codes(found: ReceivedCheck) -> set[str]:
    return {each.code for each in found.faults.found}


async def test_all_is_there(tmp_path: Path) -> None:
    """All records and checkpoints are there and fit, also with lines twice, behind heads, and with the last one cut short."""
    lines, vkey = await received(tmp_path, 700, 30, 1)
    found = checked(lines, vkey)
    assert (True, 732, 0, [], 3, 3) == (
        found.good,
        found.records,
        found.again,
        found.missing,
        found.checkpoints,
        found.compared,
    )
    again = checked([*lines[:300], *lines[100:]], vkey)
    assert (True, 200) == (again.good, again.again)
    assert checked([b"<110>1 2030-01-01T00:00:00.000Z here sojourn - x - " + each for each in lines], vkey).good
    short = checked([*lines[:-1], lines[-1][:20]], vkey)
    assert (True, 2) == (short.good, short.compared)
    assert checked([*lines, b"\n"]).good
    assert checked(lines).summary()["signatures"] is False
    later = checked(lines[5:], vkey)
    assert (True, 0, 6) == (later.good, later.compared, later.summary()["first_seq"])


async def test_in_ocsf(tmp_path: Path) -> None:
    """What came as events of OCSF is checked alike: it is whole, as it was sent or written anew; a change is found."""
    ocsf = OcsfLines(SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here"))
    lines, vkey = await received(tmp_path, 300, 20, lines=ocsf, rotate=True)
    found = checked(lines, vkey)
    assert (True, 325, 4, 4) == (found.good, found.records, found.checkpoints, found.compared)
    anew = [json.dumps(json.loads(each), sort_keys=True, ensure_ascii=False).encode() + b"\n" for each in lines]
    assert (True, 4) == (checked(anew, vkey).good, checked(anew, vkey).compared)
    missing = checked([*lines[:100], *lines[102:]], vkey)
    assert ([(101, 102)], {"record_missing"}) == (missing.missing, codes(missing))
    gap = ocsf.notice("gap", 102, 1, b'{"from_seq":101,"kind":"gap","until_seq":102}') + b"\n"
    assert checked([*lines[:100], gap, *lines[102:]], vkey).good
    changed = lines[100].replace(b'"n":', b'"m":')
    assert changed != lines[100]
    assert {"record_changed", "tree_changed"} == codes(checked([*lines[:100], changed, *lines[101:]], vkey))


async def test_a_format_that_was_changed(tmp_path: Path) -> None:
    """A receiver may have some lines in one format and some in the other."""
    ocsf = OcsfLines(SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here"))
    async with started(tmp_path) as here:
        got = []
        for lines in (OWN, ocsf, OWN):
            await here.record(10)
            receiver = FakeReceiver()
            await drain(sink_of(here, receiver, wanted=Wanted(lines=lines)))
            got += [item.line + b"\n" for item in receiver.items]
        found = checked(got, here.vkey)
    assert (True, 31, found.checkpoints) == (found.good, found.records, found.compared)


async def test_something_is_missing(tmp_path: Path) -> None:
    """Each record that is not there is told, unless the agent has told so before."""
    lines, vkey = await received(tmp_path, 200)
    at = random.randrange(1, 150)
    found = checked([*lines[:at], *lines[at + 3 :]], vkey)
    assert ([(at + 1, at + 3)], {"record_missing"}, at + 1) == (found.missing, codes(found), found.faults.first_bad_seq)
    gap = b'{"from_seq":%d,"kind":"gap","until_seq":%d}\n' % (at + 1, at + 3)
    assert checked([*lines[:at], gap, *lines[at + 3 :]], vkey).good
    part = b'{"from_seq":%d,"kind":"gap","until_seq":%d}\n' % (at + 1, at + 2)
    assert [(at + 3, at + 3)] == checked([*lines[:at], part, *lines[at + 3 :]], vkey).missing


async def test_something_was_changed(tmp_path: Path) -> None:
    """A byte of a record, two that changed places in number, another record, a tree that is another's: each is found."""
    lines, vkey = await received(tmp_path, 100, 20)
    at = random.randrange(2, 90)
    changed = lines[at].replace(b'"n":', b'"m":')
    assert changed != lines[at]
    found = checked([*lines[:at], changed, *lines[at + 1 :]], vkey)
    assert ({"record_changed", "tree_changed"}, at + 1) == (codes(found), found.faults.first_bad_seq)
    forged = re.sub(rb'"digest":"[0-9a-f]{8}', b'"digest":"00000000', lines[at])
    assert {"received_twice", "record_changed"} == codes(checked([*lines, forged], vkey))
    assert {"record_unreadable"} == codes(checked([*lines, b'{"kind":"other"}\n'], vkey))
    assert {"record_unreadable"} == codes(checked([*lines, b"noise\n"], vkey))
    assert "checkpoint_unreadable" in codes(
        checked([*lines, b'{"first_seq":1,"kind":"checkpoint","note":"x","until_seq":1}\n'], vkey)
    )


async def test_another_journal(tmp_path: Path) -> None:
    """Records of a journal that was written anew are found beside those of before, and its checkpoints are not believed."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    lines, vkey = await received(tmp_path / "one", 50)
    other, other_key = await received(tmp_path / "two", 50)
    assert {"received_twice", "checkpoint_not_signed"} <= codes(checked([*lines, *other], vkey))
    assert "checkpoint_not_signed" not in codes(checked([*lines, *other], vkey, other_key))
    assert {"checkpoint_not_signed"} == codes(checked(other, vkey))


async def test_the_key_is_changed(tmp_path: Path) -> None:
    """Who has the key of before believes the next one, by the checkpoint that both have signed."""
    lines, vkey = await received(tmp_path, 20, rotate=True)
    found = checked(lines, vkey)
    assert (True, found.checkpoints) == (found.good, found.compared)
    assert 3 == found.checkpoints


@pytest.mark.parametrize(
    "line",
    [b"{", b'{"kind":1}', b'{"kind":"gap"}', b'{"kind":"gap","from_seq":"x","until_seq":1}', b"{}", b"\xff{\xff"],
)
def test_any_line(line: bytes) -> None:
    """A line that is none of ours is a fault, whatever it is."""
    assert {"record_unreadable"} == codes(checked([line + b"\n"]))
