"""Checks that the agent makes step by step: each step is printed as it is done."""

from typing import Any

import typer

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import Output
from sojourn.cli.output import REFUSED, print_json, printable


def show(admin_socket: str | None, request: Any, about: dict[str, Any], name: str, output: Output) -> None:
    """Have a check made and print its steps, in JSON beside what it is `about`. Exit status 1 if one fails."""
    steps: list[dict[str, Any]] = []

    def tell(message: Any) -> None:
        step = told(message)
        steps.append(step)
        if output is Output.PRETTY:
            for line in _lines(step):
                print(printable(line), flush=True)

    remote.admin_stream(admin_socket, request, tell)
    well = all(step["outcome"] != "failed" for step in steps)
    if output is Output.JSON:
        print_json({**about, "ok": well, "steps": steps})
    else:
        print(f"{name}: {'ok' if well else 'failed at ' + steps[-1]['name']}")
    if not well:
        raise typer.Exit(REFUSED)


def _lines(step: dict[str, Any]) -> list[str]:
    line = f"{step['outcome']:<8}{step['name']:<16} {step['milliseconds']:>6} ms  {step['told']}"
    return [line, f"{'':<8}{'next:':<16} {'':>6}     {step['hint']}"] if step["hint"] else [line]
