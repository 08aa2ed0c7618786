"""Printing results and errors, and exit statuses: 0 done, 1 refused, 2 usage, 3 unreachable."""

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sojourn.cli.options import Output
from sojourn.errors import CannotStart, InvalidConfig, InvalidPolicy, SojournError

REFUSED, USAGE, UNREACHABLE = 1, 2, 3
_NEXT = {
    "no_identity": "see why with `sojourn explain --pid PID`; register with `sojourn entry create`",
    "attestation_failed": "`sojourn explain --pid PID` and `sojourn status` say which attestor failed and why",
    "unknown_task_type": "`sojourn status` lists the task types that the agent has",
    "policy_denied": "the task type, facts and switches decide: `sojourn audit tail` has the record",
    "action_outside_type": "the task type's ceiling is what tasks may have; `sojourn task show` is what one has",
    "task_not_active": "begin a new task; or, if it is suspended, wait until it is resumed",
    "binding_needed": "`sojourn task token --bound`, or with --certificate FILE",
    "params_digest_needed": "`sojourn task digest` makes it of the request; give it to `sojourn task token`",
    "invalid_target": "`sojourn task show` tells what a task has, its type's [[ceiling]] what it may have",
    "approval_required": "wait for the decision: `sojourn task show TASK` has its state",
    "review_owed": "`sojourn review list` shows what is owed",
    "invalid_issuer": "[[signals]] in the agent's configuration names the issuers; `sojourn status` lists them",
    "invalid_key": "the issuer's JWK Set, `jwks` under [[signals]], must have the key that signed the event",
    "invalid_audience": "the event's aud must be `audience` under [[signals]]; that is tasks.issuer if it is not given",
    "bundle_not_fetched": "a bundle that was there stays in force; `sojourn federation show` tells how it fares",
    "provider_refused": "`sojourn provider check NAME --spiffe-id ID` says which step fails and what to set there",
    "provider_unavailable": "`sojourn provider check NAME --spiffe-id ID` says which step fails; it may pass by itself",
    "store_full": "make room in the agent's data folder; identities are served meanwhile",
}


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print("".join(char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text))


def emit(output: Output, value: Any, pretty: Iterable[str]) -> None:
    """Print `value` as JSON, or the lines of `pretty`; of neither a terminal obeys anything."""
    if output is Output.JSON:
        print_json(value)
    else:
        for line in pretty:
            print(printable(line))


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterable[str]:
    """Lines of aligned columns under headings."""
    cells = [list(headings), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def whole(value: Any) -> Any:
    """What came as a protobuf Struct, where numbers are doubles and members have no order: whole numbers, sorted."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: whole(value[name]) for name in sorted(value)}
    if isinstance(value, list):
        return [whole(each) for each in value]
    return value


def printable(text: str) -> str:
    """`text` without anything that a terminal would obey."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def moment(when: float | datetime) -> str | None:
    """RFC 3339 of a time in UTC, or of seconds since the epoch; None for 0."""
    utc = when if isinstance(when, datetime) else datetime.fromtimestamp(when, UTC) if when else None
    return None if utc is None else utc.isoformat().replace("+00:00", "Z")


def show_error(error: SojournError, *, as_json: bool) -> int:
    """Print what, why and what next to standard error and return the exit status."""
    code = error.remote_code or error.code
    if as_json:
        value: dict[str, Any] = {"code": code, "message": error.public}
        if isinstance(error, InvalidPolicy) and any(fault.file for fault in error.faults):
            value["faults"] = [asdict(fault) for fault in error.faults]
        print(json.dumps({"error": value}), file=sys.stderr)
        return _status(error)
    if isinstance(error, InvalidConfig | InvalidPolicy) and len(error.faults) > 1:
        for fault in error.faults:
            print(f"error: {printable(str(fault))}", file=sys.stderr)
    elif isinstance(error, InvalidConfig):
        print(f"error: {printable(error.public)}", file=sys.stderr)
    else:
        print(f"error: {printable(error.public)} [{code}]", file=sys.stderr)
    if code in _NEXT:
        print(f"next:  {_NEXT[code]}", file=sys.stderr)
    elif code == "already_exists" and "entry" in error.public:
        print("next:  `sojourn entry list` shows it; change it with `sojourn entry update`", file=sys.stderr)
    elif "unable to find federated bundle" in error.public:
        told = "`sojourn federation create` follows it, `sojourn bundle set` takes it from a file"
        print(f"next:  {told}", file=sys.stderr)
    return _status(error)


def _status(error: SojournError) -> int:
    if isinstance(error, CannotStart):
        return REFUSED
    if error.code == "unreachable":
        return UNREACHABLE
    return USAGE if not error.remote_code and error.grpc_status == "INVALID_ARGUMENT" else REFUSED
