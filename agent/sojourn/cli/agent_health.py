"""`sojourn agent health`: whether the agent is ready. It imports little, since supervisors run it every few seconds."""

import time
from typing import Annotated, Any

import typer

from sojourn.cli.options import Output, OutputOption, SocketOption, option_seconds
from sojourn.cli.output import REFUSED, emit
from sojourn.errors import Unavailable, Unreachable
from sojourn.runtime.readiness import CONDITIONS, State, state_of

_ASK_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
WaitOption = Annotated[
    str | None, typer.Option("--wait", metavar="DURATION", help="Wait for so long at the most until it is ready.")
]


def add_to(app: typer.Typer) -> None:
    """Add the command to those of `sojourn agent`."""
    app.command()(health)


def health(
    wait: WaitOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Ask at the public socket whether the agent is ready, as any user may.

    Exit status: 0 ready, or degraded: it serves, and an attestor, the root's token or a node's server fails; 1 not
    ready: keys, authority, store or a socket fail, and it says which; 3 no agent answers. `sojourn doctor` says more,
    to operators.
    """
    from sojourn.config.paths import public_socket

    path = public_socket(socket)
    ends = time.monotonic() + (0.0 if wait is None else option_seconds("--wait", wait))
    while True:
        left = ends - time.monotonic()
        try:
            value = _asked(path, _ASK_SECONDS if wait is None else min(_ASK_SECONDS, max(left, _PAUSE_SECONDS)))
        except (Unreachable, Unavailable):
            if left <= 0:
                raise
        else:
            if left <= 0 or value["state"] != State.UNREADY:
                break
        time.sleep(min(_PAUSE_SECONDS, max(left, 0.0)))
    emit(output, value, _lines(value))
    if value["state"] == State.UNREADY:
        raise typer.Exit(REFUSED)


def _asked(path: str, seconds: float) -> dict[str, Any]:
    from sojourn.sdk.client.health_probe import ask

    told = ask(path, ["", *CONDITIONS], seconds)
    failing = [name for name in CONDITIONS if not told.get(name, True)]
    state = state_of(failing)
    if not told.get("", True):
        state = State.UNREADY  # whatever a newer agent's reason is
    return {"state": str(state), "faults": [{"name": name, "what": CONDITIONS[name]} for name in failing]}


def _lines(value: dict[str, Any]) -> list[str]:
    return [value["state"], *(f"  {each['name']}: {each['what']}" for each in value["faults"])]
