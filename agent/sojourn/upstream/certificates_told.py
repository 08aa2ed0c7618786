"""Certificates as an upstream authority's outside tells them: PEM in a text of its answer."""

from typing import Final

from cryptography import x509

from sojourn.errors import UpstreamNotGood

MOST: Final = 16  # of a chain, with the root: more are no chain that anybody verifies


def pem_certificates(told: object) -> tuple[x509.Certificate, ...]:
    """Those in a text, in their order; none in an empty one. Raise UpstreamNotGood."""
    if told == "":
        return ()
    if not isinstance(told, str):
        raise UpstreamNotGood("the answer has no text in PEM where one is to be")
    try:
        found = tuple(x509.load_pem_x509_certificates(told.encode()))
    except ValueError as error:
        raise UpstreamNotGood("the answer has no certificate in PEM where one is to be") from error
    if len(found) > MOST:
        raise UpstreamNotGood(f"the answer has more than {MOST} certificates")
    return found


def one_certificate(told: object) -> x509.Certificate:
    """The first one in a text. Raise UpstreamNotGood if there is none."""
    found = pem_certificates(told)
    if not found:
        raise UpstreamNotGood("the answer has no certificate")
    return found[0]
