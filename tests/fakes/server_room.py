"""The rooms of a server, in memory but for the keys."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from fakes.journals import FakeAuditStore
from fakes.registrations import TRUST_DOMAIN, FakeEntryStore, selectors
from sojourn.audit.journal import Audit, Event
from sojourn.errors import SojournError
from sojourn.identity.entries import Registration
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms
from sojourn.server.authorized_entries import AuthorizedEntries
from sojourn.server.join_tokens import JoinTokens
from sojourn.server.node_attestor import Attested
from sojourn.server.node_records import JoinToken, Node
from sojourn.server.node_svids import NodeSvids
from sojourn.server.nodes import Nodes, PublicKey
from sojourn.spiffe.ids import SpiffeId

SERVER = SpiffeId.parse("spiffe://example.org/spire/server")
TTL = timedelta(hours=1)
BY = {"by_uid": 0, "by_pid": 1}


def agent_id(name: str, attestor: str = "join_token") -> SpiffeId:
    return SpiffeId.parse(f"spiffe://example.org/spire/agent/{attestor}/{name}")


def new_key() -> PublicKey:
    return ec.generate_private_key(ec.SECP256R1()).public_key()


def certificate_request(key: ec.EllipticCurvePrivateKey | None = None, uri: str = "") -> bytes:
    """A request in DER, signed by its key, perhaps for a URI."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


class FakeNodeStore:
    """Keeps nodes in a dict. `failure` is raised in the place of a write."""

    def __init__(self, nodes: Iterable[Node] = ()) -> None:
        self.nodes = {each.spiffe_id: each for each in nodes}
        self.events: list[Event] = []
        self.failure: SojournError | None = None

    def load(self) -> list[Node]:
        return list(self.nodes.values())

    async def write(self, put: Sequence[Node], remove: Sequence[SpiffeId], events: Sequence[Event] = ()) -> None:
        if self.failure is not None:
            raise self.failure
        for each in remove:
            del self.nodes[each]
        self.nodes.update({each.spiffe_id: each for each in put})
        self.events += events

    @property
    def names(self) -> list[str]:
        return [each.event for each in self.events]


class FakeTokenStore:
    """Keeps tokens in a dict. `failure` is raised in the place of a write."""

    def __init__(self) -> None:
        self.tokens: dict[str, JoinToken] = {}
        self.events: list[Event] = []
        self.failure: SojournError | None = None

    def load(self) -> list[JoinToken]:
        return list(self.tokens.values())

    async def put(self, token: JoinToken, events: Sequence[Event]) -> None:
        if self.failure is not None:
            raise self.failure
        self.tokens[token.digest] = token
        self.events += events

    async def remove(self, digests: Sequence[str]) -> None:
        if self.failure is not None:
            raise self.failure
        for each in digests:
            self.tokens.pop(each, None)


class ServerRoom:
    """Everything that a server's nodes hang on."""

    def __init__(self, folder: Path, entries: Iterable[Registration] = ()) -> None:
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.records = FakeAuditStore()
        self.audit = Audit(self.records, self.clock)
        self.authority = authority_in(folder, self.clock)
        self.entries = FakeEntryStore(entries)  # type: ignore[arg-type]  # all are entries
        self.registry = Registry(self.entries, TRUST_DOMAIN, [SERVER], self.clock, self.alarms, of_all_nodes=True)
        self.store, self.token_store = FakeNodeStore(), FakeTokenStore()
        self.nodes = self.nodes_again()
        self.tokens = JoinTokens(self.token_store, TRUST_DOMAIN, self.audit, self.clock)
        self.authorized = AuthorizedEntries(self.registry, self.clock)
        self.svids = NodeSvids(
            self.authority, self.nodes, self.authorized, TTL, timedelta(minutes=5), self.audit, lambda _: None
        )

    def nodes_again(self) -> Nodes:
        """The nodes as a server has them that is started again."""
        return Nodes(self.store, self.authority, TTL, self.audit, self.clock)

    async def joined(
        self, name: str = "a", *texts: str, reattestable: bool = False, called: str = ""
    ) -> x509.Certificate:
        """Have a node join, and return the leaf that it is given."""
        attested = Attested(agent_id(name), selectors(*texts), reattestable, called)
        chain = await self.nodes.join("join_token", attested, new_key(), "192.0.2.7")
        return chain[0]

    def node(self, name: str = "a") -> Node:
        found = self.nodes.get(agent_id(name))
        assert found is not None
        return found

    def fields(self, event: str) -> list[dict[str, Any]]:
        """What was recorded with nodes and tokens, and beside."""
        import json

        every = [*self.store.events, *self.token_store.events, *self.records.events]
        return [json.loads(each.fields) for each in every if each.event == event]
