"""What an attestor is, for those that come with Sojourn and for anyone's own.

A plugin is a class, registered under the entry-point group `sojourn.attestors`. The entry point's name is the name of
the attestor and the type of every selector that it gives. It is made once, with its table of the configuration, and
asked about processes from then on. Whatever it raises, or if it takes too long, counts as "could not tell".
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol

from sojourn.attestation.selectors import Selector


class Subject(Protocol):
    """The process in question, as an attestor sees it.

    `uid`, `gid` and `groups` are the kernel's record of the connect. The pid stays the process's own as long as
    attestation lasts: that is checked afterwards, and an answer about a process that has gone is thrown away.
    """

    @property
    def pid(self) -> int: ...

    @property
    def uid(self) -> int: ...

    @property
    def gid(self) -> int: ...

    @property
    def groups(self) -> frozenset[int]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attestor found. `withheld` names kinds of selectors that it could not prove, each with the reason."""

    values: frozenset[str]
    withheld: Mapping[str, str] = field(default_factory=dict)


class Attestor(Protocol):
    """One source of selectors."""

    async def attest(self, subject: Subject) -> Answer:
        """Say what is provably so of `subject`. Raise if that cannot be told: an empty answer means "nothing is so"."""


class AttestorPlugin(Protocol):
    """How an attestor is made. `settings` is its own table of the configuration; blocking work goes to `pool`."""

    def __call__(self, settings: Mapping[str, Any], pool: Executor) -> Attestor: ...


@dataclass(frozen=True, slots=True)
class Attested:
    """All that is proved of a process at one moment (seconds on the boot clock). `cgroup`: where it was then."""

    selectors: frozenset[Selector]
    withheld: Mapping[str, str]  # `unix:path` -> why it could not be proved
    failures: Mapping[str, str]  # attestor -> why it could not tell
    at: float
    cgroup: str = ""
