"""What plugins must keep, as tests that anybody runs over their own. No part of the agent uses it."""

from sojourn.testing.attestors import AttestorCase, AttestorContract, child
from sojourn.testing.outside import Sent, answer_of
from sojourn.testing.promises import Promise
from sojourn.testing.providers import Case, ProviderContract
from sojourn.testing.signing_authority import SigningAuthority
from sojourn.testing.upstreams import UpstreamCase, UpstreamContract

__all__ = [
    "AttestorCase",
    "AttestorContract",
    "Case",
    "Promise",
    "ProviderContract",
    "Sent",
    "SigningAuthority",
    "UpstreamCase",
    "UpstreamContract",
    "answer_of",
    "child",
]
