"""Building the agent's rooms from the configuration: which there are, and in which order they come to be."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Self

import structlog

from sojourn.agent.journal_pruning import pruning_of
from sojourn.agent.journal_signing import JournalSigning
from sojourn.agent.journal_sinks import JournalSinks
from sojourn.agent.key_sealing import KeySealing
from sojourn.agent.named_services import services_of
from sojourn.agent.readiness import readiness_of
from sojourn.agent.reviewing import recertification_of
from sojourn.agent.signing import refuse_node, signing_of
from sojourn.attestation.loader import load_attestors
from sojourn.attestation.proc_reader import reader
from sojourn.attestation.service import Attestation
from sojourn.attestation.subordinate_ids import Subordinates
from sojourn.audit.journal import Audit
from sojourn.authority.root_making import AWAITED
from sojourn.backup import staging
from sojourn.backup.last_backup import LastBackup
from sojourn.backup.mark import Mark, MarkUpkeep
from sojourn.backup.restoration import Beginning, last_of
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
from sojourn.oauth.person_subjects import PersonSubjects
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.revocation import TokenRevocation
from sojourn.oauth.token_binding import TokenBindings
from sojourn.oauth.token_grants import TokenGrants
from sojourn.oauth.validation import TokenValidation
from sojourn.oauth.verified_request import RequestVerification
from sojourn.people.dry_run import PersonDryRun
from sojourn.people.ended_sessions import EndedSessions
from sojourn.people.service import People
from sojourn.providers.loader import load_providers
from sojourn.runtime.clock import Alarms, SystemClock, milliseconds
from sojourn.settings.people import plain_in_audit
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.ssf.hearing import Hearing
from sojourn.ssf.receiver import Signals
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages
from sojourn.store.blocks import BlockTable
from sojourn.store.boot_id import boot_id
from sojourn.store.credentials import CredentialTable
from sojourn.store.database import open_sqlite
from sojourn.store.ended_sessions import EndedSessionTable
from sojourn.store.facts import FactTable
from sojourn.store.last_good_types import KeptPolicy
from sojourn.store.notices import NoticeTable
from sojourn.store.policy_sets import PolicySetTable
from sojourn.store.restart_counts import count_restart
from sojourn.store.restorations import RestorationTable
from sojourn.store.revocations import RevocationTable
from sojourn.store.security_events import SignalTable
from sojourn.store.short_lists import REVIEWS, KeptList
from sojourn.store.tasks import TaskTable
from sojourn.store.usage import UsageTable
from sojourn.store.usage_upkeep import UsageUpkeep
from sojourn.store.used_assertions import UsedTable
from sojourn.store.write_probe import WriteProbe
from sojourn.tasks.approval import Approvals
from sojourn.tasks.begin import BeginService
from sojourn.tasks.break_glass_reviews import Review, Reviews
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.end_people import EndPeople
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import Holders
from sojourn.tasks.kill_switch import KillSwitch
from sojourn.tasks.last_good_types import LastGood
from sojourn.tasks.mass_end import MassEnd
from sojourn.tasks.pairwise import PAIRWISE_KEY, PairwiseNames
from sojourn.tasks.people import PeopleService
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasks.people_signals import PeopleSignals
from sojourn.tasks.person_rechecks import PersonRechecks
from sojourn.tasks.person_renewal import PersonRenewal
from sojourn.tasks.pseudonyms import PEOPLE_KEY, Pseudonyms
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


class Rooms:
    """What was built, for those parts of the run that need several."""

    def __init__(self, config: Config, stack: AsyncExitStack) -> None:
        self._config = config
        self._stack = stack
        self._keys_dir = config.data_dir / "keys"
        self._trust_domain = TrustDomain(config.trust_domain)
        self._people_urls = {name: each.issuer for name, each in config.people.items()}
        self.clock = SystemClock()
        self.alarms = Alarms(self.clock)

    @classmethod
    async def build(cls, config: Config, descriptors: int, stack: AsyncExitStack) -> Self:
        """Build all rooms and have them take over what earlier runs have left. `stack` takes them down again."""
        rooms = cls(config, stack)
        await rooms._build_store()
        await rooms._build_identity()
        await rooms._build_tasks(int((descriptors - DESCRIPTORS_RESERVED) * HOLDERS_SHARE))
        rooms._build_outside()
        await rooms._build_services()
        return rooms

    async def _build_store(self) -> None:
        """The database, and what an earlier run has lost of it."""
        path = self._config.data_dir / "sojourn.db"
        if self._config.upstream.kind is None:
            refuse_node(self._config.data_dir)  # before anything is changed
        staging.finish(self._config.data_dir)
        sealing = KeySealing(self._config)
        self._seal = sealing.seal
        # A node has no root: another key tells that there was a run.
        left = ("root.pem", AWAITED) if self._config.upstream.kind is None else ("handles.key",)
        had_root, had_database = any((self._keys_dir / each).exists() for each in left), path.exists()
        self._database = open_sqlite(path, had_content=had_root)
        self._stack.callback(self._database.close)
        self.journal = AuditTable(self._database)
        self._sinks = JournalSinks(self._database, self.journal)
        self._stack.push_async_callback(self._sinks.finish)  # after the last record is signed
        self.journal_pages, self.policy_sets = AuditPages(self._database), PolicySetTable(self._database)
        self.usage = UsageTable(self._database, self.journal)
        await self.usage.begin(milliseconds(self.clock.now()))
        self.audit = Audit(self.journal, self.clock)
        sealing.tell(self.audit)
        self.pruning = pruning_of(self._config, self.journal, self.audit, self.clock)
        self.on_commit = self._database.on_commit
        self.restarts, self.probe = await count_restart(self._database), WriteProbe(self._database)
        await self._begin(had_root=had_root, had_database=had_database)
        signing = JournalSigning(self._database, self.journal, self.audit, self.clock, self._seal)
        self.signed_log = await signing.begin(self._config, self._epoch, self.restored)
        self._stack.push_async_callback(self.signed_log.finish)  # after the last record is written
        self._stack.push_async_callback(self.audit.finish)
        self.journal_index, self.journal_reads = signing.beside(self._stack, self.alarms)
        self.witnesses = signing.witnesses(self._config, self.signed_log, self._stack)

    async def _begin(self, *, had_root: bool, had_database: bool) -> None:
        """Count this start; on what is not as the last run has left it, nothing of before verifies."""
        folder, mark_dir = self._config.data_dir, self._config.mark_folder
        table = RestorationTable(self._database, self.journal)
        self.mark = None if mark_dir is None else Mark(mark_dir, folder)
        beginning = Beginning(table, folder, self.mark, self.clock)
        found = beginning.find(had_database=had_database, had_root=had_root)
        self._epoch = await beginning.begin(self.audit, found)
        node = self._config.upstream.kind is not None
        if found is None and had_database and self._epoch > 1 and not (had_root or node):
            _tell_lost(self.audit, "root_lost", "there is a database of an earlier run and was no root: what the"
                       " earlier one signed verifies no more")  # fmt: skip
        self.restored = last_of(table)
        self.last_backup = LastBackup(folder, table, self.audit)
        self.marking = None if self.mark is None else MarkUpkeep(self.mark, table, self._epoch)
        if self.marking is not None:
            self._stack.push_async_callback(self.marking.look)  # after the last record is written
            self.audit.on_event(self.marking.heard)

    async def _build_identity(self) -> None:
        """Who calls, and what signs for them."""
        config, clock, alarms = self._config, self.clock, self.alarms
        pool = ThreadPoolExecutor(BLOCKING_THREADS, thread_name_prefix="blocking")
        self._stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        self.attestation = Attestation(await load_attestors(config.workload_attestors, pool, clock), clock)
        self.subordinates = Subordinates()
        await self.subordinates.start()
        reader.owner = self.audit.user_of = self.subordinates.owner
        self.signing = signing = signing_of(
            config, self._database, self.journal, self.audit, clock, alarms, pool, self._seal
        )
        self._stack.push_async_callback(signing.close)
        await signing.start()
        self.authority = authority = self.signing.authority
        self.readiness = readiness_of(self.signing, self._database.health, self.attestation.tally)
        entries, node_ids, whole = signing.entries, signing.node_ids, signing.nodes is not None
        self.registry = registry = Registry(entries, self._trust_domain, node_ids, clock, alarms, of_all_nodes=whole)
        anew = (*own_names(config.issuer, self._trust_domain), *config.identity.jwt_svid_anew)
        self.issuing = SvidIssuer(
            authority,
            signing.signers,
            clock,
            alarms,
            self.audit,
            jwt_each_anew=anew,
            renew_at=config.upstream.renew_at,
        )
        self.foreign = foreign = ForeignBundles(self.signing.foreign, self._trust_domain, registry)
        endpoints = BundleSource(config.federation.ca, clock, public_only=config.federation.public_only)
        self.federating = Federating(foreign, authority, endpoints, self.audit, clock, alarms)
        revoked = RevocationTable(self._database, self.journal)
        self.revocations = Revocations(revoked, authority, clock, alarms, epoch=self._epoch)
        authority.on_list(self.revocations.sign_again)
        self._stack.push_async_callback(self.revocations.close)
        self.cautions = Cautions(self.attestation.types, () if registry.of_all_nodes else registry.node_ids)
        follow = config.registration.follow
        self.followed = (
            None if follow is None else FollowedFolder(follow, registry, foreign, self.cautions, self.audit, clock)
        )
        self.identities = Identities(
            self.attestation, registry, authority, self.issuing, self.revocations, foreign, clock
        )
        signing.begin(registry, foreign, self.identities)  # before tasks look for their holders' entries

    async def _build_tasks(self, holding: int) -> None:
        """Tasks, with those that earlier runs left alive. So many processes may be `holding` some."""
        config, audit, clock, alarms = self._config, self.audit, self.clock, self.alarms
        table = TaskTable(self._database, self.journal)
        keys = TokenKeys(alarms, config.tasks.token_key_ttl.total_seconds())
        holders = Holders(holding, self.subordinates.owner, self.attestation.looks)
        self.facts = Facts(FactTable(self._database, self.journal), audit, clock, alarms)
        await self.facts.start()
        self.engine = engine = TaskEngine(
            {},
            table,
            audit,
            keys,
            config.issuer,
            self._epoch,
            clock,
            alarms,
            holders,
            self.facts,
            boot_id(),
            pseudonyms=Pseudonyms.at(self._keys_dir / PEOPLE_KEY, plain_in_audit(config.people), self._seal),
            names=PairwiseNames(self._keys_dir / PAIRWISE_KEY, self._seal),
        )
        ended = EndedSessionTable(self._database, self.journal)
        self.sessions = EndedSessions(engine.pseudonyms.key_of_sessions, ended, clock, alarms)
        engine.standing.sessions = self.sessions
        self._stack.push_async_callback(self.sessions.close)
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
            last_good=LastGood(KeptPolicy(self._database), clock, self.policy_sets),
            usual=config.usual_types_dir,
        )
        self.recertifying = recertification_of(self._database, self.journal, self.policies, audit, clock)
        await self.policies.start()
        keep = config.audit.usage_keep
        self.usage_upkeep = UsageUpkeep(self._database, self.usage, lambda: engine.types, keep, clock)
        self.registry.on_change(self.ending.entries_changed)
        blocks = BlockTable(self._database, self.journal)
        engine.blocks.replace(blocks.load())
        engine.check_recordable = self.pruning.room.check
        self.kill_switch = KillSwitch(engine, blocks, self.audit, self.clock, alarms)
        self._stack.push_async_callback(self.kill_switch.close)
        self.recovery = Recovery(engine, self.ending, self.registry, holders, table, audit, alarms, self._people_urls)
        await self.recovery.run()
        self.redeciding = Reevaluation(engine, self.changing, self.facts, alarms)
        self.redeciding.start()
        self.policies.reloading.on_applied(self.redeciding.reloaded)
        self.attaching = Reattachment(engine, self.changing, self.identities)
        owed = KeptList(self._database, self.journal, REVIEWS, Review)
        self.approving = Approvals(engine, Reviews(owed, owed.load(), audit), audit, config.tasks.approval_classes)
        self.approving.check_reviewed = self.recertifying.check
        self.beginning = BeginService(engine, self.approving)
        self.delegating = DelegationService(engine, self.beginning)

    def _build_outside(self) -> None:
        """The credentials of providers outside."""
        engine, registry, audit, clock = self.engine, self.registry, self.audit, self.clock
        signer, node_id = self.signing.assertions, self.signing.node_id
        self.assertions = Assertions(signer, self._config.issuer, audit)
        mint = self.assertions.of(node_id)
        own = Assertions(signer, str(node_id), audit).of(node_id)
        check = engine.standing.check
        self.people = People(self._config.people, clock, check, mint, own_issuer=engine.issuer, own_mint=own)
        self._stack.push_async_callback(self.people.close)
        rechecks = PersonRechecks(engine, self.changing, self.alarms)
        self._stack.callback(rechecks.close)
        self.people.on_active, engine.standing.check_watched = rechecks.note, rechecks.check
        rules = {name: each.rules for name, each in self.people.issuers.items()}
        self.ending_people = EndPeople(engine, self.sessions, rules)
        self.people_names = PeopleNames(engine.pseudonyms, {name: each.url for name, each in rules.items()})
        table = CredentialTable(self._database, self.journal)
        sealing = Sealing(self._keys_dir / "handles.key", self._seal)
        self.book = CredentialLedger(engine, table, sealing, self.outlets, audit, clock, self.alarms)
        self.recalling = Recalling(self.book, self.outlets, lambda: engine.types, self.assertions, self.alarms)
        self.recalling.start()
        self._stack.push_async_callback(self.recalling.close)
        self.asking = ExchangeCalls(self.book, self.assertions, clock)
        self.handing = HandOut(engine, self.outlets, self.book, self.asking, audit)
        self._stack.push_async_callback(self.handing.close)
        self.giving = TaskTokenSource(engine, self.handing)
        self._build_notices()

        def registered(spiffe_id: SpiffeId) -> bool:
            return any(map(registry.serves, registry.that_make(spiffe_id)))

        self.checking_people = PersonDryRun(self.people, registered, clock)
        self.checking = DryRun(self.outlets, lambda: engine.types, registered, self.assertions.of, audit, clock)

    def _build_notices(self) -> None:
        """Who is told that tasks wait for someone to agree."""
        self.notices: Notices | None = None
        courier = courier_of(self._config.approval_notifier)
        if courier is None:
            return
        self._stack.push_async_callback(courier.close)
        node = {"trust_domain": self._config.trust_domain, "id": str(self.signing.node_id)}
        table, user_of = NoticeTable(self._database), self.subordinates.owner
        self.notices = Notices(table, courier, node, self.audit, self.clock, self.alarms, user_of=user_of)
        self.notices.follow(self.engine.waiting.on_shown, self.engine.waiting.on_over)

    async def _build_services(self) -> None:
        """What is answered about tasks, and heard from elsewhere."""
        config, engine, identities, clock = self._config, self.engine, self.identities, self.clock
        self.own_svid = self.signing.own_svid(self.issuing)
        self.sinks = await self._sinks.build(
            config, self.audit, self.signed_log, self.own_svid, self.signing.node_id, clock
        )
        self.clients = Clients(identities, UsedTable(self._database), config.issuer, clock)
        self.audiences = Audiences(services_of(config))
        runners = Runners(identities)
        self._stack.callback(runners.close)
        replays = Replays(clock.now, clock.boot)
        self.proving = TokenBindings(engine, self.authority, self.revocations, replays, clock)
        self.persons = PeopleService(engine, self.people)
        self.renewal = PersonRenewal(engine, self.changing, self.people)
        subjects = PersonSubjects(engine, self.people, self.renewal)
        self.granting = TokenGrants(
            engine,
            self.giving,
            self.beginning,
            self.attaching,
            self.delegating,
            RequestVerification(engine, identities, self.clients, self.audiences, self.proving, subjects),
            runners,
            subjects,
            clock,
        )
        self.revocations.on_revoked(lambda revoked: end_due_to(self.ending, [each.svid for each in revoked]))
        self.hearing = Hearing(config.signals, config.issuer, self._people_urls, clock)
        self._stack.push_async_callback(self.hearing.close)
        table = SignalTable(self._database, self.journal)
        self.signals = Signals(
            self.hearing.issuers,
            self.facts,
            engine.tasks.is_live,
            self.redeciding.is_believed,
            table,
            self.audit,
            clock,
            self._trust_domain,
            PeopleSignals(self.ending_people, self.kill_switch),
        )
        node_id = self.signing.node_id
        self.hearing.poll(self.signals, self.assertions.of(node_id), str(node_id))
        await self.signals.start()
        self.judging = TokenValidation(engine, identities, replays, clock)
        self.refusals = RefusalCounts(engine, self.audit, self.alarms, clock)
        self._stack.callback(self.refusals.finish)
        self.introspection = Introspection(engine, self.audiences, identities, self.judging.was_used, clock)
        self.token_revocation = TokenRevocation(engine, self.changing, self.audiences)


def _tell_lost(audit: Audit, event: str, reason: str) -> None:
    log.error(event, reason=reason)
    audit.note(event, reason=reason)
