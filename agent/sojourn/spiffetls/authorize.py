"""Which SPIFFE IDs a TLS connection is for. An authorizer answers True for yes; anything else is no."""

from collections.abc import Callable

from sojourn.errors import InvalidInput
from sojourn.spiffe.ids import SpiffeId, TrustDomain

Authorize = Callable[[SpiffeId], bool]


def authorize_any() -> Authorize:
    """Any peer whose certificate is good, in our trust domain or in one that we federate with."""
    return lambda _peer: True


def authorize_id(*ids: SpiffeId | str) -> Authorize:
    """A peer with exactly one of these SPIFFE IDs. Raise InvalidInput for none, InvalidSpiffeId for a bad one."""
    allowed = frozenset(each if isinstance(each, SpiffeId) else SpiffeId.parse(each) for each in ids)
    if not allowed:
        raise InvalidInput("authorize_id needs at least one SPIFFE ID")
    return lambda peer: peer in allowed


def authorize_member_of(trust_domain: TrustDomain | str) -> Authorize:
    """Any peer of this trust domain. Raise InvalidSpiffeId."""
    member_of = trust_domain if isinstance(trust_domain, TrustDomain) else TrustDomain.parse(trust_domain)
    return lambda peer: peer.trust_domain == member_of
