"""The file of a backup: what is written is read, and nothing else is."""

import io
import json
import os
import stat
from dataclasses import replace

import pytest
from sojourn.backup import archive
from sojourn.backup.archive import MAGIC, Archive
from sojourn.backup.manifest import Manifest, Part
from sojourn.errors import InvalidInput
from sojourn.errors.oauth import BackupDamaged, WrongPassphrase
from sojourn.limits import BACKUP_SCRYPT_N
from sojourn.store.snapshot import Head

PASSPHRASE = b"correct horse battery staple"
MANIFEST = Manifest(
    created_at=1_767_225_600,
    release="0.1.0",
    trust_domain="example.org",
    schema="0001",
    readable_by="0001",
    epoch=7,
    journal=Head(3, "a" * 64, 1_767_225_599_000),
    config_digest="",
    salt="00" * 16,
    scrypt_n=BACKUP_SCRYPT_N,
    parts=(Part("sojourn.db", 3, "b" * 64),),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Passphrases are stretched little."""
    monkeypatch.setattr(archive, "BACKUP_SCRYPT_N", 2)
    monkeypatch.setattr(archive, "BACKUP_CHUNK_BYTES", 64)


def quickly(**changes):
    return replace(MANIFEST, scrypt_n=2, **changes)


def written(path, content, **changes):
    """A backup with this content, in pieces of seven octets."""
    pieces = (content[at : at + 7] for at in range(0, len(content), 7))
    archive.write(path, quickly(**changes), PASSPHRASE, pieces)
    return path.read_bytes()


def opened(octets, passphrase=PASSPHRASE):
    found = Archive(io.BytesIO(octets))
    found.check()
    return b"".join(found.contents(passphrase))


class TestRead:
    @pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 128, 129, 1_000])
    def test_what_was_written(self, tmp_path, size):
        """Contents of every length, none too, are read as they were written, with the manifest."""
        content = os.urandom(size)
        octets = written(tmp_path / "b", content)
        assert content == opened(octets)
        assert quickly() == Archive(io.BytesIO(octets)).manifest

    def test_it_is_sealed(self, tmp_path):
        """Nothing of the contents stands in the file."""
        assert b"secret" not in written(tmp_path / "b", b"secret" * 100)

    def test_the_same_contents_twice(self, tmp_path):
        """Two backups of the same have no chunk in common: each has a salt of its own."""
        one = written(tmp_path / "a", b"x" * 64, salt=archive.new_salt())
        two = written(tmp_path / "b", b"x" * 64, salt=archive.new_salt())
        assert one[-112:-36] != two[-112:-36]

    def test_another_passphrase(self, tmp_path):
        """Another passphrase opens nothing, and is told from damage."""
        octets = written(tmp_path / "b", b"x" * 100)
        with pytest.raises(WrongPassphrase):
            opened(octets, PASSPHRASE + b"!")


class TestRefused:
    def test_each_octet(self, tmp_path):
        """Whichever octet is another one, the backup is not what was written."""
        octets = written(tmp_path / "b", b"x" * 200)
        for at in range(len(octets)):
            with pytest.raises(BackupDamaged):
                opened(octets[:at] + bytes([octets[at] ^ 4]) + octets[at + 1 :])

    def test_each_length(self, tmp_path):
        """Wherever it is cut, and if something is added, the backup is not what was written."""
        octets = written(tmp_path / "b", b"x" * 200)
        for changed in (*(octets[:at] for at in range(len(octets))), octets + b"\0"):
            with pytest.raises(BackupDamaged):
                opened(changed)

    def forged(self, octets, change):
        """The backup with other chunks, and the digest that belongs to them."""
        import hashlib

        head, rest = octets[: octets.index(b"\n", len(MAGIC)) + 1], octets[octets.index(b"\n", len(MAGIC)) + 1 : -36]
        chunks = []
        while rest:
            length = int.from_bytes(rest[:4])
            chunks.append(rest[4 : 4 + length])
            rest = rest[4 + length :]
        head, chunks = change(head, chunks)
        body = head + b"".join(len(each).to_bytes(4) + each for each in chunks) + bytes(4)
        return body + hashlib.sha256(body).digest()

    @pytest.mark.parametrize(
        "change",
        [
            lambda head, chunks: (head, chunks[:-1]),
            lambda head, chunks: (head, chunks[1:]),
            lambda head, chunks: (head, [chunks[1], chunks[0], *chunks[2:]]),
            lambda head, chunks: (head, [*chunks, chunks[-1]]),
            lambda head, chunks: (head.replace(b"example.org", b"another.org"), chunks),
            lambda head, chunks: (head.replace(b'"epoch":7', b'"epoch":8'), chunks),
        ],
    )
    def test_chunks_by_who_has_no_passphrase(self, tmp_path, change):
        """Whoever has no passphrase can leave out, move or double no chunk, and change nothing that the backup says."""
        octets = written(tmp_path / "b", b"x" * 250)
        assert octets == self.forged(octets, lambda head, chunks: (head, chunks))
        with pytest.raises(WrongPassphrase):
            opened(self.forged(octets, change))

    @pytest.mark.parametrize("cost", [1, 3, 1 << 30, 0, -2])
    def test_a_cost_that_none_has(self, tmp_path, cost):
        """A backup cannot ask whoever opens it for more memory than any release takes, nor for less than was meant."""
        path = tmp_path / "b"
        octets = written(path, b"x").replace(b'"scrypt_n":2', b'"scrypt_n":%d' % cost)
        with pytest.raises(BackupDamaged):
            b"".join(Archive(io.BytesIO(octets)).contents(PASSPHRASE))

    @pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"format":2}', b"\xff", b"{" * 70_000])
    def test_a_manifest_that_is_none(self, line):
        """What a backup says of itself must be what a backup says."""
        with pytest.raises(BackupDamaged):
            Archive(io.BytesIO(MAGIC + line + b"\n"))

    def test_a_manifest_without_end(self):
        """What is nested deeper than any parser goes is no backup either."""
        with pytest.raises(BackupDamaged):
            Archive(io.BytesIO(MAGIC + b"[" * 60_000 + b"\n"))

    @pytest.mark.parametrize(
        "changes",
        [
            {"salt": "zz"},
            {"salt": "00"},
            {"salt": "0" * 31 + "\u0665"},
            {"created_at": 10**400},
            {"created_at": -1},
            {"created_at": True},
            {"epoch": 1 << 64},
            {"journal": {"seq": -1, "digest": "a" * 64, "at_ms": 0}},
            {"journal": {"seq": 1, "digest": "a", "at_ms": 0}},
            {"journal": {"seq": 1, "digest": "a" * 64, "at_ms": 10**30}},
            {"config_digest": "x"},
            {"release": "\x1b[2J"},
            {"release": "\ud800"},
            {"trust_domain": "a\nb"},
            {"scrypt_n": 1 << 40},
            {"parts": [{"name": "sojourn.db", "size": -1, "sha256": "b" * 64}]},
            {"parts": [{"name": "sojourn.db", "size": 10**400, "sha256": "b" * 64}]},
            {"parts": [{"name": "sojourn.db", "size": 1, "sha256": "b"}]},
            {"parts": ["sojourn.db"]},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_a_value_that_none_has(self, changes):
        """A manifest whose numbers, digests or texts are such as no backup has is refused before anything uses them."""
        line = json.dumps({**json.loads(quickly().line()), **changes}).encode()
        assert quickly() == Manifest.parse(quickly().line())
        with pytest.raises(BackupDamaged):
            Archive(io.BytesIO(MAGIC + line + b"\n"))

    @pytest.mark.parametrize("passphrase", [b"", b"short", b"x" * 11])
    def test_a_short_passphrase(self, passphrase):
        """A passphrase that could be guessed is refused."""
        with pytest.raises(InvalidInput, match="12 characters"):
            archive.check_passphrase(passphrase)


class TestWritten:
    def test_mode(self, tmp_path):
        """A backup is its owner's alone, also in the place of a file that was not."""
        path = tmp_path / "b"
        path.write_text("older")
        path.chmod(0o644)
        written(path, b"x")
        assert 0o600 == stat.S_IMODE(path.stat().st_mode)

    def test_whole_or_not_at_all(self, tmp_path):
        """Where making it fails nothing is left, and the file before it is as it was."""
        path = tmp_path / "b"
        path.write_text("older")

        def contents():
            yield b"x" * 1_000
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            archive.write(path, quickly(), PASSPHRASE, contents())
        assert ("older", ["b"]) == (path.read_text(), os.listdir(tmp_path))

    def test_its_size_and_digest(self, tmp_path):
        """What is told of a backup is its size and the digest that it ends with."""
        path = tmp_path / "b"
        told = archive.write(path, quickly(), PASSPHRASE, [b"x" * 100])
        assert (path.stat().st_size, path.read_bytes()[-32:].hex()) == (told.size, told.sha256)
