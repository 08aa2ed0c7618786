"""The classes of OCSF's schema that are used, in the one version to which all of it is held, and a row of the table.

Numbers and names are the schema's (schema.ocsf.io); tests/unit/ocsf holds them to it. No class is used that this
version or the next one deprecates.
"""

from dataclasses import dataclass
from typing import Final

VERSION: Final = "1.8.0"

INFORMATIONAL, LOW, MEDIUM, HIGH, CRITICAL = range(1, 6)
"""`severity_id`."""
SUCCESS, FAILURE = 1, 2
"""`status_id` of each class but findings."""
OTHER: Final = 99
"""The number of an activity, a status or a type that the schema has none for: its name stands beside it."""
NEW, IN_PROGRESS, RESOLVED = 1, 2, 4
"""`status_id` of findings."""
ALLOWED, DENIED = 1, 2
"""`action_id` of the profile `security_control`."""
DISPOSITIONS: Final = {ALLOWED: 1, DENIED: 2}
"""Their `disposition_id`: Allowed, Blocked."""
SPIFFE, OAUTH, OPENID = (OTHER, "SPIFFE"), (6, "OAUTH 2.0"), (4, "OpenID")
"""`auth_protocol_id`, and `auth_protocol`."""
HOST, CONTROL = "host", "security_control"
"""Profiles: of each event; and of those that say whether something was allowed."""


@dataclass(frozen=True, slots=True)
class OcsfClass:
    """A class of events. `activities`: names by their numbers, as far as they are used."""

    uid: int
    name: str
    activities: tuple[tuple[int, str], ...] = ()

    @property
    def category(self) -> int:
        return self.uid // 1000

    def activity_name(self, activity: int) -> str:
        return dict(self.activities)[activity]

    def type_uid(self, activity: int) -> int:
        return self.uid * 100 + activity


BASE: Final = OcsfClass(0, "Base Event")
LOG: Final = OcsfClass(
    1008, "Event Log Activity", ((2, "Delete"), (3, "Export"), (6, "Start"), (9, "Enable"), (10, "Disable"))
)
DETECTION: Final = OcsfClass(2004, "Detection Finding", ((1, "Create"), (2, "Update"), (3, "Close")))
ANALYSIS: Final = OcsfClass(2008, "IAM Analysis Finding", ((1, "Create"),))
AUTHENTICATION: Final = OcsfClass(
    3002,
    "Authentication",
    (
        *((1, "Logon"), (2, "Logoff"), (3, "Authentication Ticket"), (4, "Service Ticket Request")),
        (5, "Service Ticket Renew"),
    ),
)
SESSION: Final = OcsfClass(3003, "Authorize Session", ((1, "Assign Privileges"),))
ENTITY: Final = OcsfClass(
    3004,
    "Entity Management",
    (
        *((1, "Create"), (3, "Update"), (4, "Delete"), (5, "Move"), (6, "Enroll"), (7, "Unenroll"), (8, "Enable")),
        *((9, "Disable"), (10, "Activate"), (11, "Deactivate"), (12, "Suspend"), (13, "Resume")),
    ),
)
LIFECYCLE: Final = OcsfClass(6002, "Application Lifecycle", ((3, "Start"), (4, "Stop"), (8, "Update")))
API: Final = OcsfClass(6003, "API Activity", ((1, "Create"), (2, "Read"), (3, "Update"), (4, "Delete")))
ERROR: Final = OcsfClass(6008, "Application Error", ((1, "General Error"),))
CLASSES: Final = (BASE, LOG, DETECTION, ANALYSIS, AUTHENTICATION, SESSION, ENTITY, LIFECYCLE, API, ERROR)


@dataclass(frozen=True, slots=True)
class Row:
    """What one event is in OCSF.

    `activity`: a number of the class, or the name of one that it has none for. `status`: a number, or the name of one
    that the schema has none for. `action`: ALLOWED or DENIED where the event says so, else 0. `entity`: what is
    managed, in words, and `of` the fields that may name it, the first that is there. `user`: the same of whom an
    authentication or a session is. `fails`: a field and the value with which the event is a failure. `protocol`: by
    what somebody authenticates, as number and name.
    """

    kind: OcsfClass
    activity: int | str
    severity: int = INFORMATIONAL
    status: int | str = SUCCESS
    action: int = 0
    entity: str = ""
    of: tuple[str, ...] = ()
    user: tuple[str, ...] = ("spiffe_id", "person", "uid", "task", "address")
    fails: tuple[str, str] | None = None
    protocol: tuple[int, str] | None = None

    @property
    def activity_id(self) -> int:
        return self.activity if isinstance(self.activity, int) else OTHER

    @property
    def activity_name(self) -> str:
        return self.activity if isinstance(self.activity, str) else self.kind.activity_name(self.activity)
