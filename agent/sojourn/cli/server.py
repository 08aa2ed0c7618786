"""`sojourn server`: an authority for the nodes of several machines."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, moment
from sojourn.config.paths import SERVER_CONFIG_NAME, default_config_file, server_socket
from sojourn.errors import CannotStart
from sojourn.extras import how_to_install

app = typer.Typer(no_args_is_help=True)

_RUN = "/run/sojourn-server for root, else in $XDG_RUNTIME_DIR/sojourn-server"


@app.command()
def run(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="SOJOURN_CONFIG",
            readable=False,
            help="The configuration, a TOML file. Default: /etc/sojourn/server.toml for root, if it is there, else"
            " none; every key has a default that works.",
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Where the database and the keys are kept. Default: /var/lib/sojourn-server for root, else"
            " ~/.local/state/sojourn-server.",
        ),
    ] = None,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes", metavar="ADDRESS:PORT", help="Where nodes connect to, over TLS. Default: 0.0.0.0:8081."
        ),
    ] = None,
    admin_socket: Annotated[
        str | None,
        typer.Option(
            "--admin-socket", metavar="PATH", help=f"The admin socket, for operators. Default: admin.sock in {_RUN}."
        ),
    ] = None,
    trust_domain: Annotated[
        str | None, typer.Option("--trust-domain", metavar="NAME", help="The trust domain. Default: example.org.")
    ] = None,
) -> None:
    """Run a server in the foreground. Prints one line with the word `ready` when nodes can connect.

    A server signs for the agents of other machines that have joined it, be they `sojourn agent run` with [upstream], or
    spire-agent. It attests no workloads of its own machine. SIGHUP has the configuration read again.
    """
    import os
    import signal

    from sojourn.runtime.lean_imports import import_structlog

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heard: by default we would die

    try:
        import_structlog()
        from sojourn.agent import run
        from sojourn.config.load import Loaded, load
        from sojourn.runtime.service_manager import ServiceManager
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"the daemon's libraries are not installed ({error.name} is not there): {how_to_install('agent')}"
        ) from None
    flags = {"data_dir": data_dir, "listen.nodes": nodes, "admin_socket": admin_socket, "trust_domain": trust_domain}
    file = config or default_config_file(SERVER_CONFIG_NAME)
    manager = ServiceManager.of_environment(os.environ)
    with manager.told_of_failure():

        def read() -> Loaded:
            return load(file, flags, server=True)

        loaded = read()
        made = loaded.config

        def ready(listeners: dict[str, str], _caution: str) -> None:
            also = "".join(f", {name.upper()} {address}" for name, address in listeners.items() if name != "nodes")
            print(
                f"sojourn server ready: trust domain {made.trust_domain}, nodes {listeners['nodes']}, admin socket"
                f" {made.admin_socket}{also}",
                flush=True,
            )

        run.main(run.Start(loaded, ready, read, file, {}, manager))


@app.command()
def status(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show the server: its nodes by how they were attested, entries, keys, and what is wrong."""
    from sojourn._pb.sojourn.v1 import admin_pb2
    from sojourn._pb.spire.api.server.agent.v1 import agent_pb2 as pb
    from sojourn.cli.nodes import nodes_of

    socket = server_socket(admin_socket)
    told = remote.admin(socket, admin_pb2.GetStatusRequest())
    agents = nodes_of(socket)
    kinds = {kind: sum(each["attestor"] == kind for each in agents) for kind in sorted({x["attestor"] for x in agents})}
    banned = pb.CountAgentsRequest()
    banned.filter.by_banned.value = True
    value: dict[str, Any] = {
        "trust_domain": told.trust_domain,
        "server_id": told.node_id,
        "version": told.version,
        "state": told.state,
        "started_at": moment(told.started_at),
        "nodes": {"total": len(agents), "banned": remote.admin(socket, banned).count},
        "attestors": [{"attestor": kind, "nodes": count} for kind, count in kinds.items()],
        "entries": told.entries,
        "listeners": [
            {"name": each.name, "address": each.address, "connections": each.connections} for each in told.listeners
        ],
        "faults": [{"name": each.name, "what": each.what} for each in told.faults],
        "restart_needed": list(told.config.restart_needed),
    }
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    lines = [
        f"{told.node_id}, {told.state}, since {value['started_at']}, version {told.version}",
        f"nodes      {len(agents)}{f' ({counted})' if counted else ''}, {value['nodes']['banned']} banned",
        f"entries    {told.entries}",
        *(f"{each.name:<10} {each.address}, {each.connections} connections" for each in told.listeners),
        *(f"FAULT      {each.name}: {each.what}" for each in told.faults),
    ]
    if value["restart_needed"]:
        lines.append(f"restart    needed for {', '.join(value['restart_needed'])}")
    emit(output, value, lines)
