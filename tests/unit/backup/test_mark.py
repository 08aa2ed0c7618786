"""The mark of an agent that runs: it follows the journal, and is left alone where it is not what that agent wrote last."""

import asyncio
import json
import os
from dataclasses import dataclass, replace
from typing import Any

import pytest
import structlog
from sojourn.backup import mark as mark_module
from sojourn.backup.mark import Mark, Marked, MarkUpkeep
from sojourn.errors import CannotStart
from sojourn.files import atomic
from sojourn.store.snapshot import Head

EPOCH = 5
FIRST, SECOND = Head(10, "a" * 64, 1000), Head(11, "b" * 64, 2000)


@dataclass
class Journal:
    """Stands for the table: what the journal's last record is."""

    head: Head = FIRST

    async def head_now(self) -> Head:
        return self.head


class Running:
    """An agent that has started with a mark, and records things."""

    def __init__(self, folder):
        (folder / "marks").mkdir(mode=0o700)
        self.journal = Journal()
        self.mark = Mark(folder / "marks", folder / "data")
        self.mark.write(EPOCH, FIRST, 1.0)
        self.upkeep = MarkUpkeep(self.mark, self.journal, EPOCH)

    @property
    def said(self) -> dict[str, Any]:
        return json.loads(self.mark.path.read_text())

    def says(self, **changes: Any) -> bytes:
        """Somebody else has the mark say something else. Return what it says."""
        self.mark.path.write_text(json.dumps({**self.said, **changes}))
        return self.mark.path.read_bytes()

    async def run(self) -> None:
        await asyncio.wait_for(self.upkeep.run(), 20)


@pytest.fixture
def running(tmp_path):
    return Running(tmp_path)


OTHERS = [{"seq": 12}, {"epoch": EPOCH + 1}, {"digest": "c" * 64}, {"seq": 9}, {"since": 2}]


class TestFollows:
    async def test_the_journal(self, running):
        """It says how far the journal is, and is not written while that is as it was."""
        running.journal.head = SECOND
        await running.upkeep.look()
        assert (11, "b" * 64, EPOCH, 1) == tuple(running.said[each] for each in ("seq", "digest", "epoch", "since"))
        before = os.stat(running.mark.path).st_ino
        await running.upkeep.look()
        assert (before, "") == (os.stat(running.mark.path).st_ino, running.upkeep.fault)

    @pytest.mark.parametrize("lies_there", [True, False])
    async def test_after_a_write_that_fails(self, running, monkeypatch, lies_there):
        """A write that fails, before or after the new mark has its name, is told, and the next one is made."""

        def failing(*arguments):
            if lies_there:
                atomic.write(*arguments)
            raise OSError(5, "Input/output error")

        running.journal.head = SECOND
        with monkeypatch.context() as patched:
            patched.setattr(mark_module, "atomic", type("Failing", (), {"write": staticmethod(failing)}))
            await running.upkeep.look()
        assert "Input/output error" == running.upkeep.fault
        running.journal.head = replace(SECOND, seq=12)
        await running.upkeep.look()
        assert ("", 12) == (running.upkeep.fault, running.said["seq"])

    async def test_one_that_was_read_at_the_start(self, running, tmp_path):
        """What a start has read is what its agent goes on from."""
        mark = Mark(tmp_path / "marks", tmp_path / "data")
        assert Marked(str(tmp_path / "data"), 1, EPOCH, FIRST) == mark.read()
        await MarkUpkeep(mark, Journal(SECOND), EPOCH).look()
        assert 11 == running.said["seq"]

    async def test_when_it_comes_back(self, running):
        """One that is not there, as where a share is not mounted, is not begun anew: it is told until it is back."""
        content = running.mark.path.read_bytes()
        running.mark.path.unlink()
        running.journal.head = SECOND
        await running.upkeep.look()
        assert "is not there any more" in running.upkeep.fault
        assert not running.mark.path.exists()
        running.mark.path.write_bytes(content)
        await running.upkeep.look()
        assert ("", 11) == (running.upkeep.fault, running.said["seq"])


class TestLeftAlone:
    @pytest.mark.parametrize("other", OTHERS, ids=str)
    @pytest.mark.parametrize("head", [FIRST, SECOND, replace(SECOND, seq=20)], ids=["idle", "next", "beyond"])
    async def test_what_another_wrote(self, running, other, head):
        """A mark that is ahead, of another start or another history is not written any more, whatever is recorded, and
        an alert says why.
        """
        content = running.says(**other)
        running.journal.head = head
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                await running.upkeep.look()
        assert content == running.mark.path.read_bytes()
        assert ["mark_not_written"] == [each["event"] for each in logs]
        assert "the machine was put back while it ran" in running.upkeep.fault

    @pytest.mark.parametrize("head", [replace(FIRST, seq=9), replace(FIRST, digest="c" * 64)], ids=["behind", "other"])
    async def test_a_journal_that_was_put_back(self, running, head):
        """A journal that is behind what was written of it, or has another record there, is not written of."""
        content = running.mark.path.read_bytes()
        running.journal.head = head
        await running.upkeep.look()
        assert content == running.mark.path.read_bytes()
        assert running.upkeep.fault

    async def test_the_agent_ends(self, running, monkeypatch):
        """The agent ends of it, also where it records nothing."""
        monkeypatch.setattr(mark_module, "MARK_IDLE_SECONDS", 0.01)
        running.says(seq=12)
        with pytest.raises(CannotStart, match="its next start is one on a folder that was put back"):
            await running.run()
