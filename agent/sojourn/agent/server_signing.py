"""A server: an authority of its own, for the nodes that join it, each of which is given what its entries say."""

from collections.abc import Callable, Mapping
from concurrent.futures import Executor

from sojourn.agent.door_parts import DoorParts
from sojourn.agent.embedded_signing import EmbeddedSigning
from sojourn.agent.node_attestors import pods_of
from sojourn.audit.journal import Audit
from sojourn.authority.key_seal import KeySeal
from sojourn.backup.restoration import last_of
from sojourn.config.model import Config
from sojourn.endpoints.grpc.calls import Method
from sojourn.endpoints.listener.nodes import NodesDoor, open_nodes
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.node import agent, bundle, entry, svid
from sojourn.endpoints.node.callers import NodeCallers
from sojourn.endpoints.spire.bundle import BundleApi
from sojourn.endpoints.spire.nodes import NodesApi
from sojourn.endpoints.spire.not_of_server import of_server
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.registry import Registry
from sojourn.runtime.clock import Alarms, Clock
from sojourn.server.authorized_entries import AuthorizedEntries
from sojourn.server.bound_keys import BoundKeys
from sojourn.server.join_tokens import JoinTokens
from sojourn.server.node_attestor import NodeAttestor
from sojourn.server.node_records import Node
from sojourn.server.node_svids import NodeSvids
from sojourn.server.nodes import Nodes
from sojourn.server.signing_rate import SigningRate
from sojourn.server.x509pop import X509Pop
from sojourn.spiffe.ids import SpiffeId
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.nodes import JoinTokenTable, NodeTable
from sojourn.store.restorations import RestorationTable
from sojourn.store.role import put_server


class ServerSigning(EmbeddedSigning):
    """The authority, and what stands behind the port for nodes."""

    def __init__(
        self,
        config: Config,
        database: Database,
        journal: AuditTable,
        audit: Audit,
        clock: Clock,
        alarms: Alarms,
        pool: Executor,
        seal: KeySeal | None,
    ) -> None:
        """Raise CannotStart if the keys that are there cannot be used, InvalidConfig."""
        super().__init__(config, database, journal, clock, alarms, audit, pool, seal)
        assert config.server is not None  # or else this is an agent
        self._config = config
        self._database = database
        self._audit = audit
        self._clock = clock
        self._alarms = alarms
        trust_domain = self.node_id.trust_domain
        self._nodes = Nodes(NodeTable(database, journal), self.authority, config.server.node_svid_ttl, audit, clock)
        self.nodes = self._nodes
        self._rate = SigningRate(clock.boot)
        self.tokens = JoinTokens(JoinTokenTable(database, journal), trust_domain, audit, clock)
        restored = last_of(RestorationTable(database, journal))
        bound = BoundKeys(self._nodes, self.tokens, trust_domain, 0 if restored is None else restored.at)
        found: list[NodeAttestor] = [self.tokens, bound]
        if config.node_attestors.x509pop is not None:
            found.append(X509Pop.of_file(config.node_attestors.x509pop.ca, trust_domain, clock))
        self._pods = None
        if config.node_attestors.k8s_psat is not None:
            self._pods = pods_of(config.node_attestors.k8s_psat, trust_domain)
            found.append(self._pods)
        self.attestors: Mapping[str, NodeAttestor] = {each.type: each for each in found}

    @property
    def in_short(self) -> str:
        count = len(self._nodes)
        return f"{count} {'node' if count == 1 else 'nodes'}, {super().in_short}"

    async def start(self) -> None:
        await put_server(self._database)
        await super().start()

    async def close(self) -> None:
        if self._pods is not None:
            await self._pods.close()
        await super().close()

    def begin(self, registry: Registry, foreign: ForeignBundles, identities: Identities) -> None:
        super().begin(registry, foreign, identities)
        self._registry, self._foreign = registry, foreign
        self.authorized = AuthorizedEntries(registry, self._clock)
        self._nodes.on_change(self._changed)

    def _changed(self, spiffe_id: SpiffeId, node: Node | None) -> None:
        if node is None or node.banned:
            self.authorized.forget(spiffe_id)
            self._rate.forget(spiffe_id)

    def operators(self, services: Mapping[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
        nodes = NodesApi(self._nodes, self.tokens, self._registry, self.authority, self._audit)
        return of_server({**services, agent.SERVICE: nodes.methods()})

    def node_services(self, recordable: Callable[[SpiffeId], None]) -> dict[str, dict[str, Method]]:
        """What nodes may call. `recordable` raises if no further issue may be recorded of a SPIFFE ID."""
        ttls = self._config.identity.x509_svid_ttl, self._config.identity.jwt_svid_ttl
        svids = NodeSvids(self.authority, self._nodes, self.authorized, *ttls, self._audit, recordable)
        callers = NodeCallers(self._nodes)
        bundles = BundleApi(self.authority, self._foreign, self._audit)
        services = {
            agent.SERVICE: agent.NodeAgentApi(self._nodes, self.attestors, self._audit, self._clock.boot).methods(),
            entry.SERVICE: entry.NodeEntryApi(self._nodes, self.authorized).methods(),
            svid.SERVICE: svid.NodeSvidApi(svids, self._rate).methods(),
            bundle.SERVICE: bundle.NodeBundleApi(bundles).methods(),
        }
        return {name: callers.guarded(name, methods) for name, methods in services.items()}

    def open_listeners(self, parts: DoorParts) -> list[Listener]:
        door = NodesDoor(self.authority, parts.revocations, self._clock, self._alarms)
        services = self.node_services(parts.recordable)
        return [
            open_nodes(
                self._config.nodes_address,
                door,
                parts.own,
                services,
                self._audit,
                parts.readiness,
                parts.descriptors,
                parts.stack,
            )
        ]
