"""`sojourn agent install` and `sojourn agent uninstall`: the system's agent, by systemd, without a package."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import emit, printable

if TYPE_CHECKING:
    from sojourn.installing.plan import Shown, Step

_NEXT = (
    "sojourn entry create --spiffe-id spiffe://example.org/web --selector unix:user:www-data",
    "sojourn status",
    "journalctl --unit sojourn",
)
PrintOption = Annotated[bool, typer.Option("--print", help="Show what would be done, and do nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
WheelsOption = Annotated[
    Path | None,
    typer.Option(
        "--wheels",
        metavar="DIR",
        help="Take all libraries from this folder, and nothing from a network. `make bundle` makes one.",
    ),
]
PurgeOption = Annotated[
    bool, typer.Option("--purge", help="Remove configuration, keys and database too: the trust domain ends.")
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the noun."""
    app.command("install")(install)
    app.command("uninstall")(uninstall)


def install(
    show: PrintOption = False, yes: YesOption = False, wheels: WheelsOption = None, output: OutputOption = Output.PRETTY
) -> None:
    """Install this release as the system's agent: a user of its own, a systemd unit, /opt/sojourn. As root.

    What is there already is left as it is, so a second time does nothing; of another release it is the upgrade. Keys,
    database and /etc/sojourn/agent.toml stay.
    """
    from sojourn.installing import installation
    from sojourn.installing.layout import Layout
    from sojourn.installing.refusals import check_machine
    from sojourn.installing.release import this_release

    layout = Layout()
    check_machine(layout)
    with this_release(wheels) as release:
        installation.check(release)
        steps = installation.installing(layout, release)
        what = {"version": release.version}
        if _carried_out(steps, f"sojourn {release.version} is to be installed:", what, output, show=show, yes=yes):
            said = ["", f"The agent of sojourn {release.version} is ready. Next:", *(f"    {each}" for each in _NEXT)]
            emit(output, {**what, "installed": True, "next": list(_NEXT)}, said)


def uninstall(
    purge: PurgeOption = False, show: PrintOption = False, yes: YesOption = False, output: OutputOption = Output.PRETTY
) -> None:
    """Stop the system's agent, and remove what `install` has made. Its keys and database stay, unless with --purge."""
    from sojourn.installing import installation
    from sojourn.installing.layout import Layout
    from sojourn.installing.refusals import check_machine

    layout = Layout()
    check_machine(layout)
    steps = installation.removing(layout, purge=purge)
    if _carried_out(steps, "the agent is to be removed:", {"purge": purge}, output, show=show, yes=yes):
        kept = [] if purge else [str(layout.configuration.parent), str(layout.state)]
        said = ["The agent is removed." + (f" Kept: {', '.join(kept)}." if kept else "")]
        emit(output, {"purge": purge, "removed": True, "kept": kept}, said)


def _carried_out(
    steps: "Sequence[Step]", head: str, what: dict[str, Any], output: Output, *, show: bool, yes: bool
) -> bool:
    """Whether it was done; if it was only to be shown, or nobody agrees, it was not."""
    from sojourn.installing.plan import carry_out, shown

    plan = shown(steps)
    if show:
        emit(
            output, {**what, "plan": [{"step": each.what, "needed": each.needed} for each in plan]}, _lines(head, plan)
        )
        return False
    if output is Output.PRETTY and not yes:
        for line in _lines(head, plan):
            print(printable(line))
    if any(each.needed for each in plan) and not yes:
        typer.confirm("Go on?", abort=True, err=True)
    carry_out(steps, lambda step: typer.echo(printable(f"{step} ..."), err=True))
    return True


def _lines(head: str, plan: "Sequence[Shown]") -> list[str]:
    return [head, *(f"  {'do' if each.needed else 'is'}  {each.what}" for each in plan)]
