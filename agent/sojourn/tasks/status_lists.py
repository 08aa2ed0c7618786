"""Token Status List (draft-ietf-oauth-status-list): what has become of tasks, for whoever cannot follow the feed.

One index stands for one version of one task, so that a list says of a token what the feed would say. Lists have a
fixed size, and an index that nobody has reads as good: a copy that is some seconds old must not refuse what was issued
since. An index is never given twice.
"""

import base64
import zlib
from array import array
from dataclasses import dataclass, field
from typing import Any, Final

from sojourn.errors import NotFound
from sojourn.limits import (
    STATUS_LIST_AGE_SECONDS,
    STATUS_LIST_ENTRIES,
    STATUS_LIST_REMADE_SECONDS,
    STATUS_LIST_TTL_SECONDS,
    TOKEN_SKEW_SECONDS,
    TOKEN_TTL_MAX_SECONDS,
)
from sojourn.runtime.clock import Clock
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasks.task import NOT_LISTED, Task
from sojourn.tasks.task import SUSPENDED as TASK_SUSPENDED
from sojourn.tasktoken.grants import Authority

TYP: Final = "statuslist+jwt"
BITS: Final = 2
VALID, INVALID, SUSPENDED = 0, 1, 2
_PER_BYTE: Final = 8 // BITS
_BYTES: Final = STATUS_LIST_ENTRIES // _PER_BYTE
_ALL_INVALID: Final = bytes([sum(INVALID << BITS * place for place in range(_PER_BYTE))]) * _BYTES
_OVER_SECONDS: Final = TOKEN_TTL_MAX_SECONDS + TOKEN_SKEW_SECONDS  # after its last token was issued


@dataclass(slots=True)
class _List:
    """One list. `versions`: of the tasks to which an index was given, by index. `earlier`: the place in an earlier list
    of what an index stands for, if it has one there.
    """

    bits: bytearray = field(default_factory=lambda: bytearray(_BYTES))
    versions: "array[int]" = field(default_factory=lambda: array("Q"))
    earlier: dict[int, int] = field(default_factory=dict)
    over_at: float = float("inf")  # boot clock: all its tokens have ended
    changed: bool = False
    signed: str = ""
    signed_at: float = 0.0  # boot clock

    def put(self, index: int, status: int) -> None:
        place, shift = index // _PER_BYTE, BITS * (index % _PER_BYTE)
        byte = self.bits[place] & ~(3 << shift) | (status << shift)
        if byte != self.bits[place]:
            self.bits[place] = byte
            self.changed = True


class StatusLists:
    """The lists of this run, at `{issuer}/status/{epoch}/{number}`."""

    def __init__(self, keys: TokenKeys, issuer: str, epoch: int, clock: Clock) -> None:
        self.entries = STATUS_LIST_ENTRIES  # of one list; then there is another one
        self._keys = keys
        self._issuer = issuer
        self._epoch = epoch
        self._clock = clock
        self._lists: dict[int, _List] = {}  # the last one, and those whose tokens are not all over
        self._count = 0

    def claim(self, task: Task) -> dict[str, Any]:
        """The `status` claim of a token of the task as it is now."""
        number, index = divmod(task.listed, STATUS_LIST_ENTRIES)
        if self._version_at(task.listed) != task.version:
            self.note(task)
        if task.listed == NOT_LISTED or number != self._count - 1:
            now = self._lists.get(self._count - 1)
            if now is None or len(now.versions) >= self.entries:
                now = self._open(now)
            number, index = self._count - 1, len(now.versions)
            now.versions.append(task.version)
            if task.listed != NOT_LISTED:
                now.earlier[index] = task.listed
            task.list_at(number * STATUS_LIST_ENTRIES + index)
        return {"status_list": {"idx": index, "uri": self._uri(self._epoch, number)}}

    def note(self, task: Task, _before: Authority | None = None) -> None:
        """A task has changed: say what that makes of its tokens. All places that it has are of one version."""
        if task.listed == NOT_LISTED:
            return
        status, place = _status(task, self._version_at(task.listed)), task.listed
        while place != NOT_LISTED:
            number, index = divmod(place, STATUS_LIST_ENTRIES)
            found = self._lists.get(number)
            if found is None:  # its tokens are over, and so are those of the lists before it
                break
            found.put(index, status)
            place = found.earlier.get(index, NOT_LISTED)
        if status == INVALID:  # that is for good
            task.list_at(NOT_LISTED)

    def _version_at(self, place: int) -> int | None:
        """The version of a task that has this place; None: nobody has, or its list is over."""
        number, index = divmod(place, STATUS_LIST_ENTRIES)
        found = self._lists.get(number)
        return None if found is None else found.versions[index]

    def token(self, epoch: int, number: int) -> str:
        """A list as a signed token, at most STATUS_LIST_TTL_SECONDS old. Raise NotFound if there never was one.

        All tokens of an earlier run of the agent are dead, and its lists say that, whatever they were.
        """
        if not 0 < epoch <= self._epoch or number < 0 or (epoch == self._epoch and number >= self._count):
            raise NotFound("there is no such status list")
        self._forget()
        held = self._lists.get(number) if epoch == self._epoch else None
        if held is None:
            return self._sign(epoch, number, _ALL_INVALID)
        age = self._clock.boot() - held.signed_at
        if not held.signed or age >= (STATUS_LIST_REMADE_SECONDS if held.changed else STATUS_LIST_TTL_SECONDS):
            held.signed, held.signed_at = self._sign(epoch, number, held.bits), self._clock.boot()
            held.changed = False
        return held.signed

    @property
    def uris(self) -> list[str]:
        """Where the lists are that may say something of a token of this run that has not ended."""
        self._forget()
        return [self._uri(self._epoch, number) for number in sorted(self._lists)]

    def __len__(self) -> int:
        """How many lists are held in memory."""
        return len(self._lists)

    def _open(self, before: _List | None) -> _List:
        if before is not None:
            before.over_at = self._clock.boot() + _OVER_SECONDS
        self._forget()
        self._count += 1
        made = self._lists[self._count - 1] = _List()
        return made

    def _forget(self) -> None:
        boot = self._clock.boot()
        for number in [number for number, each in self._lists.items() if each.over_at <= boot]:
            del self._lists[number]

    def _uri(self, epoch: int, number: int) -> str:
        return f"{self._issuer}/status/{epoch}/{number}"

    def _sign(self, epoch: int, number: int, bits: bytes | bytearray) -> str:
        seconds = int(self._clock.now().timestamp())
        packed = zlib.compress(bits, 1)  # 16 KiB: a fraction of a millisecond
        claims = {
            "sub": self._uri(epoch, number),
            "iat": seconds,
            "exp": seconds + STATUS_LIST_AGE_SECONDS,
            "ttl": STATUS_LIST_TTL_SECONDS,
            "status_list": {"bits": BITS, "lst": base64.urlsafe_b64encode(packed).rstrip(b"=").decode()},
        }
        return self._keys.active.sign(claims, typ=TYP)


def _status(task: Task, version: int | None) -> int:
    if not task.live:
        return INVALID
    if task.state == TASK_SUSPENDED:
        return SUSPENDED
    return VALID if version == task.version else INVALID
