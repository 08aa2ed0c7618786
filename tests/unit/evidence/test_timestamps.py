"""evidence/timestamps.py: a time stamp counts if an authority that a root vouches for has made it of this very note."""

import hashlib
import time

import pytest
from harness.tsaplace import TsaKeys
from hypothesis import given
from hypothesis import strategies as st
from rfc3161_client import decode_timestamp_response
from sojourn.errors import InvalidInput, NotFound
from sojourn.evidence.timestamps import query_of, roots_of, stamped_at

NOTE = b"example.org/audit/here/0123456789abcdef\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\nsigned\n"


def with_other_digest(query):
    digest = hashlib.sha256(NOTE).digest()
    assert digest in query
    return query.replace(digest, hashlib.sha256(b"other").digest())


def with_other_nonce(query, nonce):
    octets = nonce.to_bytes((nonce.bit_length() + 7) // 8)
    assert octets in query
    return query.replace(octets, bytes([octets[0]]) + bytes(each ^ 1 for each in octets[1:]))


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return TsaKeys(tmp_path_factory.mktemp("tsa"))


def test_a_good_one(keys):
    """A stamp that openssl has made for the query says when that was, with and without the nonce at hand."""
    query, nonce = query_of(NOTE)
    reply = keys.reply(query)
    for of in (nonce, None):
        assert abs(stamped_at(reply, NOTE, roots_of(keys.roots), of) - time.time()) < 60
    assert nonce == decode_timestamp_response(reply).tst_info.nonce
    assert decode_timestamp_response(reply).signed_data.certificates


def test_another_note(keys):
    """A stamp of one note is none of another, nor one of which a byte was changed."""
    query, nonce = query_of(NOTE)
    reply = keys.reply(query)
    with pytest.raises(InvalidInput, match="not good"):
        stamped_at(reply, NOTE + b"x", roots_of(keys.roots))
    with pytest.raises(InvalidInput, match="not good"):
        stamped_at(keys.reply(with_other_digest(query)), NOTE, roots_of(keys.roots), nonce)


def test_another_nonce(keys):
    """A stamp that was made for another query does not answer this one."""
    query, nonce = query_of(NOTE)
    reply = keys.reply(with_other_nonce(query, nonce))
    with pytest.raises(InvalidInput, match=r"(?i)nonce"):
        stamped_at(reply, NOTE, roots_of(keys.roots), nonce)


def test_a_rejection(keys):
    """An authority that says no has stamped nothing."""
    query, nonce = query_of(NOTE)
    with pytest.raises(InvalidInput, match="not granted"):
        stamped_at(keys.reply(query, digests="sha512"), NOTE, roots_of(keys.roots), nonce)


@pytest.mark.parametrize(
    "wrong",
    [{"life": (-30, -1)}, {"life": (1, 30)}, {"stamps": False}],
    ids=["expired", "not-yet-good", "not-for-stamps"],
)
def test_a_certificate_that_is_not_good(tmp_path, wrong):
    """A certificate that was over, or not for time stamps, as it stamped, makes no stamp."""
    query, _ = query_of(NOTE)
    if wrong.get("stamps") is False:  # openssl makes none with it: so it is made with a good one of the same key
        with pytest.raises(AssertionError):
            TsaKeys(tmp_path, **wrong).reply(query)
        return
    made = TsaKeys(tmp_path, **wrong)
    with pytest.raises(InvalidInput, match="not good"):
        stamped_at(made.reply(query), NOTE, roots_of(made.roots))


def test_by_somebody_else(keys, tmp_path):
    """An authority that no root vouches for stamps nothing, whatever its root is called."""
    other = TsaKeys(tmp_path)
    query, nonce = query_of(NOTE)
    with pytest.raises(InvalidInput, match="not good"):
        stamped_at(other.reply(query), NOTE, roots_of(keys.roots), nonce)


def test_every_byte(keys):
    """Whatever byte of an answer is changed, it is either no stamp, or says the same."""
    query, nonce = query_of(NOTE)
    reply, roots = keys.reply(query), roots_of(keys.roots)
    good = stamped_at(reply, NOTE, roots, nonce)
    for at in range(0, len(reply), 3):
        changed = bytearray(reply)
        changed[at] ^= 1
        try:
            assert good == stamped_at(bytes(changed), NOTE, roots, nonce)
        except InvalidInput:
            continue


@given(st.binary(max_size=200))
def test_garbage(octets):
    """No bytes have anything else come of them than our error."""
    with pytest.raises(InvalidInput):
        stamped_at(octets, NOTE, [])


def test_roots(tmp_path):
    """A file of roots that is not there, or none, is said."""
    with pytest.raises(NotFound):
        roots_of(tmp_path / "none")
    (tmp_path / "rubbish").write_text("rubbish")
    with pytest.raises(InvalidInput):
        roots_of(tmp_path / "rubbish")
