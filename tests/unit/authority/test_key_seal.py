"""key_seal.py and keys_at_rest.py: keys that lie on disk sealed, and what is made of others."""

import asyncio
import os
import secrets
from base64 import b64encode
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from fakes.clock import FakeClock
from sojourn.authority import key_files, keys_at_rest
from sojourn.authority.key_seal import KeySeal, is_sealed
from sojourn.authority.roots import Roots
from sojourn.errors import CannotStart, KeysSealed
from sojourn.files import atomic
from sojourn.spiffe.ids import TrustDomain

KEY = ec.generate_private_key(ec.SECP256R1())
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture
def seal():
    return KeySeal(secrets.token_bytes(32))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "keys"
    made.mkdir(mode=0o700)
    return made


def roots(folder, seal=None):
    return Roots(
        folder / "root.pem", FakeClock(), TrustDomain("example.org"), ec.SECP256R1(), timedelta(days=1), seal=seal
    )


def forms(key):
    """All that a private key is known by on disk, in binary and in text."""
    scalar = key.private_numbers().private_value.to_bytes(32, "big")
    der = [
        key.private_bytes(Encoding.DER, form, NoEncryption())
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
    ]
    return [scalar, scalar.hex().encode(), *der, *(b64encode(each)[:40] for each in der)]


class TestSeal:
    @pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_round_trip(self, seal, form):
        """What was sealed is opened again, and nothing of the key is in what was sealed."""
        clear = b"# id 1 2 active\n" + KEY.private_bytes(Encoding.PEM, form, NoEncryption()) + b"# more\n"
        sealed = seal.seal("jwt.pem", clear)
        assert clear == seal.open("jwt.pem", sealed)
        assert (True, False) == (is_sealed(sealed), is_sealed(clear))
        assert [] == [each for each in forms(KEY) if each in sealed]
        assert sealed.startswith(b"# id 1 2 active\n-----BEGIN SOJOURN SEALED KEY-----\n")
        assert sealed.endswith(b"-----END SOJOURN SEALED KEY-----\n# more\n")

    @pytest.mark.parametrize("clear", [bytes(32), b"", b"\xff" * 32, b"-----BEGIN CERTIFICATE-----\n"])
    def test_what_is_no_key_in_pem(self, seal, clear):
        """Of a file without PEM all is sealed."""
        sealed = seal.seal("people.key", clear)
        assert clear == seal.open("people.key", sealed)
        assert not clear or clear not in sealed

    def test_a_key_with_a_passphrase_of_its_own(self, seal):
        """It is sealed like any other."""
        clear = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
        assert clear == seal.open("a.pem", seal.seal("a.pem", clear))
        assert b"ENCRYPTED PRIVATE KEY" not in seal.seal("a.pem", clear)

    def test_another_key(self, seal):
        """What was sealed by another key is not opened, and the sentence says which one is wanted."""
        with pytest.raises(KeysSealed, match=r"keys\.seal_key"):
            KeySeal(secrets.token_bytes(32)).open("a.pem", seal.seal("a.pem", PEM))

    def test_another_file(self, seal):
        """What was sealed for one file is no key in another's place."""
        with pytest.raises(CannotStart, match="restore it"):
            seal.open("wit.pem", seal.seal("jwt.pem", PEM))

    def test_changed(self, seal):
        """No character of what was sealed can be another one."""
        sealed = seal.seal("a.pem", PEM)
        begin = sealed.index(b"\n") + 1
        for at in range(begin, sealed.rindex(b"\n-----END")):
            if sealed[at : at + 1] == b"\n":
                continue
            other = b"B" if sealed[at : at + 1] == b"A" else b"A"
            with pytest.raises(CannotStart):
                assert PEM != seal.open("a.pem", sealed[:at] + other + sealed[at + 1 :])

    @pytest.mark.parametrize("length", [0, 10, 60, 100])
    def test_cut(self, seal, length):
        """What was sealed is not opened where its end is missing."""
        with pytest.raises(CannotStart):
            seal.open("a.pem", seal.seal("a.pem", PEM)[:length])

    def test_clear_ones(self, seal):
        """A key in clear is not taken for a sealed one, alone or beside one."""
        for content in (PEM, seal.seal("a.pem", PEM) + PEM, bytes(32)):
            with pytest.raises(CannotStart, match="is not sealed"):
                seal.open("a.pem", content)

    def test_each_time_another(self, seal):
        """The same key is sealed to something else each time."""
        assert seal.seal("a.pem", PEM) != seal.seal("a.pem", PEM)


class TestKeyThatSeals:
    @pytest.mark.parametrize("content", [b"", bytes(31), bytes(33), bytes(32).hex().encode()])
    def test_of_another_length(self, tmp_path, content):
        """It has 32 bytes, and nothing else."""
        path = tmp_path / "seal-key"
        atomic.write(path, content)
        with pytest.raises(CannotStart, match="32 bytes"):
            KeySeal.at(path)

    @pytest.mark.parametrize("mode", [0o644, 0o604, 0o620, 0o602])
    def test_open_to_others(self, tmp_path, mode):
        """One that others could have read or written is refused, with what to do."""
        path = tmp_path / "seal-key"
        atomic.write(path, bytes(32))
        path.chmod(mode)
        with pytest.raises(CannotStart, match="chmod 600"):
            KeySeal.at(path)

    @pytest.mark.root
    def test_of_another_user(self, tmp_path):
        """One of another user is refused."""
        path = tmp_path / "seal-key"
        atomic.write(path, bytes(32))
        os.chown(path, 1234, 1234)
        with pytest.raises(CannotStart, match="user 1234"):
            KeySeal.at(path)

    def test_as_systemd_gives_it(self, tmp_path):
        """A credential of systemd's, which root and the service alone can read, has rights of the group as its mask."""
        path = tmp_path / "seal-key"
        atomic.write(path, bytes(32))
        path.chmod(0o440)
        assert KeySeal.at(path)

    def test_not_there(self, tmp_path):
        """A file that is not there is an error, and no reason to seal nothing."""
        with pytest.raises(CannotStart, match="No such file"):
            KeySeal.at(tmp_path / "none")


class TestFolder:
    def test_sealed_and_back(self, folder, seal):
        """All keys are sealed, and nothing else; and are in clear again, as they were."""
        certificate = roots(folder).active.key.certificate
        atomic.write(folder / "people.key", bytes(range(32)))
        atomic.write(folder / "sequence", b"5 x\n")
        atomic.write(folder / "https.key", PEM)  # an operator's
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
        assert ["people.key", "root.pem"] == keys_at_rest.settle(folder, seal, sealed=True)
        assert (b"5 x\n", PEM) == ((folder / "sequence").read_bytes(), (folder / "https.key").read_bytes())
        assert certificate == x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
        assert certificate == roots(folder, seal).active.key.certificate
        assert [] == keys_at_rest.settle(folder, seal, sealed=True)
        assert ["people.key", "root.pem"] == keys_at_rest.settle(folder, seal, sealed=False)
        assert before == {each.name: each.read_bytes() for each in folder.iterdir()}

    @pytest.mark.parametrize("other", [None, KeySeal(bytes(32))])
    def test_without_its_key(self, folder, seal, other):
        """Without the key that sealed them nothing is changed, and none is made anew."""
        roots(folder, seal)
        atomic.write(folder / "people.key", bytes(32))
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
        for sealed in (True, False):
            with pytest.raises(KeysSealed):
                keys_at_rest.settle(folder, other, sealed=sealed)
        with pytest.raises(KeysSealed):
            roots(folder, other)
        assert before == {each.name: each.read_bytes() for each in folder.iterdir()}

    def test_what_a_crash_left(self, folder, seal):
        """What was being written in clear when the agent was killed is gone."""
        roots(folder)
        atomic.scratch_of(folder / "root.pem").write_bytes(PEM)
        keys_at_rest.settle(folder, seal, sealed=True)
        assert {"root.pem", keys_at_rest.MARKER} == {each.name for each in folder.iterdir()}

    def test_one_that_is_to_follow(self, folder, seal):
        """A key that is written beside the one before is good under its name."""
        key_files.write(folder / "audit.key.new", PEM, seal)
        (folder / "audit.key.new").rename(folder / "audit.key")
        assert load_pem_private_key(key_files.read(folder / "audit.key", seal), None)

    @pytest.mark.parametrize("taken", range(5))
    def test_broken_off(self, folder, seal, monkeypatch, taken):
        """Wherever the disk takes no more, the next start goes on, and then none in clear is taken any more."""
        for name in ("audit.key", "handles.key", "people.key"):
            atomic.write(folder / name, bytes(32))
        write, left = atomic.write, [taken]

        def full(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            write(*args, **kwargs)

        monkeypatch.setattr(atomic, "write", full)
        with pytest.raises(CannotStart, match="No space left"):
            keys_at_rest.settle(folder, seal, sealed=True)
        monkeypatch.undo()
        assert ["audit.key", "handles.key", "people.key"][max(0, taken - 1) :] == keys_at_rest.settle(
            folder, seal, sealed=True
        )
        assert bytes(32) == key_files.read(folder / "handles.key", seal)
        atomic.write(folder / "handles.key", bytes(32))
        with pytest.raises(CannotStart, match="lies in clear"):
            keys_at_rest.settle(folder, seal, sealed=True)

    def test_planted_while_sealing(self, folder, seal, monkeypatch):
        """One that was put there between a start that could not seal all of them and the next one is not taken."""
        roots(folder)
        write = atomic.write

        def full(path, *args, **kwargs):
            if path.name == "root.pem":
                raise OSError(28, "No space left on device")
            write(path, *args, **kwargs)

        monkeypatch.setattr(atomic, "write", full)
        with pytest.raises(CannotStart, match="No space left"):
            keys_at_rest.settle(folder, seal, sealed=True)
        monkeypatch.undo()
        (folder / "root.pem").unlink()
        roots(folder)
        with pytest.raises(CannotStart, match="lies in clear"):
            keys_at_rest.settle(folder, seal, sealed=True)

    @pytest.mark.parametrize("marked", [True, False])
    def test_a_root_in_clear(self, folder, seal, marked):
        """A root that somebody has put in the place of the sealed one is not taken, and nothing is changed, also where
        the file is gone that says that all are sealed; started once in clear it is, as an operator may want it.
        """
        roots(folder)
        atomic.write(folder / "people.key", bytes(32))
        keys_at_rest.settle(folder, seal, sealed=True)
        if not marked:
            (folder / keys_at_rest.MARKER).unlink()
        (folder / "root.pem").unlink()
        planted = roots(folder).active.key.certificate
        before = {each.name: each.read_bytes() for each in folder.iterdir()}
        with pytest.raises(CannotStart, match=r"root\.pem.* lies in clear.*keys\.manager"):
            keys_at_rest.settle(folder, seal, sealed=True)
        assert before == {each.name: each.read_bytes() for each in folder.iterdir()}
        assert ["people.key"] == keys_at_rest.settle(folder, seal, sealed=False)
        assert ["people.key", "root.pem"] == keys_at_rest.settle(folder, seal, sealed=True)
        assert planted == roots(folder, seal).active.key.certificate

    def test_keys_that_were_made_sealed(self, folder, seal):
        """Where no key ever lay in clear the first one that does is not taken either, in the place of all of them."""
        roots(folder, seal)
        assert [] == keys_at_rest.settle(folder, seal, sealed=True)
        (folder / "root.pem").unlink()
        roots(folder)
        with pytest.raises(CannotStart, match="lies in clear"):
            keys_at_rest.settle(folder, seal, sealed=True)

    def test_a_marker_of_another_folder(self, folder, seal, tmp_path):
        """What one folder says of its keys is not good in another one, and it is not made without the seal key."""
        roots(folder)
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        keys_at_rest.settle(other, seal, sealed=True)
        (other / keys_at_rest.MARKER).rename(folder / keys_at_rest.MARKER)
        with pytest.raises(CannotStart, match="changed after it was sealed"):
            keys_at_rest.settle(folder, seal, sealed=True)

    def test_one_that_others_could_read(self, folder, seal):
        """It is left to whoever uses it where keys lie in clear; it is not sealed, as if it were nobody else's."""
        atomic.write(folder / "audit.key", PEM)
        (folder / "audit.key").chmod(0o644)
        assert [] == keys_at_rest.settle(folder, None, sealed=False)
        with pytest.raises(CannotStart, match="chmod 600"):
            keys_at_rest.settle(folder, seal, sealed=True)
        assert PEM == (folder / "audit.key").read_bytes()

    def test_no_folder(self, tmp_path, seal):
        """Before the first start there is nothing to seal."""
        assert ([], False) == (
            keys_at_rest.settle(tmp_path / "none", seal, sealed=True),
            keys_at_rest.any_sealed(tmp_path / "none"),
        )

    def test_random_keys(self, folder, seal):
        """A key of random bytes is read and written sealed."""
        made = key_files.RandomKey(folder / "x.key", "tries", "nothing is lost", seal)
        asyncio.run(made.prepare())
        assert made.value not in (folder / "x.key").read_bytes()
        assert made.value == key_files.RandomKey(folder / "x.key", "tries", "nothing is lost", seal).value
        with pytest.raises(KeysSealed):
            key_files.RandomKey(folder / "x.key", "tries", "nothing is lost")
