"""What a notice says: of a request for approval what `sojourn approval show` shows, and nothing that is secret."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sojourn.limits import APPROVAL_PARAM_LISTED, NOTICE_MAX_BYTES
from sojourn.policy.approval_request import Approver, Person
from sojourn.policy.params import text_of
from sojourn.tasks.task import EXPIRED, Task
from sojourn.tasktoken.end_reasons import AGENT_RESTART, APPROVAL_DENIED

WANTED, CLOSED = "approval_requested", "approval_closed"


def wanted(task: Task, node: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """That someone must agree to a task. `node`: which agent says so."""
    assert task.approval is not None
    return _bounded(_head(WANTED, task.approval.request.id, node, now) | {"approval": shown(task)})


def closed(task: Task, node: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """That a request is decided, or over."""
    assert task.approval is not None
    made = _head(CLOSED, task.approval.request.id, node, now)
    return _bounded(made | {"outcome": _outcome(task), "reason": task.reason, "approval": shown(task)})


def closed_by_restart(said: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The same of a request that was told of by an earlier run of the agent, with which it ended."""
    made = _head(CLOSED, str(said["approval"]["id"]), said["node"], now)
    return made | {
        "outcome": "ended",
        "reason": AGENT_RESTART,
        "approval": said["approval"],
        "cut": list(said["cut"]),
    }


def shown(task: Task) -> dict[str, Any]:
    """A request with the names that `approval show --output json` has."""
    assert task.approval is not None
    request = task.approval.request
    return {
        "id": request.id,
        "digest": request.digest,
        "task": task.id,
        "type": task.type.name,
        "description": task.type.description,
        "spiffe_id": str(task.spiffe_id),
        "person": task.whom.pseudonym if task.whom is not None else "",  # it goes to others: nobody finds who it is
        "params": {name: text_of(task.params[name]) for name in sorted(task.params)},
        "grants": [{"resource": grant.resource, "actions": list(grant.actions)} for grant in request.grants.grants],
        "approvers": list(request.approvers),
        "needed": request.count,
        "given": [_approver(each) for each in task.approval.given],
        "requester": _person(request.requester),
        "program": request.program,
        "holder_pid": task.holder.pid,
        "holder_program": request.holder_program,
        "asked_at": _moment(request.asked_at),
        "expires_at": _moment(request.expires_at),
        "life_seconds": int(request.life_seconds),
        "break_glass": task.type.break_glass,
        "consequence": task.type.consequence,
        "when": request.when,
    }


def _outcome(task: Task) -> str:
    if task.approved:
        return "approved"
    if task.reason == APPROVAL_DENIED:
        return "denied"
    return "expired" if task.state == EXPIRED else "ended"


def _head(event: str, approval_id: str, node: Mapping[str, str], now: datetime) -> dict[str, Any]:
    """`id` is the same however often a notice comes."""
    return {"id": f"{approval_id}.{event}", "event": event, "at": _moment(now), "node": dict(node), "cut": []}


def _bounded(message: dict[str, Any]) -> dict[str, Any]:
    """The message with parameters, and if need be more, cut; `cut` says what of it was."""
    said = message["approval"]
    for name, text in said["params"].items():
        if len(text) > APPROVAL_PARAM_LISTED:
            said["params"][name] = text[:APPROVAL_PARAM_LISTED]
            message["cut"].append(f"params.{name}")
    for name in ("params", "grants", "description", "when"):
        if len(json.dumps(message)) <= NOTICE_MAX_BYTES:
            break
        said[name] = type(said[name])()
        message["cut"].append(name)
    return message


def _person(person: Person) -> dict[str, Any]:
    return {"uid": person.uid, "login_uid": person.login_uid, "pid": person.pid}


def _approver(approver: Approver) -> dict[str, Any]:
    return {**_person(approver.person), "role": approver.role}


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
