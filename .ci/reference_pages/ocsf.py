"""docs/reference/ocsf.md: which event of OCSF each record of the journal is, from the table of the code."""

from collections.abc import Iterator

from sojourn.ocsf.events import NOTICES, ROWS
from sojourn.ocsf.parts import LIST_MAX, PRIVILEGES_MAX, TEXT_MAX
from sojourn.ocsf.schema import ALLOWED, DENIED, DETECTION, FAILURE, VERSION, Row

from reference_pages import MADE, code, table

_SEVERITIES = {1: "Informational", 2: "Low", 3: "Medium", 4: "High", 5: "Critical"}
_FINDINGS = {1: "New", 2: "In Progress", 4: "Resolved"}
_ACTIONS = {ALLOWED: "Allowed", DENIED: "Denied"}
_HEAD = f"""# OCSF

{MADE}

A sink with `format = "ocsf"` ([sinks](../oversight.md#sinks)) gets events of the Open Cybersecurity Schema Framework,
version **{VERSION}** ([schema.ocsf.io](https://schema.ocsf.io/{VERSION})): one JSON object a line. A test holds each
kind of event to the schema of that version, and refuses attributes that it does not have.
"""
_TAIL = f"""Texts beside `unmapped` are cut to {TEXT_MAX:,} characters and lists to {LIST_MAX} entries, privileges to
{PRIVILEGES_MAX:,} characters together. The same record gives the same bytes. An event that this release does not
know is a Base Event (0) with the record within. This version of the schema has no `record_integrity`:
what makes a record whole is within `unmapped`.
"""
_ATTRIBUTES = (
    ("`time`", "When it was recorded, in milliseconds."),
    ("`metadata.uid`", "The record's digest, which no other record has; of a notice the SHA-256 of our own line."),
    ("`metadata.sequence`", "The record's number; of a notice that of the last record that it is of."),
    ("`metadata.event_code`, `message`", "The [event](../codes.md#audit-events), and its sentence."),
    ("`metadata.correlation_uid`", "The task, else the request's trace."),
    (
        "`metadata.profiles`",
        (
            "`host`, and `security_control` where something was allowed or denied: `action_id`, `disposition_id`,"
            " `authorizations` with the policies."
        ),
    ),
    ("`device`", "The agent's machine: the agent's SPIFFE ID, and the node's name."),
    ("`actor.app_uid`", "The SPIFFE ID of the workload or of the service that reports; of the agent for its own acts."),
    (
        "`actor.user`",
        "The operator by uid, and by login uid in `uid_alt`; or the person whom a task is for; or the Unix user.",
    ),
    ("`actor.process`", "The caller's pid and uid."),
    ("`user`, `session`", "Of an authentication or a session: the workload or the person; the task."),
    ("`privileges`", "Of a session: each as `ACTION RESOURCE`."),
    ("`service`", "Of an authentication: the resource, the provider or the audience."),
    ("`authentication_token`, `certificate`", "Of an authentication: the `jti` or the serial number, and the end."),
    ("`entity`", "What is managed: its type and its ID."),
    ("`api`, `src_endpoint`, `resources`", "Of a call: action or method; address, or this machine; the resource."),
    (
        "`finding_info`",
        "Of a finding. Its `uid` is the task, so that the review closes the finding of the break-glass task.",
    ),
    ("`status_code`, `status_detail`", "Code and reason."),
    (
        "`unmapped.sojourn`",
        (
            '**The record, whole**, as `format = "sojourn"` has it: it is what `sojourn audit check --received` checks.'
            " What stands beside it is not checked."
        ),
    ),
)


def page() -> str:
    """docs/reference/ocsf.md, whole."""
    titles = ("Event", "Class", "Activity", "Severity", "Status", "Action")
    lines = [*_HEAD.splitlines(), "", *table(("Attribute", "What is there"), _ATTRIBUTES)]
    lines += [*_TAIL.splitlines(), "", *table(titles, _rows())]
    return "\n".join(lines).rstrip("\n") + "\n"


def _rows() -> Iterator[tuple[str, ...]]:
    for event, row in sorted(ROWS.items()):
        yield (code(event), *_cells(row))
    for kind, (row, _, _) in NOTICES.items():
        yield (f"a line of kind {code(kind)}", *_cells(row))


def _cells(row: Row) -> tuple[str, ...]:
    status = _FINDINGS.get(int(row.status), "") if row.kind is DETECTION else _status(row.status)
    if row.fails is not None:
        status = f"{status}; Failure where {code(row.fails[0])} is {code(row.fails[1])}"
    return (
        f"{row.kind.name} {row.kind.uid}",
        f"{row.activity_name} {row.activity_id}",
        _SEVERITIES[row.severity],
        status,
        _ACTIONS.get(row.action, ""),
    )


def _status(status: int | str) -> str:
    if isinstance(status, str):
        return f"{status} 99"
    return "Failure" if status == FAILURE else "Success"
