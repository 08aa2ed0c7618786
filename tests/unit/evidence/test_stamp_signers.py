"""evidence/stamp_signers.py: a stamp counts only with a strong signature, by the certificate that it names itself."""

import datetime as dt
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA224
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from harness.tsaplace import TsaKeys
from rfc3161_client import decode_timestamp_response
from sojourn.errors import InvalidInput
from sojourn.evidence.stamp_signers import check_signer
from sojourn.evidence.timestamps import query_of, roots_of, stamped_at

NOTE = b"a note\n"


def at_of(keys, **how):
    """When a note was stamped by an authority whose signature is made in that way."""
    query, nonce = query_of(NOTE)
    reply = keys.signed(query, dt.datetime.now(dt.UTC), **how)
    return stamped_at(reply, NOTE, roots_of(keys.roots), nonce)


def rsa_of(bits):
    return rsa.generate_private_key(65_537, bits)


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("key", [None, lambda: rsa_of(2048), lambda: ec.generate_private_key(ec.SECP384R1())],
                         ids=["ec-256", "rsa-2048", "ec-384"])  # fmt: skip
def test_strong_ones(tmp_path, key, digest):
    """Signatures as authorities make them count: by RSA or EC, with any of SHA-2."""
    assert at_of(TsaKeys(tmp_path, key=key and key()), digest=digest) > 0


@pytest.mark.parametrize(
    ("made", "how", "said"),
    [
        ({}, {"digest": "sha1"}, "not signed with SHA-256"),
        ({}, {"digest": "sha224"}, "not signed with SHA-256"),
        ({"key": lambda: rsa_of(2048)}, {"digest": "sha1"}, "not signed with SHA-256"),
        ({"key": lambda: rsa_of(1024)}, {}, "RSA from 2048 bits"),
        ({"key": lambda: ec.generate_private_key(ec.SECP224R1())}, {}, "EC from 256"),
        ({"digest": SHA224}, {}, "certificate is not signed with"),
        ({}, {"names_signer": False}, "does not say by which certificate"),
        ({"more": lambda: [ExtendedKeyUsageOID.CODE_SIGNING]}, {}, "not good"),
    ],
    ids=["sha1", "sha224", "rsa-sha1", "rsa-1024", "ec-224", "certificate-sha224", "unnamed", "for-more"],
)
def test_weak_ones(tmp_path, made, how, said):
    """A stamp that is good by itself does not count if its signature could be somebody else's soon."""
    with pytest.raises(InvalidInput, match=said):
        at_of(TsaKeys(tmp_path, **{name: make() for name, make in made.items()}), **how)


def token_of(reply):
    found = decode_timestamp_response(reply)
    [signer] = found.signed_data.signer_infos
    return found.time_stamp_token(), list(found.signed_data.certificates), signer.issuer, signer.serial_number


def test_another_certificate_of_the_key(tmp_path):
    """A stamp is not passed for one by another certificate, though that has the same issuer, number and key."""
    keys = TsaKeys(tmp_path)
    token, [octets], *by = token_of(keys.reply(query_of(NOTE)[0]))
    check_signer(token, [octets], *by)
    leaf = x509.load_der_x509_certificate(octets)
    names = (leaf.subject, leaf.issuer, leaf.public_key(), leaf.serial_number, leaf.not_valid_before_utc)
    other = x509.CertificateBuilder(
        issuer_name=names[1], subject_name=names[0], public_key=names[2], serial_number=names[3],
        not_valid_before=names[4], not_valid_after=leaf.not_valid_after_utc + dt.timedelta(days=900),
        extensions=list(leaf.extensions),
    ).sign(ec.generate_private_key(ec.SECP256R1()), leaf.signature_hash_algorithm)  # fmt: skip
    other = other.public_bytes(Encoding.DER)
    with pytest.raises(InvalidInput, match="by another certificate"):
        check_signer(token, [other], *by)
    for several in ([octets, other], []):
        with pytest.raises(InvalidInput, match="cannot be read"):
            check_signer(token, several, *by)


def test_by_the_older_attribute(tmp_path):
    """The older attribute, which names the certificate by SHA-1, counts too, and not with the digest of another."""
    keys = TsaKeys(tmp_path)
    token, [octets], *by = token_of(keys.reply(query_of(NOTE)[0], ess="sha1"))
    check_signer(token, [octets], *by)
    digest = hashlib.sha1(octets, usedforsecurity=False).digest()
    assert 1 == token.count(digest)
    with pytest.raises(InvalidInput, match="by another certificate"):
        check_signer(token.replace(digest, bytes(20)), [octets], *by)


def test_every_byte(tmp_path):
    """Whatever byte of a token is changed, there is our error, or none."""
    token, certificates, *by = token_of(TsaKeys(tmp_path).reply(query_of(NOTE)[0]))
    for at in range(len(token)):
        changed = bytearray(token)
        changed[at] ^= 0xFF
        try:
            check_signer(bytes(changed), certificates, *by)
        except InvalidInput:
            continue
