"""`sojourn agent`: the daemon."""

from pathlib import Path
from typing import Annotated

import typer

from sojourn.errors import CannotStart

app = typer.Typer(no_args_is_help=True, help="The daemon.")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", envvar="SOJOURN_CONFIG", help="The configuration, a TOML file.")
]
DataDirOption = Annotated[str | None, typer.Option("--data-dir", help="Where the database and the keys are kept.")]
PublicOption = Annotated[str | None, typer.Option("--socket", help="The public socket, for workloads.")]
AdminOption = Annotated[str | None, typer.Option("--admin-socket", help="The admin socket, for operators.")]
TrustDomainOption = Annotated[str | None, typer.Option("--trust-domain", help="The trust domain.")]
FollowOption = Annotated[
    str | None,
    typer.Option("--follow", metavar="DIR", help="A folder of entry files whose entries are kept as it says."),
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
    """Run the agent in the foreground. Prints one line with the word `ready` when both sockets answer."""
    from sojourn.lean import import_structlog

    try:
        import_structlog()
        from sojourn import config as configuration
        from sojourn import daemon
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"the daemon's libraries are not installed: pip install 'sojourn[agent]' ({error.name})"
        ) from None
    loaded = configuration.load(
        config,
        {
            "data_dir": data_dir,
            "socket": socket,
            "admin_socket": admin_socket,
            "trust_domain": trust_domain,
            "registration.follow": follow,
        },
    )

    def ready(listeners: dict[str, str]) -> None:
        made = loaded.config
        also = "".join(f", {name.upper()} {address}" for name, address in listeners.items())
        print(
            f"sojourn agent ready: trust domain {made.trust_domain}, socket {made.socket}, admin socket"
            f" {made.admin_socket}{also}",
            flush=True,
        )

    daemon.main(loaded.config, ready)
