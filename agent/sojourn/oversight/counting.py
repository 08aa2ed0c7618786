"""Records of the journal, counted: what each of them adds to the sums.

The agent counts a record as it writes it, and a report may count all of the journal again: both come by here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.oversight.sums import DAY_MS, Sums, TypeKey

Fields = Mapping[str, Any]


def count(sums: Sums, at_ms: int, event: str, fields: Fields) -> None:
    """Add a record. One that is not as the agent writes it is counted as such, whatever it is."""
    reader = _READERS.get(event)
    if reader is None:
        return
    try:
        reader(sums, at_ms, fields)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        sums.unread += 1


def _key(at_ms: int, fields: Fields) -> TypeKey | None:
    """None: of a record of before the type's digest was said, or of no type."""
    digest = fields.get("type_version")
    if digest is None or "spiffe_id" not in fields:
        return None
    return TypeKey(at_ms // DAY_MS, fields["type"], digest, fields["spiffe_id"])


def _ended(sums: Sums, at_ms: int, fields: Fields) -> None:
    key = _key(at_ms, fields)
    seconds = fields.get("seconds")
    if key is None:
        return
    if "policies" in fields:
        _decide(sums, key, fields)
    if seconds is None:  # it never began
        return
    of_type = sums.of_type(key)
    of_type.tasks += 1
    of_type.milliseconds.add(round(seconds * 1_000))
    depth = fields.get("depth", 0)
    of_type.depth.add(depth)
    of_type.children.add(fields.get("children", 0))
    _add_one(of_type.bindings, fields["binding"])
    for row in fields["use"]:
        _use(sums, key, row, at_ms)
    if "spent" in fields:
        tokens, calls = fields["spent"]
        of_type.tokens.add(tokens)
        of_type.calls.add(calls)


def _use(sums: Sums, key: TypeKey, row: Fields, at_ms: int) -> None:
    found = sums.of_action(key, row["resource"], row["action"])
    tokens, calls = row["tokens"], row["calls"]
    found.granted += 1
    if "counted" in row:
        found.most = max(found.most, row["counted"])
    if tokens:
        found.taken += 1
    if calls:
        found.called += 1
        found.calls += calls
        found.used_at(at_ms)
    else:
        found.unused_tokens += tokens


def _told_late(sums: Sums, at_ms: int, fields: Fields) -> None:
    """What services told of calls after the end of a task: `late` since the record before, `use` in all."""
    key = _key(at_ms, fields)
    if key is None or not fields["late"]:
        return
    in_all = {(row["resource"], row["action"]): row for row in fields["use"]}
    more = 0
    for resource, action, number in fields["late"]:
        row = in_all[resource, action]
        found = sums.of_action(key, resource, action)
        more += number
        found.calls += number
        found.used_at(at_ms)
        if row["calls"] == number:  # none was told before
            found.called += 1
            found.unused_tokens -= row["tokens"]
    if "spent" in fields:
        of_all = fields["spent"][1]
        if "children" in fields:  # what theirs told since is not known here, so that the greatest alone is set right
            sums.of_type(key).calls.reach(of_all)
        else:
            sums.of_type(key).calls.move(of_all - more, of_all)


def _decided(sums: Sums, at_ms: int, fields: Fields) -> None:
    key = _key(at_ms, fields)
    if key is not None and "policies" in fields:
        _decide(sums, key, fields)


def _decide(sums: Sums, key: TypeKey, fields: Fields) -> None:
    of_type = sums.of_type(key)
    policies = of_type.policies
    for policy in fields["policies"]:
        policies[policy] = policies.get(policy, 0) + 1
    if "facts" in fields:
        for name, fact in fields["facts"].items():
            of_type.seen("facts", name, fact["value"])
    if "denied" in fields:
        for resource, action in fields["denied"]:
            sums.of_action(key, resource, action).denied += 1


def _begun(sums: Sums, at_ms: int, fields: Fields) -> None:
    key = _key(at_ms, fields)
    if key is None:
        return
    if "policies" in fields:
        _decide(sums, key, fields)
    if "params" in fields:
        for name, value in fields["params"].items():
            if isinstance(value, str | int):  # else it is one that is not to be in the journal
                sums.of_type(key).seen("params", name, value)


def _issued(sums: Sums, at_ms: int, fields: Fields) -> None:
    """A token, or an outside credential."""
    key = _key(at_ms, fields)
    if key is None:
        return
    if "policies" in fields:
        _decide(sums, key, fields)
    for action in fields["actions"]:
        found = sums.of_action(key, fields["resource"], action)
        found.tokens += 1
        found.used_at(at_ms)


def _denied(sums: Sums, at_ms: int, fields: Fields) -> None:
    key = _key(at_ms, fields)
    if key is None:
        return
    if "policies" in fields:
        _decide(sums, key, fields)
    _add_one(sums.of_type(key).denials, fields.get("code", "policy_denied"), fields.get("count", 1))


def _svid(sums: Sums, at_ms: int, fields: Fields) -> None:
    found = sums.of_entry(fields["entry_id"])
    found.number += 1
    found.last_ms = max(found.last_ms, at_ms)


def _add_one(counts: dict[str, int], name: str, number: int = 1) -> None:
    counts[name] = counts.get(name, 0) + number


_READERS: Final[Mapping[str, Callable[[Sums, int, Fields], None]]] = {
    "task_ended": _ended,
    "task_used": _told_late,
    "task_begun": _begun,
    "delegation_accepted": _begun,
    "token_issued": _issued,
    "external_credential_issued": _issued,
    "token_denied": _denied,
    "begin_denied": _denied,
    "delegation_denied": _denied,
    "request_refused": _denied,
    "task_narrowed": _decided,
    "task_suspended": _decided,
    "task_resumed": _decided,
    "person_renewed": _decided,
    "x509_svid_issued": _svid,
    "jwt_svid_issued": _svid,
    "wit_svid_issued": _svid,
}
COUNTED: Final = frozenset(_READERS)
