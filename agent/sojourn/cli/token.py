"""`sojourn token`: tokens by which agents of other machines join a server."""

from typing import Annotated

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, option_seconds
from sojourn.cli.output import emit, moment
from sojourn.config.paths import server_socket

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _noun() -> None:
    """Have `generate` be said although it is the only command."""


@app.command()
def generate(
    node: Annotated[
        str,
        typer.Option(
            "--node",
            metavar="NAME",
            help="What the node is called when it has joined: entries name it by `--node NAME`. The newest of this name"
            " is meant.",
        ),
    ],
    bound: Annotated[
        bool,
        typer.Option(
            "--bound",
            help="Bind the name to a key that the node makes: it joins again by that, without another token. Of a name"
            " that is bound already: in the place of the key of before, and of a lock.",
        ),
    ] = False,
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="How long the token is good.")] = "10m",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Make a join token, by which one agent becomes a node of the server, once. It is shown now, and never again."""
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb

    request = pb.CreateJoinTokenRequest(ttl=int(option_seconds("--ttl", ttl)), name=node, bound=bound)
    made = remote.admin(server_socket(admin_socket), request)
    domain = made.join.partition(":")[0]
    value = {
        "join": made.join,
        "token": made.value,
        "expires_at": moment(made.expires_at),
        "node": node,
        "parent_id": f"spiffe://{domain}/spire/agent/sojourn/{node}",
    }
    lines = [
        f"join     {value['join']}",
        f"token    {made.value}, good once, until {value['expires_at']}",
        "next     on the node's machine: sojourn agent join --server HOST:8081 JOIN, with what stands behind `join`",
        f"entries  have --node {node}",
    ]
    emit(output, value, lines)
