"""Records of the journal that count for usage, made up: one of each kind, and any of them for properties."""

from typing import Any

from hypothesis import strategies as st
from sojourn.audit.journal import Event
from sojourn.jose.canonical_json import canonical
from sojourn.oversight.sums import DAY_MS

DAY = 20_000  # of the first record
START_MS = DAY * DAY_MS
TICKETS = "https://tickets.example.org"
TRIAGE = "spiffe://example.org/agent/triage"


def event(name: str, at_ms: int = START_MS, **fields: Any) -> Event:
    """A record as the agent would write it; `said` is left out, so that it is read as from the disk."""
    return Event(at_ms, name, canonical({each: value for each, value in fields.items() if value is not None}))


def named(kind: str = "triage", digest: str = "0123456789abcdef", workload: str = TRIAGE) -> dict[str, Any]:
    return {"type": kind, "type_version": digest, "spiffe_id": workload, "uid": 1000}


def use(action: str = "ticket:read", *, tokens: int = 0, calls: int = 0, **more: Any) -> dict[str, Any]:
    return {"resource": TICKETS, "action": action, "tokens": tokens, "calls": calls, **more}


def ended(*rows: dict[str, Any], at_ms: int = START_MS, **fields: Any) -> Event:
    spent = [sum(row["tokens"] for row in rows), sum(row["calls"] for row in rows)]
    said = {"seconds": 1.5, "binding": "stream", "use": list(rows), "spent": spent, **named(), **fields}
    return event("task_ended", at_ms, task="tsk_1", state="completed", reason="success", **said)


_ACTIONS = st.sampled_from(["ticket:read", "ticket:write", "ticket:close"])
_NAMED = st.builds(
    named,
    st.sampled_from(["triage", "export"]),
    st.sampled_from(["0123456789abcdef", "fedcba9876543210"]),
    st.sampled_from([TRIAGE, "spiffe://example.org/agent/other"]),
)
_FEW = st.integers(0, 9)
_AT = st.integers(START_MS, START_MS + 3 * DAY_MS - 1)
_ROWS = st.dictionaries(_ACTIONS, st.tuples(_FEW, _FEW), max_size=3).map(
    lambda found: [use(action, tokens=tokens, calls=calls) for action, (tokens, calls) in found.items()]
)
_SCALARS = st.one_of(st.booleans(), st.integers(-50, 50), st.text("ab", max_size=3), st.just("x" * 200))
_DECIDED = st.fixed_dictionaries(
    {"policies": st.lists(st.sampled_from(["read", "write"]), max_size=2)},
    optional={
        "facts": st.dictionaries(
            st.sampled_from(["freeze", "level"]), _SCALARS.map(lambda value: {"value": value, "source": "operator"})
        ),
        "denied": st.lists(st.tuples(st.just(TICKETS), _ACTIONS).map(list), max_size=2),
    },
)


@st.composite
def _ended(draw: st.DrawFn) -> Event:
    fields = draw(_NAMED)
    if draw(st.booleans()):
        fields["depth"] = draw(st.integers(1, 3))
    if draw(st.booleans()):
        fields |= draw(_DECIDED)
    rows = draw(_ROWS)
    spent = None if "depth" in fields else [draw(_FEW), draw(_FEW)]
    seconds = draw(st.one_of(st.none(), st.floats(0, 90_000).map(lambda each: round(each, 3))))
    binding = draw(st.sampled_from(["stream", "process", "session", "one-shot"]))
    return event("task_ended", draw(_AT), use=rows, spent=spent, seconds=seconds, binding=binding, **fields)


@st.composite
def _late(draw: st.DrawFn) -> Event:
    rows = [row for row in draw(_ROWS) if row["calls"]]
    late = [[TICKETS, row["action"], draw(st.integers(1, row["calls"]))] for row in rows]
    spent = [draw(_FEW), sum(row["calls"] for row in rows)]
    return event("task_used", draw(_AT), use=rows, late=late, calls=spent[1], spent=spent, **draw(_NAMED))


@st.composite
def _decided(draw: st.DrawFn) -> Event:
    name = draw(st.sampled_from(["task_begun", "token_issued", "token_denied", "request_refused", "task_narrowed"]))
    fields = {**draw(_NAMED), **draw(_DECIDED), "code": "policy_denied"}
    fields["params"] = draw(st.dictionaries(st.sampled_from(["ticket", "limit"]), _SCALARS))
    return event(name, draw(_AT), resource=TICKETS, actions=draw(st.lists(_ACTIONS, unique=True)), **fields)


_SVIDS = st.builds(
    lambda name, at_ms, entry: event(name, at_ms, entry_id=entry),
    st.sampled_from(["x509_svid_issued", "jwt_svid_issued"]),
    _AT,
    st.sampled_from(["e1", "e2"]),
)
_DAMAGED = st.builds(lambda at_ms: event("task_ended", at_ms, seconds=1, use=[{}], **named()), _AT)
_OLDER = st.builds(lambda at_ms: event("task_ended", at_ms, type="triage", spiffe_id=TRIAGE, use=[use()]), _AT)
RECORDS = st.lists(st.one_of(_ended(), _late(), _decided(), _SVIDS, _DAMAGED, _OLDER), max_size=30)
