"""Which services stand at which door, each built of the rooms that it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from sojourn.agent import process
from sojourn.agent.build import Rooms
from sojourn.config.model import Config
from sojourn.config.reload import ConfigReload
from sojourn.endpoints.admin import (
    audit,
    audit_export,
    audit_filter,
    audit_log,
    audit_search,
    audit_sinks,
    credentials,
    people,
    person_checks,
    policies,
    provider_checks,
    providers,
    reviews,
    status,
    svid_revocation,
    svids_in_use,
    usage,
)
from sojourn.endpoints.admin import tasks as task_admin
from sojourn.endpoints.admin.data_folder import DataFolderState
from sojourn.endpoints.api import approvals, facts, task_tokens, tasks, validation, workload
from sojourn.endpoints.api.task_messages import TaskMessages
from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.envoy import ext_authz, route_guards, sds
from sojourn.endpoints.grpc.calls import Method
from sojourn.endpoints.listener.loop_watchdog import Standstills
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.endpoints.spire import agent, bundle, localauthority, logger_debug, svid, trustdomain
from sojourn.endpoints.spire import entry as entries
from sojourn.identity.issued_svids import IssuedSvids
from sojourn.runtime.logs import Level
from sojourn.runtime.recent_failures import Failures
from sojourn.spiffe.ids import SpiffeId

Methods = dict[str, Method]


@dataclass(frozen=True, slots=True)
class Run:
    """What operators are told of this run beside its rooms."""

    level: Level
    failures: Failures
    reload: ConfigReload
    public: Door
    listeners: Sequence[Listener]  # grows as they are opened
    documents: TrustDocuments
    standstills: Standstills


class Services:
    """The services of one run, by name. An API that stands at two doors is one object."""

    def __init__(self, config: Config, rooms: Rooms) -> None:
        self._config = config
        self._rooms = rooms
        self._message = TaskMessages(rooms.outlets)
        self._facts = facts.FactApi(rooms.facts, rooms.redeciding, rooms.identities, rooms.people_names)
        self._approvals = approvals.ApprovalsApi(rooms.engine, rooms.approving, rooms.identities, self._message)

    def of_workloads(self) -> dict[str, Methods]:
        """On the public socket."""
        rooms = self._rooms
        said, engine = self._config.identity, rooms.engine

        def reserving(spiffe_id: SpiffeId, audience: str) -> str:
            if said.jwt_svid_for_providers:
                return ""
            if engine.no_types:  # which workloads' tasks have it cannot be told
                return next(iter(rooms.outlets.taking(audience)), "")
            return rooms.outlets.reserving(engine.types, spiffe_id, audience)

        identity = workload.WorkloadApi(
            rooms.identities,
            rooms.audit,
            rooms.clock,
            wit=said.wit_svids,
            reserving=reserving,
            recordable=rooms.pruning.room.check,
        )
        rooms.issuing.x509.on_forget(identity.forget_answers)
        return {
            workload.SERVICE: identity.methods(),
            tasks.SERVICE: self._tasks(),
            approvals.SERVICE: self._approvals.methods(),
            validation.SERVICE: validation.ValidationApi(
                rooms.judging,
                rooms.engine,
                rooms.audiences,
                rooms.clock,
                validation.AttestedCallers(rooms.identities, rooms.clock),
                rooms.refusals,
            ).methods(),
        }

    def of_envoy(self) -> dict[str, Methods]:
        """There too, without SPIFFE's security header, which Envoy does not send."""
        rooms = self._rooms
        guards = route_guards.RouteGuards(rooms.judging, rooms.engine, rooms.clock, rooms.refusals)
        return {
            sds.SERVICE: sds.SdsApi(rooms.identities, rooms.clock).methods(),
            ext_authz.SERVICE: ext_authz.ExtAuthzApi(guards, rooms.identities, rooms.audiences).methods(),
        }

    def of_operators(self, run: Run) -> dict[str, Methods]:
        """On the admin socket: SPIRE's server API, and what that lacks."""
        rooms, config = self._rooms, self._config
        authority = localauthority.LocalAuthorityApi(rooms.authority, rooms.issuing, rooms.audit)
        entry = entries.EntryApi(rooms.registry, rooms.foreign, rooms.cautions, rooms.audit)
        relationships = trustdomain.FederationApi(rooms.foreign, rooms.federating, rooms.audit)
        services = {
            entries.SERVICE: entry.methods(),
            bundle.SERVICE: bundle.BundleApi(rooms.authority, rooms.foreign, rooms.audit).methods(),
            trustdomain.SERVICE: relationships.methods(),
            localauthority.SERVICE: authority.methods(),
            agent.SERVICE: agent.AgentApi(rooms.signing, version("sojourn")).methods(),
            svid.SERVICE: svid.MintingApi(
                rooms.authority.trust_domain,
                rooms.signing.minting,
                rooms.audit,
                config.identity.x509_svid_ttl,
                config.identity.jwt_svid_ttl,
            ).methods(),
            logger_debug.LOGGER: logger_debug.LoggerApi(run.level, rooms.audit).methods(),
            logger_debug.DEBUG: logger_debug.DebugApi(
                rooms.authority, rooms.registry, rooms.foreign, rooms.clock
            ).methods(),
            status.SERVICE: authority.admin_methods()
            | entry.admin_methods()
            | relationships.admin_methods()
            | self._status(run)
            | self._oversight()
            | self._outside(),
        }
        return rooms.signing.operators(services)

    def _tasks(self) -> Methods:
        rooms = self._rooms
        whole = tasks.TasksApi(
            rooms.engine,
            rooms.beginning,
            rooms.delegating,
            rooms.changing,
            rooms.attaching,
            rooms.identities,
            self._message,
            rooms.persons,
            rooms.renewal,
        )
        tokens = task_tokens.TaskTokensApi(rooms.engine, rooms.giving, rooms.attaching, rooms.identities, rooms.proving)
        return whole.methods() | tokens.methods() | self._facts.public_methods()

    def _status(self, run: Run) -> Methods:
        rooms = self._rooms
        listed = svids_in_use.InUseApi(rooms.identities, rooms.issuing, rooms.signing.default_ttl)
        told = status.AdminApi(
            attestation=rooms.attestation,
            registry=rooms.registry,
            issuing=rooms.issuing,
            authority=rooms.authority,
            engine=rooms.engine,
            approving=rooms.approving,
            recertifying=rooms.recertifying,
            audit=rooms.audit,
            journal=rooms.journal,
            signed_log=rooms.signed_log,
            sinks=rooms.sinks,
            witnesses=rooms.witnesses,
            pruning=rooms.pruning,
            door=run.public,
            clock=rooms.clock,
            readiness=rooms.readiness,
            places=self._config,
            followed=rooms.followed,
            policies=rooms.policies,
            signals=rooms.signals,
            failures=run.failures,
            reload=run.reload,
            federating=rooms.federating,
            foreign=rooms.foreign,
            in_use=listed,
            limitations=process.limitations(),
            listeners=run.listeners,
            documents=run.documents,
            standstills=run.standstills,
            data_folder=DataFolderState(rooms.restored, rooms.last_backup, rooms.mark, rooms.marking),
            upstream=rooms.signing.told,
        )
        return told.methods() | listed.admin_methods()

    def _oversight(self) -> Methods:
        """What operators see and decide of tasks, and take back."""
        rooms = self._rooms
        taken_back = svid_revocation.RevokingApi(
            rooms.registry,
            rooms.identities,
            rooms.issuing,
            IssuedSvids(rooms.journal_pages, rooms.audit, rooms.clock),
            rooms.revocations,
            rooms.engine,
            rooms.ending,
            rooms.audit,
        )
        stopped = task_admin.TaskAdminApi(
            rooms.engine,
            rooms.changing,
            rooms.kill_switch,
            self._message,
            rooms.audit,
            rooms.refusals,
            rooms.people_names,
        )
        engine = rooms.engine
        filters = audit_filter.AuditFilters(rooms.people_names)
        journal = audit.AuditReadingApi(
            rooms.audit, rooms.journal_pages, filters, rooms.journal_reads, lambda: engine.closing
        )
        searched = audit_search.AuditSearchApi(rooms.audit, rooms.journal_pages, filters, rooms.journal_reads)
        exported = audit_export.AuditExportApi(
            rooms.audit, rooms.journal, rooms.journal_pages, rooms.signed_log, rooms.policy_sets, rooms.clock
        )
        return (
            self._approvals.admin_methods()
            | self._facts.admin_methods()
            | stopped.admin_methods()
            | people.PeopleApi(rooms.engine, rooms.ending_people, rooms.people_names).admin_methods()
            | journal.admin_methods()
            | searched.admin_methods()
            | exported.admin_methods()
            | audit_log.AuditLogApi(rooms.audit, rooms.signed_log, rooms.journal_reads).admin_methods()
            | audit_sinks.AuditSinksApi(rooms.sinks).admin_methods()
            | self._usage()
            | policies.PolicyApi(
                rooms.engine, rooms.approving, rooms.policies, rooms.people_names, rooms.recertifying
            ).admin_methods()
            | taken_back.admin_methods()
        )

    def _usage(self) -> Methods:
        rooms = self._rooms
        used = usage.UsageApi(
            rooms.engine,
            rooms.usage,
            rooms.usage_upkeep,
            rooms.journal,
            rooms.journal_pages,
            rooms.registry,
            rooms.book.index,
            rooms.audit,
            rooms.clock,
        )
        reviewed = reviews.ReviewsApi(
            rooms.recertifying,
            rooms.policies,
            rooms.registry,
            rooms.book.index,
            rooms.outlets,
            used,
            rooms.identities,
        )
        return used.admin_methods() | reviewed.admin_methods()

    def _outside(self) -> Methods:
        """Of providers, and of the credentials that they gave."""
        rooms = self._rooms
        given = providers.ProvidersApi(rooms.engine, rooms.outlets, rooms.asking, rooms.book.index, rooms.clock)
        return (
            given.admin_methods()
            | credentials.CredentialsApi(rooms.book, rooms.outlets).admin_methods()
            | provider_checks.ProviderChecksApi(rooms.checking).admin_methods()
            | person_checks.PersonChecksApi(rooms.checking_people, rooms.audit, rooms.clock).admin_methods()
        )
