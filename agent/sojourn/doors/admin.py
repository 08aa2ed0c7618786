"""sojourn.v1.Admin on the admin socket: what SPIRE's server API lacks."""

import json
from datetime import datetime
from importlib.metadata import version

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn._pb.sojourn.v1 import tasks_pb2
from sojourn.attestation.peer import Peer
from sojourn.attestation.selectors import text_of
from sojourn.attestation.service import Attestation
from sojourn.authority.embedded import EmbeddedAuthority
from sojourn.clock import Clock
from sojourn.doors.calls import Call, Method
from sojourn.doors.door import Door
from sojourn.doors.tasks import task_message
from sojourn.doors.workload import seconds
from sojourn.errors import AttestationFailed, InvalidInput, NotFound
from sojourn.identity import explain
from sojourn.identity.identities import Identities
from sojourn.identity.issuing import Issuing
from sojourn.identity.registry import Registry
from sojourn.oversight.audit import Audit
from sojourn.store.audit import AuditTable
from sojourn.tasks.engine import TaskEngine

SERVICE = "sojourn.v1.Admin"
_AUDIT_DEFAULT = 50


class AdminApi:
    """For operators and oversight."""

    def __init__(
        self,
        *,
        attestation: Attestation,
        registry: Registry,
        identities: Identities,
        issuing: Issuing,
        authority: EmbeddedAuthority,
        engine: TaskEngine,
        audit: Audit,
        journal: AuditTable,
        door: Door,
        clock: Clock,
        limitations: dict[str, str],
    ) -> None:
        """`limitations`: what this agent cannot do here, and why."""
        self._attestation = attestation
        self._registry = registry
        self._identities = identities
        self._issuing = issuing
        self._authority = authority
        self._engine = engine
        self._audit = audit
        self._journal = journal
        self._door = door
        self._clock = clock
        self._limitations = limitations
        self._started: datetime = clock.now()

    def methods(self) -> dict[str, Method]:
        return {
            "GetStatus": Method("unary", pb.GetStatusRequest, self.get_status),
            "Explain": Method("unary", pb.ExplainRequest, self.explain),
            "ListTasks": Method("unary", pb.ListTasksRequest, self.list_tasks),
            "GetTask": Method("unary", pb.GetTaskRequest, self.get_task),
            "RevokeTask": Method("unary", pb.RevokeTaskRequest, self.revoke_task),
            "ListAudit": Method("unary", pb.ListAuditRequest, self.list_audit),
            "VerifyAudit": Method("unary", pb.VerifyAuditRequest, self.verify_audit),
            "GetBundle": Method("unary", pb.GetBundleRequest, self.get_bundle),
        }

    async def get_status(self, _call: Call, _request: pb.GetStatusRequest) -> pb.GetStatusResponse:
        authority = self._authority
        return pb.GetStatusResponse(
            trust_domain=authority.trust_domain.name,
            node_id=str(self._registry.node_id),
            version=version("sojourn"),
            started_at=seconds(self._started),
            epoch=self._engine.epoch,
            entries=len(self._registry),
            live_tasks=len(self._engine.live()),
            connections=self._door.connections,
            streams=[
                pb.Stream(
                    method=stream.method,
                    pid=stream.peer.process.pid,
                    uid=stream.peer.uid,
                    exe=stream.peer.process.program_path(),
                    since=seconds(stream.since),
                    last_push=seconds(stream.last_push),
                    pushes=stream.pushes,
                )
                for stream in self._identities.streams
            ],
            svids=[
                pb.Svid(
                    entry_id=kept.entry.id,
                    spiffe_id=str(kept.svid.spiffe_id),
                    serial=kept.svid.serial,
                    not_after=seconds(kept.svid.not_after),
                    rotate_at=seconds(kept.rotate_at),
                )
                for kept in self._issuing.x509.kept()
            ],
            authority=pb.Authority(
                kind="embedded",
                root_serial=f"{authority.root.serial_number:x}",
                root_not_after=seconds(authority.root.not_valid_after_utc),
                issuer_serial=f"{authority.issuer.serial_number:x}",
                issuer_not_after=seconds(authority.issuer.not_valid_after_utc),
                jwt_key_ids=list(authority.jwt_keys),
                keys=[
                    pb.AuthorityKey(
                        kind=kind,
                        authority_id=slot.id,
                        status=slot.status,
                        tainted=slot.tainted,
                        created_at=seconds(slot.created),
                        not_after=seconds(slot.not_after),
                    )
                    for kind in authority.kinds
                    for slot in authority.slots(kind).all
                ],
            ),
            limitations=[pb.Limitation(what=what, reason=reason) for what, reason in self._limitations.items()],
            task_types=sorted(self._engine.types),
        )

    async def explain(self, _call: Call, request: pb.ExplainRequest) -> pb.ExplainResponse:
        if request.pid <= 0:
            raise InvalidInput("pid must be specified")
        try:
            peer = Peer.of_pid(request.pid)
        except AttestationFailed as error:
            raise NotFound(f"there is no process {request.pid}") from error
        try:
            attested = await self._attestation.attest(peer)
            served = self._registry.match(attested.selectors)
            found = explain.verdicts(self._registry, served, attested, self._registry.node_ids)
            return pb.ExplainResponse(
                pid=request.pid,
                uid=peer.uid,
                gid=peer.gid,
                exe=peer.process.program_path(),
                selectors=text_of(attested.selectors),
                withheld=[pb.Limitation(what=what, reason=reason) for what, reason in attested.withheld.items()],
                failed_attestors=[pb.Limitation(what=name, reason=why) for name, why in attested.failures.items()],
                verdicts=[
                    pb.EntryVerdict(
                        entry_id=verdict.entry.id,
                        spiffe_id=str(verdict.entry.spiffe_id),
                        verdict=verdict.verdict,
                        missing=verdict.missing,
                    )
                    for verdict in found
                ],
                conclusion=explain.conclusion(found, attested),
            )
        finally:
            peer.close()

    async def list_tasks(self, _call: Call, request: pb.ListTasksRequest) -> pb.ListTasksResponse:
        tasks = [*(self._engine.ended() if request.include_ended else []), *self._engine.live()]
        return pb.ListTasksResponse(tasks=[task_message(task) for task in tasks])

    async def get_task(self, _call: Call, request: pb.GetTaskRequest) -> tasks_pb2.Task:
        task = self._engine.find(request.task_id)
        if task is None:
            raise NotFound("there is no such task, or it ended long ago: see the audit journal")
        return task_message(task)

    async def revoke_task(self, call: Call, request: pb.RevokeTaskRequest) -> tasks_pb2.Task:
        task = self._engine.find(request.task_id)
        if task is None:
            raise NotFound("there is no such task")
        self._audit.note("task_revoked_by_operator", task=task.id, **call.by)
        await self._engine.revoke(task, "admin")
        return task_message(task)

    async def list_audit(self, _call: Call, request: pb.ListAuditRequest) -> pb.ListAuditResponse:
        await self._audit.flush()
        answer = pb.ListAuditResponse()
        for record in await self._journal.tail(request.limit or _AUDIT_DEFAULT):
            made = answer.records.add(seq=record.seq, at_ms=record.at_ms, event=record.event, digest=record.digest)
            made.fields.update(json.loads(record.fields))
        return answer

    async def verify_audit(self, _call: Call, _request: pb.VerifyAuditRequest) -> pb.VerifyAuditResponse:
        await self._audit.flush()
        count, bad, reason = await self._journal.verify()
        return pb.VerifyAuditResponse(intact=not bad, records=count, first_bad_seq=bad, reason=reason)

    async def get_bundle(self, _call: Call, _request: pb.GetBundleRequest) -> pb.GetBundleResponse:
        bundle = self._authority.bundle
        return pb.GetBundleResponse(
            trust_domain=bundle.trust_domain.name,
            spiffe_bundle=json.dumps(bundle.document()),
            pem=bundle.x509_pem.decode(),
        )
