"""tlog/notes.py, tlog/checkpoints.py: notes, keys, checkpoints and proofs are taken as they are written, or not at all."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput
from sojourn.tlog.checkpoints import Checkpoint, Proof
from sojourn.tlog.notes import Note, Signer, VerifierKey

# The example of golang.org/x/mod/sumdb/note: another program has made its signature.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
TEXT = "example.org/log\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def signer(name="example.org/log"):
    return Signer(name, Ed25519PrivateKey.from_private_bytes(b"7" * 32))


def note(text=TEXT, at=1_700_000_000):
    by = signer()
    return Note(text, (by.sign(text), by.cosign(text, at)))


class TestNotes:
    def test_one_of_another_program(self):
        """A note that Go's library has signed is verified, by its key as that prints it."""
        parsed, key = Note.parse(NOTE.encode()), VerifierKey.parse(PETER)
        assert (NOTE, PETER) == (str(parsed), str(key))
        assert parsed.is_signed(key)
        assert not Note.parse(NOTE.replace("problem is", "problem was").encode()).is_signed(key)

    def test_both_signatures(self):
        """A checkpoint is signed, and cosigned with the time."""
        key, parsed = signer().key, Note.parse(str(note()).encode())
        assert parsed.is_signed(key)
        assert 1_700_000_000 == parsed.cosigned_at(key)

    def test_without_one_of_them(self):
        """A cosignature is no signature, nor a signature a cosignature; and another's is neither."""
        key, whole = signer().key, note()
        plain, timed = whole.lines
        assert Note(TEXT, (plain,)).cosigned_at(key) is None
        assert not Note(TEXT, (timed,)).is_signed(key)
        other = signer("example.org/other").key
        assert not whole.is_signed(other)
        assert whole.cosigned_at(other) is None

    def test_another_time(self):
        """The time cannot be changed: it is signed."""
        plain, timed = note().lines
        moved = bytearray(timed.unverified_signature)
        moved[7] ^= 1
        changed = type(timed)(timed.name, timed.key_id, bytes(moved))
        assert Note(TEXT, (plain, changed)).cosigned_at(signer().key) is None

    def test_a_bad_one_beside_a_good_one(self):
        """A bad signature by a known key makes the note none, whatever stands beside it."""
        good = signer().sign(TEXT)
        bad = type(good)(good.name, good.key_id, bytes(64))
        assert not Note(TEXT, (good, bad)).is_signed(signer().key)

    def test_others_are_let_be(self):
        """What a witness signs, by an algorithm that is not known here, is left alone."""
        line = type(signer().sign(TEXT))("witness.example/w1", b"abcd", bytes(2428))
        assert Note.parse(str(Note(TEXT, (*note().lines, line))).encode()).is_signed(signer().key)

    @given(st.integers(0, 400), st.integers(1, 255))
    def test_each_byte_counts(self, at, change):
        """No byte of a checkpoint can be changed: what is left is no note, or is not signed and cosigned."""
        octets = bytearray(str(note()).encode())
        octets[at % len(octets)] ^= change
        key = signer().key
        try:
            parsed = Note.parse(bytes(octets))
        except InvalidInput:
            return
        assert not (parsed.is_signed(key) and parsed.cosigned_at(key) is not None)

    @given(st.binary(max_size=300))
    def test_ours_or_nothing(self, octets):
        """Of what is no note, key, checkpoint or proof nothing but InvalidInput is raised."""
        for parse in (Note.parse, Proof.parse, lambda each: Checkpoint.parse(each.decode("latin-1")),
                      lambda each: VerifierKey.parse(each.decode("latin-1"))):  # fmt: skip
            with pytest.raises(InvalidInput):
                parse(octets)


class TestKeys:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "example.org/log",
            PETER[:-1],
            PETER.replace("c74f20a3", "c74f20a4"),
            PETER.replace("+ARpc", "+BBpc"),  # 0x04
            f"{PETER} ",
            f"{PETER}\n",
            PETER.replace("PeterNeumann", "Peter Neumann"),
        ],
    )
    def test_what_is_none(self, text):
        """A key that is cut, of another algorithm, or whose ID is not its own is refused."""
        with pytest.raises(InvalidInput):
            VerifierKey.parse(text)

    def test_the_cosigner(self):
        """The same key as that of a cosigner has type 0x04 and an ID of its own."""
        key = signer().key
        name, key_id, encoded = key.cosigner.split("+", 2)
        assert (key.name, 4, key.public) == (name, base64.b64decode(encoded)[0], base64.b64decode(encoded)[1:])
        assert key_id != str(key).split("+")[1]

    def test_names(self):
        """A name with a space or a plus sign is none that a note could have."""
        for name in ("", "a b", "a+b", "a\nb"):
            with pytest.raises(InvalidInput):
                signer(name)


class TestCheckpoints:
    def test_its_text(self):
        """A checkpoint is its origin, size and root, a line each."""
        assert TEXT == Checkpoint.parse(TEXT).text

    @pytest.mark.parametrize(
        "text",
        [
            TEXT.replace("\n3\n", "\n03\n"),
            TEXT.replace("\n3\n", "\n-3\n"),
            TEXT.replace("\n3\n", "\n\n"),
            TEXT[:-1],
            f"{TEXT}more\n",
            TEXT.replace("CsUY", "CsU"),
            TEXT.replace("I=\n", "J=\n"),
            f"\n{TEXT.partition(chr(10))[2]}",
        ],
    )
    def test_what_is_none(self, text):
        """What is written otherwise than a checkpoint is refused, though it could be read."""
        with pytest.raises(InvalidInput):
            Checkpoint.parse(text)

    def test_a_proof(self):
        """A proof is read as it was written."""
        made = Proof(b"\x00record", 7, (b"1" * 32, b"2" * 32), note())
        assert made == Proof.parse(str(made).encode())
        assert str(made).startswith("c2sp.org/tlog-proof@v1\nextra AHJlY29yZA==\nindex 7\n")
