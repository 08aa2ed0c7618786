"""credentials/sealing.py: what is on disk of a handle is of no use without the key, or in another credential's place."""

import pytest
from sojourn.credentials.sealing import HandleUnreadable, Sealing
from sojourn.errors import CannotStart, StoreFailed

HANDLE = {"refresh_token": "h4ndle"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "handles.key"


@pytest.fixture
async def sealing(path):
    made = Sealing(path)
    await made.prepare()
    return made


def test_no_key_before_it_is_needed(path):
    """An agent that never has such a credential never has such a key."""
    Sealing(path)
    assert not path.exists()


async def test_opened_again(sealing):
    """What was sealed is opened for the same credential."""
    assert HANDLE == sealing.open("ext_1", sealing.seal("ext_1", HANDLE))


async def test_not_readable(sealing):
    """The handle does not stand in what is sealed, and no two seals of it are alike."""
    first, second = sealing.seal("ext_1", HANDLE), sealing.seal("ext_1", HANDLE)
    assert b"h4ndle" not in first
    assert first != second


async def test_the_next_run(sealing, path):
    """Another run of the agent opens it with the key on disk, which only the agent's user can read."""
    assert HANDLE == Sealing(path).open("ext_1", sealing.seal("ext_1", HANDLE))
    assert 0o600 == path.stat().st_mode & 0o777


async def test_another_credential(sealing):
    """A handle is not good in another credential's place."""
    with pytest.raises(HandleUnreadable, match="cannot be opened"):
        sealing.open("ext_2", sealing.seal("ext_1", HANDLE))


@pytest.mark.parametrize(
    "damage", [lambda text: text[:-1], lambda text: b"\x02" + text[1:], lambda _: b"", lambda _: b"\x01"]
)
async def test_damaged(sealing, damage):
    """What was changed, or cut short, is not opened."""
    with pytest.raises(HandleUnreadable):
        sealing.open("ext_1", damage(sealing.seal("ext_1", HANDLE)))


async def test_a_lost_key(sealing, path):
    """Without the key that it was sealed with nothing is opened, whether there is another one or none."""
    sealed = sealing.seal("ext_1", HANDLE)
    path.unlink()
    after = Sealing(path)
    with pytest.raises(HandleUnreadable, match="is gone"):
        after.open("ext_1", sealed)
    await after.prepare()
    with pytest.raises(HandleUnreadable, match="another key"):
        after.open("ext_1", sealed)


async def test_a_key_that_others_can_read(sealing, path):
    """The agent does not start with a key that others may have read."""
    path.chmod(0o640)
    with pytest.raises(CannotStart, match="can be read by others"):
        Sealing(path)


def test_a_damaged_key(path):
    """The agent does not start with a file that is no key."""
    path.write_bytes(b"short")
    path.chmod(0o600)
    with pytest.raises(CannotStart, match="damaged"):
        Sealing(path)


async def test_no_room_for_a_key(tmp_path):
    """A key that cannot be written is told as any write that fails."""
    with pytest.raises(StoreFailed):
        await Sealing(tmp_path / "missing" / "handles.key").prepare()
