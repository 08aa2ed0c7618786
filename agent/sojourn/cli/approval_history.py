"""`sojourn approval history`: what was asked for, what came of it, by whom, and how long it waited."""

import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import SinceOption, TypeOption, UntilOption, bound_ms, record_value, warn_of_unwritten
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, moment, table
from sojourn.tasktoken.end_reasons import APPROVAL_DENIED, APPROVAL_EXPIRED

Value = dict[str, Any]
_LIMIT: Final = 100
APPROVED, DENIED, EXPIRED, ENDED, WAITING = "approved", "denied", "expired", "ended", "waiting"


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn approval`."""
    app.command()(history)


def history(
    since: SinceOption = "",
    until: UntilOption = "",
    type_: TypeOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000, help="How many requests.")] = _LIMIT,
    page: Annotated[
        str, typer.Option("--page", metavar="TOKEN", help="Go on where the page before ended, which said how.")
    ] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show what was asked for, whether somebody agreed, who, and how long it waited.

    It is what the audit journal has, newest first. --since and --until are of when it was asked for. With --output json
    `next_page` is the token of the next page.
    """
    now = datetime.now(UTC)
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    wanted = pb.AuditFilter(events=["task_pending"], type=type_)
    wanted.since_ms, wanted.until_ms = bound_ms("--since", since, now), bound_ms("--until", until, now)
    request = pb.SearchAuditRequest(filter=wanted, page_token=page)
    found: list[Value] = []
    while len(found) < limit:
        request.page_size = limit - len(found)
        answer = remote.admin(admin_socket, request)
        warn_of_unwritten(answer.unwritten if not found else 0)
        found += [_asked(each) for each in answer.records]
        request.page_token = answer.next_page_token
        if not request.page_token:
            break
    _decide(admin_socket, type_, found)
    for each in found:
        _conclude(admin_socket, each)
    told = [{name: value for name, value in each.items() if not name.startswith("_")} for each in found]
    emit(output, {"approvals": told, "next_page": request.page_token or None}, _lines(told))
    if request.page_token and output is Output.PRETTY:
        print(f"there are more: go on with --page {request.page_token}", file=sys.stderr)


def _asked(record: Any) -> Value:
    fields = record_value(record)["fields"]
    login = fields.get("login_uid")
    return {
        "approval": fields.get("approval"),
        "asked_at": moment(record.at_ms / 1_000),
        "task": fields.get("task"),
        "type": fields.get("type"),
        "spiffe_id": fields.get("spiffe_id"),
        "requester": {"uid": fields.get("uid"), "login_uid": login, "pid": fields.get("requester_pid")},
        "params": fields.get("params") or {},
        "grants": fields.get("grants") or [],
        "digest": fields.get("digest"),
        "needed": fields.get("count"),
        "within_seconds": fields.get("within"),
        "break_glass": bool(fields.get("break_glass")),
        "outcome": WAITING,
        "decisions": [],
        "ended_at": None,
        "reason": "",
        "waited_seconds": 0.0,
        "_ms": record.at_ms,
    }


def _decide(socket: str | None, type_: str, found: list[Value]) -> None:
    """Add to each what was decided, and by whom."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if not found:
        return
    by_id = {each["approval"]: each for each in found}
    until_ms = max(each["_ms"] + int((each["within_seconds"] or 0) + 60) * 1_000 for each in found)
    wanted = pb.AuditFilter(
        events=["approval_decided"], type=type_, since_ms=min(each["_ms"] for each in found), until_ms=until_ms
    )

    def add(part: Any) -> None:
        for record in part.records:
            fields = record_value(record)["fields"]
            asked = by_id.get(fields.get("approval"))
            if asked is not None:
                asked["decisions"].append(_decision(record.at_ms, fields))

    remote.admin_stream(socket, pb.ReadAuditRequest(filter=wanted), add)


def _decision(at_ms: int, fields: Mapping[str, Any]) -> Value:
    return {
        "verdict": fields.get("verdict"),
        "decided_at": moment(at_ms / 1_000),
        "reason": fields.get("reason") or "",
        **{name: fields.get(name) for name in ("by_uid", "by_login_uid", "by_pid", "by_role")},
        "_ms": at_ms,
    }


def _conclude(socket: str | None, asked: Value) -> None:
    """Say what came of a request. The journal is asked how one ended on which nobody decided."""
    decisions = asked["decisions"]
    denial = next((each for each in decisions if each["verdict"] == "deny"), None)
    given = [each for each in decisions if each["verdict"] == "approve"]
    over_ms = 0
    if denial is not None:
        asked["outcome"], over_ms, asked["reason"] = DENIED, denial["_ms"], denial["reason"]
    elif len(given) >= (asked["needed"] or 1):
        asked["outcome"], over_ms, asked["reason"] = APPROVED, given[-1]["_ms"], given[-1]["reason"]
    else:
        over_ms = _end(socket, asked)
    asked["waited_seconds"] = round(((over_ms or int(time.time() * 1_000)) - asked["_ms"]) / 1_000, 3)
    asked["ended_at"] = moment(over_ms / 1_000) if over_ms else None
    for each in decisions:
        del each["_ms"]


def _end(socket: str | None, asked: Value) -> int:
    """When a request that nobody decided was over, in milliseconds since the epoch; 0: it waits."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    wanted = pb.AuditFilter(events=["task_ended"], task_id=asked["task"] or "", since_ms=asked["_ms"])
    for record in remote.admin(socket, pb.SearchAuditRequest(filter=wanted, page_size=10, oldest_first=True)).records:
        fields = record_value(record)["fields"]
        if fields.get("task") == asked["task"]:
            asked["reason"] = str(fields.get("reason") or "")
            expired = asked["reason"] in {APPROVAL_EXPIRED, APPROVAL_DENIED}
            asked["outcome"] = EXPIRED if expired else ENDED
            return int(record.at_ms)
    return 0


def _lines(found: list[Value]) -> Iterator[str]:
    if not found:
        yield "nothing was asked for"
        return
    headings = ["ASKED", "APPROVAL", "TYPE", "WORKLOAD", "BY UID", "OUTCOME", "DECIDED BY", "WAITED", "REASON"]
    yield from table(headings, map(_row, found))


def _row(each: Value) -> list[object]:
    return [
        each["asked_at"],
        each["approval"],
        f"{each['type']} (BREAK-GLASS)" if each["break_glass"] else each["type"],
        each["spiffe_id"],
        each["requester"]["uid"],
        each["outcome"],
        ", ".join(map(_by, each["decisions"])) or "nobody",
        f"{each['waited_seconds']:.0f} s",
        each["reason"],
    ]


def _by(decision: Mapping[str, Any]) -> str:
    login = decision["by_login_uid"]
    return f"uid {decision['by_uid']}" + ("" if login is None else f" (logged in as {login})")
