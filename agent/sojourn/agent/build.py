"""Building the agent's rooms from the configuration: which there are, and in which order they come to be."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Self

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.attestation.loader import load_attestors
from sojourn.attestation.service import Attestation
from sojourn.attestation.subordinate_ids import Subordinates
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.config.model import Config
from sojourn.credentials.dry_run import DryRun
from sojourn.credentials.exchange_call import ExchangeCalls
from sojourn.credentials.hand_out import HandOut
from sojourn.credentials.ledger import CredentialLedger
from sojourn.credentials.provider_assertions import Assertions
from sojourn.credentials.provider_routes import ProviderRoutes, deadlines
from sojourn.credentials.recall import Recalling
from sojourn.credentials.sealing import Sealing
from sojourn.credentials.token_source import TaskTokenSource
from sojourn.facts.facts import Facts
from sojourn.federation.bundle_refresh import Federating
from sojourn.federation.bundle_source import BundleSource
from sojourn.identity.entries_folder import FollowedFolder
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.program_files import Cautions
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import Revocations
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.limits import BLOCKING_THREADS, DESCRIPTORS_RESERVED, HOLDERS_SHARE
from sojourn.notices.notifiers import courier_of
from sojourn.notices.outbox import Notices
from sojourn.oauth.client_auth import Clients, own_names
from sojourn.oauth.introspection import Introspection
from sojourn.oauth.one_shot_holder import Runners
from sojourn.oauth.resource_servers import Audiences, Service
from sojourn.oauth.revocation import TokenRevocation
from sojourn.oauth.token_binding import TokenBindings
from sojourn.oauth.token_grants import TokenGrants
from sojourn.oauth.validation import TokenValidation
from sojourn.providers.loader import load_providers
from sojourn.runtime.clock import Alarms, SystemClock
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.ssf.receiver import Issuer, Signals
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages
from sojourn.store.boot_id import boot_id
from sojourn.store.credentials import CredentialTable
from sojourn.store.database import open_sqlite
from sojourn.store.entries import EntryTable
from sojourn.store.facts import FactTable
from sojourn.store.foreign import ForeignTable
from sojourn.store.last_good_types import KeptPolicy
from sojourn.store.notices import NoticeTable
from sojourn.store.pruning import Pruning, most_of
from sojourn.store.revocations import RevocationTable
from sojourn.store.security_events import SignalTable
from sojourn.store.short_lists import REVIEWS, TASK_BLOCKS, KeptList
from sojourn.store.start_numbers import count_start
from sojourn.store.tasks import TaskTable
from sojourn.store.used_assertions import UsedTable
from sojourn.tasks.approval import Approvals
from sojourn.tasks.begin import BeginService
from sojourn.tasks.blocks import Block
from sojourn.tasks.break_glass_reviews import Review, Reviews
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Holders
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.last_good_types import LastGood
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.recovery import Recovery
from sojourn.tasks.reevaluation import Reevaluation
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasks.revoked_svids import end_due_to
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasks.suspension import TaskChanges
from sojourn.tasks.type_sets import Policies
from sojourn.tasktoken.dpop_replays import Replays

log = structlog.get_logger()

_RS256_ONLY = frozenset({"entra"})  # kinds of providers that take no other algorithm


class Rooms:
    """What was built, for those parts of the run that need several."""

    def __init__(self, config: Config, stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._keys_dir = config.data_dir / "keys"
        self._trust_domain = TrustDomain(config.trust_domain)
        self.clock = SystemClock()
        self.alarms = Alarms(self.clock)

    @classmethod
    async def build(cls, config: Config, descriptors: int, stack: AsyncExitStack) -> Self:
        """Build all rooms and have them take over what earlier runs have left. `stack` takes them down again."""
        rooms = cls(config, stack)
        await rooms._build_store()
        await rooms._build_identity()
        await rooms._build_tasks(descriptors)
        rooms._build_outside()
        await rooms._build_services()
        return rooms

    async def _build_store(self) -> None:
        """The database, and what an earlier run has lost of it."""
        path = self._config.data_dir / "sojourn.db"
        had_root, had_database = (self._keys_dir / "root.pem").exists(), path.exists()
        self._database = open_sqlite(path, had_content=had_root)
        self._stack.callback(self._database.close)
        self.journal = AuditTable(self._database)
        self.journal_pages = AuditPages(self._database)
        self.audit = Audit(self.journal, self.clock)
        self._stack.push_async_callback(self.audit.finish)
        most = self._config.audit.max_bytes or most_of(self._config.data_dir)
        self.pruning = Pruning(self.journal, most, self.clock)
        self._epoch, self._is_older = await count_start(self._database, self._config.data_dir)
        if had_root and not had_database:
            _tell_lost(self.audit, "database_lost", "there are keys of an earlier run and was no database: entries,"
                       " revocations, switches that were off and the journal are gone")  # fmt: skip
        elif had_database and self._epoch > 1 and not had_root:
            _tell_lost(self.audit, "root_lost", "there is a database of an earlier run and was no root: what the"
                       " earlier one signed verifies no more")  # fmt: skip
        elif had_database and self._is_older:
            _tell_lost(self.audit, "database_restored", "the database is older than the last run: what was registered,"
                       " revoked, switched off and journalled since is forgotten, and what must stay revoked is to be"
                       " revoked again")  # fmt: skip

    async def _build_identity(self) -> None:
        """Who calls, and what signs for them."""
        config, clock, alarms = self._config, self.clock, self.alarms
        pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="blocking")
        self._stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        self.attestation = Attestation(await load_attestors(config.attestors, pool, clock), clock)
        self.subordinates = Subordinates()
        await self.subordinates.start()
        self.authority = authority = EmbeddedAuthority(
            self._trust_domain,
            self._keys_dir,
            clock,
            curve=ec.SECP384R1() if config.authority.key_type == "ec-p384" else ec.SECP256R1(),
            root_ttl=config.authority.root_ttl,
            issuer_ttl=config.authority.issuer_ttl,
            jwt_key_ttl=config.authority.jwt_key_ttl,
            jwt_key_overlap=config.authority.jwt_key_overlap,
            jwt_issuer=config.issuer if config.identity.jwt_svid_issuer else None,
            rs256=config.authority.rs256 or any(each.get("kind") in _RS256_ONLY for each in config.providers.values()),
            wit=config.identity.wit_svids,
            pool=pool,
        )
        node_ids = [config.node_id, *(SpiffeId.parse(alias) for alias in config.node_aliases)]
        entries = EntryTable(self._database, self.journal)
        self.registry = registry = Registry(entries, self._trust_domain, node_ids, clock, alarms)
        self.issuing = SvidIssuer(
            authority,
            clock,
            alarms,
            self.audit,
            x509_ttl=config.identity.x509_svid_ttl,
            jwt_ttl=config.identity.jwt_svid_ttl,
            jwt_each_anew=(*own_names(config.issuer, self._trust_domain), *config.identity.jwt_svid_anew),
        )
        bundles = ForeignTable(self._database, self.journal)
        self.foreign = foreign = ForeignBundles(bundles, self._trust_domain, registry)
        endpoints = BundleSource(config.federation.ca, clock, public_only=config.federation.public_only)
        self.federating = Federating(foreign, authority, endpoints, self.audit, clock, alarms)
        self.revocations = Revocations(
            RevocationTable(self._database, self.journal), authority, clock, alarms, epoch=self._epoch
        )
        self._stack.push_async_callback(self.revocations.close)
        self.cautions = Cautions(self.attestation.types, registry.node_ids)
        follow = config.registration.follow
        self.followed = (
            None if follow is None else FollowedFolder(follow, registry, foreign, self.cautions, self.audit, clock)
        )
        self.identities = Identities(
            self.attestation, registry, authority, self.issuing, self.revocations, foreign, clock
        )

    async def _build_tasks(self, descriptors: int) -> None:
        """Tasks, with those that earlier runs left alive."""
        config, audit, clock, alarms = self._config, self.audit, self.clock, self.alarms
        table = TaskTable(self._database, self.journal)
        keys = TokenKeys(alarms, config.tasks.token_key_ttl.total_seconds())
        holders = Holders(int((descriptors - DESCRIPTORS_RESERVED) * HOLDERS_SHARE), self.subordinates.owner)
        self.facts = Facts(FactTable(self._database, self.journal), audit, clock, alarms)
        await self.facts.start()
        self.engine = engine = TaskEngine(
            {}, table, audit, keys, config.issuer, self._epoch, clock, alarms, holders, self.facts, boot_id()
        )
        self.changing = TaskChanges(engine)
        self.ending = MassEnd(engine)
        self.outlets = ProviderRoutes(load_providers(config.providers), clock, deadlines(config.providers))
        self._stack.push_async_callback(self.outlets.close)
        self.policies = Policies(
            engine,
            self.changing,
            config.tasks.types_dir,
            config.tasks.shadow_types_dir,
            audit,
            clock,
            self.outlets.faults,
            require_cases=config.tasks.require_cases,
            last_good=LastGood(KeptPolicy(self._database), clock, stale=self._is_older),
        )
        await self.policies.start()
        self.registry.on_change(self.ending.entries_changed)
        blocks = KeptList(self._database, self.journal, TASK_BLOCKS, Block)
        engine.blocks.replace(blocks.load())
        self.kill_switch = KillSwitch(engine, blocks, self.audit, self.clock)
        self.recovery = Recovery(engine, self.ending, self.registry, holders, table, audit, alarms)
        await self.recovery.run()
        self.redeciding = Reevaluation(engine, self.changing, self.facts, alarms)
        self.redeciding.start()
        self.policies.reloading.on_applied(self.redeciding.reloaded)
        self.attaching = Reattachment(engine, self.changing, self.identities)
        owed = KeptList(self._database, self.journal, REVIEWS, Review)
        self.approving = Approvals(engine, Reviews(owed, owed.load(), audit), audit, config.tasks.approval_classes)
        self.beginning = BeginService(engine, self.approving)
        self.delegating = DelegationService(engine, self.beginning)

    def _build_outside(self) -> None:
        """The credentials of providers outside."""
        engine, registry, audit, clock = self.engine, self.registry, self.audit, self.clock
        self.assertions = Assertions(self.authority, self._config.issuer, audit)
        table, sealing = CredentialTable(self._database, self.journal), Sealing(self._keys_dir / "handles.key")
        self.book = CredentialLedger(engine, table, sealing, self.outlets, audit, clock, self.alarms)
        self.recalling = Recalling(self.book, self.outlets, lambda: engine.types, self.assertions, self.alarms)
        self.recalling.start()
        self._stack.push_async_callback(self.recalling.close)
        self.asking = ExchangeCalls(self.book, self.assertions, clock)
        self.handing = HandOut(engine, self.outlets, self.book, self.asking, audit)
        self._stack.push_async_callback(self.handing.close)
        self.giving = TaskTokenSource(engine, self.handing)
        self._build_notices()
        self.checking = DryRun(
            self.outlets,
            lambda: engine.types,
            lambda spiffe_id: any(map(registry.serves, registry.that_make(spiffe_id))),
            self.assertions.of,
            audit,
            clock,
        )

    def _build_notices(self) -> None:
        """Who is told that tasks wait for someone to agree."""
        self.notices: Notices | None = None
        courier = courier_of(self._config.approval_notifier)
        if courier is None:
            return
        self._stack.push_async_callback(courier.close)
        node = {"trust_domain": self._config.trust_domain, "id": str(self._config.node_id)}
        self.notices = Notices(NoticeTable(self._database), courier, node, self.audit, self.clock, self.alarms)
        self.notices.follow(self.engine.waiting.on_shown, self.engine.waiting.on_over)

    async def _build_services(self) -> None:
        """What is answered about tasks, and heard from elsewhere."""
        config, engine, identities, clock = self._config, self.engine, self.identities, self.clock
        self.clients = Clients(identities, UsedTable(self._database), config.issuer, clock)
        self.audiences = Audiences(services_of(config))
        runners = Runners(identities)
        self._stack.callback(runners.close)
        replays = Replays(clock.now, clock.boot)
        self.proving = TokenBindings(engine, self.authority, self.revocations, replays, clock)
        self.granting = TokenGrants(
            engine,
            self.giving,
            self.beginning,
            self.attaching,
            self.delegating,
            identities,
            self.clients,
            runners,
            self.audiences,
            self.proving,
            clock,
        )
        self.revocations.on_revoked(lambda revoked: end_due_to(self.ending, [each.svid for each in revoked]))
        heard = [Issuer.of(each, config.issuer) for each in config.signals]
        table = SignalTable(self._database, self.journal)
        self.signals = Signals(heard, self.facts, engine.tasks.is_live, table, self.audit, clock, self._trust_domain)
        await self.signals.start()
        self.judging = TokenValidation(engine, identities, replays, clock)
        self.refusals = RefusalCounts(engine, self.audit, self.alarms, clock)
        self._stack.callback(self.refusals.finish)
        self.introspection = Introspection(engine, self.audiences, identities, self.judging.was_used, clock)
        self.token_revocation = TokenRevocation(engine, self.changing, self.audiences)


def services_of(config: Config) -> list[Service]:
    """The services that the configuration names."""
    return [
        Service(each.resource, frozenset(SpiffeId.parse(name) for name in each.workloads), each.name or "")
        for each in config.services
    ]


def _tell_lost(audit: Audit, event: str, reason: str) -> None:
    log.error(event, reason=reason)
    audit.note(event, reason=reason)
