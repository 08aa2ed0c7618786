"""An agent for tests of a guarded service, and what plugins must keep as tests. No part of the agent uses it.

The names below are loaded when first used: a service's tests need nothing of what plugins are tested by.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sojourn.testing.attestors import AttestorCase, AttestorContract, child
    from sojourn.testing.fake_agent import FakeAgent
    from sojourn.testing.outside import Sent, answer_of
    from sojourn.testing.promises import Promise
    from sojourn.testing.providers import Case, ProviderContract
    from sojourn.testing.signing_authority import SigningAuthority
    from sojourn.testing.upstreams import UpstreamCase, UpstreamContract

__all__ = [
    "AttestorCase",
    "AttestorContract",
    "Case",
    "FakeAgent",
    "Promise",
    "ProviderContract",
    "Sent",
    "SigningAuthority",
    "UpstreamCase",
    "UpstreamContract",
    "answer_of",
    "child",
]

_HOMES = {
    "AttestorCase": "attestors",
    "AttestorContract": "attestors",
    "Case": "providers",
    "FakeAgent": "fake_agent",
    "Promise": "promises",
    "ProviderContract": "providers",
    "Sent": "outside",
    "SigningAuthority": "signing_authority",
    "UpstreamCase": "upstreams",
    "UpstreamContract": "upstreams",
    "answer_of": "outside",
    "child": "attestors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
