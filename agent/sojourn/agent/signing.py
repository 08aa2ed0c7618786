"""What signs for this agent, and whose word its entries are: chosen once, as it starts.

With a table `[upstream]` that is a server above it (`node_signing.py`), otherwise the agent's own authority. A server
has one, too, and signs for its nodes (`server_signing.py`).
"""

import os
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from cryptography import x509

from sojourn.agent.door_parts import DoorParts
from sojourn.agent.embedded_signing import EmbeddedSigning
from sojourn.agent.readiness import Conditions
from sojourn.audit.journal import Audit
from sojourn.authority.key_files import make_folder
from sojourn.authority.key_seal import KeySeal
from sojourn.config.model import Config
from sojourn.endpoints.admin.status import ToldAuthority
from sojourn.endpoints.admin.upstream import ToldNode
from sojourn.endpoints.api.trust_documents import PublishedTrust
from sojourn.endpoints.grpc.calls import Method
from sojourn.endpoints.listener.own_svid import AgentSvid
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.spire.localauthority import LocalAuthorities
from sojourn.errors import CannotStart
from sojourn.files.data_folder import KEYS, NODE
from sojourn.identity.entry_changes import EntryStore
from sojourn.identity.foreign_bundles import ForeignBundles, ForeignStore
from sojourn.identity.identities import Identities
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import CrlSigner
from sojourn.identity.svid_issuer import IssuingAuthority, Signers, SvidIssuer
from sojourn.identity.svid_signers import (
    AssertionSigner,
    MintingSigner,
)
from sojourn.oauth.token_binding import ChainTrust
from sojourn.runtime.clock import Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.server.nodes import Nodes
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.store.audit import AuditTable
from sojourn.store.database import Database
from sojourn.store.role import check_role


class AgentAuthority(
    IssuingAuthority, CrlSigner, ChainTrust, PublishedTrust, ToldAuthority, LocalAuthorities, Protocol
):
    """All that the rooms ask of whatever signs."""

    @property
    def whole_chain(self) -> tuple[x509.Certificate, ...]:
        """From what signs leaves now up to the root."""

    @property
    def on_list(self) -> Hooks[[]]:
        """For those who want to hear of a CRL that was waited for."""


class Signing(Conditions, Protocol):
    """What signs, where entries and foreign bundles are kept, and as whom the agent shows itself."""

    @property
    def authority(self) -> AgentAuthority: ...

    @property
    def signers(self) -> Signers: ...

    @property
    def assertions(self) -> AssertionSigner: ...

    @property
    def minting(self) -> MintingSigner: ...

    @property
    def entries(self) -> EntryStore: ...

    @property
    def foreign(self) -> ForeignStore: ...

    @property
    def node_ids(self) -> tuple[SpiffeId, ...]:
        """The parents whose entries are served: this node's own ID first."""

    @property
    def node_id(self) -> SpiffeId: ...

    @property
    def nodes(self) -> Nodes | None:
        """Those of a server, which has the entries of them all; None: this is an agent."""

    @property
    def attestation_type(self) -> str: ...

    @property
    def reattestable(self) -> bool: ...

    @property
    def certificate(self) -> x509.Certificate | None: ...

    @property
    def in_short(self) -> str:
        """Until when what signs is good, or how it fares at the server above, for the service manager's status line."""

    @property
    def told(self) -> ToldNode | None:
        """How it fares at the server above; None: there is none."""

    @property
    def default_ttl(self) -> timedelta | None:
        """The life of X.509-SVIDs whose entry names none; None: it is not ours to say."""

    async def start(self) -> None:
        """Have it ready to sign, before the rooms are built. Raise CannotStart."""

    def begin(self, registry: Registry, foreign: ForeignBundles, identities: Identities) -> None:
        """Keep it up from now on: keys, or what the server says."""

    async def run(self) -> None:
        """What has to go on behind all that is answered, until cancelled."""

    async def close(self) -> None: ...

    def own_svid(self, issuing: SvidIssuer) -> AgentSvid: ...

    def operators(self, services: Mapping[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
        """What operators may call of these services here."""

    def open_listeners(self, parts: DoorParts) -> list[Listener]:
        """Open the doors for those that it signs for, if they are on other machines. Raise CannotStart."""


def refuse_node(data_dir: Path) -> None:
    """Raise CannotStart if what is kept there is a node's: a root of its own, which nobody elsewhere trusts, is not
    made because a table is missing.
    """
    if os.path.lexists(data_dir / NODE / "node.sealed"):
        raise CannotStart(
            f"{str(data_dir)!r} is of a node of a SPIRE server, and the configuration has no table [upstream]: put it"
            " back, or run `sojourn agent detach`, by which this agent is its own authority from its next start on"
        )


def signing_of(
    config: Config,
    database: Database,
    journal: AuditTable,
    audit: Audit,
    clock: Clock,
    alarms: Alarms,
    pool: Executor,
    seal: KeySeal | None,
) -> Signing:
    """What the configuration says. `seal`: what keys are sealed with on disk, if they are. Raise CannotStart,
    InvalidConfig.
    """
    said = config.upstream
    used = (config.data_dir / KEYS / "root.pem").exists()
    check_role(database, server=config.server is not None, used=used)
    if config.server is not None:
        from sojourn.agent.server_signing import ServerSigning

        return ServerSigning(config, database, journal, audit, clock, alarms, pool, seal)
    if said.kind is None or said.attestor is None:
        return EmbeddedSigning(config, database, journal, clock, alarms, audit, pool, seal)
    # What speaks to servers is imported where there is one.
    from sojourn.agent.node_settings import settings_of
    from sojourn.agent.node_signing import NodeSigning
    from sojourn.upstream.node import SpireNode

    make_folder(config.data_dir / KEYS)  # of other keys
    settings = settings_of(said, TrustDomain(config.trust_domain), config.data_dir, seal)
    node = SpireNode(settings, clock, alarms)
    return NodeSigning(node, said.attestor, config.node_id, said.prefetch, audit, clock)
