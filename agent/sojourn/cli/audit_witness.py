"""`sojourn audit witness`: a witness of other agents' signed journals. It is no agent, and needs none."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from sojourn.config.paths import default_state_dir
from sojourn.errors import CannotStart, InvalidInput
from sojourn.extras import how_to_install

_LEVELS: Final = ("debug", "info", "warning", "error")


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn audit`."""
    app.command()(witness)


def witness(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="DIR",
            help="Where its key is, and what it has cosigned. Default: /var/lib/sojourn-witness for root, else"
            " ~/.local/state/sojourn-witness.",
        ),
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            "--name", metavar="NAME", help="What it is called, such as witness.example.org/w1. Needed the first time."
        ),
    ] = "",
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS", help="ADDRESS:PORT, or unix:PATH.")
    ] = "127.0.0.1:7380",
    logs: Annotated[
        list[str] | None,
        typer.Option("--log", metavar="VKEY", help="A log that it trusts, by `sojourn audit key`. May be repeated."),
    ] = None,
    logs_file: Annotated[
        Path | None,
        typer.Option(
            "--logs", metavar="FILE", help="Further ones, a key on each line, # before remarks. SIGHUP: read again."
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option("--tls-certificate", metavar="FILE", help="PEM, with its chain. Without it: no TLS, on loopback."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option("--tls-key", metavar="FILE", help="The certificate's private key, PEM.")
    ] = None,
    show_key: Annotated[
        bool, typer.Option("--show-key", help="Print its verifier key, and end. Makes the key if there is none.")
    ] = False,
) -> None:
    """Run a witness: it cosigns checkpoints of the logs that it trusts, and never two that contradict each other.

    It speaks C2SP tlog-witness. Give its verifier key to the agents' operators, and to whoever checks their exports.
    """
    import asyncio

    from sojourn.runtime.lean_imports import import_structlog

    folder = data_dir or default_state_dir().with_name("sojourn-witness")
    if show_key:
        from sojourn.files import data_folder
        from sojourn.witness.witness_key import shown

        print(shown(folder, name, data_folder.claim))
        return
    if (tls_certificate is None) != (tls_key is None):
        raise InvalidInput("--tls-certificate and --tls-key go together")
    try:
        import_structlog()
        from sojourn.endpoints.witness import run
    except ModuleNotFoundError as error:
        raise CannotStart(
            f"the witness's libraries are not installed ({error.name} is not there): {how_to_install('agent')}"
        ) from None
    from sojourn.runtime import logs as logging

    level = os.environ.get("SOJOURN_LOG_LEVEL") or "info"
    if level not in _LEVELS:
        raise InvalidInput(f"SOJOURN_LOG_LEVEL: {level[:50]!r} is none of {', '.join(_LEVELS)}")
    logging.configure(level)

    def ready(where: str, vkey: str, trusted: int) -> None:
        print(f"sojourn witness ready: {where}, key {vkey}, {trusted} logs", flush=True)

    start = run.WitnessStart(folder, name, listen, logs or (), logs_file, tls_certificate, tls_key, ready)
    asyncio.run(run.run(start))
