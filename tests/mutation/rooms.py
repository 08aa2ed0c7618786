"""The parts of Sojourn that `make mutate` knows, and the tests that must notice a change in each."""

from dataclasses import dataclass

RULES = (
    *("audiences", "bound", "changing", "clauses", "conditions", "deadlines", "delegating", "fitting", "grants"),
    *("judging", "params", "policies", "policy", "rules", "typefile", "types"),
)
DOOR = ("admission", "answers", "calls", "conversation", "doorway", "lines", "statuses")


@dataclass(frozen=True)
class Room:
    """`files` are patterns below agent/sojourn, `tests` are paths below tests."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


def _of(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}{name}.py" for name in names)


ROOMS = {
    "spiffe": Room(("spiffe/*.py",), ("unit/spiffe",)),
    "rules": Room(
        _of("tasks/", *RULES),
        _of(
            "unit/tasks/test_",
            *("audiences", "bound", "changing", "clauses", "conditions", "deadlines", "delegating", "delegating_ends"),
            *("exchange", "fitting", "granting", "grants", "judging", "lint", "params", "policy", "redeciding"),
            *("policy_reach", "rules", "samples", "typefolder", "types"),
        ),
    ),
    "door": Room(
        ("doors/http2/*.py", *_of("doors/", *DOOR)),
        _of(
            "unit/doors/test_",
            *("admission", "answers", "calls", "calls_limits", "conversation", "doorway", "http2_calls", "http2_ends"),
            *("http2_frames", "http2_heads", "http2_limits", "http2_requests", "http2_rules", "http2_stream", "https"),
            *("lines", "received", "turns"),
        ),
    ),
}
