"""What is built by the keys, and where those are: the key process is told this once, before all else."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.authority.token.messages import fields
from sojourn.authority.token.places import Place, place_of
from sojourn.spiffe.ids import TrustDomain

_CURVES = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}


@dataclass(frozen=True)
class TokenSettings:
    """`key_type` and `root_ttl` are those of new roots; `issuer_ttl` is the most that an intermediate may live."""

    place: Place
    trust_domain: TrustDomain
    node: str
    key_type: str
    root_ttl: timedelta
    issuer_ttl: timedelta

    @property
    def prefix(self) -> str:
        """What the labels of this node's root keys begin with; a number follows."""
        return f"sojourn/{self.trust_domain.name}/{self.node}/root/"

    @property
    def curve(self) -> ec.EllipticCurve:
        return _CURVES[self.key_type]

    def message(self) -> dict[str, Any]:
        """As the process is told them. What it needs before that stands in how it is started."""
        return {
            "place": self.place.message(),
            "trust_domain": self.trust_domain.name,
            "node": self.node,
            "key_type": self.key_type,
            "root_ttl": int(self.root_ttl.total_seconds()),
            "issuer_ttl": int(self.issuer_ttl.total_seconds()),
        }

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> Self:
        """What `message` makes. Raise ValueError."""
        texts = dict.fromkeys(("trust_domain", "node", "key_type"), str)
        place, domain, node, key_type, root_ttl, issuer_ttl = fields(
            message, place=dict, **texts, root_ttl=int, issuer_ttl=int
        )
        if key_type not in _CURVES or min(root_ttl, issuer_ttl) <= 0:
            raise ValueError("settings that cannot be")
        lives = timedelta(seconds=root_ttl), timedelta(seconds=issuer_ttl)
        return cls(place_of(place), TrustDomain.parse(domain), node, key_type, *lives)
