"""What an attestor is, for those that come with Sojourn and for anyone's own.

A plugin is a class, registered under the entry-point group `sojourn.attestors`. The entry point's name is the name of
the attestor and the type of every selector that it gives. It is made once, with its table of the configuration, which
it reads with `read_settings`, and asked about processes from then on. Whatever it raises, or if it takes too long,
counts as "could not tell".
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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
    def who(self) -> int:
        """Whose limits count: `uid`, or the user who may be many uids and that one too (subuid(5))."""

    @property
    def gid(self) -> int: ...

    @property
    def groups(self) -> frozenset[int]: ...

    @property
    def pidfd(self) -> int:
        """The kernel's own handle on the process. Not yours: good while you are asked, and to be closed by nobody."""

    @property
    def cgroup(self) -> str:
        """/proc/PID/cgroup as it was read first, for `parse_cgroups`. A process that moves meanwhile is refused."""


@dataclass(frozen=True, slots=True)
class PinnedSubject:
    """A Subject as a value. Whoever has the pidfd open makes it."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int]
    pidfd: int
    cgroup: str
    owner: int | None = None  # who may become `uid`, if that is another

    @property
    def who(self) -> int:
        return self.uid if self.owner is None else self.owner


@dataclass(frozen=True, slots=True)
class Answer:
    """What an attestor found. `withheld` names kinds of selectors that it could not prove, each with the reason.

    `age`: seconds since the oldest part of it was asked for; 0 if all of it was asked for now. `untold`: kinds of
    selectors about which nothing could be said this time, each with the reason, as if an attestor of these alone had
    failed. Not what is withheld: that is not so, and asking again does not change it.
    """

    values: frozenset[str]
    withheld: Mapping[str, str] = field(default_factory=dict)
    age: float = 0.0
    untold: Mapping[str, str] = field(default_factory=dict)


class Attestor(Protocol):
    """One source of selectors."""

    async def attest(self, subject: Subject) -> Answer:
        """Say what is provably so of `subject`. Raise if that cannot be told: an empty answer means "nothing is so"."""


@runtime_checkable
class Closing(Protocol):
    """What an attestor has too if it holds connections or the like: it is called once, when the agent ends."""

    async def close(self) -> None: ...


@runtime_checkable
class Checking(Protocol):
    """What an attestor has too if it depends on something that may not be there: it is looked at when the agent starts.

    Nothing hangs on the result but a word to the operator. (Of those that come with Sojourn: others are made as the
    agent starts, and may raise then.)
    """

    async def check(self) -> None:
        """Raise AttestationFailed, with what is amiss, if nothing could be told now."""


class AttestorPlugin(Protocol):
    """How an attestor is made. `settings` is its own table of the configuration; blocking work goes to `pool`."""

    def __call__(self, settings: Mapping[str, Any], pool: Executor) -> Attestor: ...


@dataclass(frozen=True, slots=True)
class Asked:
    """How one attestor answered: in how many seconds, with how many selectors, and of which age (seconds).

    An attestor that could not tell has what it said before, if that holds still.
    """

    seconds: float
    selectors: int = 0
    age: float = 0.0


@dataclass(frozen=True, slots=True)
class Attested:
    """All that is proved of a process at one moment (seconds on the boot clock). `cgroup`: where it was then.

    `carried`: those of `failures` that told before, when the process was already what and where it is (seconds on the
    boot clock): what they said then is among `selectors` and `withheld`.
    """

    selectors: frozenset[Selector]
    withheld: Mapping[str, str]  # `unix:path` -> why it could not be proved
    failures: Mapping[str, str]  # attestor, or `attestor:kind` of some selectors of it -> why it could not tell
    at: float
    cgroup: str = ""
    asked: Mapping[str, Asked] = field(default_factory=dict)  # attestor -> how it answered, also if it could not tell
    carried: Mapping[str, float] = field(default_factory=dict)

    @property
    def untold(self) -> frozenset[str]:
        """The attestors, which are types of selectors too, and the kinds of selectors, of which nothing is known."""
        return frozenset(self.failures).difference(self.carried)
