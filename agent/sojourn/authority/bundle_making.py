"""The bundle of an authority: its roots, its keys, and which of them are tainted."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cryptography import x509

from sojourn.authority.bundle_sequence import BundleSequence
from sojourn.authority.jwt_keys import JwtKeys
from sojourn.authority.token_authority import WIT
from sojourn.limits import REFRESH_HINT_SECONDS
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain


def bundle_of(
    trust_domain: TrustDomain,
    roots: Sequence[x509.Certificate],
    tokens: Mapping[str, JwtKeys],
    tainted: frozenset[str],
    sequence: BundleSequence,
    now: datetime,
) -> Bundle:
    """What verifies, with the next number if that is something else than before. `tokens`: what signs them, by kind."""
    bundle = Bundle(
        trust_domain,
        tuple(roots),
        {kid: key for kind, keys in tokens.items() if kind != WIT for kid, key in keys.public().items()},
        refresh_hint_seconds=REFRESH_HINT_SECONDS,
        tainted=tainted,
        wit_authorities=tokens[WIT].public() if WIT in tokens else {},
    )
    parts = [bundle.x509_der, bundle.jwks, ",".join(sorted(bundle.tainted)).encode()]
    parts += [bundle.wit_jwks.encode()] if bundle.wit_authorities else []
    content = hashlib.sha256(b"".join(parts)).hexdigest()
    return replace(bundle, sequence=sequence.of(content, int(now.timestamp())))
