"""One fact: as a source says it, as it is kept, and as it stands in the database."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import urlsplit

from sojourn.errors import InvalidInput, SojournError
from sojourn.jose.canonical_json import seconds
from sojourn.limits import (
    FACT_MAX_AGE_SECONDS,
    FACT_SOURCE_MAX_BYTES,
    FACT_VALUE_MAX_BYTES,
    JWT_LEEWAY_SECONDS,
    LONG_MAX,
)
from sojourn.people.person import is_pseudonym
from sojourn.policy.cedar_schema import Param
from sojourn.policy.task_type_tables import OPERATOR
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.task_id import is_task_id

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
Key = tuple[str, str, str]  # name, subject, source


@dataclass(frozen=True, slots=True)
class Publication:
    """What a source says."""

    name: str  # as in a type's [facts]
    subject: (
        str  # "": everywhere | a SPIFFE ID: of that workload | a task's ID: of that task | a pseudonym: of that person
    )
    value: Param
    source: str  # "operator" | a workload's SPIFFE ID | the https issuer of a signed event
    valid_seconds: float | None  # None: until something else is said; a type's max_age counts all the same
    happened_at: datetime  # wall time


@dataclass(frozen=True, slots=True)
class Said:
    """When a source has said something: `dated` by its own clock, and `happened_at`, which is no later than it came.

    Nothing happens in the future, but on clocks that are ahead: who says so would have the last word until then.
    """

    happened_at: datetime  # wall time
    dated: datetime

    @classmethod
    def of(cls, dated: datetime, now: datetime, last: "Said | None") -> Self:
        """What is said now, after the source has said something `last`."""
        if dated <= now:
            return cls(dated, dated)
        came = now.replace(microsecond=0)  # signed events are dated to the second: one of this second is no older
        came = came if last is None else max(came, last.happened_at)
        return cls(came, came if dated > now + timedelta(seconds=JWT_LEEWAY_SECONDS) else dated)

    def is_before(self, last: "Said | None") -> bool:
        """Whether it is older than what was said last. The source's clock says so where both were ahead as they came;
        otherwise they are in the order in which they came.
        """
        if last is None:
            return False
        if self.dated > self.happened_at and last.dated > last.happened_at:
            return self.dated < last.dated
        return self.happened_at < last.happened_at


@dataclass(frozen=True, slots=True)
class StoredFact:
    """A fact as the database gives it back. Nothing is checked: the file may be damaged."""

    key: Key
    same_boot: bool
    unverified_document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fact:
    """What a source has said. `since` and `until` are seconds on the boot clock."""

    name: str
    subject: str
    source: str
    value: Param
    happened_at: datetime  # wall time
    since: float  # its age counts from here
    until: float | None
    dated: datetime | None = None  # by the source's clock, where that was ahead when it came

    @property
    def said(self) -> Said:
        return Said(self.happened_at, self.dated or self.happened_at)

    @property
    def key(self) -> Key:
        return (self.name, self.subject, self.source)

    def over(self, boot: float) -> bool:
        return self.until is not None and boot >= self.until

    @classmethod
    def of(cls, publication: Publication, now: datetime, boot: float, last: Said | None) -> Self:
        """A fact that is said now, after what the source said `last`. Its age counts from when it happened."""
        said = Said.of(publication.happened_at, now, last)
        since = boot - max(0.0, (now - publication.happened_at).total_seconds())
        until = None if publication.valid_seconds is None else since + publication.valid_seconds
        name, subject, source, value = publication.name, publication.subject, publication.source, publication.value
        return cls(name, subject, source, value, said.happened_at, since, until, said.dated)

    def document(self, now: datetime, boot: float) -> dict[str, Any]:
        """As JSON: the times by both clocks."""
        wall = now.timestamp() - boot
        return {
            "value": self.value,
            "happened_at": self.happened_at.timestamp(),
            "dated": self.said.dated.timestamp(),
            "since": self.since,
            "until": self.until,
            "wall_since": self.since + wall,
            "wall_until": None if self.until is None else self.until + wall,
        }

    @classmethod
    def stored(cls, stored: StoredFact, now: datetime, boot: float) -> Self:
        """Read a row. Raises whatever it meets.

        Of another boot the wall clock tells how old it is. A wall clock that is before the fact tells nothing: then the
        fact is older than any age, and over if it had a validity.
        """
        name, subject, source = stored.key
        document = stored.unverified_document
        happened_at = datetime.fromtimestamp(seconds(document["happened_at"]), UTC)
        dated = datetime.fromtimestamp(seconds(document.get("dated", document["happened_at"])), UTC)
        value = document["value"]
        since, until = seconds(document["since"]), document["until"]
        until = None if until is None else seconds(until)
        if not stored.same_boot:
            age = now.timestamp() - seconds(document["wall_since"])
            since = boot - (age if age >= 0 else FACT_MAX_AGE_SECONDS + 1)
            if until is not None:
                until = boot + seconds(document["wall_until"]) - now.timestamp() if age >= 0 else boot
        elif since > boot:
            raise InvalidInput("the fact is of the future")
        check(Publication(name, subject, value, source, None, happened_at))
        return cls(name, subject, source, value, happened_at, since, until, dated)


def check(said: Publication) -> None:
    """Raise InvalidInput with what is wrong."""
    check_name(said.name)
    if said.subject and not any(fits(said.subject) for fits in (is_task_id, is_pseudonym, _is_spiffe_id)):
        # What stands there is quoted nowhere, as it may be a person's name: whoever it is goes by `person`.
        raise InvalidInput("the subject is neither empty, nor a SPIFFE ID, nor a task's ID, nor a pseudonym")
    if not (said.source == OPERATOR or _is_issuer(said.source) or _is_spiffe_id(said.source)):
        raise InvalidInput("the source is neither operator, nor a SPIFFE ID, nor an https issuer")
    if isinstance(said.value, str):
        try:
            size = len(said.value.encode())
        except UnicodeEncodeError:
            raise InvalidInput("the value is not a text of Unicode characters") from None
        if size > FACT_VALUE_MAX_BYTES:
            raise InvalidInput(f"the value is longer than {FACT_VALUE_MAX_BYTES} bytes")
    elif not isinstance(said.value, int):
        raise InvalidInput("the value is neither a string, nor a whole number, nor true or false")
    elif abs(said.value) > LONG_MAX:
        raise InvalidInput("the value is not a whole number of at most 18 digits")
    if said.valid_seconds is not None and not 0 < said.valid_seconds <= FACT_MAX_AGE_SECONDS:
        raise InvalidInput(f"a fact is valid for more than 0 and at most {FACT_MAX_AGE_SECONDS} seconds")
    if said.happened_at.tzinfo is None:
        raise InvalidInput("the time at which it happened has no time zone")


def check_name(name: str) -> None:
    """Raise InvalidInput unless a fact may be named so."""
    if not _NAME.fullmatch(name):
        raise InvalidInput("the fact's name is not one of letters, digits and _, at most 64")


def _is_spiffe_id(text: str) -> bool:
    try:
        SpiffeId.parse(text)
    except SojournError:
        return False
    return True


def _is_issuer(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and len(text) <= FACT_SOURCE_MAX_BYTES
