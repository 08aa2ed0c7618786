"""`sojourn approval`: what waits for someone to agree, and the decision."""

import json
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any

import typer

from sojourn.cli import pages, remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, SocketOption
from sojourn.cli.output import REFUSED, emit
from sojourn.cli.watch import INTERVAL, IntervalOption, WatchOption
from sojourn.errors import NotFound, quoted
from sojourn.settings.durations import duration_text

app = typer.Typer(no_args_is_help=True)
ApprovalArgument = Annotated[str, typer.Argument(metavar="APPROVAL", help="The request, apr_….")]
AsWorkloadOption = Annotated[
    bool,
    typer.Option(
        "--as-workload", help="Decide as a workload that the task type lists, through the agent's public socket."
    ),
]
DigestOption = Annotated[
    str, typer.Option("--digest", help="Decide only if the request has this digest. Default: that of the one shown.")
]
YesOption = Annotated[
    bool,
    typer.Option("--yes", "-y", help="Agree without the question that a terminal is asked. Scripts are not asked."),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="For the requester and the audit journal.")]
_Call = Callable[[Any], Any]


@app.command("list")
def list_(
    watch: WatchOption = False,
    interval: IntervalOption = INTERVAL,
    as_workload: AsWorkloadOption = False,
    admin_socket: AdminSocketOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List the requests that wait: all of them, or as a workload those that it may decide."""
    from sojourn._pb.sojourn.v1 import approvals_pb2 as pb

    def follow(each: Callable[[list[dict[str, Any]]], None]) -> None:
        def told(page: Any) -> None:
            each(list(map(_value, page.approvals)))

        if as_workload:
            remote.workload_pages(socket, pb.ListApprovalsRequest(), told)
        else:
            remote.admin_pages(admin_socket, pb.ListApprovalsRequest(), told)

    pages.show(output, _LIST, follow, watch=watch, interval=interval)


@app.command()
def show(
    approval: ApprovalArgument,
    as_workload: AsWorkloadOption = False,
    admin_socket: AdminSocketOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show a request: what is asked, by whom, and who must agree."""
    value = _one(_caller(as_workload, admin_socket, socket), approval)
    emit(output, value, _lines(value))


@app.command()
def approve(
    approval: ApprovalArgument,
    digest: DigestOption = "",
    reason: ReasonOption = "",
    yes: YesOption = False,
    as_workload: AsWorkloadOption = False,
    admin_socket: AdminSocketOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Agree to a request, which is shown; a terminal is asked. Policy is asked again; what it still allows begins."""
    asks = not yes and output is Output.PRETTY and sys.stdin.isatty() and sys.stdout.isatty()
    _decide(_caller(as_workload, admin_socket, socket), approval, digest, reason, output, agree=True, asks=asks)


@app.command()
def deny(
    approval: ApprovalArgument,
    digest: DigestOption = "",
    reason: ReasonOption = "",
    as_workload: AsWorkloadOption = False,
    admin_socket: AdminSocketOption = None,
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Refuse a request. Its task is over."""
    _decide(_caller(as_workload, admin_socket, socket), approval, digest, reason, output, agree=False)


def _caller(as_workload: bool, admin_socket: str | None, socket: str | None) -> _Call:
    """Makes calls of one of the two services."""

    def as_operator(request: Any) -> Any:
        return remote.admin(admin_socket, request)

    def workload(request: Any) -> Any:
        method = remote.method_of(request, operator=False)
        return remote.public(socket, lambda client: client.connection.unary(*method))

    return workload if as_workload else as_operator


def _one(call: _Call, approval: str) -> dict[str, Any]:
    from sojourn._pb.sojourn.v1 import approvals_pb2 as pb

    found = call(pb.ListApprovalsRequest(approval_id=approval)).approvals if approval else []
    if not found:
        raise NotFound("there is no such approval request, or it has been decided")
    return _value(found[0])


def _decide(
    call: _Call, approval: str, digest: str, reason: str, output: Output, *, agree: bool, asks: bool = False
) -> None:
    from sojourn._pb.sojourn.v1 import approvals_pb2 as pb

    shown = _one(call, approval)
    verdicts = pb.DecideApprovalRequest
    request = pb.DecideApprovalRequest(
        approval_id=approval,
        digest=digest or shown["digest"],
        verdict=verdicts.VERDICT_APPROVE if agree else verdicts.VERDICT_DENY,
        reason=reason,
    )
    if output is Output.PRETTY:
        emit(output, shown, _lines(shown))
    if asks and not typer.confirm("agree to this?", err=True):
        print("nothing was decided", file=sys.stderr)
        raise typer.Exit(REFUSED)
    task = call(request).task
    given, needed = task.approval.given, task.approval.needed
    value = {
        "approval": approval,
        "digest": request.digest,
        "verdict": "approve" if agree else "deny",
        "task": task.id,
        "state": task.state,
        "reason": task.reason,
        "given": given,
        "needed": needed,
    }
    waits = f", and waits for {needed - given} more to agree" if task.state == "pending" else ""
    emit(output, value, [f"{'approved' if agree else 'denied'}: task {task.id} is {task.state}{waits}"])


def _row(each: dict[str, Any]) -> list[object]:
    return [
        each["id"],
        each["type"] + (" (BREAK-GLASS)" if each["break_glass"] else ""),
        each["spiffe_id"],
        f"uid {each['requester']['uid']}, pid {each['requester']['pid']}",
        _params(each),
        f"{len(each['given'])} of {each['needed']}",
        each["expires_at"],
    ]


def _lines(value: dict[str, Any]) -> list[str]:
    requester = value["requester"]
    glass = "BREAK-GLASS: loud, short, and a review is owed" if value["break_glass"] else ""
    grants = [f"{grant['resource']}: {', '.join(grant['actions'])}" for grant in value["grants"]]
    lines = {
        "approval": value["id"],
        "": glass,
        "type": f"{value['type']} ({value['consequence']} consequence) {quoted(value['description'])}",
        "workload": value["spiffe_id"],
        "person": quoted(value["person"]) if value["person"] else "",
        **{f"param {name}": json.dumps(each, ensure_ascii=False) for name, each in value["params"].items()},
        "grants": "; ".join(grants),
        "life": duration_text(timedelta(seconds=value["life_seconds"])),
        "asked by": f"{_person(requester)}, {_program(value['program'])}",
        "held by": f"pid {value['holder_pid']}, {_program(value['holder_program'])}",
        "approvers": f"{value['needed']} of {', '.join(value['approvers'])}",
        "agreed": "; ".join(f"{each['role']}, {_person(each)}" for each in value["given"]),
        "asked at": value["asked_at"],
        "until": value["expires_at"],
        "because": " ".join(value["when"].split()),
        "digest": value["digest"],
    }
    width = max(10, *map(len, lines))
    return [f"{name:<{width}} {text}" for name, text in lines.items() if text]


def _person(value: dict[str, Any]) -> str:
    login = "" if value["login_uid"] is None else f" (logged in as {value['login_uid']})"
    return f"uid {value['uid']}{login}, pid {value['pid']}"


def _program(path: str) -> str:
    return quoted(path) if path else "program not readable"


def _params(value: dict[str, Any]) -> str:
    """As the requester wrote them, for a list: quoted, so that none looks like another, and cut."""
    cut = dict.fromkeys(value["cut"], "…")
    return " ".join(f"{name}={quoted(each)}{cut.get(name, '')}" for name, each in value["params"].items())


def _value(message: Any) -> dict[str, Any]:
    return {
        **told(message, task="task_id"),
        "requester": _approver(message.requester),
        "given": [{**_approver(each), "role": each.role} for each in message.given],
    }


def _approver(message: Any) -> dict[str, Any]:
    login_uid = None if message.login_uid < 0 else message.login_uid
    return {"uid": message.uid, "login_uid": login_uid, "pid": message.pid}


_HEADINGS = ("APPROVAL", "TYPE", "WORKLOAD", "ASKED BY", "PARAMS", "AGREED", "UNTIL")
_LIST = pages.PageForm("approvals", _HEADINGS, _row, "nothing waits for approval")
