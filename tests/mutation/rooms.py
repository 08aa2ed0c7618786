"""The parts of Sojourn that `make mutate` knows, and the tests that must notice a change in each."""

from dataclasses import dataclass

TASKS = ("delegation", "expiry", "journal", "suspension", "transitions", "type_sets")
TASKS_TESTS = ("delegation", "delegation_ends", "expiry", "reevaluation", "suspension", "transitions", "type_folder")
DOOR = (
    *("grpc/calls", "grpc/status_codes", "http1/connection", "http1/oauth_responses", "http1/request_queue"),
    *("listener/connection_limits", "listener/protocol_switch"),
)
DOOR_TESTS = (
    *("grpc/calls", "grpc/calls_limits", "http1/connection", "http1/oauth_responses", "http1/request_queue"),
    *("listener/connection_limits", "listener/protocol_switch", "listener/token_service"),
)


@dataclass(frozen=True)
class Room:
    """`files` are patterns below agent/sojourn, `tests` are paths below tests."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


def _files(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}{name}.py" for name in names)


def _tests(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}{name.replace('/', '/test_')}.py" for name in names)


ROOMS = {
    "spiffe": Room(("spiffe/*.py", "jose/*.py"), ("unit/spiffe", "unit/jose")),
    "tasktoken": Room(("tasktoken/*.py",), ("unit/tasktoken", "unit/oauth/test_validation.py")),
    "policy": Room(("policy/*.py",), ("unit/policy", "unit/tasks/test_type_folder.py")),
    "oauth": Room(
        ("oauth/*.py",), ("unit/oauth", *(f"security/test_exchange{each}.py" for each in ("", "_once", "_limits")))
    ),
    "tasks": Room(_files("tasks/", TASKS), tuple(f"unit/tasks/test_{name}.py" for name in TASKS_TESTS)),
    "quota": Room(("quota/*.py",), ("unit/quota",)),
    "http2": Room(("http2/*.py",), ("unit/http2",)),
    "door": Room(_files("endpoints/", DOOR), _tests("unit/endpoints/", DOOR_TESTS)),
}
