"""`sojourn config`: the configuration as the agent sees it."""

from typing import Annotated, Any

import typer

from sojourn.cli.agent import AdminOption, ConfigOption, DataDirOption, PublicOption, TrustDomainOption
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


@app.command()
def show(
    key: Annotated[str | None, typer.Argument(help="Print this key's value alone, such as `socket`.")] = None,
    config: ConfigOption = None,
    data_dir: DataDirOption = None,
    socket: PublicOption = None,
    admin_socket: AdminOption = None,
    trust_domain: TrustDomainOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print every key with its value and where that comes from. Checks the configuration on the way."""
    from sojourn.config.load import flatten, load

    loaded = load(
        config,
        {"data_dir": data_dir, "socket": socket, "admin_socket": admin_socket, "trust_domain": trust_domain},
    )
    found = flatten(loaded)
    if key is not None:
        values = {name: value for name, value, _ in found}
        if key not in values:
            raise InvalidInput(f"there is no key {key[:64]!r}; `sojourn config show` lists them")
        emit(output, {"key": key, "value": values[key]}, [_plain(values[key])])
        return
    emit(
        output,
        {"values": [{"key": key, "value": value, "origin": origin} for key, value, origin in found]},
        table(["KEY", "VALUE", "FROM"], [[key, _plain(value), origin] for key, value, origin in found]),
    )


def _plain(value: Any) -> str:
    """A value as a table has it: of the issuers of signals, and of services, only who they are."""
    if isinstance(value, list | tuple):
        return ", ".join(
            str(each.get("issuer") or each.get("resource")) if isinstance(each, dict) else str(each) for each in value
        )
    return "" if value is None else str(value)
