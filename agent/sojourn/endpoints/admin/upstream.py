"""Of sojourn.v1.Admin: the server whose node this agent is, and how it fares there."""

from typing import Protocol

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.endpoints.api.workload import seconds
from sojourn.identity.svid_issuer import SvidIssuer
from sojourn.upstream.node_state import NodeState


class ToldNode(Protocol):
    """A node, as operators are told of it."""

    @property
    def attestation_type(self) -> str: ...

    @property
    def state(self) -> NodeState: ...

    @property
    def prefetched(self) -> int:
        """Of how many entries SVIDs are signed before anybody asks."""


def upstream_message(node: ToldNode | None, issuing: SvidIssuer) -> pb.Upstream | None:
    """None: there is no server above this agent."""
    if node is None:
        return None
    state = node.state
    ends = sorted(kept.svid.not_after for kept in issuing.x509.kept())
    return pb.Upstream(
        kind="spire",
        server=state.server,
        attestor=node.attestation_type,
        reattestable=state.reattestable,
        svid_until=0 if state.svid_ends is None else seconds(state.svid_ends),
        synced_at=0 if state.synced_at is None else seconds(state.synced_at),
        synced_seconds=state.synced_seconds,
        away_seconds=state.away_seconds,
        fault=state.fault,
        refused=state.refused,
        remedy=state.remedy,
        left_out=state.left_out,
        prefetched=node.prefetched,
        svids_near_end=state.svids_near_end,
        svids_until=seconds(ends[0]) if ends else 0,
        last_svid_until=seconds(ends[-1]) if ends else 0,
    )
