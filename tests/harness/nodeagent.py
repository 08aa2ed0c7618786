"""An agent that is a node of a real SPIRE server, for tests that run on any agent: registering for it is the server's."""

import base64
import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key
from fakes.certificates import authority
from google.protobuf.message import Message
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as bundle_api
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as entry_api
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.jose.jws import SigningKey

from harness import nodes
from harness.agent import AgentProcess
from harness.federating import SpireServer
from harness.looking import until
from harness.raw import BUNDLE_API, ENTRY_API, Admin, Wire
from harness.spirecli import binary

NODE = "node"
# Parameters of a fixture whose tests run on an agent of its own authority, and once more on a node.
AGENTS = ("own", pytest.param(NODE, marks=pytest.mark.full))
DOMAIN = "example.org"  # what tests say who do not know that it is a node
SYNCED_SECONDS = 60.0
_ONE_BELOW = (x509.BasicConstraints(ca=True, path_length=1), True)
# Entries are given to nodes within this time and one poll, and not within five seconds and one.
_QUICK = 'experimental { cache_reload_interval = "100ms" }'


class NodeAgent(AgentProcess):
    """The agent of `node_agent`, which knows its server."""

    server: SpireServer


class NodeAdmin(Admin):
    """The admin socket of a node, but that entries and bundles are registered at its server, below this node. Each
    change is in force at the node when it returns.
    """

    def __init__(self, agent: NodeAgent) -> None:
        super().__init__(agent.admin_socket)
        self._agent = agent
        self._server = Wire(agent.server.socket)
        self._parent = types.SPIFFEID(trust_domain=DOMAIN, path=nodes.node_id(agent).removeprefix(f"spiffe://{DOMAIN}"))

    def close(self) -> None:
        self._server.close()
        super().close()

    def has_left_out(self, made: types.Entry) -> None:
        """Return once the node has heard of an entry that it cannot serve, which is at its server no longer then."""
        made.parent_id.CopyFrom(self._parent)
        create = entry_api.BatchCreateEntryRequest(entries=[made])
        [result] = self._server.unary(
            ENTRY_API + "BatchCreateEntry", create, entry_api.BatchCreateEntryResponse
        ).results
        assert 0 == result.status.code, result.status
        until(lambda: self.status().upstream.left_out == 1, "the node leaves the entry out", SYNCED_SECONDS)
        assert result.entry.id not in {each.id for each in self._listed()}
        self.delete(result.entry.id)
        until(lambda: self.status().upstream.left_out == 0, "the entry is gone", SYNCED_SECONDS)

    def unary(self, method: str, request: Message | bytes, answer: Any = None, **options: Any) -> Any:
        if not method.startswith((ENTRY_API, BUNDLE_API)):
            return super().unary(method, request, answer, **options)
        if isinstance(request, entry_api.BatchCreateEntryRequest):
            for each in request.entries:
                each.parent_id.CopyFrom(self._parent)
        answered = self._server.unary(method, request, answer, **options)
        self._in_force(request, answered)
        return answered

    def _in_force(self, request: Message | bytes, answered: Any) -> None:
        """Return once the node has heard of it."""
        if isinstance(request, entry_api.BatchCreateEntryRequest | entry_api.BatchUpdateEntryRequest):
            changed = [each.entry for each in answered.results if each.status.code == 0]
            self._until(lambda has: all(has.get(each.id, -1) >= each.revision_number for each in changed))
            if any(each.federates_with for each in changed):
                self._synced()
        elif isinstance(request, entry_api.BatchDeleteEntryRequest):
            self._until(lambda has: not has.keys() & set(request.ids))
        elif isinstance(request, bundle_api.BatchSetFederatedBundleRequest) and self._federates:
            self._synced()

    def _until(self, there: Callable[[dict[str, int]], bool]) -> None:
        def look() -> bool:
            return there({each.id: each.revision_number for each in self._listed()})

        until(look, "the node has what is registered at its server", SYNCED_SECONDS)

    @property
    def _federates(self) -> bool:
        """Whether it has entries for whose sake bundles of others come."""
        return any(each.federates_with for each in self._listed())

    def _listed(self) -> Sequence[types.Entry]:
        """The entries that the node has."""
        request, answer = entry_api.ListEntriesRequest(), entry_api.ListEntriesResponse
        found: Sequence[types.Entry] = super().unary(ENTRY_API + "ListEntries", request, answer).entries
        return found

    def _synced(self) -> None:
        """What has begun by now is over, and one more sync after it."""
        for _ in range(2):
            before = self._synced_at()
            until(lambda before=before: self._synced_at() != before, "the node syncs", SYNCED_SECONDS)

    def _synced_at(self) -> Any:
        return self.status().upstream.synced_at


def admin_of(agent: AgentProcess) -> Admin:
    """Where a test registers what the agent is to serve."""
    return NodeAdmin(agent) if isinstance(agent, NodeAgent) else Admin(agent.admin_socket)


@contextlib.contextmanager
def node_agent() -> Iterator[NodeAgent]:
    """A server below a root, so that it signs by an intermediate as this agent does alone; and its node. At
    the end no call may have failed inside it.
    """
    folder = Path(tempfile.mkdtemp(prefix="sojourn-test-", dir="/tmp"))
    try:
        with _server(folder) as server:
            (folder / "node").mkdir()
            agent = NodeAgent(config=nodes.node_config(server, folder / "node"))
            agent.server = server
            with agent:
                yield agent
                failed = {"call_failed", "http_failed", "attestor_raised", "node_fault"}
                found = [line for line in agent.log_lines() if line["event"] in failed]
                assert [] == found, found  # pytest does not explain asserts of helpers by itself
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _server(folder: Path) -> SpireServer:
    now = datetime.now(UTC)
    root = authority(begins=now - timedelta(hours=1), ends=now + timedelta(days=1), constraints=_ONE_BELOW)
    certificate, key = folder / "root.pem", folder / "root.key"
    certificate.write_bytes(root.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths = f'cert_file_path = "{certificate}", key_file_path = "{key}"'
    disk = f'UpstreamAuthority "disk" {{ plugin_data {{ {paths} }} }}'
    return SpireServer(binary("spire-server"), folder / "server", DOMAIN, lines=_QUICK, plugins=disk, keys_stay=True)


def server_jwt_key(server: SpireServer, kid: str) -> SigningKey:
    """The key of the server's that signs JWT-SVIDs with this `kid`, to sign what the server would not."""
    published = next(each for each in json.loads(server.bundle())["keys"] if each.get("kid") == kid)
    for der in json.loads((server.folder / "data" / "keys.json").read_text())["keys"].values():
        key: Any = load_der_private_key(base64.b64decode(der), None)
        signing = SigningKey.from_private(kid, key)
        if signing.public.jwk["x"] == published["x"]:
            return signing
    raise AssertionError(f"the server has no key {kid}")
