"""tlog/add_checkpoint.py: a request to a witness is read as it is written, or not at all."""

import base64

import pytest
from fakes.growinglog import GrowingLog
from hypothesis import given
from hypothesis import strategies as st
from sojourn.errors import InvalidInput
from sojourn.tlog.add_checkpoint import AddCheckpoint
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import EMPTY, leaf_hash, root
from sojourn.tlog.notes import VerifierKey

LOG = GrowingLog()


def test_it_comes_back() -> None:
    """What is written is read again, with and without a proof."""
    for old, size in ((0, 1), (3, 7), (8, 8), (5, 300)):
        request = LOG.request(old, size)
        assert request == AddCheckpoint.parse(request.written())


def test_what_it_looks_like() -> None:
    """The lines are those of the specification: the old size, the hashes, an empty line, and the note."""
    request = LOG.request(2, 3)
    hash_ = base64.b64encode(leaf_hash(b"leaf 2")).decode()
    assert f"old 2\n{hash_}\n\n{request.note}".encode() == request.written()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"old 3", b"old 03"),
        lambda text: text.replace(b"old 3", b"old -3"),
        lambda text: text.replace(b"old 3", b"old  3"),
        lambda text: text.replace(b"old 3", b"new 3"),
        lambda text: text.replace(b"old 3\n", b"old 3\r\n"),
        lambda text: text.replace(b"old 3", b"old 99999999999999999999"),
        lambda text: text.replace(b"old 3\n", b"old 3\nAAAA\n"),
        lambda text: text.replace(b"old 3\n", b"old 3\nnot base64\n"),
        lambda text: text.replace(b"old 3\n", b"old 3\n" + base64.b64encode(b"7" * 32) + b"\n" * 1 + (base64.b64encode(b"7" * 32) + b"\n") * 63),
        lambda text: text.replace(b"\n\n", b"\n"),
        lambda text: text.removesuffix(b"\n"),
        lambda _text: b"",
        lambda _text: b"old 3\n\n",
    ],
)  # fmt: skip
def test_what_is_none(change) -> None:
    """Another way to write it, a proof of more than 63 hashes, and what has no checkpoint, is refused."""
    whole = LOG.request(3, 7).written()
    assert change(whole) != whole
    with pytest.raises(InvalidInput):
        AddCheckpoint.parse(change(whole))


@given(st.binary(max_size=300))
def test_ours_or_nothing(octets: bytes) -> None:
    """No bytes have anything else come of them than a request or our error."""
    try:
        AddCheckpoint.parse(octets)
    except InvalidInput:
        return


@given(st.integers(0, 40), st.integers(0, 40), st.data())
def test_what_a_proof_shows(old: int, more: int, data: st.DataObject) -> None:
    """A proof of growth is good; a fork before the old size, a hash too many, or one that is changed, is not."""
    size = old + more
    of_old = root(LOG.nodes(), old)
    request = LOG.request(old, size)
    head = Checkpoint.parse(request.note.text)
    assert request.proves(of_old, head)
    assert not AddCheckpoint(old, (*request.proof, b"7" * 32), request.note).proves(of_old, head)
    if old:
        forked = LOG.request(old, size, forked_at=data.draw(st.integers(0, old - 1)))
        assert not forked.proves(of_old, Checkpoint.parse(forked.note.text))


def test_an_empty_tree() -> None:
    """A tree without leaves has one root alone."""
    head = Checkpoint("example.org/log", 0, b"7" * 32)
    request = AddCheckpoint(0, (), LOG.note(0))
    assert (False, True) == (
        request.proves(EMPTY, head),
        request.proves(EMPTY, Checkpoint("example.org/log", 0, EMPTY)),
    )


class TestCheckpointsOfOthers:
    def test_lines_beyond_the_third(self) -> None:
        """A witness takes checkpoints with extension lines, as other logs have them; ours have none."""
        text = LOG.note(3).text
        assert (3, 3) == (Checkpoint.parse_extended(text).size, Checkpoint.parse_extended(f"{text}more\n").size)
        with pytest.raises(InvalidInput):
            Checkpoint.parse(f"{text}more\n")

    @pytest.mark.parametrize("tail", ["\n", "\nmore\n", "more"])
    def test_what_is_none(self, tail: str) -> None:
        """An empty line, or a last one without its end, is no extension."""
        with pytest.raises(InvalidInput):
            Checkpoint.parse_extended(LOG.note(3).text + tail)


class TestKeysOfWitnesses:
    def test_both_ways_to_write_it(self) -> None:
        """A witness's key is taken as that of a cosigner (0x04), and as some write it (0x01); a log's only as 0x01."""
        key = LOG.signer.key
        assert key == VerifierKey.parse_cosigner(key.cosigner) == VerifierKey.parse_cosigner(str(key))
        with pytest.raises(InvalidInput):
            VerifierKey.parse(key.cosigner)

    def test_what_is_none(self) -> None:
        """A key of another algorithm, or with another's ID, is refused."""
        name, key_id, key = LOG.signer.key.cosigner.split("+", 2)
        other = base64.b64encode(b"\x06" + base64.b64decode(key)[1:]).decode()
        for text in (f"{name}+{key_id}+{other}", f"{name}+00000000+{key}", f"{name}.x+{key_id}+{key}", name):
            with pytest.raises(InvalidInput):
                VerifierKey.parse_cosigner(text)
