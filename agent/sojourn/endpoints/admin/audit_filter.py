"""Which records of the journal operators ask for, and how the record of their reading says it."""

from typing import Any

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.errors import InvalidInput
from sojourn.limits import AUDIT_EVENTS_WANTED, AUDIT_WANTED_ID, AUDIT_WANTED_TEXT
from sojourn.store.audit_pages import AuditQuery
from sojourn.tasks.people_names import PeopleNames
from sojourn.tasktoken.task_id import is_task_id

_SEQ_MAX = 2**63 - 1  # that a database holds


class AuditFilters:
    """Reads filters. People are known by the names that the configuration gives their issuers."""

    def __init__(self, people: PeopleNames) -> None:
        self._people = people

    def wanted(self, asked: pb.AuditFilter) -> tuple[AuditQuery, dict[str, Any]]:
        """What is searched for, and that as the record of the read says it. Raise InvalidInput, NotFound."""
        _check(asked)
        people = self._called(asked.person)
        by_id = is_task_id(asked.task_id)
        query = AuditQuery(
            events=tuple(dict.fromkeys(asked.events)),
            containing="" if by_id else asked.task_id,
            type=asked.type,
            since_ms=asked.since_ms,
            until_ms=asked.until_ms,
            task=asked.task_id if by_id else "",
            workload=asked.workload,
            by=asked.by,
            people=people,
            denied=asked.denied,
        )
        said = {
            "events": list(query.events),
            "task": asked.task_id,
            "type": asked.type,
            "workload": asked.workload,
            "by": asked.by,
            "person": people[-1] if people else "",
            "denied": asked.denied,
            "since_ms": asked.since_ms,
            "until_ms": asked.until_ms,
            "after_seq": asked.after_seq,
        }
        return query, {name: value for name, value in said.items() if value}

    def _called(self, person: str) -> tuple[str, ...]:
        """What records may call a person: the pseudonym, and the name that the issuer's table has in its place."""
        if not person:
            return ()
        pseudonym = self._people.pseudonym_of(person)
        if pseudonym == person:
            return (pseudonym,)
        named = self._people.named(person)
        plain = self._people.plain_name(named.url, named.subject)
        return (pseudonym, plain) if plain else (pseudonym,)


def _check(asked: pb.AuditFilter) -> None:
    if len(asked.events) > AUDIT_EVENTS_WANTED:
        raise InvalidInput(f"more than {AUDIT_EVENTS_WANTED} events")
    if any(len(text) > AUDIT_WANTED_TEXT for text in (*asked.events, asked.task_id, asked.type)):
        raise InvalidInput(f"an event, a task or a type is longer than {AUDIT_WANTED_TEXT} characters")
    if any(len(text) > AUDIT_WANTED_ID for text in (asked.workload, asked.by, asked.person)):
        raise InvalidInput(f"a workload, a person or who asked is longer than {AUDIT_WANTED_ID} characters")
    if asked.since_ms < 0 or asked.until_ms < 0 or asked.after_seq > _SEQ_MAX:
        raise InvalidInput("since_ms, until_ms or after_seq is out of range")
