"""`sojourn person`: the people whom tasks are for."""

import typer

app = typer.Typer(no_args_is_help=True)
