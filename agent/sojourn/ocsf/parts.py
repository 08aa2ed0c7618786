"""Objects of OCSF that are made of a record's fields. What a field has that an object cannot have is left out there.

Nothing is lost by that: the record is in the event as a whole. So texts are cut to TEXT_MAX characters, and lists to
LIST_MAX entries.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Final

from sojourn.ocsf.schema import OTHER, Row

Fields = Mapping[str, Any]
Value = dict[str, Any]
TEXT_MAX: Final = 1_024
LIST_MAX: Final = 100
PRIVILEGES_MAX: Final = 16_384  # characters of all of them: a short record is not to make a long event
_INTEGER_MAX: Final = 2**31 - 1
_LONG_MAX: Final = 2**63 - 1
_UNIX: Final = {"type": "Unix user", "type_id": OTHER}
_SERVICE: Final = {"type_id": 4}
_KINDS_OF_USER: Final[Mapping[str, Value]] = {
    "spiffe_id": _SERVICE,
    "to": _SERVICE,
    "person": {"type_id": 1},
    "uid": _UNIX,
    "task": {"type": "Task", "type_id": OTHER},
    "address": {"type": "Network address", "type_id": OTHER},
    "issuer": {"type": "Issuer", "type_id": OTHER},
}
_NOBODY: Final = {"name": "unknown", "type_id": 0}
_DETAILS: Final = ("reason", "explanation", "fault")
_POLICY_TYPE: Final = 5


def text_of(value: Any) -> str:
    """A text or a whole number as a text of UTF-8, cut; empty of all else."""
    if type(value) is str:
        cut = value[:TEXT_MAX]
        return cut if cut.isascii() else cut.encode("utf-8", "replace").decode()
    if type(value) is int:
        return str(value) if -_LONG_MAX <= value <= _LONG_MAX else ""
    return ""


def texts_of(value: Any) -> list[str]:
    """The texts of a list."""
    return [said for each in value[:LIST_MAX] if (said := text_of(each))] if isinstance(value, list) else []


def first_text(fields: Fields, *names: str) -> str:
    """The first of these fields that has a text."""
    for name in names:
        if name in fields and (said := text_of(fields[name])):
            return said
    return ""


def number_of(value: Any, most: int = _INTEGER_MAX) -> int | None:
    """A number that is not negative; None of all else."""
    return value if type(value) is int and 0 <= value <= most else None


def actor(fields: Fields, row: Row, agent: Value) -> Value:
    """Who did it: the operator, the service that reports, the workload with its process; else the agent itself."""
    operator = text_of(fields.get("by_uid"))
    if operator:
        login = text_of(fields.get("by_login_uid"))
        made: Value = {"user": {**_UNIX, "uid": operator, **({"uid_alt": login} if login else {})}}
        process = _process(fields.get("by_pid"), "")
        return {**made, **({"process": process} if process else {})}
    by = text_of(fields.get("by"))
    if by and not by.startswith("tsk_"):
        return {"app_uid": by}
    return _caller(fields, row) or agent


def _caller(fields: Fields, row: Row) -> Value:
    # What is managed is not who manages it: an entry has its workload's ID, and a task its holder's.
    workload = text_of(fields.get("spiffe_id")) if not row.entity or "task" in fields else ""
    uid, person = text_of(fields.get("uid")), text_of(fields.get("person"))
    made: Value = {}
    if name := workload or first_text(fields, "address"):
        made["app_uid"] = name
    elif name := first_text(fields, "source", "issuer"):
        made["app_name"] = name
    if process := _process(fields.get("pid"), uid):
        made["process"] = process
    if person and workload:
        made["user"] = {"type_id": 1, "uid": person}
    elif uid:
        made["user"] = {**_UNIX, "uid": uid}
    return made


def _process(pid: Any, uid: str) -> Value:
    number = number_of(pid)
    if number is None:
        return {}
    return {"pid": number, **({"user": {**_UNIX, "uid": uid}} if uid else {})}


def user(fields: Fields, row: Row) -> Value:
    """Whom an authentication or a session is of."""
    for name in row.user:
        if said := text_of(fields.get(name)):
            return {**_KINDS_OF_USER[name], "uid": said}
    return dict(_NOBODY)


def session(fields: Fields) -> Value:
    """A task is a session of its holder."""
    task = text_of(fields.get("task"))
    if not task:
        return {}
    ended = text_of(fields.get("reason")) if "state" in fields else ""
    return {"uid": task, **({"expiration_reason": ended} if ended else {})}


def privileges(fields: Fields) -> list[str]:
    """`ACTION RESOURCE` of what is granted, or was asked for."""
    found: list[str] = []
    room = PRIVILEGES_MAX
    for resource, actions in _granted(fields):
        for action in texts_of(actions):
            privilege = f"{action} {resource}"
            room -= len(privilege)
            if len(found) == LIST_MAX or room < 0:
                return found
            found.append(privilege)
    return found


def _granted(fields: Fields) -> Iterator[tuple[str, Any]]:
    grants, asked = fields.get("grants"), fields.get("asked")
    if isinstance(grants, list):
        for each in grants[:LIST_MAX]:
            if isinstance(each, dict):
                yield text_of(each.get("resource")), each.get("actions")
    elif isinstance(asked, dict):
        yield from ((text_of(resource), actions) for resource, actions in asked.items())
    else:
        yield text_of(fields.get("resource")), fields.get("actions")


def service(fields: Fields, agent: str) -> Value:
    """What somebody authenticates to: a resource, a provider, an audience; else the agent."""
    audience = fields.get("audience")
    uid = text_of(fields.get("resource")) or next(iter(texts_of(audience)), text_of(audience))
    provider = text_of(fields.get("provider"))
    made = {**({"name": provider} if provider else {}), **({"uid": uid} if uid else {})}
    return made or {"name": "Sojourn", "uid": agent}


def credential(fields: Fields, row: Row) -> Value:
    """The token, or the certificate, of an authentication, by the attribute's name."""
    until = number_of(fields.get("expires_at"), _LONG_MAX // 1000)
    ends = {} if until is None else {"expiration_time": until * 1000}
    if jti := text_of(fields.get("jti")):
        kind = 3 if row.activity != 4 else 7  # Identity Token, API Token
        return {"authentication_token": {**ends, "type_id": kind, "uid": jti}}
    serial, issuer = text_of(fields.get("serial")), text_of(fields.get("issuer_id"))
    if serial and issuer:
        return {"certificate": {**ends, "issuer": issuer, "serial_number": serial}}
    return {}


def entity(fields: Fields, row: Row) -> Value:
    """What is managed."""
    uid = first_text(fields, *row.of)
    named = {"uid": uid} if uid else {}
    if row.entity != "policy":
        return {"name": row.entity, "type": row.entity, "type_id": OTHER, **named}
    return {"name": "task types", "type_id": _POLICY_TYPE, "policy": {"name": "task types", **named}, **named}


def resources(fields: Fields) -> list[Value]:
    """What was to be used, or which task it is about."""
    resource = text_of(fields.get("resource"))
    if resource:
        actions = texts_of(fields.get("actions")) or texts_of([fields.get("action")])
        return [{"role_id": 1, "uid": resource, **({"labels": actions} if actions else {})}]
    task = text_of(fields.get("task"))
    return [{"role_id": 1, "type": "task", "uid": task}] if task else []


def source(fields: Fields, agent: Value) -> Value:
    """Where a call came from: an address, or this machine."""
    address = text_of(fields.get("address"))
    if not address:
        return agent
    with suppress(ValueError):  # a network is none, and neither is a URL
        if "%" not in address:  # a scope may be of any length
            return {"ip": str(ip_address(address)), "name": address}
    return {"name": address}


def authorizations(fields: Fields, decision: str) -> list[Value]:
    """The policies that decided, with the digest of their set."""
    policy_set = text_of(fields.get("policy_set"))
    of_set = {"uid": policy_set} if policy_set else {}
    policies = [{**of_set, "name": each} for each in texts_of(fields.get("policies"))] or ([of_set] if of_set else [])
    return [{"decision": decision, "policy": each} for each in policies]


def status(fields: Fields) -> Value:
    """Why, in words and as a code."""
    detail, code = first_text(fields, *_DETAILS), text_of(fields.get("code"))
    return {**({"status_code": code} if code else {}), **({"status_detail": detail} if detail else {})}
