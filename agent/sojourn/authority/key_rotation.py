"""Keys that sign, over their lives: prepared, then active, then old; an old one may be tainted and then revoked.

One key is active and signs. A prepared one is published, so that verifiers know it before it signs. Old ones verify
what they signed until they end or are revoked. A key is followed by itself: the next is prepared at half of the
active one's life, or earlier if it must be published for longer, and activated at two thirds of it. If that was missed,
as by an agent that did not run, the active one signs on until the next was published for as long as it must be. One
that was made while the clock stood far ahead is followed as soon as the clock is right: in its own time, that is years.

The wall clock alone ends no key for good where keys are kept by the boot clock too (`kept_ended`): a clock that stood
weeks ahead for a second, or when the machine started, would take with the key all that it has signed.

On disk each key is PEM after a line `# ID CREATED NOT_AFTER STATUS [tainted]` (times in seconds since the epoch).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar

from sojourn.authority import key_files
from sojourn.authority.key_seal import KeySeal
from sojourn.errors import CannotStart, FailedPrecondition, InvalidInput, KeysUnavailable, SojournError, StoreFailed
from sojourn.runtime.clock import Clock

Key = TypeVar("Key")
PREPARE_AT, PUBLISHED_FOR, ACTIVATE_AT_LAST = 1 / 2, 1 / 6, 9 / 10  # shares of the active key's life
LAST_SHARE = 1 / 10  # of its life, and no more than LAST: so much a key that signs has left when the next takes over
LAST = timedelta(minutes=10)


class SlotStatus(StrEnum):
    PREPARED = "prepared"
    ACTIVE = "active"
    OLD = "old"


@dataclass(frozen=True)
class Slot(Generic[Key]):
    """One key. `id` is the authority ID: the `kid` of a JWT key, the hex subject key identifier of a root."""

    id: str
    key: Key
    pem: bytes = field(repr=False)
    created: datetime
    not_after: datetime
    status: SlotStatus = SlotStatus.PREPARED
    tainted: bool = False

    def at(self, share: float) -> datetime:
        """When this share of its life is over."""
        return self.created + (self.not_after - self.created) * share


class Slots(ABC, Generic[Key]):
    """The keys of one kind, in the order in which they were made. What is said to be done is on disk."""

    kept_ended = timedelta(0)  # for how long a run keeps an old key that had ended by the wall clock when it was loaded

    def __init__(
        self, path: Path, clock: Clock, overlap: timedelta = timedelta(0), *, seal: KeySeal | None = None
    ) -> None:
        """Load the keys, or make one if there is no file. Raise CannotStart if what lies there cannot be used.

        `overlap`: for how long a key is published before it signs, at the least. `seal`: what keys are sealed with.
        """
        self._path = path
        self._seal = seal
        self._clock = clock
        self._overlap = overlap
        self._made_at: dict[str, float] = {}  # by the boot clock, of those that this run has made
        self._ends: dict[tuple[str, datetime], float] = {}  # by the boot clock: when a key has ended by that too
        self._active: Slot[Key] | None = None
        content = key_files.read(path, seal)
        self._slots: tuple[Slot[Key], ...] = ()
        self._hold(() if content is None else self._parse(content))
        self.maintain()

    @abstractmethod
    def _make(self, now: datetime) -> Slot[Key]:
        """A new key, prepared."""

    @abstractmethod
    def _read(self, slot: Slot[None]) -> Slot[Key]:
        """Make a slot of what was read. Raise CannotStart, or ValueError if it cannot be parsed."""

    @abstractmethod
    def _ended(self) -> Slot[Key]:
        """What signs when the active key has ended. Raise CannotStart if that is not for us to decide."""

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def all(self) -> tuple[Slot[Key], ...]:
        return self._slots

    @property
    def are_there(self) -> bool:
        """Whether there is a key that signs: there is, unless it is made elsewhere and has not been yet."""
        return self._active is not None

    @property
    def active(self) -> Slot[Key]:
        """Raise KeysUnavailable if none is there."""
        if self._active is None:
            raise KeysUnavailable("there is no root yet: its token has not made it")
        return self._active

    @property
    def prepared(self) -> Slot[Key] | None:
        return next((slot for slot in self._slots if slot.status is SlotStatus.PREPARED), None)

    @property
    def old(self) -> tuple[Slot[Key], ...]:
        return tuple(slot for slot in self._slots if slot.status is SlotStatus.OLD)

    @property
    def tainted(self) -> frozenset[str]:
        return frozenset(slot.id for slot in self._slots if slot.tainted)

    @property
    def next_change(self) -> datetime:
        due = self._preparation() if self.prepared is None else self._activation(self.prepared)
        now, boot = self._clock.now(), self._clock.boot()
        kept = {slot.not_after: timedelta(seconds=max(0.0, self._end(slot) - boot)) for slot in self.old}
        return min([due, *(max(not_after, now + left) for not_after, left in kept.items())])

    # --- changing ---------------------------------------------------------------------------------------------------

    def prepare(self) -> Slot[Key]:
        """Make and publish the next key. One that was prepared and never signed gives way to it."""
        slot = self._new(self._clock.now())
        self._keep((*(each for each in self._slots if each.status is not SlotStatus.PREPARED), slot))
        return slot

    def check_prepared(self, authority_id: str) -> None:
        """Raise FailedPrecondition unless a key can be activated, and InvalidInput if it is not there."""
        slot = self.found(authority_id)
        if slot.status is not SlotStatus.PREPARED:
            raise FailedPrecondition(f"only Prepared authorities can be activated: {slot.status.upper()}")

    def activate(self, authority_id: str) -> Slot[Key]:
        """Let the prepared key sign from now on; the one that did so is old then."""
        self.check_prepared(authority_id)
        self._keep(_activated(self._slots))
        return self.found(authority_id)

    def taint(self, authority_id: str) -> Slot[Key]:
        """Mark an old key as one that is not to be trusted much longer."""
        slot = self.found(authority_id)
        if slot.status is SlotStatus.ACTIVE:
            raise FailedPrecondition("unable to taint current local authority: prepare and activate another first")
        if slot.status is not SlotStatus.OLD:
            raise FailedPrecondition(f"only Old local authorities can be tainted: {slot.status.upper()}")
        if slot.tainted:
            raise FailedPrecondition("the authority is tainted already")
        self._keep(tuple(replace(each, tainted=True) if each is slot else each for each in self._slots))
        return self.found(authority_id)

    def replace(self, authority_id: str) -> Slot[Key]:
        """Taint a key, also the one that signs: then the prepared one, or a new one, signs at once."""
        if self.found(authority_id).status is SlotStatus.ACTIVE:
            self.activate((self.prepared or self.prepare()).id)
        return self.taint(authority_id)

    def revoke(self, authority_id: str) -> Slot[Key]:
        """Forget a tainted key: nothing that it signed verifies any more."""
        slot = self.found(authority_id)
        if slot.status is SlotStatus.ACTIVE:
            raise FailedPrecondition("unable to revoke current local authority: prepare and activate another first")
        if slot.status is not SlotStatus.OLD:
            raise FailedPrecondition(f"only Old local authorities can be revoked: {slot.status.upper()}")
        if not slot.tainted:
            raise FailedPrecondition("the authority is not tainted: taint it first, so that all it signed is replaced")
        self._keep(tuple(each for each in self._slots if each is not slot))
        return slot

    def maintain(self) -> bool:
        """Prepare and activate what is due, drop old keys that have ended; say whether anything changed."""
        now = self._clock.now()
        slots = tuple(slot for slot in self._slots if slot.status is SlotStatus.ACTIVE or self._is_of_use(slot))
        active = next((slot for slot in slots if slot.status is SlotStatus.ACTIVE), None)
        prepared = next((slot for slot in slots if slot.status is SlotStatus.PREPARED), None)
        if active is None and not self._may_make():
            return False
        if active is None:
            slots = (replace(self._make(now), status=SlotStatus.ACTIVE),)
        elif active.not_after <= now:
            following = prepared or self._ended()
            old = (replace(active, status=SlotStatus.OLD),)
            slots = (
                *(slot for slot in slots if slot not in (active, prepared)),
                *(slot for slot in old if self._is_of_use(slot)),
                replace(following, status=SlotStatus.ACTIVE),
            )
        elif prepared is not None and self._activation(prepared) <= now:
            if self._is_ahead(active):  # from now on it verifies for as long as one that was made today
                life = active.not_after - active.created
                slots = tuple(replace(each, not_after=now + life) if each is active else each for each in slots)
            slots = _activated(slots)
        elif prepared is None and self._preparation() <= now and self._may_make():
            slots = (*slots, self._new(now))
        if slots == self._slots:
            return False
        self._keep(slots)
        return True

    def _may_make(self) -> bool:
        """Whether a key can be made now."""
        return True

    def _new(self, now: datetime) -> Slot[Key]:
        slot = self._make(now)
        self._made_at = {slot.id: self._clock.boot()}
        return slot

    def _preparation(self) -> datetime:
        """When the next key is due to be prepared."""
        active = self.active
        if self._is_ahead(active):
            return self._clock.now()
        return min(active.at(PREPARE_AT), active.at(PREPARE_AT + PUBLISHED_FOR) - self._overlap)

    def _activation(self, prepared: Slot[Key]) -> datetime:
        """When the prepared key is activated: in its time, after it was published for a while, but not too late."""
        active = self.active
        life = active.not_after - active.created
        published = prepared.created + life * PUBLISHED_FOR
        due = min(max(published, active.at(PREPARE_AT + PUBLISHED_FOR)), active.at(ACTIVATE_AT_LAST))
        known = prepared.created + self._overlap
        if prepared.id in self._made_at:  # the wall clock may have been set since
            shown = timedelta(seconds=self._clock.boot() - self._made_at[prepared.id])
            known = max(known, self._clock.now() + self._overlap - shown) if shown < self._overlap else known
        if self._is_ahead(active):
            return known
        return min(max(due, known), active.not_after - min(life * LAST_SHARE, LAST))

    def _is_ahead(self, slot: Slot[Key]) -> bool:
        """Whether a key was made while the clock stood ahead of now, by more than the overlap."""
        return slot.created > self._clock.now() + self._overlap

    def _is_of_use(self, slot: Slot[Key]) -> bool:
        """Whether a key that does not sign is still to be published: until its end; and if it is to sign, from its
        own time on.
        """
        if slot.status is SlotStatus.PREPARED:
            return slot.not_after > self._clock.now() and not self._is_ahead(slot)
        return slot.not_after > self._clock.now() or self._clock.boot() < self._end(slot)

    def _end(self, slot: Slot[Key]) -> float:
        """When a key has ended by the boot clock too."""
        return self._ends.get((slot.id, slot.not_after), 0.0)

    def found(self, authority_id: str) -> Slot[Key]:
        """The key with this ID. Raise InvalidInput."""
        if not authority_id:
            raise InvalidInput("no authority ID provided")
        for slot in self._slots:
            if slot.id == authority_id:
                return slot
        raise InvalidInput("unexpected authority ID")

    def _keep(self, slots: tuple[Slot[Key], ...]) -> None:
        try:
            key_files.write(self._path, b"".join(_block(slot) for slot in slots), self._seal)
        except OSError as error:
            raise StoreFailed(f"the keys cannot be written: {error.strerror}", detail=str(self._path)) from error
        self._hold(slots)

    def _hold(self, slots: tuple[Slot[Key], ...]) -> None:
        self._slots = slots
        now, boot = self._clock.now(), self._clock.boot()
        ends, self._ends = self._ends, {}
        for slot in slots if self.kept_ended else ():
            left = slot.not_after - now if slot.not_after > now else self.kept_ended
            name = slot.id, slot.not_after
            self._ends[name] = ends.get(name, boot + left.total_seconds())
        for slot in slots:
            if slot.status is SlotStatus.ACTIVE:
                self._active = slot  # each token that is signed asks for it

    def _blocks(self, content: bytes) -> list[bytes]:
        return content.removeprefix(b"# ").split(b"\n# ")

    def _parse(self, content: bytes) -> tuple[Slot[Key], ...]:
        try:
            read = [_slot(block) for block in self._blocks(content)]
            slots = tuple(self._read(slot) for slot in _one_active(read))
            if sum(slot.status is SlotStatus.ACTIVE for slot in slots) != 1:
                raise ValueError("not one active key")
        except SojournError:
            raise
        except Exception as error:
            raise CannotStart(
                f"{str(self._path)!r} cannot be parsed: restore it from a backup", detail=str(error)
            ) from error
        return slots


def _activated(slots: tuple[Slot[Key], ...]) -> tuple[Slot[Key], ...]:
    """What was prepared signs from now on, and what did so until now is old."""
    following = {SlotStatus.ACTIVE: SlotStatus.OLD, SlotStatus.PREPARED: SlotStatus.ACTIVE}
    return tuple(replace(each, status=following.get(each.status, each.status)) for each in slots)


def _one_active(slots: list[Slot[None]]) -> list[Slot[None]]:
    """The active key; the last one, if a file names several."""
    *_, last = (slot for slot in slots if slot.status is SlotStatus.ACTIVE)
    return [
        replace(each, status=SlotStatus.OLD) if each.status is SlotStatus.ACTIVE and each is not last else each
        for each in slots
    ]


def _block(slot: Slot[Key]) -> bytes:
    times = f"{int(slot.created.timestamp())} {int(slot.not_after.timestamp())}"
    return f"# {slot.id} {times} {slot.status}{' tainted' if slot.tainted else ''}\n".encode() + slot.pem


def _slot(block: bytes) -> Slot[None]:
    head, _, pem = block.partition(b"\n")
    authority_id, created, not_after, *rest = head.decode().split(" ")
    status, *marks = rest or [SlotStatus.ACTIVE]  # the first files had no status: the last key signed
    if marks not in ([], ["tainted"]) or not authority_id:
        raise ValueError("unknown mark")
    return Slot(
        authority_id,
        None,
        pem if pem.endswith(b"\n") else pem + b"\n",
        datetime.fromtimestamp(int(created), UTC),
        datetime.fromtimestamp(int(not_after), UTC),
        SlotStatus(status),
        bool(marks),
    )
