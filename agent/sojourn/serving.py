"""Which services stand at which door, each built of the rooms that it is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from sojourn import process_setup
from sojourn.building import Rooms
from sojourn.config import Config
from sojourn.configreload import ConfigReload
from sojourn.doors import (
    admin,
    agents,
    approvals,
    auditreading,
    bundles,
    credentials,
    entries,
    extauthz,
    facts,
    federation,
    inuse,
    localauthority,
    minting,
    operating,
    policies,
    providerchecks,
    providers,
    revoking,
    routeguards,
    sds,
    taskadmin,
    tasks,
    tasktokens,
    validation,
    workload,
)
from sojourn.doors.calls import Method
from sojourn.doors.door import Door
from sojourn.doors.standstills import Standstills
from sojourn.doors.taskmessages import TaskMessages
from sojourn.doors.tlsdoor import Listener
from sojourn.doors.trustdocuments import TrustDocuments
from sojourn.identity.issued import Issued
from sojourn.oversight.failures import Failures
from sojourn.oversight.logs import Level
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
        self._facts = facts.FactApi(rooms.facts, rooms.redeciding, rooms.identities)
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
        guards = routeguards.RouteGuards(rooms.judging, rooms.engine, rooms.clock, rooms.refusals)
        return {
            sds.SERVICE: sds.SdsApi(rooms.identities, rooms.clock).methods(),
            extauthz.SERVICE: extauthz.ExtAuthzApi(guards, rooms.identities, rooms.audiences).methods(),
        }

    def of_operators(self, run: Run) -> dict[str, Methods]:
        """On the admin socket: SPIRE's server API, and what that lacks."""
        rooms, config = self._rooms, self._config
        authority = localauthority.LocalAuthorityApi(rooms.authority, rooms.issuing, rooms.audit)
        entry = entries.EntryApi(rooms.registry, rooms.foreign, rooms.cautions, rooms.audit)
        relationships = federation.FederationApi(rooms.foreign, rooms.federating, rooms.audit)
        return {
            entries.SERVICE: entry.methods(),
            bundles.SERVICE: bundles.BundleApi(rooms.authority, rooms.foreign, rooms.audit).methods(),
            federation.SERVICE: relationships.methods(),
            localauthority.SERVICE: authority.methods(),
            agents.SERVICE: agents.AgentApi(rooms.registry.node_id, rooms.authority, version("sojourn")).methods(),
            minting.SERVICE: minting.MintingApi(
                rooms.authority, rooms.audit, config.identity.x509_svid_ttl, config.identity.jwt_svid_ttl
            ).methods(),
            operating.LOGGER: operating.LoggerApi(run.level, rooms.audit).methods(),
            operating.DEBUG: operating.DebugApi(rooms.authority, rooms.registry, rooms.foreign, rooms.clock).methods(),
            admin.SERVICE: authority.admin_methods()
            | entry.admin_methods()
            | relationships.admin_methods()
            | self._status(run)
            | self._oversight()
            | self._outside(),
        }

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
        )
        tokens = tasktokens.TaskTokensApi(rooms.engine, rooms.giving, rooms.attaching, rooms.identities, rooms.proving)
        return whole.methods() | tokens.methods() | self._facts.public_methods()

    def _status(self, run: Run) -> Methods:
        rooms = self._rooms
        listed = inuse.InUseApi(rooms.identities, rooms.issuing, self._config.identity.x509_svid_ttl)
        told = admin.AdminApi(
            attestation=rooms.attestation,
            registry=rooms.registry,
            issuing=rooms.issuing,
            authority=rooms.authority,
            engine=rooms.engine,
            approving=rooms.approving,
            audit=rooms.audit,
            journal=rooms.journal,
            door=run.public,
            clock=rooms.clock,
            followed=rooms.followed,
            policies=rooms.policies,
            signals=rooms.signals,
            failures=run.failures,
            reload=run.reload,
            federating=rooms.federating,
            foreign=rooms.foreign,
            in_use=listed,
            limitations=process_setup.limitations(),
            listeners=run.listeners,
            documents=run.documents,
            standstills=run.standstills,
        )
        return told.methods() | listed.admin_methods()

    def _oversight(self) -> Methods:
        """What operators see and decide of tasks, and take back."""
        rooms = self._rooms
        taken_back = revoking.RevokingApi(
            rooms.registry,
            rooms.identities,
            rooms.issuing,
            Issued(rooms.journal, rooms.audit, rooms.clock),
            rooms.revocations,
            rooms.engine,
            rooms.ending,
            rooms.audit,
        )
        stopped = taskadmin.TaskAdminApi(
            rooms.engine, rooms.changing, rooms.blocks, self._message, rooms.audit, rooms.clock, rooms.refusals
        )
        engine = rooms.engine
        journal = auditreading.AuditReadingApi(rooms.audit, rooms.journal_pages, lambda: engine.closing)
        return (
            self._approvals.admin_methods()
            | self._facts.admin_methods()
            | stopped.admin_methods()
            | journal.admin_methods()
            | policies.PolicyApi(rooms.engine, rooms.approving, rooms.policies).admin_methods()
            | taken_back.admin_methods()
        )

    def _outside(self) -> Methods:
        """Of providers, and of the credentials that they gave."""
        rooms = self._rooms
        given = providers.ProvidersApi(rooms.engine, rooms.outlets, rooms.asking, rooms.book.index, rooms.clock)
        return (
            given.admin_methods()
            | credentials.CredentialsApi(rooms.book, rooms.outlets).admin_methods()
            | providerchecks.ProviderChecksApi(rooms.checking).admin_methods()
        )
