"""What is reviewed for assurance, and the evidence that is shown of it.

An item is something that somebody holds or could use: a task type, a workload by its SPIFFE ID, a provider outside, or
a credential that outlives its task. Where nothing is held there is no item. Evidence is a document of plain values, so
that its canonical JSON has one digest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sojourn.identity.entries import Registration
from sojourn.jose.canonical_json import digest_of
from sojourn.oversight.review_names import CREDENTIAL, PROVIDER, TYPE, WORKLOAD
from sojourn.policy.task_types import TaskType


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to review. `name`: a type's, a SPIFFE ID or a template of one, a provider's, or a credential's ID.

    `about` is what makes it what it is, as plain values: a decision is about that, and is void once it is another.
    """

    kind: str
    name: str
    owners: tuple[str, ...]
    sponsors: tuple[str, ...]
    about: Any

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def subject(self) -> str:
        """SHA-256 of what is reviewed, as it stands; lower-case hex."""
        return digest_of(self.about)


@dataclass(frozen=True, slots=True)
class CredentialLife:
    """A credential of a provider outside that outlives its task. Times in milliseconds since the epoch."""

    id: str
    provider: str
    spiffe_id: str
    resource: str
    over_ms: int
    until_ms: int


@dataclass(frozen=True)
class Inventory:
    """All that this agent has at one moment. `entries`: those that it serves."""

    types: Mapping[str, TaskType]
    entries: Sequence[Registration]
    credentials: Sequence[CredentialLife]
    providers: frozenset[str] = field(default_factory=frozenset)  # of the configuration

    @cached_property
    def by_workload(self) -> Mapping[str, Sequence[Registration]]:
        """The entries by their SPIFFE IDs, or by templates of such."""
        found: dict[str, list[Registration]] = {}
        for each in self.entries:
            found.setdefault(str(each.spiffe_id), []).append(each)
        return found

    @cached_property
    def by_provider(self) -> Mapping[str, Sequence[TaskType]]:
        """The types that name each provider: one that none names gives nobody anything."""
        found: dict[str, list[TaskType]] = {}
        for kind in self.types.values():
            for name in sorted({each.provider for each in kind.outside.values()} & self.providers):
                found.setdefault(name, []).append(kind)
        return found

    def items(self) -> Iterator[Item]:
        """All that there is to review, in no order."""
        for kind in self.types.values():
            yield Item(TYPE, kind.name, _named([kind.owner]), _named([kind.sponsor]), kind.digest)
        for name, entries in self.by_workload.items():
            about = sorted([each.id, each.revision, each.identity_digest] for each in entries)
            yield Item(WORKLOAD, name, *_of(entries), about)
        for name, kinds in self.by_provider.items():
            yield Item(PROVIDER, name, *_of(kinds), {kind.name: kind.digest for kind in kinds})
        for each in self.credentials:
            owners = _of(self.by_workload.get(each.spiffe_id, ()))
            yield Item(CREDENTIAL, each.id, *owners, [each.id, each.provider, each.resource])


def _of(several: Iterable[Registration | TaskType]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = list(several)
    return _named(each.owner for each in found), _named(each.sponsor for each in found)


def _named(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({text for text in texts if text}))
