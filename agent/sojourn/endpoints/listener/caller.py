"""Who is at the other end of a connection."""

from collections.abc import Mapping
from typing import Protocol


class Visitor(Protocol):
    """A process of this machine, or a workload on another."""

    @property
    def who(self) -> int | str:
        """Whose limits count: a uid, or a SPIFFE ID."""

    @property
    def details(self) -> Mapping[str, int | str]:
        """What else is to be said of it, for log and audit."""
