"""What is malformed changes nothing in the agent, and is refused with a stable code."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from harness.agent import AgentProcess
from harness.raw import BUNDLE_API, ENTRY_API, Admin, Wire

FEDERATION_API = "/spire.api.server.trustdomain.v1.TrustDomain/"


@pytest.fixture(scope="module", name="admin")
def admin_fixture(agent: AgentProcess) -> Iterator[Admin]:
    """The admin socket of an agent that has an entry for this user, and knows one foreign trust domain."""
    with Admin(agent.admin_socket) as admin:
        admin.register("/self", f"unix:uid:{os.getuid()}")
        admin.trust("known.org")
        yield admin


@pytest.fixture(autouse=True)
def nothing_changes(admin: Admin, wire: Wire) -> Iterator[None]:
    """Whatever a test does, entries, bundles and relationships are afterwards what they were, and all is served."""
    before = _world(admin)
    yield
    assert before == _world(admin), "entries, bundles or relationships have changed"
    served = wire.x509_ids()
    assert ["spiffe://example.org/self"] == served, served  # pytest does not explain asserts of helpers by itself


def _world(admin: Admin) -> list[bytes]:
    return [
        admin.unary(ENTRY_API + "ListEntries", b""),
        admin.unary(BUNDLE_API + "ListFederatedBundles", b""),
        admin.unary(FEDERATION_API + "ListFederationRelationships", b""),
    ]


def told(call: Callable[[], Any]) -> tuple[str, str]:
    """The status and the stable code with which a call is refused."""
    try:
        answered = call()
    except grpc.RpcError as error:
        return error.code().name, dict(error.trailing_metadata() or ()).get("sojourn-code", "")  # type: ignore[attr-defined]
    raise AssertionError(f"not refused, but answered {answered!r}"[:400])
