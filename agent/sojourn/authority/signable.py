"""What the authority signs: SPIFFE IDs of its own trust domain, and nothing else."""

from functools import lru_cache

from sojourn.errors import Bug, InvalidSpiffeId
from sojourn.limits import SPIFFE_IDS_SIGNED_KEPT
from sojourn.spiffe.ids import SpiffeId, TrustDomain


@lru_cache(SPIFFE_IDS_SIGNED_KEPT)
def _parsed(text: str) -> SpiffeId:
    return SpiffeId.parse(text)


def check_signable(spiffe_id: SpiffeId, trust_domain: TrustDomain) -> None:
    """Raise Bug for what is no SPIFFE ID: a template that was not filled in, whatever its type says; and for one of
    another trust domain.
    """
    try:
        same = _parsed(str(spiffe_id)) == spiffe_id
    except InvalidSpiffeId as error:
        raise Bug("what is no SPIFFE ID would have been signed", detail=error.public) from error
    if not same:
        raise Bug("what is no SPIFFE ID would have been signed")
    if spiffe_id.trust_domain != trust_domain:
        raise Bug("an identity of another trust domain would have been signed", detail=str(spiffe_id))
