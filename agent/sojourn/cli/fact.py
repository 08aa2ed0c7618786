"""`sojourn fact`: what operators and workloads say of the world, for task types to read."""

import sys
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from sojourn.cli import pages, remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, SocketOption, option_seconds
from sojourn.cli.output import emit, moment, printable
from sojourn.cli.watch import INTERVAL, IntervalOption, WatchOption
from sojourn.errors import InvalidInput

app = typer.Typer(no_args_is_help=True)


class Type(StrEnum):
    """The type of a value."""

    STRING = "string"
    LONG = "long"
    BOOLEAN = "boolean"


NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The fact, as task types name it.")]
ValueArgument = Annotated[str, typer.Argument(metavar="VALUE", help="What is so.")]
SubjectOption = Annotated[
    str, typer.Option("--subject", help="Of what: a SPIFFE ID or a task's ID. Default: it is so everywhere.")
]
PersonOption = Annotated[
    str,
    typer.Option(
        "--person", metavar="ISSUER/SUBJECT", help="In the place of a subject: this person, by their issuer's name."
    ),
]
ValidOption = Annotated[
    str | None, typer.Option("--valid", metavar="DURATION", help="For how long, such as 10m. Default: until changed.")
]
TypeOption = Annotated[
    Type | None,
    typer.Option("--type", help="Default: true and false are boolean, a whole number is long, all else is string."),
]


@app.command("set")
def set_(
    name: NameArgument,
    value: ValueArgument,
    subject: SubjectOption = "",
    person: PersonOption = "",
    valid: ValidOption = None,
    type_: TypeOption = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Say what is so. Live tasks that read it are decided again before this returns (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.sdk.client.facts import fact_value

    typed = typed_value(value, type_)
    request = pb.SetFactRequest(
        name=name, subject=subject, person=person, value=fact_value(typed), valid_seconds=seconds(valid)
    )
    answer = remote.admin(admin_socket, request)
    _said(
        output,
        name,
        typed,
        subject or person,
        valid,
        [_fact(each) for each in answer.otherwise],
        answer.otherwise_left_out,
    )
    if output is Output.PRETTY:
        said = remote.admin(admin_socket, pb.ListFactsRequest(name=name))
        if not any(each.read_by for each in said.facts):
            print(printable(f"warning: no task type reads {name!r}, so nothing depends on it"), file=sys.stderr)


@app.command()
def unset(
    name: NameArgument,
    subject: SubjectOption = "",
    person: PersonOption = "",
    source: Annotated[
        str, typer.Option("--source", help="Take back what this workload or issuer said. Default: what operators did.")
    ] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Take back what was said. Live tasks that read it are decided again before this returns (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.UnsetFactRequest(name=name, subject=subject, person=person, source=source)
    remote.admin(admin_socket, request)
    value = {"name": name, "subject": subject or person, "source": source or "operator"}
    emit(output, {"unset": value}, [f"{name} is taken back{_of(subject or person)}"])


@app.command("list")
def list_(
    name: Annotated[str, typer.Option("--name", help="Only the facts of this name, with their values whole.")] = "",
    person: Annotated[
        str, typer.Option("--person", metavar="ISSUER/SUBJECT", help="Only the facts about this person.")
    ] = "",
    watch: WatchOption = False,
    interval: IntervalOption = INTERVAL,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List facts with their age, validity and source, and which types read them (operator). Long values are cut."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    def follow(each: Callable[[list[dict[str, Any]]], None]) -> None:
        request = pb.ListFactsRequest(name=name, person=person)
        remote.admin_pages(admin_socket, request, lambda page: each([_fact(fact) for fact in page.facts]))

    pages.show(output, _LIST, follow, watch=watch, interval=interval)


@app.command()
def publish(
    name: NameArgument,
    value: ValueArgument,
    subject: SubjectOption = "",
    person: PersonOption = "",
    valid: ValidOption = None,
    type_: TypeOption = None,
    spiffe_id: Annotated[
        str, typer.Option("--spiffe-id", help="As which of the caller's identities. Default: the first that may.")
    ] = "",
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Say what is so as the caller, as any workload would: where a task type names it as a source of this fact."""
    typed = typed_value(value, type_)
    remote.public(
        socket,
        lambda client: client.publish_fact(
            name,
            typed,
            subject=subject,
            person=person.replace("/", "|", 1) or None,
            valid_seconds=seconds(valid) or None,
            spiffe_id=spiffe_id,
        ),
    )
    _said(output, name, typed, subject or person, valid)


def typed_value(text: str, kind: Type | None) -> str | int | bool:
    """A value as it is typed. Raise InvalidInput."""
    from sojourn.policy.params import LONG, typed

    if kind is None:
        kind = Type.BOOLEAN if text in {"true", "false"} else Type.LONG if LONG.fullmatch(text) else Type.STRING
    return typed(kind.value, text, repr(text[:50]))


def seconds(valid: str | None) -> float:
    """The seconds of `--valid`; 0 without. Raise InvalidInput."""
    if valid is None:
        return 0
    found = option_seconds("--valid", valid)
    if found <= 0:
        raise InvalidInput("--valid: a fact is valid for more than 0 seconds")
    return found


def _said(
    output: Output,
    name: str,
    value: str | int | bool,
    subject: str,
    valid: str | None,
    otherwise: Sequence[Mapping[str, Any]] | None = None,
    left_out: int = 0,
) -> None:
    fact = {"name": name, "subject": subject, "value": value, "valid_seconds": seconds(valid) or None}
    until = f" for {valid}" if valid else ""
    before = {} if otherwise is None else {"otherwise": otherwise, "otherwise_left_out": left_out}
    emit(output, {"fact": fact, **before}, [f"{name} = {_text(value)}{_of(subject)}{until}"])
    if output is Output.PRETTY:
        for each in otherwise or ():
            print(printable(f"warning: {_otherwise(each)}"), file=sys.stderr)
        if left_out:
            print(f"warning: {left_out} more count before it: sojourn fact list shows them", file=sys.stderr)


def _otherwise(each: Mapping[str, Any]) -> str:
    """What counts before it, and how to take that back."""
    subject = f" --subject {each['subject']}" if each["subject"] else ""
    source = f" --source {each['source']}" if each["source"] != "operator" else ""
    return (
        f"{each['name']} stays {_text(each['value'])} where {each['source']} said so of {each['subject'] or 'all'} "
        f"(type {', '.join(each['read_by'])}): sojourn fact unset {each['name']}{subject}{source}"
    )


def _of(subject: str) -> str:
    return f" of {subject}" if subject else ""


def _text(value: str | int | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fact(each: Any) -> dict[str, Any]:
    which = each.value.WhichOneof("value")
    return {
        "name": each.name,
        "subject": each.subject,
        "source": each.source,
        "value": getattr(each.value, which) if which else None,
        "cut": each.cut,
        "age_seconds": int(each.age_seconds),
        "valid_seconds": int(each.valid_seconds) if each.HasField("valid_seconds") else None,
        "happened_at": moment(each.happened_at),
        "written": not each.unwritten,
        "read_by": list(each.read_by),
    }


def _row(each: dict[str, Any]) -> list[str]:
    return [
        each["name"],
        (_text(each["value"]) if each["value"] is not None else "") + ("…" if each["cut"] else ""),
        each["subject"] or "everywhere",
        each["source"],
        f"{each['age_seconds']} s",
        (f"{each['valid_seconds']} s" if each["valid_seconds"] is not None else "until changed")
        + ("" if each["written"] else ", NOT on disk"),
        ", ".join(each["read_by"]) or "nobody",
    ]


_HEADINGS = ("FACT", "VALUE", "SUBJECT", "SOURCE", "AGE", "VALID", "READ BY")
_LIST = pages.PageForm("facts", _HEADINGS, _row, "nothing was said")
