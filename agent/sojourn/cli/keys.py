"""`sojourn keys`: the key process as a service of its own."""

from pathlib import Path
from typing import Annotated

import typer

from sojourn.cli.agent import ConfigOption
from sojourn.config.paths import default_config_file, default_state_dir
from sojourn.errors import CannotStart
from sojourn.extras import how_to_install

app = typer.Typer(no_args_is_help=True)


@app.callback()
def keys() -> None:
    """The process that alone uses the keys of roots."""


@app.command()
def run(
    config: ConfigOption = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="What it keeps: the keys of roots, where those are files. Default: /var/lib/sojourn-keys for root,"
            " else ~/.local/state/sojourn-keys.",
        ),
    ] = None,
) -> None:
    """Run the key process as a service of its own, of another user than the agent's.

    It reads the agent's configuration: where keys.socket is, keys.agent_user, and where the keys are. It builds roots,
    intermediates and CRLs of its trust domain, and signs nothing else; each signature stands in its log.
    """
    try:
        from sojourn.agent import key_service
        from sojourn.config.load import load
        from sojourn.runtime import logs as logging
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"the agent's libraries are not installed ({error.name} is not there): {how_to_install('agent')}"
        ) from None
    loaded = load(config or default_config_file(), {}).config
    logging.configure(loaded.log.level)

    def ready(socket: Path) -> None:
        print(f"sojourn keys ready: {socket}", flush=True)

    key_service.run(loaded, data_dir or default_state_dir().with_name("sojourn-keys"), ready)
