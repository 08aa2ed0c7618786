"""jwtkeys.py: a few keys over restarts; the newest signs, the others verify until they end."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from fakes.clock import FakeClock
from sojourn.authority import keyfile
from sojourn.authority.jwtkeys import JwtKeys
from sojourn.errors import CannotStart

TTL = timedelta(days=30)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jwt.pem"


@pytest.fixture
def keys(path, clock):
    return JwtKeys(path, clock, TTL)


def kids(keys):
    return list(keys.public())


def test_first_start(keys, clock, path):
    """Without a file there is one key, and it is on disk."""
    key, ends = keys.active()
    assert ([key.kid], clock.now() + TTL) == (kids(keys), ends)
    assert key.kid.encode() in keyfile.read(path)


def test_restart(keys, clock, path):
    """After a restart keys, order and times are the same, and the file is untouched."""
    clock.advance(TTL.total_seconds() / 2)
    keys.maintain()
    before = path.stat().st_ino
    again = JwtKeys(path, clock, TTL)
    assert (kids(keys), keys.active()[1]) == (kids(again), again.active()[1])
    assert before == path.stat().st_ino
    assert keys.active()[0].public.jwk == again.active()[0].public.jwk


def test_a_new_key_at_half_of_its_life(keys, clock):
    """At half of its life a key is followed by another, which signs from then on; both verify."""
    (first,) = kids(keys)
    clock.advance(TTL.total_seconds() / 2 - 1)
    assert not keys.maintain()
    clock.advance(1)
    assert keys.maintain()
    assert first != keys.active()[0].kid
    assert [first, keys.active()[0].kid] == kids(keys)


def test_an_ended_key_is_dropped(keys, clock):
    """A key whose life is over verifies no more."""
    (first,) = kids(keys)
    for _ in range(2):
        clock.advance(TTL.total_seconds() / 2)
        keys.maintain()
    assert first not in kids(keys)


def test_never_without_a_key(keys, clock, path):
    """After a long sleep or stop there is a fresh key to sign with."""
    clock.advance(TTL.total_seconds() * 5)
    assert keys.maintain()
    assert keys.active()[1] > clock.now()
    clock.advance(TTL.total_seconds() * 5)
    again = JwtKeys(path, clock, TTL)
    assert ([again.active()[0].kid], True) == (kids(again), again.active()[1] > clock.now())


def test_next_change(keys, clock):
    """The next change is said: nothing happens before, something does then."""
    for _ in range(6):
        clock.advance((keys.next_change - clock.now()).total_seconds() - 1)
        assert not keys.maintain()
        clock.advance(1)
        assert keys.maintain()


def rsa_key():
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"\n",
        b"# kid 1 2\n",
        b"# kid 1\n",
        b"# kid x y\n-----BEGIN PRIVATE KEY-----\n",
        b"# kid 1 2\n" + rsa_key(),
    ],
)
def test_a_damaged_file(path, clock, content):
    """A file that cannot be parsed is refused with what to do, and never overwritten."""
    keyfile.write_new(path, content)
    with pytest.raises(CannotStart, match="backup"):
        JwtKeys(path, clock, TTL)
    assert content == keyfile.read(path)


def test_an_empty_file(path, clock):
    """A file that was cut to nothing is damaged too: tokens that are out depend on it."""
    keyfile.write_new(path, b"")
    with pytest.raises(CannotStart):
        JwtKeys(path, clock, TTL)


def test_a_write_that_fails_changes_nothing(keys, clock, monkeypatch):
    """If a new key cannot be written, the old one signs on: no token's key is ever only in memory."""
    before = kids(keys)
    clock.advance(TTL.total_seconds() / 2)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keyfile, "write_new", refuse)
    with pytest.raises(OSError, match="space"):
        keys.maintain()
    assert before == kids(keys)
