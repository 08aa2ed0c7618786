"""The task types of the tests of the engine, and a process that has gone."""

from fakes.task_types import task_type
from sojourn.errors import AttestationFailed

TYPES = {
    "triage": task_type(),
    "read-only": task_type(
        "read-only",
        '@id("read") permit (principal, action in [Sojourn::Action::"ticket:read"], resource);',
    ),
    "nothing": task_type("nothing", '@id("none") forbid (principal, action, resource);'),
}


def gone(_process):
    raise AttestationFailed("the process has gone")
