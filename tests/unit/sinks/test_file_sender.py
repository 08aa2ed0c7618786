"""file_sender.py: lines are on disk when they are taken, whatever happens to the file meanwhile."""

import asyncio
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakes.sinks import items
from sojourn.sinks import file_sender
from sojourn.sinks.file_sender import FileSender
from sojourn.sinks.items import Item, lines
from sojourn.sinks.sender import SinkDown


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.ndjson"


def sender(path: Path, max_bytes: int = 1_000_000, files: int = 3, seconds: float = 10) -> FileSender:
    return FileSender(path, max_bytes, files, seconds)


class TestAppending:
    async def test_lines(self, path: Path) -> None:
        """Each batch is appended, to a file that the agent's user alone can read."""
        to = sender(path)
        for batch in (items(1, 3), items(4)):
            await to.send(batch)
        assert lines(items(1, 4)) == path.read_bytes()
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)
        await to.close()

    async def test_on_disk(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing counts as taken that the disk has not confirmed; what it refused is not left half written."""
        to = sender(path)
        await to.send(items(1))
        synced: list[int] = []

        def fails(descriptor: int) -> None:
            synced.append(descriptor)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(file_sender.os, "fsync", fails)
        with pytest.raises(SinkDown, match="No space left"):
            await to.send(items(2, 5))
        monkeypatch.undo()
        assert (1, lines(items(1))) == (len(synced), path.read_bytes())
        await to.send(items(2))
        assert lines(items(1, 2)) == path.read_bytes()
        await to.close()

    @pytest.mark.parametrize("size", [0, 200_000])
    async def test_a_line_that_is_cut_short(self, path: Path, size: int) -> None:
        """What a crash has left of a line goes before the next one is written, however long it is."""
        path.write_bytes(lines(items(1, 2)) + lines(items(3, size=size))[:-2])
        to = sender(path)
        await to.send(items(3))
        assert lines(items(1, 3)) == path.read_bytes()
        await to.close()

    async def test_moved_away(self, path: Path) -> None:
        """Who moves the file away, as logrotate does, finds another one begun at the next batch."""
        to = sender(path)
        await to.send(items(1))
        path.rename(path.with_name("kept"))
        await to.send(items(2))
        assert (lines(items(1)), lines(items(2))) == (path.with_name("kept").read_bytes(), path.read_bytes())
        await to.close()


class TestRotation:
    async def test_by_size(self, path: Path) -> None:
        """A file that would become larger is renamed to PATH.1, and so on; so many are kept, the newest."""
        to = sender(path, max_bytes=2_000, files=2)
        for number in range(1, 6):
            await to.send(items(number, size=1_500))
        assert {"audit.ndjson", "audit.ndjson.1", "audit.ndjson.2"} == {each.name for each in path.parent.iterdir()}
        assert [lines(items(each, size=1_500)) for each in (5, 4, 3)] == [
            Path(f"{path}{end}").read_bytes() for end in ("", ".1", ".2")
        ]
        await to.close()

    async def test_a_batch_that_is_larger(self, path: Path) -> None:
        """A batch that is larger than a file may be is a file of its own, and none is empty."""
        to = sender(path, max_bytes=100)
        await to.send(items(1, 3))
        await to.send(items(4, 3))
        assert (lines(items(4, 3)), lines(items(1, 3))) == (path.read_bytes(), Path(f"{path}.1").read_bytes())
        assert not Path(f"{path}.2").exists()
        await to.close()


class TestRefused:
    async def test_not_a_file_of_ours(self, path: Path, tmp_path: Path) -> None:
        """No link is followed, and nothing is appended to what others can write, or to what is no file."""

        async def refused(match: str) -> None:
            with pytest.raises(SinkDown, match=match):
                await sender(path).send(items(1))

        (tmp_path / "other").write_bytes(b"")
        path.symlink_to(tmp_path / "other")
        await refused("cannot be written")
        path.unlink()
        path.mkdir()
        await refused("cannot be written")
        path.rmdir()
        os.mkfifo(path)
        await refused("not a regular file")
        path.unlink()
        path.write_bytes(b"")
        path.chmod(0o666)
        await refused("written by others")
        path.chmod(0o600)
        for content in (b"SQLite format 3\0" + b"\n" * 3 + b"x", b"\n"):
            path.write_bytes(content)
            await refused("something else than records")
            assert content == path.read_bytes()
        assert b"" == (tmp_path / "other").read_bytes()
        await FileSenderAt(tmp_path / "none" / "x").refused()

    async def test_one_that_hangs(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that does not answer is given up after the deadline; no further thread waits for it, and then it goes on."""
        go_on, begun = threading.Event(), list[int]()
        real = os.fsync

        def hangs(descriptor: int) -> None:
            begun.append(descriptor)
            go_on.wait(20)
            real(descriptor)

        monkeypatch.setattr(file_sender.os, "fsync", hangs)
        to = sender(path, seconds=0.2)
        with pytest.raises(SinkDown, match="did not take"):
            await to.send(items(1))
        with pytest.raises(SinkDown, match="has not ended"):
            await to.send(items(1))
        await to.close()
        assert 1 == len(begun)
        go_on.set()
        async with asyncio.timeout(20):
            while to._busy.locked():
                await asyncio.sleep(0.01)
        await sender(path).send(items(2))
        assert path.read_bytes().endswith(lines(items(2)))
        await to.close()


class FileSenderAt:
    """A sender to a place that is not there."""

    def __init__(self, path: Path) -> None:
        self._sender = sender(path)

    async def refused(self) -> None:
        with pytest.raises(SinkDown, match="No such file"):
            await self._sender.send(self._items())

    def _items(self) -> Sequence[Item]:
        return items(1)
