"""`sojourn task`: begin, use, end and see tasks."""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.given_files import read_given
from sojourn.cli.options import (
    INT32_MAX,
    ActionOption,
    Output,
    OutputOption,
    ParamOption,
    ResourceOption,
    SocketOption,
    option_seconds,
)
from sojourn.cli.output import emit, moment
from sojourn.errors import InvalidInput
from sojourn.limits import TOKEN_MAX_BYTES

app = typer.Typer(no_args_is_help=True)


class PersonTokenKind(StrEnum):
    """What a person is shown by."""

    ID = "id_token"
    ACCESS = "access_token"


_TICKET_MAX = 4_096  # characters
TypeOption = Annotated[str, typer.Option("--type", help="The task type.")]
TtlOption = Annotated[
    str | None, typer.Option("--ttl", metavar="DURATION", help="End sooner than the type says, such as 30s.")
]
ApproveWaitOption = Annotated[
    str | None,
    typer.Option(
        "--approve-wait",
        metavar="DURATION",
        help="If someone must agree first: wait so long, such as 10m. Default: until the request expires.",
    ),
]
HolderPidOption = Annotated[
    int | None,
    typer.Option(
        "--holder-pid",
        max=INT32_MAX,
        help="The process that the task lives with. Default: the one that ran this command.",
    ),
]
PersonTokenOption = Annotated[
    str,
    typer.Option(
        "--person-token-file",
        metavar="FILE",
        help="Whom the task is for: a file with a token of theirs, or - for its input.",
    ),
]
ExpectPersonOption = Annotated[
    str,
    typer.Option(
        "--expect-person",
        metavar="ISSUER|SUBJECT",
        help="Whom it is for: refused unless the task is theirs; `-`: nobody. Needed where one process acts for several"
        " people.",
    ),
]
PersonTokenTypeOption = Annotated[
    PersonTokenKind, typer.Option("--person-token-type", help="What kind of token that is.")
]
TaskArgument = Annotated[str, typer.Argument(envvar="SOJOURN_TASK_ID", help="The task. Default: SOJOURN_TASK_ID.")]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    command: Annotated[list[str], typer.Argument(metavar="-- CMD…", help="The command and its arguments.")],
    type_: TypeOption = "",
    param: ParamOption = None,
    resource: ResourceOption = "",
    action: ActionOption = None,
    ttl: TtlOption = None,
    ticket_file: Annotated[
        str, typer.Option("--ticket-file", metavar="FILE", help="In the place of --type: a ticket, or - for its input.")
    ] = "",
    person_token_file: PersonTokenOption = "",
    person_token_type: PersonTokenTypeOption = PersonTokenKind.ID,
    approve_wait: ApproveWaitOption = None,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", help="Between SIGTERM and SIGKILL, when the task ends first.")
    ] = 5.0,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="Give the command an egress proxy, and the task to nobody but the proxy.")
    ] = False,
    proxy_ca: Annotated[
        str | None,
        typer.Option("--proxy-ca", metavar="FILE", help="Authorities that services must be of. Default: the system's."),
    ] = None,
    proxy_pass: Annotated[
        list[str] | None,
        typer.Option("--proxy-pass", metavar="ORIGIN", help="Let requests to it through without a token. Repeatable."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="Run the command as this user, if root runs this.")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="Run the command in a network in which the proxy is all there is.")
    ] = False,
    cloud: Annotated[
        list[str] | None,
        typer.Option("--cloud", metavar="RESOURCE", help="Which resource SDKs are for, if there are two of a kind."),
    ] = None,
    no_cloud: Annotated[
        bool, typer.Option("--no-cloud", help="Give the command no endpoints for SDKs of clouds.")
    ] = False,
    vault_token_file: Annotated[
        str | None,
        typer.Option("--vault-token-file", metavar="FILE", help="Have the Vault token in this file too, and fresh."),
    ] = None,
    show_environment: Annotated[
        bool, typer.Option("--show-environment", help="Say on standard error what is set for SDKs of clouds.")
    ] = False,
    socket: SocketOption = None,
) -> None:
    """Run a command inside a task. Its exit status passes through; the task ends with it, and it with the task.

    The command finds the task's ID in SOJOURN_TASK_ID and the agent in SPIFFE_ENDPOINT_SOCKET; `sojourn task token`
    gets tokens there. No token is in its arguments or its environment. Only the command and its descendants may use
    the task. If someone must agree first, this waits for that and says so; Ctrl-C takes the request back.

    Where the task has resources of AWS, Google Cloud, Azure or Vault, their SDKs find its credentials by themselves:
    AWS_CONTAINER_CREDENTIALS_FULL_URI, GOOGLE_APPLICATION_CREDENTIALS, IDENTITY_ENDPOINT and VAULT_ADDR lead to this
    run, and variables by which they would find others are taken away, which is said.

    With --proxy not even they may: HTTP_PROXY and its like name a proxy of this run, which attaches the token and the
    proof to each request that is within the task, and refuses every other one. The agent gives the command, and all
    that descends from it, neither token nor task nor identity; nor can they gain privileges, as by sudo. --proxy-pass
    lets requests to a model's own API through, without a token; --user and --isolate keep it from the rest.
    """
    from sojourn.cli.task_run import Clouds, Proxied, run_command

    if bool(type_) == bool(ticket_file):
        raise InvalidInput("name the task type with --type, or a ticket with --ticket-file")
    given = {"--proxy-ca": proxy_ca is not None, "--proxy-pass": proxy_pass, "--user": user is not None}
    alone = [option for option, has in {**given, "--isolate": isolate}.items() if has and not proxy]
    if alone:
        raise InvalidInput(f"{alone[0]} goes with --proxy")
    if (proxy or no_cloud) and (cloud or vault_token_file or show_environment):
        without = "--proxy" if proxy else "--no-cloud"
        raise InvalidInput(f"{without} goes without --cloud, --vault-token-file and --show-environment")
    if ticket_file and (param or resource or action or ttl or person_token_file):
        raise InvalidInput(
            "a ticket says what the task is: leave out --param, --resource, --action, --ttl and --person-token-file"
        )
    ticket = _ticket(ticket_file) if ticket_file else ""
    person = _person(person_token_file, person_token_type)
    params, grants, seconds = remote.pairs(param), _grants(resource, action), _seconds("--ttl", ttl)

    def begun(client: Any) -> Any:
        if ticket:
            return client.accept_delegation(ticket, session=not proxy)
        waiting = {**_waiting(approve_wait), "person": person}
        return client.task(type_, session=not proxy, params=params, grants=grants, max_seconds=seconds, **waiting)

    proxied = Proxied(proxy_ca, proxy_pass or (), user, isolate) if proxy else None
    clouds = None if proxy or no_cloud else Clouds(cloud or (), vault_token_file, show_environment)

    async def call(client: Any) -> int:
        return await run_command(client, command, grace, begun(client), proxied, clouds)

    raise typer.Exit(remote.public(socket, call))


@app.command()
def begin(
    type_: TypeOption,
    param: ParamOption = None,
    resource: ResourceOption = "",
    action: ActionOption = None,
    ttl: TtlOption = None,
    person_token_file: PersonTokenOption = "",
    person_token_type: PersonTokenTypeOption = PersonTokenKind.ID,
    approve_wait: ApproveWaitOption = None,
    holder_pid: HolderPidOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Begin a task that lives as long as a process: by default the shell that ran this command. Prints its ID.

    If someone must agree first, this waits for that and says so; Ctrl-C takes the request back.
    """
    person = _person(person_token_file, person_token_type)

    async def call(client: Any) -> Any:
        task = await client.begin_task(
            type_,
            params=remote.pairs(param),
            grants=_grants(resource, action),
            max_seconds=_seconds("--ttl", ttl),
            person=person,
            **_waiting(approve_wait),
            holder_pid=os.getppid() if holder_pid is None else holder_pid,
        )
        return task.status

    status = remote.public(socket, call)
    emit(output, _status_dict(status), [status.id])


@app.command()
def narrow(
    task: TaskArgument,
    resource: ResourceOption = "",
    action: ActionOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Give up all of a task but some actions at one resource. That cannot be undone."""
    kept = _grants(resource, action)
    if kept is None:
        raise InvalidInput("name what is kept with --resource and --action")
    status = remote.public(socket, lambda client: client.narrow_task(task, kept))
    emit(output, _status_dict(status), [f"{status.id} has {resource}: {', '.join(kept[0].actions)}, and no more"])


@app.command()
def delegate(
    task: TaskArgument,
    to: Annotated[str, typer.Option("--to", metavar="SPIFFE_ID", help="Who may begin the task.")],
    resource: ResourceOption = "",
    action: ActionOption = None,
    max_: Annotated[
        str | None, typer.Option("--max", metavar="DURATION", help="A shorter life than this task's, such as 5m.")
    ] = None,
    expect_person: ExpectPersonOption = "",
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Hand a part of a task on to another workload: print a ticket, which that one gives to `sojourn task accept`.

    It is good once, for that workload alone, and for a minute at most. Without --resource and --action it is for all
    that the task may do. What it begins ends with this task.
    """
    grants, seconds = _grants(resource, action), _seconds("--max", max_)
    with acting(expect_person):
        made = remote.public(socket, lambda client: client.delegate_task(task, to, grants, seconds))
    value = {
        "ticket": made.ticket,
        "to": to,
        "expires_at": moment(made.expires_at),
        "task_id": task,
    }
    emit(output, value, [made.ticket])


@app.command()
def accept(
    ticket_file: Annotated[
        str, typer.Option("--ticket-file", metavar="FILE", help="Where the ticket is. Default: standard input.")
    ] = "-",
    holder_pid: HolderPidOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Begin the task that a ticket is for; it lives as long as a process, as with `begin`. Prints its ID."""
    ticket = _ticket(ticket_file)

    async def call(client: Any) -> Any:
        pid = os.getppid() if holder_pid is None else holder_pid
        return (await client.begin_delegated(ticket, holder_pid=pid)).status

    status = remote.public(socket, call)
    emit(output, _status_dict(status), [status.id])


@app.command()
def complete(
    task: TaskArgument,
    failed: Annotated[bool, typer.Option("--failed", help="The task did not succeed.")] = False,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """End a task of the caller. Every token of it is dead at once."""
    status = remote.public(socket, lambda client: client.complete_task(task, failed=failed))
    emit(output, _status_dict(status), [f"{status.id} {status.state}: {status.why}"])


def acting(person: str) -> AbstractContextManager[None]:
    """Within it a use of a task is for this person; NOBODY: for nobody; empty: nobody says for whom."""
    if not person:
        return nullcontext()
    from sojourn.sdk.task.acting import acting_for, acting_for_nobody
    from sojourn.tasktoken.person_claims import NOBODY

    return acting_for_nobody() if person == NOBODY else acting_for(person)


def _grants(resource: str, actions: list[str] | None) -> Any:
    from sojourn.tasktoken.grants import Grant

    if not resource and not actions:
        return None
    if not resource or not actions:
        raise InvalidInput("--resource and --action go together: give both, or neither for all there is")
    return [Grant.parse(resource, actions)]


def _ticket(file: str) -> str:
    """Read a ticket; it never stands among the arguments, where every user of the machine could read it."""
    try:
        if file == "-":
            text = sys.stdin.read(_TICKET_MAX)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(_TICKET_MAX)
    except OSError as error:
        raise InvalidInput(f"the ticket cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidInput("the ticket cannot be read: it is no text") from error
    if not text.strip():
        raise InvalidInput("there is no ticket: give the output of `sojourn task delegate`")
    return text.strip()


def _person(file: str, kind: PersonTokenKind) -> Any:
    """Read a person's token, which stands among no arguments either; None: the task is for nobody."""
    if not file:
        return None
    from sojourn.sdk.task.values import PersonToken

    text = read_given(file, TOKEN_MAX_BYTES).decode("ascii", "replace").strip()
    if not text:
        raise InvalidInput("there is no token: give the person's ID token or access token")
    return PersonToken.access_token(text) if kind is PersonTokenKind.ACCESS else PersonToken.id_token(text)


def _waiting(approve_wait: str | None) -> dict[str, Any]:
    """How to wait for approval: for how long, and saying so."""
    seconds = None if approve_wait is None else _seconds("--approve-wait", approve_wait)
    return {"approve_wait": seconds, "on_pending": _say_pending}


def _say_pending(status: Any) -> None:
    asked = status.approval
    until = moment(asked.expires_at)
    print(
        f"sojourn: task {status.id} waits until {until} for approval by {', '.join(asked.approvers)}"
        f" ({asked.given} of {asked.needed} agreed): sojourn approval approve {asked.id}",
        file=sys.stderr,
        flush=True,
    )


def _seconds(option: str, text: str | None) -> int:
    if text is None:
        return 0
    return max(1, int(option_seconds(option, text)))


def _status_dict(status: Any) -> dict[str, Any]:
    return {
        "id": status.id,
        "type": status.type,
        "spiffe_id": str(status.spiffe_id),
        "state": status.state,
        "reason": status.reason,
        "explanation": status.explanation,
        "grants": [{"resource": grant.resource, "actions": list(grant.actions)} for grant in status.grants],
        "expires_at": moment(status.expires_at),
        "parent_id": status.parent_id or None,
        "actors": [str(each) for each in status.actors],
        "person": None if status.person is None else status.person.name,
        "outside": [outside_dict(each) for each in status.outside],
    }


def outside_dict(outside: Any) -> dict[str, Any]:
    """A resource whose credentials a provider outside gives: the SDK's, or the agent's own message of it."""
    return {
        "resource": outside.resource,
        "provider": outside.provider,
        "kind": outside.kind,
        "details": {name: outside.details[name] for name in sorted(outside.details)},
    }
