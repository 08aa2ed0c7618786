"""Of sojourn.v1.Admin: the signed log of the journal, its key, and the proof of a record."""

from collections.abc import Sequence

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.audit.log_state import LogState
from sojourn.audit.reads import JournalReads
from sojourn.audit.signed_log import SignedLog
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput

_SEQ_MAX = 2**63 - 1  # that a database holds


class AuditLogApi:
    """For operators."""

    def __init__(self, audit: Audit, signed: SignedLog, reads: JournalReads) -> None:
        self._audit = audit
        self._signed = signed
        self._reads = reads

    def admin_methods(self) -> dict[str, Method]:
        return {
            "GetAuditLog": Method("unary", pb.GetAuditLogRequest, self.get),
            "RotateAuditKey": Method("unary", pb.RotateAuditKeyRequest, self.rotate),
            "ProveAudit": Method("unary", pb.ProveAuditRequest, self.prove),
        }

    async def get(self, _call: Call, _request: pb.GetAuditLogRequest) -> pb.AuditLog:
        return log_message(self._signed, await self._signed.earlier())

    async def rotate(self, call: Call, _request: pb.RotateAuditKeyRequest) -> pb.AuditLog:
        await self._signed.rotate(call.by)
        return log_message(self._signed, await self._signed.earlier())

    async def prove(self, call: Call, request: pb.ProveAuditRequest) -> pb.ProveAuditResponse:
        if not 1 <= request.seq <= _SEQ_MAX:
            raise InvalidInput("seq is out of range")
        await self._audit.settle()
        proof = await self._signed.prove(request.seq)
        self._reads.tell(call.by, {"proved": request.seq}, 1)
        return pb.ProveAuditResponse(proof=str(proof))


def log_message(signed: SignedLog, earlier: Sequence[LogState]) -> pb.AuditLog:
    """The log that is signed now, with those before it."""
    state = signed.state
    return pb.AuditLog(
        origin=state.origin,
        vkey=state.vkey,
        first_seq=state.first_seq,
        size=state.size,
        checkpoint=state.checkpoint,
        checkpoint_at=signed.signed_at,
        unsigned=signed.unsigned,
        reason=state.reason,
        begun_at=state.begun_ms // 1000,
        fault=signed.fault,
        earlier=[
            pb.EarlierAuditLog(
                origin=each.origin, vkey=each.vkey, first_seq=each.first_seq, size=each.size, reason=each.reason
            )
            for each in earlier
        ],
    )
