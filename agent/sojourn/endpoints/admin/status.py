"""sojourn.v1.Admin on the admin socket: what SPIRE's server API lacks."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

from google.protobuf.struct_pb2 import Struct

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.attestation.selectors import Selector, text_of
from sojourn.attestation.service import Attestation
from sojourn.audit.journal import Audit
from sojourn.audit.signed_log import SignedLog
from sojourn.config.reload import ConfigReload
from sojourn.endpoints.admin import attestors
from sojourn.endpoints.admin.audit_log import log_message
from sojourn.endpoints.admin.audit_sinks import room_message, sink_messages
from sojourn.endpoints.admin.audit_witnesses import stamp_message, witness_messages
from sojourn.endpoints.admin.authority import authority_message
from sojourn.endpoints.admin.data_folder import DataFolderState
from sojourn.endpoints.admin.policies import policy_set
from sojourn.endpoints.admin.reviews import dates_message
from sojourn.endpoints.admin.svids_in_use import InUseApi
from sojourn.endpoints.admin.upstream import ToldNode, upstream_message
from sojourn.endpoints.api.approvals import reviews
from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.api.workload import seconds
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import fitting
from sojourn.endpoints.listener.loop_watchdog import Standstills
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.endpoints.metrics.authority import SigningKeys
from sojourn.endpoints.spire.trustdomain import followed as federation
from sojourn.errors import AttestationFailed, InvalidInput, NotFound
from sojourn.federation.bundle_refresh import Federating
from sojourn.identity import adoption, explain
from sojourn.identity.entries import Entry
from sojourn.identity.entries_folder import FollowedFolder
from sojourn.identity.foreign_bundles import ForeignBundles
from sojourn.identity.matcher import that_matter, unique_hints
from sojourn.identity.nodes import name_of
from sojourn.identity.registry import Registry
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.identity.trust import TrustSource
from sojourn.jose.jws import PublicKey
from sojourn.limits import SELECTORS_PER_CALLER, STATUS_OWNERS
from sojourn.runtime.clock import Clock
from sojourn.runtime.readiness import Readiness, state_of
from sojourn.runtime.recent_failures import Failures
from sojourn.sinks.sinks import Sinks
from sojourn.ssf.receiver import Signals
from sojourn.store.audit import AuditTable
from sojourn.store.pruning import Pruning
from sojourn.tasks.approval import Approvals
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.recertification import Recertification
from sojourn.tasks.type_sets import Policies
from sojourn.witness.witnesses import Witnesses

SERVICE = "sojourn.v1.Admin"


class Places(Protocol):
    """Where the agent's files and sockets are: its configuration knows."""

    @property
    def data_dir(self) -> Path: ...

    @property
    def socket(self) -> Path: ...

    @property
    def admin_socket(self) -> Path: ...


class ToldAuthority(TrustSource, SigningKeys, Protocol):
    """What is told of whatever signs."""

    @property
    def kind(self) -> str:
        """Its kind, as the configuration has it."""

    @property
    def jwt_keys(self) -> Mapping[str, PublicKey]: ...


@dataclass(kw_only=True, eq=False)
class AdminApi:
    """For operators and oversight."""

    attestation: Attestation
    registry: Registry
    issuing: SvidIssuer
    authority: ToldAuthority
    engine: TaskEngine
    approving: Approvals
    recertifying: Recertification
    audit: Audit
    journal: AuditTable
    signed_log: SignedLog
    sinks: Sinks
    witnesses: Witnesses
    pruning: Pruning
    door: Door
    clock: Clock
    readiness: Readiness
    places: Places
    followed: FollowedFolder | None
    policies: Policies
    signals: Signals
    failures: Failures
    reload: ConfigReload
    federating: Federating
    foreign: ForeignBundles
    in_use: InUseApi
    limitations: dict[str, str]  # what this agent cannot do here, and why
    listeners: Sequence[Listener]  # those that are open by now
    documents: TrustDocuments
    standstills: Standstills
    data_folder: DataFolderState
    upstream: ToldNode | None
    started: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.now()

    def methods(self) -> dict[str, Method]:
        return {
            "GetStatus": Method("unary", pb.GetStatusRequest, self.get_status),
            "Explain": Method("unary", pb.ExplainRequest, self.explain),
            "VerifyAudit": Method("unary", pb.VerifyAuditRequest, self.verify_audit),
            "GetBundle": Method("unary", pb.GetBundleRequest, self.get_bundle),
        }

    async def get_status(self, _call: Call, _request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        authority = self.authority
        status = pb.GetStatusResponse(
            trust_domain=authority.trust_domain.name,
            node_id=str(self.registry.node_id),
            version=version("sojourn"),
            started_at=seconds(self.started),
            epoch=self.engine.epoch,
            entries=len(self.registry),
            live_tasks=len(self.engine.tasks),
            connections=self.door.connections,
            authority=authority_message(authority),
            limitations=[pb.Limitation(what=what, reason=reason) for what, reason in self.limitations.items()],
            task_types=sorted(self.engine.types),
            failures=[
                pb.Failure(
                    what=failure.what,
                    subject=failure.subject,
                    reason=failure.reason,
                    first_at=seconds(failure.first_at),
                    last_at=seconds(failure.last_at),
                    count=failure.count,
                )
                for failure in self.failures.recent()
            ],
            followed=self._folder(),
            config=self._config(),
            approvals_waiting=len(self.engine.waiting),
            reviews=reviews(self.engine, self.approving),
            policy=policy_set(self.policies.folder),
            shadow=policy_set(self.policies.candidate) if self.policies.candidate is not None else None,
            signals=await self._signal_issuers(),
            listeners=[
                pb.Listener(name=each.name, address=each.address, connections=each.door.connections)
                for each in self.listeners
            ],
            federation=federation(self.federating, self.foreign),
            attestors=attestors.states(self.attestation.tally),
            other_nodes=[
                pb.OtherNode(node=name_of(node), spiffe_id=str(node), entries=count)
                for node, count in adoption.other_nodes(self.registry).items()
            ],
            standstills=self._standstills(),
            data_folder=self.data_folder.message(),
            audit_log=log_message(self.signed_log, ()),
            audit_sinks=sink_messages(self.sinks),
            audit_witnesses=witness_messages(self.witnesses, self.signed_log),
            audit_timestamps=stamp_message(self.witnesses, self.signed_log),
            journal_room=room_message(self.pruning),
            review_dates=dates_message(self.recertifying),
            upstream=upstream_message(self.upstream, self.issuing),
        )
        self.in_use.tell(status)
        self._tell_state(status)
        return status

    def _tell_state(self, status: pb.GetStatusResponse) -> None:
        faults = self.readiness.faults()
        status.state = state_of(fault.name for fault in faults)
        for fault in faults:
            status.faults.add(name=fault.name, what=fault.said, found=fault.found)
        owners, status.task_owners_left_out = self.engine.tasks.owners(STATUS_OWNERS)
        for owner, tasks, limit in owners:
            who = {"uid": owner} if isinstance(owner, int) else {"spiffe_id": owner}
            status.task_owners.add(**who, tasks=tasks, limit=limit)
        status.pid, status.data_dir = os.getpid(), str(self.places.data_dir)
        status.admin_socket = str(self.places.admin_socket)
        status.socket = "" if self.registry.of_all_nodes else str(self.places.socket)  # a server has none

    def _standstills(self) -> pb.Standstills | None:
        found = self.standstills
        if found.last is None:
            return None
        return pb.Standstills(
            count=found.count,
            longest_seconds=found.longest_seconds,
            last_at=seconds(found.last.at),
            last_seconds=found.last.seconds,
            last_computing_seconds=found.last.computing_seconds,
            last_doing=found.last.doing,
            last_caller={name: str(value) for name, value in found.last.asker.items()},
        )

    async def _signal_issuers(self) -> list[pb.SignalIssuer]:
        return [
            pb.SignalIssuer(
                issuer=each.rules.issuer,
                accepted=each.accepted,
                repeated=each.repeated,
                refused=each.refused,
                last_at=seconds(each.last_at),
                fault=await each.keys.look(),
                people="" if each.people is None else each.people.name,
                not_ours=each.not_ours,
                polled=each.polled is not None,
                polled_at=seconds(None if each.polled is None else each.polled.last_at),
                poll_fault="" if each.polled is None else each.polled.fault,
                stream_status="" if each.polled is None else each.polled.stream_status,
                not_sent=() if each.polled is None else each.polled.not_sent,
            )
            for each in self.signals.issuers.values()
        ]

    def _config(self) -> pb.AgentConfig:
        reload = self.reload
        return pb.AgentConfig(
            file=str(reload.file or ""),
            read_at=seconds(reload.read_at),
            fault=reload.fault,
            restart_needed=reload.restart_needed,
            digest=reload.digest,
        )

    def _folder(self) -> pb.FollowedFolder | None:
        followed = self.followed
        if followed is None:
            return None
        return pb.FollowedFolder(
            folder=str(followed.folder),
            entries=followed.entries,
            applied_at=seconds(followed.applied_at),
            fault=followed.fault,
        )

    async def explain(self, _call: Call, request: pb.ExplainRequest) -> pb.ExplainResponse:
        if request.selectors:
            return self._explain_selectors(request)
        if request.pid <= 0:
            raise InvalidInput("pid or selectors must be specified")
        try:
            peer = Peer.of_pid(request.pid)
        except AttestationFailed as error:
            raise NotFound(f"there is no process {request.pid}") from error
        try:
            attested = await self.attestation.examine(peer)
            answer = self._explained(attested, "the process has")
            answer.pid, answer.uid, answer.gid = request.pid, peer.uid, peer.gid
            answer.exe = peer.process.program_path()
            if peer.confined:
                answer.conclusion = "the process descends from a command that never holds a token: it gets nothing"
            return answer
        finally:
            peer.close()

    def _explain_selectors(self, request: pb.ExplainRequest) -> pb.ExplainResponse:
        if request.pid:
            raise InvalidInput("pid and selectors exclude each other")
        if len(request.selectors) > SELECTORS_PER_CALLER:
            raise InvalidInput(f"more than {SELECTORS_PER_CALLER} selectors")
        selectors = frozenset(Selector.parse(text) for text in request.selectors)
        attested = Attested(selectors, {}, {}, self.clock.boot())
        return self._explained(attested, "a process with these selectors has")

    def _explained(self, attested: Attested, has: str) -> pb.ExplainResponse:
        served = self.registry.match(attested.selectors, attested.untold)
        possible = sorted(
            that_matter(unique_hints(served), self.registry.possible(attested.selectors, attested.untold)),
            key=lambda entry: entry.order,
        )
        found = explain.verdicts(self.registry, served, possible, attested, self.registry.node_ids)
        needs = (
            explain.needs(filter(self.registry.serves, self.registry), possible, attested) if attested.untold else {}
        )
        kept = {each.entry.key: each for each in self.issuing.x509.kept()}
        selectors = fitting(text_of(attested.selectors))
        return pb.ExplainResponse(
            selectors=selectors,
            selectors_left_out=len(attested.selectors) - len(selectors),
            withheld=[pb.Limitation(what=what, reason=reason) for what, reason in attested.withheld.items()],
            failed_attestors=[pb.Limitation(what=name, reason=why) for name, why in attested.failures.items()],
            verdicts=[
                pb.EntryVerdict(
                    entry_id=verdict.entry.id,
                    spiffe_id=str(verdict.entry.spiffe_id),
                    verdict=verdict.verdict,
                    missing=verdict.missing,
                    priority=verdict.entry.priority,
                    template=verdict.template,
                    reason=verdict.reason,
                    jwt_claims=_claims(verdict),
                    x509_svid=self.in_use.svid(svid)
                    if verdict.verdict == "matched"
                    and isinstance(verdict.entry, Entry)
                    and (svid := kept.get(verdict.entry.key))
                    else None,
                )
                for verdict in found
            ],
            conclusion=explain.conclusion(found, attested, has),
            attestors=attestors.answers(attested, needs),
        )

    async def verify_audit(self, _call: Call, _request: pb.VerifyAuditRequest) -> pb.VerifyAuditResponse:
        unwritten = await self.audit.settle()
        count, bad, reason = await self.journal.verify()
        return pb.VerifyAuditResponse(
            intact=not bad,
            records=count,
            first_bad_seq=bad,
            reason=reason,
            first_seq=await self.journal.first(),
            unwritten=unwritten,
        )

    async def get_bundle(self, _call: Call, _request: pb.GetBundleRequest) -> pb.GetBundleResponse:
        bundle = self.authority.bundle
        return pb.GetBundleResponse(
            trust_domain=bundle.trust_domain.name,
            spiffe_bundle=json.dumps(bundle.document()),
            pem=bundle.x509_pem.decode(),
            documents=[
                pb.TrustDocument(path=each.path, body=each.body, max_age_seconds=each.max_age_seconds)
                for each in self.documents.all().values()
            ],
            issuer=self.documents.issuer,
        )


def _claims(verdict: explain.EntryVerdict) -> Struct | None:
    """The custom claims of a matched entry, if it has any."""
    if verdict.verdict != "matched" or not verdict.entry.jwt_claims:
        return None
    made = Struct()
    made.update(verdict.entry.jwt_claims.declared)
    return made
