"""folder_watch.py: what a folder says comes into force, and what cannot is told once and tried again."""

import asyncio

import pytest
from fakes.clock import FakeClock
from sojourn.errors import InvalidConfig, StoreFailed
from sojourn.files import folder_watch
from sojourn.files.folder_watch import INTERNAL, FolderFollower, WatchedFolder
from sojourn.limits import FOLLOWED_RETRY_SECONDS


class Follower(FolderFollower):
    """Has in force what the one file of a folder says, unless `failure` stands in the way."""

    def __init__(self, folder, clock):
        super().__init__(folder, clock.boot, "follower_failed")
        self.watched = WatchedFolder(self.folder, lambda name: name == "one", 10)
        self.in_force, self.told, self.failure = [], [], None
        self.looked = asyncio.Event()

    async def _look(self, settled_seconds, again):
        try:
            found = await self.watched.changed(
                (self.folder / "one").read_text, settled_seconds, again=again or self._due
            )
            if found is not None:
                if self.failure is not None:
                    raise self.failure
                self.in_force.append(found)
                self.fault = ""
        finally:
            self.looked.set()

    def _tell(self, fault):
        self.told.append(fault)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
async def follower(tmp_path, clock):
    (tmp_path / "one").write_text("a")
    return Follower(tmp_path, clock)


async def test_what_has_changed(follower):
    """What the folder says comes into force when it has changed, and when it is to be read again."""
    await follower.look()
    await follower.look()
    (follower.folder / "one").write_text("other")
    await follower.look()
    await follower.look(again=True)
    assert ["a", "other", "other"] == follower.in_force


@pytest.mark.parametrize(
    ("failure", "fault"),
    [
        (InvalidConfig([f"f{number}" for number in range(100)]), "f0; f1"),
        (StoreFailed("no room", detail="secret"), "no room"),
        (ZeroDivisionError("secret"), INTERNAL),
    ],
)
async def test_what_cannot_be_used(follower, clock, failure, fault):
    """What cannot be used is told once, without what is for the log alone, and tried again after a while."""
    follower.failure = failure
    for _ in range(3):
        await follower.look()
        clock.advance(FOLLOWED_RETRY_SECONDS)
    assert [follower.fault] == follower.told
    assert follower.fault.startswith(fault)
    assert "secret" not in follower.fault
    follower.failure = None
    await follower.look()
    assert (["a"], "") == (follower.in_force, follower.fault)


async def test_another_reason(follower, clock):
    """It is told again when the reason is another, and not tried before the time for it."""
    follower.failure = StoreFailed("one")
    await follower.look()
    follower.failure = StoreFailed("other")
    await follower.look()
    assert ["one"] == follower.told
    clock.advance(FOLLOWED_RETRY_SECONDS)
    await follower.look()
    assert ["one", "other"] == follower.told


async def test_waking(follower, monkeypatch):
    """Whoever follows a folder can be woken: it is read at once, although it has not changed."""
    monkeypatch.setattr(folder_watch, "FOLLOWED_LOOK_SECONDS", 3600)
    await follower.look()
    running = asyncio.ensure_future(follower.run())
    follower.looked.clear()
    follower.wake()
    async with asyncio.timeout(20):
        await follower.looked.wait()
    running.cancel()
    await asyncio.wait([running])
    assert ["a", "a"] == follower.in_force
