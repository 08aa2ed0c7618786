"""`sojourn config`: the configuration as the agent sees it."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from sojourn.cli.agent import AdminOption, ConfigOption, DataDirOption, PublicOption, TrustDomainOption
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, table
from sojourn.config.paths import default_config_file
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
        config or default_config_file(),
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


@app.command()
def explain(
    key: Annotated[str | None, typer.Argument(help="A key, such as `listen.tcp`. Default: all of them.")] = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Tell what a key may be, what it is by default, and what it means; without a key, list all keys.

    Keys of arrays of tables stand as `signals[].issuer`.
    """
    from sojourn.config.description import Key, described

    def lines(one: Key) -> list[str]:
        ways = [f"option {one.flag}"] * bool(one.flag) + [f"variable {one.variable}"] * bool(one.variable)
        told = {
            "key": one.name,
            "meaning": one.meaning.replace("`", ""),
            "type": one.kind.replace("`", ""),
            "default": one.default or "must be given",
            "limits": one.limits,
            "also by": ", ".join(ways),
            "a change": "is in force with SIGHUP" if one.at_once else "is in force when the agent is started again",
        }
        return [f"{name:<10}{value}" for name, value in told.items() if value]

    known = {each.name: each for each in described()}
    if key is None:
        rows = [[each.name, each.kind.replace("`", ""), each.default or "must be given"] for each in known.values()]
        emit(output, {"keys": [asdict(each) for each in known.values()]}, table(["KEY", "TYPE", "DEFAULT"], rows))
    elif key in known:
        emit(output, asdict(known[key]), lines(known[key]))
    else:
        raise InvalidInput(f"there is no key {key[:64]!r}; `sojourn config explain` lists them")


def _plain(value: Any) -> str:
    """A value as a table has it: of the issuers of signals, and of services, only who they are."""
    if isinstance(value, list | tuple):
        return ", ".join(
            str(each.get("issuer") or each.get("resource")) if isinstance(each, dict) else str(each) for each in value
        )
    return "" if value is None else str(value)
