"""The public keys of certificate requests (PKCS#10): of what else a request says nothing counts."""

from cryptography import x509

from sojourn.errors import InvalidInput, told_as
from sojourn.server.nodes import PublicKey
from sojourn.spiffe.x509svid import check_key


def key_of(der: bytes, malformed: str, unsigned: str = "") -> PublicKey:
    """The public key of a request. Raise InvalidInput if it cannot be read, by the text `malformed`.

    `unsigned`: what is said of one that its own key has not signed; empty: nobody asks.
    """
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
    except Exception as error:  # hostile input: whatever the library raises
        raise InvalidInput(malformed, detail=str(error)) from error
    with told_as(InvalidInput, malformed):
        accepted = check_key(key)  # before anything is computed with it
    if unsigned and not _is_signed(request):
        raise InvalidInput(unsigned)
    return accepted


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except Exception:  # noqa: BLE001  # by an algorithm that is not known
        return False
