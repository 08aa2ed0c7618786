"""`sojourn validate`, `explain` and `status`: looking at tokens, processes and the agent."""

import json
import sys
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.authority import authority_value
from sojourn.cli.options import AdminSocketOption, Output, OutputOption, SocketOption
from sojourn.cli.output import REFUSED, emit, moment, table, whole


def validate(
    token: Annotated[str, typer.Argument(help="The token, or - to read it from standard input.")],
    audience: Annotated[str, typer.Option("--audience", help="Who the token must be for.")],
    task: Annotated[bool, typer.Option("--task", help="It must be a task token, not a JWT-SVID.")] = False,
    action: Annotated[str, typer.Option("--action", help="The action that a task token must grant.")] = "",
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Validate a JWT-SVID or a task token. Exit status 0 if it is good, 1 if not."""
    text = sys.stdin.read().strip() if token == "-" else token  # noqa: S105  # a dash
    verdict = remote.public(socket, lambda client: client.validate_token(text, audience, action))
    valid, code, reason = verdict.valid, verdict.code, verdict.reason
    if valid and task and verdict.kind != "task":
        valid, code, reason = False, "wrong_type", "the token is a JWT-SVID, not a task token"
    value = {
        "valid": valid,
        "code": code,
        "reason": reason,
        "kind": verdict.kind,
        "spiffe_id": str(verdict.spiffe_id) if verdict.spiffe_id else None,
        "claims": {name: whole(each) for name, each in verdict.claims.items()},
    }
    if valid:
        lines = [f"valid: {verdict.kind} of {verdict.spiffe_id}"]
        lines += [f"  {name:<22} {_claim(each)}" for name, each in sorted(verdict.claims.items())]
    else:
        lines = [f"not valid: {reason} [{code}]"]
    emit(output, value, lines)
    if not valid:
        raise typer.Exit(REFUSED)


def explain(
    pid: Annotated[int, typer.Option("--pid", help="The process.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Explain which identities a process gets, and what is missing for those that it does not get."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, "/sojourn.v1.Admin/Explain", pb.ExplainRequest(pid=pid), pb.ExplainResponse)
    value = {
        "pid": answer.pid,
        "uid": answer.uid,
        "gid": answer.gid,
        "exe": answer.exe,
        "selectors": list(answer.selectors),
        "withheld": [{"what": each.what, "reason": each.reason} for each in answer.withheld],
        "failed_attestors": [{"what": each.what, "reason": each.reason} for each in answer.failed_attestors],
        "verdicts": [
            {
                "entry_id": each.entry_id,
                "spiffe_id": each.spiffe_id,
                "verdict": each.verdict,
                "missing": list(each.missing),
            }
            for each in answer.verdicts
        ],
        "conclusion": answer.conclusion,
    }
    emit(output, value, _explained(value))


def _explained(value: dict[str, Any]) -> list[str]:
    lines = [
        f"process {value['pid']}: uid {value['uid']}, gid {value['gid']}, {value['exe'] or 'program not readable'}"
    ]
    lines += ["selectors", *(f"  {selector}" for selector in value["selectors"])]
    if value["withheld"]:
        lines += ["not proved", *(f"  {each['what']}: {each['reason']}" for each in value["withheld"])]
    if value["failed_attestors"]:
        lines += [
            "attestors that failed",
            *(f"  {each['what']}: {each['reason']}" for each in value["failed_attestors"]),
        ]
    lines.append("entries" if value["verdicts"] else "entries: none")
    for each in value["verdicts"]:
        missing = f": {', '.join(each['missing'])}" if each["missing"] else ""
        lines.append(f"  {each['spiffe_id']} ({each['entry_id']}): {each['verdict'].replace('_', ' ')}{missing}")
    return [*lines, value["conclusion"]]


def status(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show the agent: entries, streams, SVIDs, tasks, and what it cannot do here."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, "/sojourn.v1.Admin/GetStatus", pb.GetStatusRequest(), pb.GetStatusResponse)
    streams = [
        {
            "method": each.method,
            "pid": each.pid,
            "uid": each.uid,
            "exe": each.exe,
            "since": moment(each.since),
            "last_push": moment(each.last_push),
            "pushes": each.pushes,
        }
        for each in answer.streams
    ]
    svids = [
        {
            "entry_id": each.entry_id,
            "spiffe_id": each.spiffe_id,
            "serial": each.serial,
            "not_after": moment(each.not_after),
            "rotate_at": moment(each.rotate_at),
        }
        for each in answer.svids
    ]
    value = {
        "trust_domain": answer.trust_domain,
        "node_id": answer.node_id,
        "version": answer.version,
        "started_at": moment(answer.started_at),
        "epoch": answer.epoch,
        "entries": answer.entries,
        "live_tasks": answer.live_tasks,
        "connections": answer.connections,
        "task_types": list(answer.task_types),
        "authority": authority_value(answer.authority),
        "limitations": [{"what": each.what, "reason": each.reason} for each in answer.limitations],
        "streams": streams,
        "svids": svids,
    }
    emit(output, value, _status_lines(value))


def _status_lines(value: dict[str, Any]) -> list[str]:
    names = ("trust_domain", "node_id", "version", "started_at", "entries", "live_tasks", "connections")
    lines = [f"{name.replace('_', ' '):<14} {value[name]}" for name in names]
    lines.append(f"{'task types':<14} {', '.join(value['task_types']) or 'none'}")
    lines.append(f"{'authority':<14} {value['authority']['kind']}, root until {value['authority']['root_not_after']}")
    lines += [f"{'limitation':<14} {each['what']}: {each['reason']}" for each in value["limitations"]]
    if value["svids"]:
        rows = [
            [each["spiffe_id"], each["serial"][:16], each["not_after"], each["rotate_at"]] for each in value["svids"]
        ]
        lines += ["", *table(["X.509-SVID", "SERIAL", "NOT AFTER", "ROTATES"], rows)]
    if value["streams"]:
        rows = [
            [each["method"], each["pid"], each["uid"], each["exe"], each["since"], each["pushes"]]
            for each in value["streams"]
        ]
        lines += ["", *table(["STREAM", "PID", "UID", "PROGRAM", "SINCE", "PUSHES"], rows)]
    return lines


def _claim(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(whole(value), ensure_ascii=False)
