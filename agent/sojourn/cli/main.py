"""The command `sojourn`."""

import os
import sys
from typing import Annotated

import typer

from sojourn.cli import (
    agent,
    approval,
    audit,
    authority,
    bundle,
    config,
    delivering,
    entry,
    fact,
    federation,
    inspect,
    policy,
    policyadmin,
    provider,
    publishing,
    residuals,
    review,
    revoking,
    svid,
    task,
    taskadmin,
    tasktokens,
)
from sojourn.cli.output import show_error
from sojourn.errors import SojournError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A node-local SPIFFE agent: identities for processes, and access tokens that live as long as a task.",
)
app.add_typer(agent.app, name="agent")
app.add_typer(entry.app, name="entry")
app.add_typer(svid.app, name="svid")
app.add_typer(task.app, name="task")
app.add_typer(approval.app, name="approval")
app.add_typer(review.app, name="review")
app.add_typer(fact.app, name="fact")
app.add_typer(policy.app, name="policy")
app.add_typer(provider.app, name="provider")
app.add_typer(authority.app, name="authority")
app.add_typer(bundle.app, name="bundle")
app.add_typer(federation.app, name="federation")
app.add_typer(audit.app, name="audit")
app.add_typer(config.app, name="config")
app.command()(inspect.validate)
app.command()(inspect.explain)
app.command()(inspect.status)

bundle.app.command()(publishing.publish)
fact.app.command()(delivering.deliver)
tasktokens.add_to(task.app)
taskadmin.add_to(task.app)
policy.app.command()(policyadmin.reload)
policy.app.command("shadow-report")(policyadmin.shadow_report)
provider.app.command()(residuals.residuals)
svid.app.command()(revoking.rotate)
svid.app.command()(revoking.revoke)
svid.app.command()(revoking.revoked)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"sojourn {installed('sojourn')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def run() -> None:
    """Run the command; every error of ours becomes at most three lines and an exit status."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        app()
    except SojournError as error:
        sys.exit(show_error(error, as_json=_wants_json(sys.argv)))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _wants_json(arguments: list[str]) -> bool:
    before = arguments[: arguments.index("--")] if "--" in arguments else arguments
    pairs = zip(before, [*before[1:], ""], strict=True)
    return any(
        flag in {"--output=json", "-ojson"} or (flag in {"--output", "-o"} and value == "json") for flag, value in pairs
    )
