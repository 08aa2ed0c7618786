"""A federation relationship: where and how another trust domain's bundle is to be had (SPIFFE Federation 5.1)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sojourn.spiffe.ids import SpiffeId, TrustDomain

WEB, SPIFFE = "https_web", "https_spiffe"


@dataclass(frozen=True, slots=True)
class Relationship:
    """All three things are said by the operator, and none is concluded from another.

    `endpoint_id`: the SPIFFE ID of the endpoint's X.509-SVID (`https_spiffe`); None: a web certificate (`https_web`).
    """

    trust_domain: TrustDomain
    url: str
    endpoint_id: SpiffeId | None = None

    @property
    def profile(self) -> str:
        return WEB if self.endpoint_id is None else SPIFFE

    def document(self) -> dict[str, Any]:
        """What is kept of it, beside the name of the trust domain."""
        document: dict[str, Any] = {"bundle_endpoint_url": self.url, "profile": self.profile}
        if self.endpoint_id is not None:
            document["endpoint_spiffe_id"] = str(self.endpoint_id)
        return document

    @classmethod
    def of(cls, trust_domain: TrustDomain, document: Mapping[str, Any]) -> "Relationship":
        """Read the document that was kept. Raise InvalidSpiffeId."""
        spiffe = document["profile"] == SPIFFE
        endpoint = SpiffeId.parse(document["endpoint_spiffe_id"]) if spiffe else None
        return cls(trust_domain, document["bundle_endpoint_url"], endpoint)
