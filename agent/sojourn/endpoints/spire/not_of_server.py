"""Calls of operators that a server refuses, as they are for agents: each with where it is asked instead."""

from collections.abc import Mapping
from typing import Any, Final

from sojourn.endpoints.admin import status
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import NotOfServer

# Calls of sojourn.v1.Admin. Whatever is not here is refused, so that nothing new is answered by a server by mistake.
_OF_A_SERVER: Final = frozenset(
    {
        *("GetStatus", "GetBundle", "ApplyEntries", "ChangeAuthorityKey", "ListFederation"),
        *("ListAudit", "ReadAudit", "SearchAudit", "VerifyAudit", "ExportAudit", "ListAuditSinks"),
        *("GetAuditLog", "RotateAuditKey", "ProveAudit"),
    }
)
_SVIDS: Final = (
    "nodes do not hear from a server which SVIDs are revoked: delete the entry, ban the node, or taint the key that"
    " signed (`sojourn authority`)"
)
_INSTEAD: Final = {
    "AdoptEntries": "entries name their parents: change `--parent-id` of each",
    "Explain": "a server attests no workloads: run it on the node",
    "ListRevocations": _SVIDS,
    "RevokeSvids": _SVIDS,
    "RotateSvids": "the SVIDs of workloads are with the nodes, which renew them: run it there",
}
_OTHERWISE: Final = "a server attests no workloads and has no tasks: run it on the node"


def of_server(services: Mapping[str, dict[str, Method]]) -> dict[str, dict[str, Method]]:
    """The services as a server has them."""
    made = {name: dict(methods) for name, methods in services.items()}
    admin = made[status.SERVICE]
    for name in admin.keys() - _OF_A_SERVER:
        admin[name] = _refusing(name, admin[name])
    return made


def _refusing(name: str, method: Method) -> Method:
    why = f"this is a server: {_INSTEAD.get(name, _OTHERWISE)}"

    async def refuse(_call: Call, _request: Any) -> Any:
        raise NotOfServer(why)

    def refuse_stream(_call: Call, _request: Any) -> Any:
        raise NotOfServer(why)

    return Method(method.kind, method.request, refuse if method.kind == "unary" else refuse_stream)
