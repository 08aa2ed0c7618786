"""`sojourn policy`: task types before the agent has them."""

from pathlib import Path
from typing import Annotated

import typer

from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, table

app = typer.Typer(no_args_is_help=True, help="Task types: policy-as-code.")


@app.callback()
def _group() -> None:
    """Task types: policy-as-code."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="A folder of NAME.toml and NAME.cedar.")],
    output: OutputOption = Output.PRETTY,
) -> None:
    """Parse and validate every task type of a folder. Exit status 2 with all faults if one is wrong."""
    from sojourn.tasks.types import load

    types = load(folder)
    value = [
        {
            "name": kind.name,
            "description": kind.description,
            "digest": kind.digest,
            "ceiling": [{"resource": grant.resource, "actions": list(grant.actions)} for grant in kind.ceiling.grants],
        }
        for kind in types.values()
    ]
    rows = [[kind.name, kind.digest[:12], kind.description] for kind in types.values()]
    emit(output, {"task_types": value}, table(["TYPE", "DIGEST", "DESCRIPTION"], rows) if rows else ["no task types"])
