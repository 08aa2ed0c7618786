"""Of sojourn.v1.Admin: the sinks of the journal."""

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.sinks.sinks import Sinks
from sojourn.store.pruning import Pruning


class AuditSinksApi:
    """For operators."""

    def __init__(self, sinks: Sinks) -> None:
        self._sinks = sinks

    def admin_methods(self) -> dict[str, Method]:
        return {"ListAuditSinks": Method("unary", pb.ListAuditSinksRequest, self.list)}

    async def list(self, _call: Call, _request: pb.ListAuditSinksRequest) -> pb.ListAuditSinksResponse:
        return pb.ListAuditSinksResponse(sinks=sink_messages(self._sinks), head=self._sinks.head)


def sink_messages(sinks: Sinks) -> list[pb.AuditSink]:
    """All sinks, in the order of the configuration."""
    return [
        pb.AuditSink(
            name=each.about.name,
            kind=each.about.kind,
            format=each.about.format,
            to=each.about.to,
            seq=each.state.seq,
            lag_records=sinks.lag_records(each),
            lag_seconds=each.lag_seconds,
            refused=each.state.refused,
            gap=each.state.gap,
            fault=each.fault,
            failing_since=int(each.failing_since),
            taken_at=int(each.taken_at),
            required=each.about.required,
        )
        for each in sinks.all
    ]


def room_message(pruning: Pruning) -> pb.JournalRoom | None:
    """How much is held of the journal; None if nothing holds any."""
    if not pruning.retention.holds:
        return None
    room = pruning.room
    return pb.JournalRoom(
        held=room.held,
        full=room.full,
        max_bytes=pruning.max_bytes,
        keep_seconds=pruning.retention.keep_ms // 1000,
    )
