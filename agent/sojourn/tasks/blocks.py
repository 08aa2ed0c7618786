"""Task types and workloads that are switched off: no task of theirs may begin until an operator says otherwise."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sojourn.errors import PolicyDenied
from sojourn.spiffe.ids import SpiffeId

TYPE: Final = "type"
SPIFFE_ID: Final = "spiffe_id"


@dataclass(frozen=True, slots=True)
class Block:
    """One switch that is off: a task type's name, or a SPIFFE ID. `since`: seconds since the epoch."""

    kind: str  # type | spiffe_id
    name: str
    reason: str
    since: int

    def stops(self, type_name: str, spiffe_id: SpiffeId) -> bool:
        """Whether tasks of this type and workload are what is off."""
        return self.name == (type_name if self.kind == TYPE else str(spiffe_id))


class Blocks:
    """All that are off. They outlive the agent: whoever changes them keeps them on disk first."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[str, str], Block] = {}

    def replace(self, blocks: Iterable[Block]) -> None:
        self._blocks = {(block.kind, block.name): block for block in blocks}

    def all(self) -> list[Block]:
        return sorted(self._blocks.values(), key=lambda block: (block.kind, block.name))

    def check(self, type_name: str, spiffe_id: SpiffeId) -> None:
        """Raise PolicyDenied if the type or the workload is off."""
        for key, what in (((TYPE, type_name), "task type"), ((SPIFFE_ID, str(spiffe_id)), "workload")):
            block = self._blocks.get(key)
            if block is not None:
                raise PolicyDenied(f"{what} {block.name!r} was switched off by an operator: {block.reason}")
