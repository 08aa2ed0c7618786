"""Task types, workloads and people that are switched off: no task of theirs begins until an operator says otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sojourn.errors import PolicyDenied
from sojourn.spiffe.ids import SpiffeId

TYPE: Final = "type"
SPIFFE_ID: Final = "spiffe_id"
PERSON: Final = "person"


@dataclass(frozen=True, slots=True)
class Block:
    """One switch that is off: a task type's name, a SPIFFE ID, or a person's pseudonym. `since`: seconds since the
    epoch. `source`: the issuer of the signed event that says so; '': an operator does.
    """

    kind: str  # type | spiffe_id | person
    name: str
    reason: str
    since: int
    source: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        """An operator and each issuer have a switch of their own: who is off by several stays so until all are on."""
        return self.kind, self.name, self.source

    def stops(self, type_name: str, spiffe_id: SpiffeId) -> bool:
        """Whether tasks of this type and workload are what is off; of a person it is never so."""
        return (self.kind == TYPE and self.name == type_name) or (
            self.kind == SPIFFE_ID and self.name == str(spiffe_id)
        )


class Blocks:
    """All that are off. They outlive the agent: whoever changes them keeps them on disk first."""

    def __init__(self) -> None:
        self._all: list[Block] = []
        self._blocks: dict[tuple[str, str], Block] = {}

    def replace(self, blocks: Iterable[Block]) -> None:
        self._all = sorted(blocks, key=lambda block: block.key)
        # The operator's stands first: its reason is the one that is told.
        self._blocks = {(block.kind, block.name): block for block in reversed(self._all)}

    def all(self) -> list[Block]:
        return list(self._all)

    def of_person(self, pseudonym: str) -> Block | None:
        """What stops whoever has this pseudonym."""
        return self._blocks.get((PERSON, pseudonym))

    def check(self, type_name: str, spiffe_id: SpiffeId) -> None:
        """Raise PolicyDenied if the type or the workload is off."""
        for key, what in (((TYPE, type_name), "task type"), ((SPIFFE_ID, str(spiffe_id)), "workload")):
            block = self._blocks.get(key)
            if block is not None:
                raise PolicyDenied(f"{what} {block.name!r} was switched off by an operator: {block.reason}")
