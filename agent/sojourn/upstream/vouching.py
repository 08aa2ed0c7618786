"""Whether what a server has signed may be given out still: by the bundle of now, where an authority may be tainted."""

from cryptography import x509

from sojourn.authority.x509_profile import known_key_id, known_signer_id
from sojourn.errors import InvalidToken
from sojourn.jose.jws import parse_unverified
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.spiffe.x509svid import X509Svid, is_issued_by


class Vouching:
    """The authorities and keys of a bundle that are neither tainted nor gone."""

    def __init__(self, bundle: Bundle) -> None:
        self._authorities = {authority_id(each): each for each in bundle.x509_authorities}
        self._good = self._authorities.keys() - bundle.tainted
        self._kids = frozenset(bundle.jwt_authorities) - bundle.tainted

    @property
    def ids(self) -> frozenset[str]:
        """Those of X.509 authorities, as `authority_id`, and of JWT keys."""
        return self._kids | self._good

    def of_x509(self, svid: X509Svid) -> bool:
        """Whether the first authority of the bundle that its chain comes to, from the leaf on, is good."""
        for certificate in svid.chain:
            signer = self._signer(certificate)
            if signer in self._authorities:
                return signer in self._good
        return False

    def _signer(self, certificate: x509.Certificate) -> str:
        """The ID of what has signed a certificate; empty: it is not known."""
        signers = (name for name, each in self._authorities.items() if is_issued_by(certificate, each))
        return known_signer_id(certificate) or next(signers, "")  # it need not say by which key

    def of_jwt(self, svid: VerifiedJwtSvid) -> bool:
        try:
            return parse_unverified(svid.token).kid in self._kids
        except InvalidToken:
            return False


def authority_id(certificate: x509.Certificate) -> str:
    """The ID of an X.509 authority: its subject key identifier, or what that would be, in lower-case hex."""
    return known_key_id(certificate) or x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest.hex()
