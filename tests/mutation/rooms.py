"""The parts of Sojourn that `make mutate` knows, and the tests that must notice a change in each."""

from dataclasses import dataclass

RULES = (
    *("tasktoken/request_digest", "tasktoken/checks", "tasktoken/grants", "policy/clauses", "policy/cedar"),
    *("policy/conditions", "policy/params", "policy/rules", "policy/task_type_tables", "policy/task_types"),
    *("oauth/resource_servers", "oauth/validation"),
    *("tasks/delegation", "tasks/expiry", "tasks/suspension", "tasks/type_sets"),
)
RULES_TESTS = (
    *("tasktoken/request_digest", "tasktoken/checks", "tasktoken/grants", "policy/cedar", "policy/cedar_reach"),
    *("policy/clauses", "policy/conditions", "policy/lint", "policy/params", "policy/rules", "policy/samples"),
    *("policy/task_types", "oauth/resource_servers", "oauth/token_request", "oauth/token_grants", "oauth/validation"),
    *("tasks/delegation", "tasks/delegation_ends", "tasks/expiry", "tasks/reevaluation", "tasks/suspension"),
    "tasks/type_folder",
)
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
    "rules": Room(_files("", RULES), _tests("unit/", RULES_TESTS)),
    "quota": Room(("quota/*.py",), ("unit/quota",)),
    "http2": Room(("http2/*.py",), ("unit/http2",)),
    "door": Room(_files("endpoints/", DOOR), _tests("unit/endpoints/", DOOR_TESTS)),
}
