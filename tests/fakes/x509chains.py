"""Authorities, leaves below them, and their verification in one trust domain."""

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ObjectIdentifier
from fakes.certificates import NOW, authority, issue, san
from sojourn.errors import InvalidSvid
from sojourn.spiffe.ids import TrustDomain
from sojourn.spiffe.x509svid import verify_chain

HERE, THERE = TrustDomain("example.org"), TrustDomain("other.org")
UNKNOWN = ObjectIdentifier("1.3.6.1.4.1.55555.1")
RSA_1024 = rsa.generate_private_key(65537, 1024)
RSA_2048 = rsa.generate_private_key(65537, 2048)

ROOT = authority()
MIDDLE = authority(ROOT, subject="middle")
OTHER_ROOT = authority(san=(san("spiffe://other.org"), False))
GOOD = issue(ROOT)
UNDER_MIDDLE = issue(MIDDLE)


def verify(*chain, roots=(ROOT,), trust_domain=HERE, now=NOW):
    return verify_chain([each.certificate for each in chain], [each.certificate for each in roots], trust_domain, now)


def refusal(*chain, **arguments):
    """The sentence with which a chain is refused."""
    with pytest.raises(InvalidSvid) as caught:
        verify(*chain, **arguments)
    return caught.value.public
