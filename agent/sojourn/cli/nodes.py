"""`sojourn agent list`, `show`, `ban` and `evict`: the nodes of a server."""

from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, moment, table
from sojourn.config.paths import server_socket
from sojourn.errors import InvalidInput, NotFound

NodeArgument = Annotated[
    str, typer.Argument(metavar="NODE", help="The node: its SPIFFE ID, its path below /spire/agent/, or its name.")
]
_AGENTS = "/spire/agent/"


def add_to(app: typer.Typer) -> None:
    """Add the commands to the noun."""
    app.command("list")(list_)
    app.command("show")(show)
    app.command("ban")(ban)
    app.command("unban")(unban)
    app.command("evict")(evict)


def list_(
    attestor: Annotated[
        str | None, typer.Option("--attestor", metavar="NAME", help="Only those that were attested by this.")
    ] = None,
    banned: Annotated[
        bool | None, typer.Option("--banned/--not-banned", help="Only those that are banned, or are not.")
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List the nodes of a server, in the order of their IDs."""
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb

    request = pb.ListAgentsRequest()
    request.filter.by_attestation_type = attestor or ""
    if banned is not None:
        request.filter.by_banned.SetInParent()  # also for those that are not
        request.filter.by_banned.value = banned
    found = nodes_of(server_socket(admin_socket), request)
    rows = [[each["spiffe_id"], each["name"] or "-", each["attestor"], _state(each)] for each in found]
    lines = table(["NODE", "NAME", "ATTESTOR", "SVID UNTIL"], rows) if rows else ["no nodes"]
    emit(output, {"nodes": found}, lines)


def show(node: NodeArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show one node of a server: how it proved who it is, its selectors, and until when it may call."""
    value = _found(server_socket(admin_socket), node)
    shown = {**value, "selectors": " ".join(value["selectors"]), "locked": value["locked"] or None}
    emit(output, value, [f"{name:<16} {each}" for name, each in shown.items() if each not in ("", None)])


def ban(node: NodeArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Take a node for one no more, from its next call on, nor let it join again until it is evicted.

    SVIDs that its workloads have stay good until they end.
    """
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb

    _change(server_socket(admin_socket), node, pb.BanAgentRequest(), "banned", output)


def unban(node: NodeArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Let a banned node attest anew by itself, if it can: one that joined by a token is evicted, and needs another."""
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb

    _change(server_socket(admin_socket), node, pb.BanAgentRequest(lift=True), "unbanned", output)


def evict(node: NodeArgument, admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Know a node no more: it may join again if it can, as with a certificate, or another token. Ends a ban, too."""
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb

    _change(server_socket(admin_socket), node, pb.DeleteAgentRequest(), "evicted", output)


def _change(socket: str, node: str, request: Any, done: str, output: Output) -> None:
    spiffe_id = _found(socket, node)["spiffe_id"]
    request.id.CopyFrom(_message(spiffe_id))
    remote.admin(socket, request)
    emit(output, {"spiffe_id": spiffe_id, done: True}, [f"{done} {spiffe_id}"])


def _found(socket: str, node: str) -> dict[str, Any]:
    """The node that is meant: by its SPIFFE ID, the rest of its path, or its name. Raise NotFound."""
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb

    if node.startswith("spiffe://"):
        return value_of(remote.admin(socket, pb.GetAgentRequest(id=_message(node))))
    meant = [each for each in nodes_of(socket) if node in {each["name"], each["spiffe_id"].partition(_AGENTS)[2]}]
    if not meant:
        raise NotFound(f"there is no node {node[:200]!r}: `sojourn agent list` has all")
    if len(meant) > 1:
        raise InvalidInput(f"{node[:200]!r} is said of several nodes: name one by its SPIFFE ID")
    return meant[0]


def nodes_of(socket: str, request: Any = None) -> list[dict[str, Any]]:
    """All nodes of a server, or those that a request asks for, as they are shown."""
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb
    from sojourn.limits import NODES_PER_PAGE

    request = pb.ListAgentsRequest() if request is None else request
    request.page_size = NODES_PER_PAGE
    found: list[dict[str, Any]] = []
    remote.admin_pages(socket, request, lambda page: found.extend(map(value_of, page.agents)))
    return found


def value_of(agent: Any) -> dict[str, Any]:
    """A node of SPIRE's message, as it is shown. Its serial number is in decimal, as SPIRE shows it."""
    return {
        "spiffe_id": f"spiffe://{agent.id.trust_domain}{agent.id.path}",
        "name": agent.name,
        "attestor": agent.attestation_type,
        "banned": agent.banned,
        "can_reattest": agent.can_reattest,
        "locked": agent.locked,
        "serial": agent.x509svid_serial_number,
        "svid_until": moment(agent.x509svid_expires_at),
        "joined_at": moment(agent.attested_at),
        "selectors": [f"{each.type}:{each.value}" for each in agent.selectors],
        "agent_version": agent.agent_version,
    }


def _state(node: dict[str, Any]) -> str:
    if node["banned"]:
        return "banned"
    return "locked" if node["locked"] else node["svid_until"]


def _message(spiffe_id: str) -> Any:
    from sojourn._pb.spire.api.types import types_pb2 as types
    from sojourn.spiffe.ids import SpiffeId

    parsed = SpiffeId.parse(spiffe_id)
    return types.SPIFFEID(trust_domain=parsed.trust_domain.name, path=parsed.path)
