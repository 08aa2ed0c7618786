"""A file with a token: fresh while it can be, and gone when it cannot."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from harness.looking import until
from sojourn.errors import InvalidInput, Unavailable
from sojourn.sdk.cloud import token_file as module
from sojourn.sdk.cloud.token_file import Sink, reserve


class Giving:
    """What is given, one after the other; the last again and again."""

    def __init__(self, *gives: str | Exception) -> None:
        self.gives = list(gives)
        self.asked = 0

    async def __call__(self) -> tuple[str, datetime]:
        self.asked += 1
        given = self.gives.pop(0) if len(self.gives) > 1 else self.gives[0]
        if isinstance(given, Exception):
            raise given
        return given, datetime.now(UTC) + timedelta(seconds=0.05)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCAL_FILE_LEAST_SECONDS", 0.01)
    monkeypatch.setattr(module, "LOCAL_FILE_RETRY_SECONDS", 0.05)


@asynccontextmanager
async def kept(path: Path, giving: Giving) -> AsyncIterator[None]:
    sink = Sink(path, giving)
    keeping = asyncio.create_task(sink.keep(await sink.first()))
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def seen(look: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, look, what)


class TestKeep:
    async def test_renewed(self, tmp_path: Path) -> None:
        """The file is written anew when half of the token's life is over, whole each time and of mode 0600."""
        path = tmp_path / "token"
        async with kept(path, Giving("one", "two", "three")):
            await seen(lambda: "three" == path.read_text(), "the third token")
            assert 0o600 == path.stat().st_mode & 0o777
            assert [path] == [each for each in tmp_path.iterdir() if not each.name.startswith(".")]

    async def test_not_to_be_had(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """A token that cannot be renewed is taken away, so that nobody takes it for good; it comes back when it can be."""
        path, giving = tmp_path / "token", Giving("one", Unavailable("the provider is down"), "two")
        async with kept(path, giving):
            await seen(lambda: 2 <= giving.asked and path.exists() and "two" == path.read_text(), "the second token")
        assert 1 == sum("could not be renewed: the provider is down" in each.message for each in caplog.records)

    async def test_gone_meanwhile(self, tmp_path: Path) -> None:
        """Somebody who removes the file gets another one."""
        path, giving = tmp_path / "token", Giving("one")
        async with kept(path, giving):
            path.unlink()
            await seen(path.exists, "it is written again")

    async def test_refused_at_first(self, tmp_path: Path) -> None:
        """What cannot be had at the beginning is raised."""
        with pytest.raises(Unavailable):
            await Sink(tmp_path / "token", Giving(Unavailable("the provider is down"))).first()


class TestReserve:
    def test_made(self, tmp_path: Path) -> None:
        """The file is there at once, empty, and nobody else may read it."""
        path = reserve(str(tmp_path / "token"))
        assert (b"", 0o600) == (path.read_bytes(), path.stat().st_mode & 0o777)

    def test_a_link(self, tmp_path: Path) -> None:
        """A link is not followed, wherever it leads."""
        (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InvalidInput, match="cannot be made"):
            reserve(str(tmp_path / "token"))
        assert not (tmp_path / "elsewhere").exists()

    def test_no_folder(self, tmp_path: Path) -> None:
        """Where there is no folder the error says so."""
        with pytest.raises(InvalidInput, match="No such file or directory"):
            reserve(str(tmp_path / "none" / "token"))
