"""Calls of operators that a node refuses, as what they change is its server's: each with the command to run there."""

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.endpoints.admin import status
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.endpoints.spire import agent, bundle, entry, localauthority, svid, trustdomain
from sojourn.errors import HeldByServer
from sojourn.spiffe.ids import SpiffeId

Services = Mapping[str, dict[str, Method]]
_Says = Callable[[Any, SpiffeId], str]
_TEXT_MAX = 1_000


def _create(request: Any, node_id: SpiffeId) -> str:
    """The command for the one entry of a request, as it was asked for."""
    if len(request.entries) != 1:
        return f"entry create -parentID {node_id} -spiffeID SPIFFE_ID -selector TYPE:VALUE"
    asked = request.entries[0]
    words = ["entry", "create", "-parentID", str(node_id)]
    words += ["-spiffeID", f"spiffe://{asked.spiffe_id.trust_domain}{asked.spiffe_id.path}"]
    for each in asked.selectors:
        words += ["-selector", f"{each.type}:{each.value}"]
    said = shlex.join(words)
    return said if len(said) <= _TEXT_MAX else f"entry create -parentID {node_id} -data FILE"


def _of_ids(command: str) -> _Says:
    def say(request: Any, _node_id: SpiffeId) -> str:
        ids = list(request.ids) if hasattr(request, "ids") else [each.id for each in request.entries]
        return f"entry {command} -entryID {shlex.quote(ids[0]) if len(ids) == 1 and len(ids[0]) <= 255 else 'ID'}"

    return say


def _step(request: Any, _node_id: SpiffeId) -> str:
    kind = request.kind if request.kind in {"x509", "jwt"} else "x509"
    step = request.step if request.step in {"prepare", "activate", "taint", "revoke"} else "show"
    return f"localauthority {kind} {step}"


def _plain(command: str) -> _Says:
    return lambda _request, node_id: command.replace("NODE", str(node_id))


_OF: Final[dict[str, dict[str, _Says]]] = {
    entry.SERVICE: {
        "BatchCreateEntry": _create,
        "BatchUpdateEntry": _of_ids("update"),
        "BatchDeleteEntry": _of_ids("delete"),
    },
    bundle.SERVICE: {
        "AppendBundle": _plain("bundle set"),
        "BatchCreateFederatedBundle": _plain("bundle set -id spiffe://TRUST_DOMAIN"),
        "BatchUpdateFederatedBundle": _plain("bundle set -id spiffe://TRUST_DOMAIN"),
        "BatchSetFederatedBundle": _plain("bundle set -id spiffe://TRUST_DOMAIN"),
        "BatchDeleteFederatedBundle": _plain("bundle delete -id spiffe://TRUST_DOMAIN"),
    },
    trustdomain.SERVICE: {
        "BatchCreateFederationRelationship": _plain("federation create"),
        "BatchUpdateFederationRelationship": _plain("federation update"),
        "BatchDeleteFederationRelationship": _plain("federation delete"),
        "RefreshBundle": _plain("federation refresh"),
    },
    localauthority.SERVICE: {
        f"{step}{kind}": _plain(f"localauthority {name} {said}")
        for kind, name in (("X509Authority", "x509"), ("JWTAuthority", "jwt"), ("WITAuthority", "jwt"))
        for step, said in (("Prepare", "prepare"), ("Activate", "activate"), ("Taint", "taint"), ("Revoke", "revoke"))
    }
    | {
        f"Get{kind}AuthorityState": _plain(f"localauthority {name} show")
        for kind, name in (("X509", "x509"), ("JWT", "jwt"), ("WIT", "jwt"))
    }
    | {
        "TaintX509UpstreamAuthority": _plain("upstreamauthority taint"),
        "RevokeX509UpstreamAuthority": _plain("upstreamauthority revoke"),
    },
    svid.SERVICE: {
        "MintX509SVID": _plain("x509 mint -spiffeID SPIFFE_ID"),
        "MintJWTSVID": _plain("jwt mint -spiffeID SPIFFE_ID -audience AUDIENCE"),
    },
    agent.SERVICE: {
        "DeleteAgent": _plain("agent evict -spiffeID NODE"),
        "BanAgent": _plain("agent ban -spiffeID NODE"),
        "CreateJoinToken": _plain("token generate"),
    },
    status.SERVICE: {
        "ApplyEntries": _plain("entry create -parentID NODE -data FILE"),
        "AdoptEntries": _plain("entry create -parentID NODE -data FILE"),
        "ChangeAuthorityKey": _step,
        "TestRoots": _plain("localauthority x509 show"),
    },
}


def restricted(services: Services, node_id: Callable[[], SpiffeId]) -> dict[str, dict[str, Method]]:
    """The services as a node has them."""
    made = {name: dict(methods) for name, methods in services.items()}
    for service, refused in _OF.items():
        for method, say in refused.items():
            made[service][method] = _refusing(made[service][method], say, node_id)
    admin = made[status.SERVICE]
    admin["RevokeSvids"] = _single_svids(admin["RevokeSvids"])
    return made


def _refusing(method: Method, say: _Says, node_id: Callable[[], SpiffeId]) -> Method:
    async def refuse(_call: Call, request: Any) -> Any:
        raise HeldByServer(
            f"this agent is a node, and this is its server's to do: run `spire-server {say(request, node_id())}` there"
        )

    return Method(method.kind, method.request, refuse)


def _single_svids(method: Method) -> Method:
    """Revocation of single SVIDs alone: a server's say nothing of when they were signed, so that all that an identity
    was given cannot be told from what it is given then.
    """
    revoke: Any = method.handler

    async def handle(call: Call, request: Any) -> Any:
        if request.WhichOneof("which") != "svid_id":
            raise HeldByServer(
                "a node revokes single SVIDs, by serial number: run `spire-server entry delete -entryID ID` at the"
                " server, which ends what is in use here, or `spire-server localauthority x509 taint`"
            )
        return await revoke(call, request)

    return Method(method.kind, method.request, handle)
