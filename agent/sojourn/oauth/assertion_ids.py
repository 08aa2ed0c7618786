"""Assertions, each good once: by what one is known again."""

import hashlib
from dataclasses import dataclass

from sojourn.people.id_jag import IdJag
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid

JWT_SVID = "jwt-svid"
ID_JAG = "id-jag"


@dataclass(frozen=True, slots=True)
class Assertion:
    """One assertion. `digest` is of its kind, issuer, audience and `jti`; `expires_at`: seconds since the epoch."""

    digest: str
    expires_at: int

    @classmethod
    def named(cls, kind: str, issuer: str, audience: str, jti: str, expires_at: int) -> "Assertion":
        """The names are told apart whatever is in them."""
        parts = (each.encode("utf-8", "surrogatepass") for each in (kind, issuer, audience, jti))
        text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return cls(hashlib.sha256(text).hexdigest(), expires_at)

    @classmethod
    def of_id_jag(cls, jag: IdJag, audience: str) -> "Assertion":
        """An ID-JAG for this audience, which the person's issuer gave: no JWT-SVID is called as one of them is."""
        return cls.named(ID_JAG, jag.person.url, audience, jag.jti, jag.person.expires_at + 1)

    @classmethod
    def of(cls, svid: VerifiedJwtSvid) -> "Assertion":
        """A JWT-SVID, which its trust domain issued; one without a `jti` is known by its text."""
        jti = svid.claims.get("jti")
        known = (
            f"jti:{jti}" if isinstance(jti, str) and jti else f"text:{hashlib.sha256(svid.token.encode()).hexdigest()}"
        )
        issuer = f"{svid.spiffe_id.trust_domain.name} {svid.claims.get('iss', '')}"
        return cls.named(JWT_SVID, issuer, " ".join(svid.audience), known, int(svid.expires_at.timestamp()) + 1)
