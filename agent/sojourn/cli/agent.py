"""`sojourn agent`: the daemon."""

from pathlib import Path
from typing import Annotated

import typer

from sojourn.cli.output import printable
from sojourn.config.paths import default_config_file
from sojourn.errors import CannotStart
from sojourn.extras import how_to_install

app = typer.Typer(no_args_is_help=True)
_KEYS = {"agent": "socket", "admin": "admin_socket"}  # of the configuration, by the names of systemd's sockets
_RUN = "/run/sojourn for root, else in $XDG_RUNTIME_DIR/sojourn"

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="SOJOURN_CONFIG",
        readable=False,  # whether it can be read is found when it is
        help="The configuration, a TOML file. Default: /etc/sojourn/agent.toml for root, if it is there, else none;"
        " every key has a default that works.",
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where the database and the keys are kept. Default: /var/lib/sojourn for root, else"
        " ~/.local/state/sojourn.",
    ),
]
PublicOption = Annotated[
    str | None,
    typer.Option("--socket", metavar="PATH", help=f"The public socket, for workloads. Default: agent.sock in {_RUN}."),
]
AdminOption = Annotated[
    str | None,
    typer.Option(
        "--admin-socket", metavar="PATH", help=f"The admin socket, for operators. Default: admin.sock in {_RUN}."
    ),
]
TrustDomainOption = Annotated[
    str | None, typer.Option("--trust-domain", metavar="NAME", help="The trust domain. Default: example.org.")
]
FollowOption = Annotated[
    str | None,
    typer.Option("--follow", metavar="DIR", help="A folder of entry files. The entries are kept as these say."),
]


@app.command()
def run(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    socket: PublicOption = None,
    admin_socket: AdminOption = None,
    trust_domain: TrustDomainOption = None,
    follow: FollowOption = None,
) -> None:
    """Run the agent in the foreground. Prints one line with the word `ready` when both sockets answer.

    SIGHUP has the configuration and the task types read again; `sojourn status` names what needs a restart.
    As a unit of systemd it takes over the sockets that systemd holds, and says when it is ready.
    """
    import os
    import signal

    from sojourn.runtime.lean_imports import import_structlog

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can be heard: by default we would die

    try:
        import_structlog()
        from sojourn.agent import run
        from sojourn.config.load import Loaded, load
        from sojourn.net import held_sockets
        from sojourn.runtime.service_manager import ServiceManager
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"the daemon's libraries are not installed ({error.name} is not there): {how_to_install('agent')}"
        ) from None
    flags = {
        "data_dir": data_dir,
        "socket": socket,
        "admin_socket": admin_socket,
        "trust_domain": trust_domain,
        "registration.follow": follow,
    }
    manager = ServiceManager.of_environment(os.environ)
    with manager.told_of_failure():
        held = held_sockets.of_environment(os.environ)
        places = {_KEYS[name]: each.path for name, each in held.items()}

        def read() -> Loaded:
            return load(config or default_config_file(), flags, held=places, server=False)

        loaded = read()
        made = loaded.config

        def ready(listeners: dict[str, str], caution: str) -> None:
            also = "".join(f", {name.upper()} {address}" for name, address in listeners.items())
            beside = f"\nwarning: {printable(caution)}" if caution else ""
            print(
                f"sojourn agent ready: trust domain {made.trust_domain}, socket {made.socket}, admin socket"
                f" {made.admin_socket}{also}{beside}",
                flush=True,
            )

        run.main(run.Start(loaded, ready, read, config or default_config_file(), held, manager))
