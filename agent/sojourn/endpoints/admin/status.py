"""sojourn.v1.Admin on the admin socket: what SPIRE's server API lacks."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.metadata import version

from google.protobuf.struct_pb2 import Struct

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.attestation.attestor import Attested
from sojourn.attestation.peer import Peer
from sojourn.attestation.selectors import Selector, text_of
from sojourn.attestation.service import Attestation
from sojourn.audit.journal import Audit
from sojourn.authority.embedded_ca import EmbeddedAuthority
from sojourn.config.reload import ConfigReload
from sojourn.endpoints.admin import attestors
from sojourn.endpoints.admin.audit import newest
from sojourn.endpoints.admin.policies import policy_set
from sojourn.endpoints.admin.svids_in_use import InUseApi
from sojourn.endpoints.api.approvals import reviews
from sojourn.endpoints.api.trust_documents import TrustDocuments
from sojourn.endpoints.api.workload import seconds
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.grpc.pages import fitting
from sojourn.endpoints.listener.loop_watchdog import Standstills
from sojourn.endpoints.listener.tls import Listener
from sojourn.endpoints.listener.unix_listener import Door
from sojourn.endpoints.spire.localauthority import key_message
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
from sojourn.limits import SELECTORS_PER_CALLER
from sojourn.runtime.clock import Clock
from sojourn.runtime.recent_failures import Failures
from sojourn.ssf.receiver import Signals
from sojourn.store.audit import AuditTable
from sojourn.tasks.approval import Approvals
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.type_sets import Policies

SERVICE = "sojourn.v1.Admin"
_AUDIT_DEFAULT = 50


@dataclass(kw_only=True, eq=False)
class AdminApi:
    """For operators and oversight."""

    attestation: Attestation
    registry: Registry
    issuing: SvidIssuer
    authority: EmbeddedAuthority
    engine: TaskEngine
    approving: Approvals
    audit: Audit
    journal: AuditTable
    door: Door
    clock: Clock
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
    started: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock.now()

    def methods(self) -> dict[str, Method]:
        return {
            "GetStatus": Method("unary", pb.GetStatusRequest, self.get_status),
            "Explain": Method("unary", pb.ExplainRequest, self.explain),
            "ListAudit": Method("unary", pb.ListAuditRequest, self.list_audit),
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
            authority=pb.Authority(
                kind="embedded",
                root_serial=f"{authority.root.serial_number:x}",
                root_not_after=seconds(authority.root.not_valid_after_utc),
                issuer_serial=f"{authority.issuer.serial_number:x}",
                issuer_not_after=seconds(authority.issuer.not_valid_after_utc),
                jwt_key_ids=list(authority.jwt_keys),
                keys=[key_message(kind, slot) for kind in authority.kinds for slot in authority.slots(kind).all],
            ),
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
        )
        self.in_use.tell(status)
        return status

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

    async def list_audit(self, _call: Call, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
        unwritten = await self.audit.settle()
        answer = newest(await self.journal.tail(request.limit or _AUDIT_DEFAULT, request.task_id))
        answer.unwritten = unwritten
        return answer

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
