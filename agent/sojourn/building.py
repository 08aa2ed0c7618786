"""Building the agent's rooms from the configuration: which there are, and in which order they come to be."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.attestation.loading import load_attestors
from sojourn.attestation.service import Attestation
from sojourn.attestation.subordinate import Subordinates
from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Alarms, SystemClock
from sojourn.config import Config
from sojourn.identity.federating import Federating
from sojourn.identity.following import FollowedFolder
from sojourn.identity.foreign import ForeignBundles
from sojourn.identity.identities import Identities
from sojourn.identity.issuing import Issuing
from sojourn.identity.programs import Cautions
from sojourn.identity.registry import Registry
from sojourn.identity.revocations import Revocations
from sojourn.limits import BLOCKING_THREADS, DESCRIPTORS_RESERVED, HOLDERS_SHARE
from sojourn.outward.asking import Asking
from sojourn.outward.assertions import Assertions
from sojourn.outward.book import CredentialBook
from sojourn.outward.bundlesource import BundleSource
from sojourn.outward.checking import Checking
from sojourn.outward.giving import Giving
from sojourn.outward.handing import Handing
from sojourn.outward.outlets import Outlets, deadlines
from sojourn.outward.recalling import Recalling
from sojourn.outward.sealing import Sealing
from sojourn.oversight.audit import Audit
from sojourn.oversight.facts import Facts
from sojourn.oversight.reviews import Review, Reviews
from sojourn.oversight.signals import Issuer, Signals
from sojourn.providers.loading import load_providers
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.replays import Replays
from sojourn.store import wal
from sojourn.store.audit import AuditTable
from sojourn.store.credentials import CredentialTable
from sojourn.store.database import open_sqlite
from sojourn.store.entries import EntryTable
from sojourn.store.facts import FactTable
from sojourn.store.foreign import ForeignTable
from sojourn.store.kept import REVIEWS, TASK_BLOCKS, KeptList
from sojourn.store.pruning import Pruning, most_of
from sojourn.store.revocations import RevocationTable
from sojourn.store.signals import SignalTable
from sojourn.store.starts import count_start
from sojourn.store.tasks import TaskTable
from sojourn.store.used import UsedTable
from sojourn.tasks.approving import Approving
from sojourn.tasks.attaching import Attaching
from sojourn.tasks.audiences import Audiences, Service
from sojourn.tasks.beginning import Beginning
from sojourn.tasks.blocks import Block
from sojourn.tasks.changing import Changing
from sojourn.tasks.clients import Clients, own_names
from sojourn.tasks.delegating import Delegating
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.evidence import end_due_to
from sojourn.tasks.granting import Granting
from sojourn.tasks.holders import Holders
from sojourn.tasks.inspecting import Inspecting
from sojourn.tasks.judging import Judging
from sojourn.tasks.policies import Policies
from sojourn.tasks.proving import Proving
from sojourn.tasks.recovery import Recovery
from sojourn.tasks.redeciding import Redeciding
from sojourn.tasks.running import Runners
from sojourn.tasks.tokenkeys import TokenKeys

log = structlog.get_logger()

_RS256_ONLY = frozenset({"entra"})  # kinds of providers that take no other algorithm


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """What was built, for those parts of the run that need several."""

    clock: SystemClock
    alarms: Alarms
    audit: Audit
    journal: AuditTable
    pruning: Pruning
    attestation: Attestation
    subordinates: Subordinates
    registry: Registry
    authority: EmbeddedAuthority
    issuing: Issuing
    revocations: Revocations
    foreign: ForeignBundles
    federating: Federating
    followed: FollowedFolder | None
    identities: Identities
    cautions: Cautions
    engine: TaskEngine
    approving: Approving
    beginning: Beginning
    changing: Changing
    policies: Policies
    attaching: Attaching
    recovery: Recovery
    blocks: KeptList[Block]
    judging: Judging
    audiences: Audiences
    signals: Signals
    facts: Facts
    redeciding: Redeciding
    proving: Proving
    delegating: Delegating
    clients: Clients
    granting: Granting
    inspecting: Inspecting
    outlets: Outlets
    assertions: Assertions
    asking: Asking
    checking: Checking
    book: CredentialBook
    recalling: Recalling
    handing: Handing
    giving: Giving


async def build(config: Config, descriptors: int, stack: AsyncExitStack) -> Rooms:
    """Build all rooms and have them take over what earlier runs have left. `stack` takes them down again."""
    clock = SystemClock()
    alarms = Alarms(clock)
    trust_domain = TrustDomain(config.trust_domain)
    had_root, had_database = _were_there(config.data_dir)
    database = open_sqlite(config.data_dir / "sojourn.db", had_content=had_root)
    stack.callback(database.close)
    journal = AuditTable(database)
    audit = Audit(journal, clock)
    stack.push_async_callback(audit.finish)
    wal.report(database.torn, audit)
    epoch, is_older = await count_start(database, config.data_dir)
    if had_root and not had_database:
        _tell_lost(audit, "database_lost", "there are keys of an earlier run and was no database: entries, revocations,"
                   " switches that were off and the journal are gone")  # fmt: skip
    elif had_database and epoch > 1 and not had_root:
        _tell_lost(audit, "root_lost", "there is a database of an earlier run and was no root: what the earlier one"
                   " signed verifies no more")  # fmt: skip
    elif had_database and is_older:
        _tell_lost(audit, "database_restored", "the database is older than the last run: what was registered, revoked,"
                   " switched off and journalled since is forgotten, and what must stay revoked is to be revoked again"
                   )  # fmt: skip
    pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="blocking")
    stack.callback(pool.shutdown, wait=False, cancel_futures=True)
    attestation = Attestation(await load_attestors(config.attestors, pool, clock), clock)
    subordinates = Subordinates()
    await subordinates.start()
    authority = EmbeddedAuthority(
        trust_domain,
        config.data_dir / "keys",
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
    registry = Registry(EntryTable(database), trust_domain, node_ids, clock, alarms)
    issuing = Issuing(
        authority,
        clock,
        alarms,
        audit,
        x509_ttl=config.identity.x509_svid_ttl,
        jwt_ttl=config.identity.jwt_svid_ttl,
        jwt_each_anew=(*own_names(config.issuer, trust_domain), *config.identity.jwt_svid_anew),
    )
    foreign = ForeignBundles(ForeignTable(database), trust_domain, registry)
    endpoints = BundleSource(config.federation.ca, clock, public_only=config.federation.public_only)
    federating = Federating(foreign, authority, endpoints, audit, clock, alarms)
    revocations = Revocations(RevocationTable(database), authority, clock, alarms)
    follow = config.registration.follow
    cautions = Cautions(attestation.types, registry.node_ids)
    followed = None if follow is None else FollowedFolder(follow, registry, foreign, cautions, audit, clock)
    identities = Identities(attestation, registry, authority, issuing, revocations, foreign, clock)
    table = TaskTable(database, journal)
    keys = TokenKeys(alarms, config.tasks.token_key_ttl.total_seconds())
    holders = Holders(int((descriptors - DESCRIPTORS_RESERVED) * HOLDERS_SHARE), subordinates.owner)
    facts = Facts(FactTable(database, journal), audit, clock, alarms)
    await facts.start()
    engine = TaskEngine({}, table, audit, keys, config.issuer, epoch, clock, alarms, holders, facts)
    changing = Changing(engine)
    outlets = Outlets(load_providers(config.providers), clock, deadlines(config.providers))
    stack.push_async_callback(outlets.close)
    policies = Policies(
        engine, changing, config.tasks.types_dir, config.tasks.shadow_types_dir, audit, clock, outlets.faults
    )
    await policies.start()
    registry.on_change(engine.entries_changed)
    blocks = KeptList(database, journal, TASK_BLOCKS, Block)
    engine.blocks.replace(blocks.load())
    recovery = Recovery(engine, registry, holders, table, audit, alarms)
    await recovery.run()
    redeciding = Redeciding(engine, changing, facts, alarms)
    redeciding.start()
    policies.reloading.on_applied(redeciding.reloaded)
    attaching = Attaching(engine, changing, identities)
    owed = KeptList(database, journal, REVIEWS, Review)
    approving = Approving(engine, Reviews(owed, owed.load(), audit), audit, config.tasks.approval_classes)
    beginning = Beginning(engine, approving)
    delegating = Delegating(engine, beginning)
    clients = Clients(identities, UsedTable(database), config.issuer, clock)
    audiences = _audiences(config)
    runners = Runners(identities)
    stack.callback(runners.close)
    assertions = Assertions(authority, config.issuer, audit)
    sealing = Sealing(config.data_dir / "keys" / "handles.key")
    book = CredentialBook(engine, CredentialTable(database, journal), sealing, outlets, audit, clock, alarms)
    recalling = Recalling(book, outlets, lambda: engine.types, assertions, alarms)
    recalling.start()
    stack.push_async_callback(recalling.close)
    asking = Asking(book, assertions, clock)
    handing = Handing(engine, outlets, book, asking, audit)
    stack.push_async_callback(handing.close)
    giving = Giving(engine, handing)
    checking = Checking(
        outlets,
        lambda: engine.types,
        lambda spiffe_id: any(map(registry.serves, registry.that_make(spiffe_id))),
        assertions.of,
        audit,
        clock,
    )
    granting = Granting(
        engine, giving, beginning, attaching, delegating, identities, clients, runners, audiences, clock
    )
    revocations.on_revoked(lambda revoked: end_due_to(engine, [each.svid for each in revoked]))
    heard = [Issuer.of(each, config.issuer) for each in config.signals]
    signals = Signals(heard, facts, engine.tasks.is_live, SignalTable(database, journal), audit, clock, trust_domain)
    await signals.start()
    replays = Replays(clock.now, clock.boot)
    judging = Judging(engine, identities, replays, clock)
    return Rooms(
        clock=clock,
        alarms=alarms,
        audit=audit,
        journal=journal,
        pruning=Pruning(journal, config.audit.max_bytes or most_of(config.data_dir), clock),
        attestation=attestation,
        subordinates=subordinates,
        registry=registry,
        authority=authority,
        issuing=issuing,
        revocations=revocations,
        foreign=foreign,
        federating=federating,
        followed=followed,
        identities=identities,
        cautions=cautions,
        engine=engine,
        approving=approving,
        beginning=beginning,
        changing=changing,
        policies=policies,
        attaching=attaching,
        recovery=recovery,
        blocks=blocks,
        judging=judging,
        signals=signals,
        facts=facts,
        redeciding=redeciding,
        audiences=audiences,
        clients=clients,
        delegating=delegating,
        granting=granting,
        outlets=outlets,
        assertions=assertions,
        asking=asking,
        checking=checking,
        book=book,
        recalling=recalling,
        handing=handing,
        giving=giving,
        inspecting=Inspecting(engine, changing, audiences, identities, judging.was_used, clock),
        proving=Proving(engine, authority, revocations, replays, clock),
    )


def _were_there(data_dir: Path) -> tuple[bool, bool]:
    """Whether earlier runs have left a root, and a database."""
    return (data_dir / "keys" / "root.pem").exists(), (data_dir / "sojourn.db").exists()


def _tell_lost(audit: Audit, event: str, reason: str) -> None:
    log.error(event, reason=reason)
    audit.note(event, reason=reason)


def _audiences(config: Config) -> Audiences:
    return Audiences(
        Service(each.resource, frozenset(SpiffeId.parse(name) for name in each.workloads), each.name or "")
        for each in config.services
    )
