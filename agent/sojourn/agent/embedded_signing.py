"""The agent's own authority, and the entries that its operators register."""

from collections.abc import Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.agent.door_parts import DoorParts
from sojourn.agent.readiness import EmbeddedConditions
from sojourn.agent.token_keys import token_keys_of
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.key_steps import X509
from sojourn.authority.key_upkeep import Upkeep
from sojourn.config.model import Config
from sojourn.credentials.provider_assertions import Assertions
from sojourn.endpoints.grpc.calls import Method
from sojourn.endpoints.listener.own_svid import OwnSvid
from sojourn.endpoints.listener.tls import Listener
from sojourn.files.data_folder import KEYS
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.registry import Registry
from sojourn.identity.svid_issuer import Signers, SvidIssuer
from sojourn.identity.svid_signers import AssertionSignerAtOnce, MintingSignerAtOnce
from sojourn.runtime.background import Background
from sojourn.runtime.clock import Alarms, Clock
from sojourn.server.nodes import Nodes
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.entries import EntryTable
from sojourn.store.foreign import ForeignTable
from sojourn.upstream.making import upstream_of

_RS256_ONLY = frozenset({"entra"})  # kinds of providers that take no other algorithm


class EmbeddedSigning(EmbeddedConditions):
    """The agent's own authority, and entries that its operators register."""

    attestation_type = "sojourn"
    reattestable = True
    told = None
    nodes: Nodes | None = None

    def __init__(
        self,
        config: Config,
        database: Database,
        journal: AuditTable,
        clock: Clock,
        alarms: Alarms,
        audit: Audit,
        pool: Executor,
        seal: KeySeal | None,
    ) -> None:
        """Raise CannotStart if the keys that are there cannot be used."""
        trust_domain = TrustDomain(config.trust_domain)

        async def mint(audience: str, **options: Any) -> str:
            return await own(audience, **options)

        self._token = token = token_keys_of(config, trust_domain, audit, clock, mint)
        said = config.authority
        authority = EmbeddedAuthority(
            trust_domain,
            config.data_dir / KEYS,
            clock,
            curve=ec.SECP384R1() if said.key_type == "ec-p384" else ec.SECP256R1(),
            root_ttl=said.root_ttl,
            issuer_ttl=said.issuer_ttl,
            jwt_key_ttl=said.jwt_key_ttl,
            jwt_key_overlap=said.jwt_key_overlap,
            jwt_issuer=config.issuer if config.identity.jwt_svid_issuer else None,
            rs256=said.rs256 or any(each.get("kind") in _RS256_ONLY for each in config.providers.values()),
            wit=config.identity.wit_svids,
            pool=pool,
            seal=seal,
            root=(lambda own: own) if token is None else token.root,
            maker=None if token is None else token.maker,
            upstream=upstream_of(config, mint, clock, alarms, seal),
        )
        own = Assertions(AssertionSignerAtOnce(authority), config.issuer, audit).of(config.node_id)
        super().__init__(authority, clock, None if token is None else token.process)
        self.authority = authority
        self.signers = Signers.at_once(authority, config.identity.x509_svid_ttl, config.identity.jwt_svid_ttl)
        self.assertions = AssertionSignerAtOnce(authority)
        self.minting = MintingSignerAtOnce(authority)
        self.entries, self.foreign = EntryTable(database, journal), ForeignTable(database, journal)
        self.node_ids = (config.node_id, *(SpiffeId.parse(alias) for alias in config.node_aliases))
        self.node_id = config.node_id
        self.default_ttl = config.identity.x509_svid_ttl
        self._alarms = alarms
        self._background = Background("tainted_not_replaced")

    @property
    def certificate(self) -> x509.Certificate | None:
        return self.authority.issuer

    @property
    def in_short(self) -> str:
        root, upstream = self.authority.root, self.authority.upstream
        told = "no root yet" if root is None else f"root until {root.not_valid_after_utc:%Y-%m-%d}"
        return told if upstream is None or not upstream.fault else f"{told}, upstream authority fails"

    async def start(self) -> None:
        if self._token is not None:
            self._token.follow(self.authority)
        await self.authority.begin()

    def begin(self, _registry: Registry, _foreign: ForeignBundles, identities: Identities) -> None:
        Upkeep(self.authority, self._alarms).run()
        self.authority.on_change(partial(self._replace_tainted, identities.issuing))
        self.authority.issuers.on_use(partial(self._replace_tainted, identities.issuing))

    def _replace_tainted(self, issuing: SvidIssuer) -> None:
        """What is below a root that its upstream authority taints, or has revoked, is replaced once another signs."""
        for root_id in self.authority.upstream_roots.replaceable:
            self._background.run(issuing.replace_signed_by(X509, root_id))

    async def run(self) -> None:
        """Alarms see to the keys."""

    async def close(self) -> None:
        await self.authority.close()
        await self._background.quiet()
        if self._token is not None:
            await self._token.process.close()

    def own_svid(self, issuing: SvidIssuer) -> OwnSvid:
        return OwnSvid(self.node_id, self.authority, issuing)

    def operators(self, services: Mapping[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
        return dict(services)

    def open_listeners(self, parts: DoorParts) -> list[Listener]:
        """Those that it signs for are on this machine."""
        del parts
        return []
