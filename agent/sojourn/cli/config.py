"""`sojourn config`: the configuration as the agent sees it."""

import typer

from sojourn.cli.agent import AdminOption, ConfigOption, DataDirOption, PublicOption, TrustDomainOption
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, table

app = typer.Typer(no_args_is_help=True, help="The configuration.")


@app.command()
def show(
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    socket: PublicOption = None,
    admin_socket: AdminOption = None,
    trust_domain: TrustDomainOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print every key with its value and where that comes from. Checks the configuration on the way."""
    from sojourn import config as configuration

    loaded = configuration.load(
        config,
        {"data_dir": data_dir, "socket": socket, "admin_socket": admin_socket, "trust_domain": trust_domain},
    )
    found = configuration.flatten(loaded)
    emit(
        output,
        {"values": [{"key": key, "value": value, "origin": origin} for key, value, origin in found]},
        table(
            ["KEY", "VALUE", "FROM"], [[key, "" if value is None else value, origin] for key, value, origin in found]
        ),
    )
