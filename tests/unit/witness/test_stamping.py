"""witness/stamping.py: the agent's side of a time-stamp authority: no stamp counts that is not proved."""

import asyncio
import os
import shutil
import time
from datetime import timedelta

import pytest
from fakes.signed_journals import started
from harness import tampering
from harness.tsaplace import TsaKeys
from sojourn.audit import stamped_notes
from sojourn.audit.stamped_notes import StampedNotes
from sojourn.evidence.check import FolderCheck, summary
from sojourn.evidence.timestamps import query_of, roots_of
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import EMPTY
from sojourn.tlog.notes import Note
from sojourn.witness.stamping import Stamping, StampRefused
from sojourn.witness.witnesses import Witnesses

DAY = 86_400


class Authority:
    """Asked as over HTTP; `instead`: what it answers to a query."""

    def __init__(self, keys):
        self.keys, self.queries, self.instead = keys, [], None

    async def post_content(self, url, content, *, step, headers=None):
        assert ("https://tsa.example/", "timestamp") == (url, step)
        assert "application/timestamp-query" == headers["content-type"]
        self.queries.append(content)
        if self.instead is not None:
            return self.instead(content)
        return HttpResponse(200, {}, await asyncio.to_thread(self.keys.reply, content))

    async def close(self):
        """There is nothing to let go of."""

    def stamping(self, here):
        """As a start makes it, on a machine whose clock is right."""
        here.clock.step_wall(time.time() - here.clock.now().timestamp())
        roots = roots_of(self.keys.roots)
        return Stamping(
            "https://tsa.example/", "tsa.example", DAY, roots, self, here.signed, here.clock, lambda: 0.0
        )  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return TsaKeys(tmp_path_factory.mktemp("tsa"))


def verdict(here, folder, keys, *, roots=None):
    found = FolderCheck(
        folder, [here.signed._signer.key], None, lambda *_: None, tsa=roots_of((roots or keys).roots)
    ).run()
    return [each.code for each in found.faults.found], found


def set_back(here, seconds):
    """Let time go by with the wall clock where it is, so that the authority's stamps are of now."""
    here.clock.advance(seconds)
    here.clock.step_wall(-seconds)


async def test_one_a_day(tmp_path, keys):
    """A checkpoint is stamped at once, and a new one a day later by the boot clock; nothing is stamped twice."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        stamping = authority.stamping(here)
        assert stamping.is_due
        await stamping.step()
        await here.record(3)
        for seconds, due in ((0, False), (DAY - 60, False), (120, True)):
            set_back(here, seconds)
            assert due == stamping.is_due
        await stamping.step()
        set_back(here, 2 * DAY)
        assert not stamping.is_due
        assert (2, 4) == (len(authority.queries), stamping.size)
        assert 2 == len(StampedNotes(tmp_path).of(here.signed.state.origin))


@pytest.mark.parametrize("apart", [-290, 290])
async def test_another_clock(tmp_path, keys, apart):
    """An authority whose clock is a little off is asked no more often for it, over a start either."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        stamping = authority.stamping(here)
        at = here.clock.now() + timedelta(seconds=apart)
        authority.instead = lambda query: HttpResponse(200, {}, keys.signed(query, at))
        stamping._every_seconds = 120
        await stamping.step()
        await here.record(3)
        again = authority.stamping(here)
        again._every_seconds = 120
        assert (int(at.timestamp()), False, False) == (stamping.stamped_at, stamping.is_due, again.is_due)


async def test_over_a_start(tmp_path, keys):
    """After a start the next stamp is due by when the last one was written, whatever time is in it."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        await authority.stamping(here).step()
        await here.record(3)
        [written] = (tmp_path / "timestamps").glob("*/*.tsr")
        for ago, due in ((0, False), (DAY - 60, False), (DAY + 60, True), (-DAY, True)):
            at = time.time() - ago
            os.utime(written, (at, at))
            assert due == authority.stamping(here).is_due


@pytest.mark.parametrize(("apart", "said"), [(310, "ahead of"), (-310, "behind"), (90 * DAY, "ahead of")])
async def test_a_time_that_is_not_now(tmp_path, keys, apart, said):
    """A stamp that is further from this machine's clock than both can be off is said to be wrong, and not kept."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        stamping = authority.stamping(here)
        at = here.clock.now() + timedelta(seconds=apart)
        authority.instead = lambda query: HttpResponse(200, {}, keys.signed(query, at))
        with pytest.raises(StampRefused, match=said):
            await stamping.step()
        assert ([], 0) == (StampedNotes(tmp_path).of(here.signed.state.origin), stamping.size)


def test_what_goes(tmp_path, monkeypatch):
    """Where there are too many stamps, those of the fewest leaves go, whatever times an authority has put into the others."""
    monkeypatch.setattr(stamped_notes, "STAMPS_KEPT", 3)
    notes = StampedNotes(tmp_path)
    for size, at in ((1, 9_000), (2, 400), (3, 300), (4, 200), (5, 100)):
        notes.keep("example.org/audit/x/0123", at, size, b"note", b"reply")
    assert [3, 4, 5] == [each.size for each in notes.of("example.org/audit/x/0123")]


@pytest.mark.parametrize(
    ("instead", "said"),
    [
        (lambda keys, _: lambda _q: HttpResponse(500, {}, b""), "status 500"),
        (lambda keys, _: lambda _q: HttpResponse(200, {}, b"rubbish"), "no time stamp"),
        (lambda keys, _: lambda _q: HttpResponse(200, {}, b""), "no time stamp"),
        (lambda keys, _: lambda _q: HttpResponse(200, {}, b"x" * 70_000), "more than"),
        (lambda keys, _: lambda q: HttpResponse(200, {}, keys.reply(q, digests="sha512")), "not granted"),
        (lambda keys, to: lambda q: HttpResponse(200, {}, TsaKeys(to).reply(q)), "not good"),
        (lambda keys, to: lambda q: HttpResponse(200, {}, TsaKeys(to, life=(-9, -1)).reply(q)), "not good"),
    ],
    ids=["status", "rubbish", "empty", "long", "rejected", "foreign", "expired"],
)
async def test_what_is_no_stamp(tmp_path, keys, instead, said, capsys):
    """Whatever else is answered is said once, and nothing is kept; a good one that comes after it counts."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        stamping = authority.stamping(here)
        authority.instead = instead(keys, tmp_path / "other")
        for pause in (10, 20, 40):
            with pytest.raises(StampRefused, match=said) as error:
                await stamping.step()
            assert pause == stamping.failed(error.value)
        assert 1 == capsys.readouterr().out.count("audit_timestamp_failing")
        assert ([], 0) == (StampedNotes(tmp_path).of(here.signed.state.origin), stamping.size)
        authority.instead = None
        await stamping.step()
        assert ("", here.signed.state.size) == (stamping.fault, stamping.size)


async def test_an_answer_to_an_older_query(tmp_path, keys):
    """An answer that was good for an earlier query of the same note is no answer to this one: its nonce is another."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        await authority.stamping(here).step()
        old = keys.reply(authority.queries[0])
        shutil.rmtree(tmp_path / "timestamps")
        stamping = authority.stamping(here)
        authority.instead = lambda _: HttpResponse(200, {}, old)
        with pytest.raises(StampRefused, match=r"(?i)nonce"):
            await stamping.step()


async def test_it_is_away(tmp_path, keys):
    """An authority that cannot be reached is told of, and asked again."""
    async with started(tmp_path) as here:
        authority = Authority(keys)
        stamping = authority.stamping(here)

        def away(_):
            raise ProviderUnavailable("tsa.example has no address")

        authority.instead = away
        witnesses = Witnesses((), stamping)
        here.signed.on_signed(witnesses.wake)
        running = asyncio.ensure_future(witnesses.run())
        async with asyncio.timeout(30):
            while not stamping.fault:
                await asyncio.sleep(0.01)
        assert "tsa.example has no address" == stamping.fault
        await witnesses.close()
        assert running.cancelled()


async def test_a_check(tmp_path, keys):
    """An export says up to which record was there when, by roots that the auditor has; by others, and without, it does not."""
    async with started(tmp_path) as here:
        empty = await here.export(tmp_path / "empty")
        assert ["timestamp_missing"] == verdict(here, empty, keys)[0]
        authority = Authority(keys)
        await here.record(300)
        await authority.stamping(here).step()
        await here.record(10)
        folder = await here.export(tmp_path / "out")
        found, checked = verdict(here, folder, keys)
        assert ([], 1) == (found, len(checked.stamped))
        [said] = summary(checked)["timestamps"]
        assert (301, 301) == (said["size"], said["until_seq"])
        assert ["timestamp_wrong"] == verdict(here, folder, keys, roots=TsaKeys(tmp_path / "other"))[0]
        for pattern in ("logs/*/stamp-*.tsr", "logs/*/stamp-*.note"):
            copy = tmp_path / "copy"
            shutil.copytree(folder, copy)
            tampering.byte_of_file(pattern, 20, 1)(copy)
            tampering.signed_anew(copy, here.signed._signer)
            assert ["timestamp_wrong"] == verdict(here, copy, keys)[0]
            shutil.rmtree(copy)
        [note] = folder.glob("logs/*/stamp-*.note")
        note.unlink()
        tampering.signed_anew(folder, here.signed._signer)
        assert {"file_missing", "timestamp_wrong"} == set(verdict(here, folder, keys)[0])


async def test_of_no_leaves(tmp_path, keys):
    """A stamp of a head without leaves says nothing: it is as if there were none."""
    async with started(tmp_path) as here:
        await Authority(keys).stamping(here).step()
        folder = await here.export(tmp_path / "out")
        [note] = folder.glob("logs/*/stamp-*.note")
        text = Checkpoint(here.signed.state.origin, 0, EMPTY).text
        note.write_text(str(Note(text, (here.signed._signer.sign(text),))))
        note.with_suffix(".tsr").write_bytes(keys.reply(query_of(note.read_bytes())[0]))
        tampering.signed_anew(folder, here.signed._signer)
        found, checked = verdict(here, folder, keys)
        assert (["timestamp_missing"], []) == (found, checked.stamped)


async def test_of_a_time_to_come(tmp_path, keys, monkeypatch):
    """A stamp that is later than the auditor's clock, by more than clocks are off, does not count."""
    async with started(tmp_path) as here:
        await Authority(keys).stamping(here).step()
        folder = await here.export(tmp_path / "out")
        now = time.time()
        for back, codes in ((0, []), (200, []), (400, ["timestamp_wrong"])):
            monkeypatch.setattr(time, "time", lambda back=back: now - back)
            assert codes == verdict(here, folder, keys)[0]


async def test_pruned(tmp_path, keys):
    """Of a stamp of records that are all gone nothing could be compared: it is left out of the export."""
    async with started(tmp_path, kept_least=1) as here:
        authority = Authority(keys)
        await here.record(10)
        await authority.stamping(here).step()
        await here.record(900)
        stamping = authority.stamping(here)
        await stamping.step()
        await here.journal.prune(800, 5)
        await here.signed.settle()
        folder = await here.export(tmp_path / "out")
        found, checked = verdict(here, folder, keys)
        assert ([], [911]) == (found, [each.size for each in checked.stamped])
