"""jwt_keys.py: the keys of JWT-SVIDs over restarts; one signs, the others verify until they end."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sojourn.authority import jwt_keys, key_files
from sojourn.authority.jwt_keys import JwtKeys, RsaKeys
from sojourn.errors import CannotStart, StoreFailed
from sojourn.files import atomic

TTL = timedelta(days=30)


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
    assert ([keys.active.key.kid], clock.now() + TTL) == (kids(keys), keys.active.not_after)
    assert keys.active.id.encode() in key_files.read(path)


def test_an_id_is_an_argument(path, clock, monkeypatch):
    """No key's ID begins as an option of a command does."""
    made = iter(["-a", "-b", "c-"])
    monkeypatch.setattr(jwt_keys.secrets, "token_urlsafe", lambda _size: next(made))
    assert "c-" == JwtKeys(path, clock, TTL).active.id


def test_restart(keys, clock, path):
    """After a restart keys, order, states and times are the same, and the file is untouched."""
    clock.advance(TTL.total_seconds() / 2)
    keys.maintain()
    before = path.stat().st_ino
    again = JwtKeys(path, clock, TTL)
    assert [(each.id, each.status, each.not_after) for each in keys.all] == [
        (each.id, each.status, each.not_after) for each in again.all
    ]
    assert before == path.stat().st_ino
    assert keys.active.key.public.jwk == again.active.key.public.jwk


def test_an_ended_key_is_dropped(keys, clock):
    """A key whose life is over verifies no more."""
    (first,) = kids(keys)
    for _ in range(6):
        clock.advance(TTL.total_seconds() / 6)
        keys.maintain()
    assert first not in kids(keys)


def test_never_without_a_key(keys, clock, path):
    """After a long sleep or stop there is a fresh key to sign with."""
    clock.advance(TTL.total_seconds() * 5)
    assert keys.maintain()
    assert keys.active.not_after > clock.now()
    clock.advance(TTL.total_seconds() * 5)
    again = JwtKeys(path, clock, TTL)
    assert (again.active.id, True) == (kids(again)[-1], again.active.not_after > clock.now())
    clock.advance(3_600)
    assert (True, [again.active.id]) == (again.maintain(), kids(again))


def rsa_key():
    return rsa.generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"\n",
        b"# kid 1 2\n",
        b"# kid 1\n",
        b"# kid x y active\n-----BEGIN PRIVATE KEY-----\n",
        b"# kid 1 2 active\n" + rsa_key(),
    ],
)
def test_a_damaged_file(path, clock, content):
    """A file that cannot be parsed is refused with what to do, and never overwritten."""
    atomic.write(path, content)
    with pytest.raises(CannotStart, match="backup"):
        JwtKeys(path, clock, TTL)
    assert content == key_files.read(path)


@pytest.mark.parametrize(
    ("before", "after"), [(b" active", b" lost"), (b" active", b" prepared"), (b" active", b" active dirty")]
)
def test_a_damaged_state(keys, path, clock, before, after):
    """A file with an unknown state or mark, or without an active key, is refused."""
    content = key_files.read(path).replace(before, after)
    atomic.write(path, content)
    with pytest.raises(CannotStart, match="backup"):
        JwtKeys(path, clock, TTL)


def test_an_empty_file(path, clock):
    """A file that was cut to nothing is damaged too: tokens that are out depend on it."""
    atomic.write(path, b"")
    with pytest.raises(CannotStart):
        JwtKeys(path, clock, TTL)


def test_a_file_of_the_first_releases(keys, path, clock):
    """Files that had no states are read: the last key signs, the ones before it are old."""
    clock.advance(TTL.total_seconds() / 2)
    keys.maintain()
    expected = [each.id for each in keys.all]
    content = key_files.read(path).replace(b" active\n", b"\n").replace(b" prepared\n", b"\n")
    atomic.write(path, content)
    again = JwtKeys(path, clock, TTL)
    assert (expected, expected[-1], expected[:-1]) == (kids(again), again.active.id, [each.id for each in again.old])


def test_a_write_that_fails_changes_nothing(keys, clock, monkeypatch):
    """If a new key cannot be written, the old one signs on: no token's key is ever only in memory."""
    before = kids(keys)
    clock.advance(TTL.total_seconds() / 2)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "write", refuse)
    with pytest.raises(StoreFailed, match="space"):
        keys.maintain()
    assert before == kids(keys)


class TestRsa:
    """Keys for RS256."""

    def test_over_restarts(self, path, clock):
        """An RSA key signs by RS256, and is the same after a restart."""
        keys = RsaKeys(path, clock, TTL)
        assert ("RS256", 2048) == (keys.active.key.algorithm, keys.active.key._key.key_size)
        assert dict(keys.public()) == dict(RsaKeys(path, clock, TTL).public())

    def test_of_the_other_kind(self, path, keys, clock):
        """A file with keys of another kind is refused with what to do, and left as it is."""
        before = path.read_bytes()
        with pytest.raises(CannotStart, match="backup"):
            RsaKeys(path, clock, TTL)
        assert before == path.read_bytes()

    def test_made_ahead(self, path, clock, monkeypatch):
        """With threads at hand each key but the first is made in one of them: nobody waits for it."""
        made_by, make = [], jwt_keys._rsa_key

        def noted():
            made_by.append(threading.current_thread() is threading.main_thread())
            return make()

        monkeypatch.setattr(jwt_keys, "_rsa_key", noted)
        with ThreadPoolExecutor(1) as pool:
            keys = RsaKeys(path, clock, TTL, None, pool)
            made = [keys.prepare().id for _ in range(3)]
        assert (3, 1) == (len(set(made)), sum(made_by))
        assert made[-1] == keys.prepared.id

    def test_threads_that_are_gone(self, path, clock):
        """When the threads have ended, a key is made all the same."""
        pool, hold = ThreadPoolExecutor(1), threading.Event()
        pool.submit(hold.wait)
        keys = RsaKeys(path, clock, TTL, None, pool)
        pool.shutdown(wait=False, cancel_futures=True)
        hold.set()
        assert keys.prepare().id == keys.prepared.id
