"""By what a record is searched for: its event, and of its fields those that name a task, a type, and who it was.

A field's name means one thing in all events, so that one table says what it is searched as. Values are compared whole
and as they stand, numbers by their digits.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

EVENT, TASK, TYPE, WORKLOAD, BY, PERSON, SVID = range(7)
READ: Final = "journal_read"
Key = tuple[int, str]
"""What is searched in, and the text that stands there."""

# Each field that is searched, with what it is searched as. A task is found wherever its ID stands.
FIELDS: Final[Mapping[str, tuple[int, ...]]] = {
    "type": (TYPE,),
    "task_type": (TYPE,),
    "spiffe_id": (WORKLOAD,),
    "node": (WORKLOAD,),  # of a server, for which something was signed
    "to": (WORKLOAD,),  # whom a task is handed on to
    "presenter": (WORKLOAD,),  # of a person's token
    "actors": (WORKLOAD,),  # those through whose hands a task has gone
    "subject": (WORKLOAD, PERSON),  # of a fact; and the first workload of a task that was handed on
    "subjects": (WORKLOAD, PERSON),  # of a signed event
    "approvers": (WORKLOAD,),  # who may agree to a task
    "person": (PERSON,),
    "by_uid": (BY,),
    "by_login_uid": (BY,),
    "by_subuid_of": (BY,),
    "by": (WORKLOAD, BY),  # a service or a caller over the network
    "source": (BY,),  # of a fact
}
# Who called, where no field says by whom it was.
CALLERS: Final = ("uid", "spiffe_id", "address")
# What an SVID is found by, in the records of its issue.
SVIDS: Final = {
    "x509_svid_issued": ("serial", "entry_id"),
    "x509_svid_minted": ("serial",),
    "jwt_svid_issued": ("jti", "entry_id"),
    "jwt_svid_minted": ("jti",),
    "wit_svid_issued": ("jti", "entry_id"),
}
_SEVERAL: Final = frozenset(
    {"subject", "subjects", "by", "approvers"}
)  # which name now a workload, now somebody or something else
_WORKLOAD_PREFIX, _PERSON_PREFIX = "spiffe://", "psn_"
_TASK: Final = re.compile(r"tsk_[A-Za-z0-9_-]{22}")


def keys_of(event: str, fields: str) -> set[Key]:
    """All that a record is found by. `fields`: the record's, as JSON.

    The record of a read is not found by what the read was for: whoever asks for a task is not to find that they asked.
    """
    found = {(EVENT, event)}
    if event != READ:
        found.update((TASK, task) for task in _TASK.findall(fields))
    members = _members(fields)
    by_whom = False
    for name in members.keys() & FIELDS.keys():
        for text in _texts(members[name]):
            for what in FIELDS[name]:
                if what == BY:
                    by_whom = True
                elif name in _SEVERAL and not _is_of(what, text):
                    continue
                found.add((what, text))
    if not by_whom:
        found.update((BY, text) for name in CALLERS if name in members for text in _texts(members[name]))
    for name in SVIDS.get(event, ()):
        found.update((SVID, text) for text in _texts(members.get(name)))
    return found


def _members(fields: str) -> dict[str, Any]:
    """The fields of a record; none of one that was damaged."""
    try:
        members = json.loads(fields)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}


def _texts(value: Any) -> tuple[str, ...]:
    """The values of a field that are searched for: a text, a whole number, or each text of a list."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, int) and not isinstance(value, bool):
        return (str(value),)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _is_of(what: int, text: str) -> bool:
    """Whether the text of a field of several is a workload, or a person."""
    return text.startswith(_WORKLOAD_PREFIX if what == WORKLOAD else _PERSON_PREFIX)
