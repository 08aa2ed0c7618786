"""Runs the attestors: side by side, each with a deadline, around two checks that the process stayed what it was."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from sojourn.attestation.attestor import Answer, Asked, Attested, Attestor, Checking, Closing, PinnedSubject
from sojourn.attestation.attestor_stats import CHANGED, PARTLY, PROVED, Tally
from sojourn.attestation.cgroups import outermost
from sojourn.attestation.open_proc_files import KeptOpen
from sojourn.attestation.peer import Peer
from sojourn.attestation.plugin_attestor import HostedAttestor
from sojourn.attestation.proc_snapshot import Looks
from sojourn.attestation.recent_results import Shared
from sojourn.attestation.selectors import Selector
from sojourn.errors import AttestationFailed, InvalidSelector, SojournError
from sojourn.limits import (
    ATTESTATION_FRESH_SECONDS,
    ATTESTATIONS_PER_CGROUP,
    ATTESTATIONS_PER_UID,
    ATTESTOR_DEADLINE_SECONDS,
    ATTESTOR_REASON_MAX,
    ATTESTOR_RETRY_SECONDS,
    REFUSALS_LOGGED_PER_SECOND,
    SELECTORS_PER_CALLER,
)
from sojourn.quota.fair_semaphore import FairSemaphore
from sojourn.quota.rate import Rate
from sojourn.runtime.clock import Clock
from sojourn.runtime.each_round import EachRound
from sojourn.runtime.single_flight import SingleFlight

log = structlog.get_logger()


@dataclass(slots=True)
class _Found:
    """What the attestors said, as it is put together."""

    selectors: set[Selector] = field(default_factory=set)
    withheld: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    asked: dict[str, Asked] = field(default_factory=dict)
    carried: dict[str, float] = field(default_factory=dict)

    def take(self, name: str, answer: Answer | str, seconds: float) -> None:
        """What an attestor said, or why it could not."""
        if isinstance(answer, str):
            self.failures[name] = answer
            self.asked[name] = Asked(seconds)
            return
        self.asked[name] = Asked(seconds, len(answer.values), answer.age)
        self.selectors.update(Selector.from_parts(name, value) for value in answer.values)
        self.withheld.update({f"{name}:{kind}": _plain(reason) for kind, reason in answer.withheld.items()})
        for what, reason in answer.untold.items():  # of a part of a kind, such as `label:team`, the whole is unknown
            self.failures[f"{name}:{what.partition(':')[0]}"] = _plain(reason)

    def carry(self, before: Attested, now: float) -> None:
        """What was said before holds while it cannot be told: the process is the same, in the same place."""
        for what in tuple(self.failures):
            name = what.partition(":")[0]
            if name not in before.asked or not before.untold.isdisjoint({name, what}):
                continue
            for other in before.untold:  # what it could not tell then is as unknown now
                if other.startswith(f"{what}:"):
                    self.failures[other] = before.failures[other]
            held = {selector for selector in before.selectors if selector.within({what})}
            earlier = [at for each, at in before.carried.items() if f"{each}:".startswith(f"{what}:")]
            told = self.carried[what] = min([before.at - before.asked[name].age, *earlier])
            if what == name:
                self.asked[name] = Asked(self.asked[name].seconds, len(held), now - told)
            self.selectors |= held
            self.withheld.update(
                {kind: why for kind, why in before.withheld.items() if f"{kind}:".startswith(f"{what}:")}
            )

    def attested(self, at: float, cgroup: str) -> Attested:
        return Attested(frozenset(self.selectors), self.withheld, self.failures, at, cgroup, self.asked, self.carried)


class Attestation:
    """Turns a Peer into what is proved of it. `tally` has how each attestor fares."""

    def __init__(self, attestors: Mapping[str, Attestor], clock: Clock) -> None:
        self._attestors = dict(attestors)
        self._clock = clock
        self.tally = Tally(self._attestors, clock)
        for attestor in self._attestors.values():
            if isinstance(attestor, HostedAttestor):
                attestor.on_end(self.tally.on_end.tell)
        self._places = FairSemaphore(ATTESTATIONS_PER_UID)
        self._cgroup_places = FairSemaphore(ATTESTATIONS_PER_CGROUP)
        self._logged = Rate(REFUSALS_LOGGED_PER_SECOND, clock.boot)
        self._shared = Shared(clock)
        self._callers = KeptOpen()
        self._running = SingleFlight[Peer, Attested]()
        self.looks = EachRound(Looks)  # of all callers

    @property
    def types(self) -> frozenset[str]:
        """The types of the selectors that there can be: the names of the attestors."""
        return frozenset(self._attestors)

    async def attest(self, peer: Peer) -> Attested:
        """Return what is proved of `peer` now. Raise AttestationFailed if it has gone, changed, or nothing can tell.
        Whether it has gone or changed is looked at each time, in the very step in which this returns.

        What was proved within ATTESTATION_FRESH_SECONDS is used again if the process still runs the same program in the
        same cgroup; for ATTESTOR_RETRY_SECONDS if an attestor could not tell then, and what it said before holds. On
        another connection of the process, it is used again if it was proved within ATTESTATION_SHARED_SECONDS.
        """
        if peer.attested is None:
            peer.attested = self._shared.get(peer)
        attested = await self.examine(peer)
        if attested.failures and attested.untold >= self._attestors.keys():
            raise cannot_tell(attested)
        return attested

    async def examine(self, peer: Peer) -> Attested:
        """As `attest`, also if nothing can tell. Raise AttestationFailed if the process has gone or changed."""
        # A call that is answered in this round of the loop was read before it began, and so before any of its looks:
        # what one shows of a process is as new for the process's other calls.
        kept = self.still(peer, self.looks.get())
        if kept is not None:
            self._callers.note(peer.process)
            return kept
        attested = await self._running.run(peer, lambda: self._attest(peer))
        peer.check_unchanged()  # others had their turn since the attestation ended
        return attested

    def still(self, peer: Peer, looks: Looks) -> Attested | None:
        """As `attest`, among others of one step of the event loop; None if attestors have to be asked.

        Raise AttestationFailed if the process has gone or changed.
        """
        look = looks.of(peer)
        peer.check_same(look.ids, look.program)
        kept = self._fresh(peer)
        return kept if kept is not None and kept.cgroup == look.cgroup else None

    def _fresh(self, peer: Peer) -> Attested | None:
        """What was proved last, if that may be used again while the process stays what it is."""
        kept = peer.attested
        if kept is None or (kept.failures and kept.untold):
            return None
        fresh = ATTESTOR_RETRY_SECONDS if kept.failures else ATTESTATION_FRESH_SECONDS
        return kept if kept.at > self._clock.boot() - fresh else None

    async def _attest(self, peer: Peer) -> Attested:
        try:
            attested = await self._ask_all(peer)
        except AttestationFailed:
            self.tally.on_attested.tell(CHANGED)
            raise
        self.tally.on_attested.tell(PARTLY if attested.failures else PROVED)
        return attested

    async def _ask_all(self, peer: Peer) -> Attested:
        peer.check_unchanged()
        cgroup = peer.process.cgroup()
        process = peer.process.again()  # the caller may leave, and its handle be closed, while attestors use theirs
        try:
            subject = PinnedSubject(process.pid, peer.uid, peer.gid, peer.groups, process.pidfd, cgroup, peer.owner)
            # A container that its runtime does not tell of holds up itself, and not all others of its uid.
            async with self._cgroup_places.one((peer.who, outermost(cgroup))), self._places.one(peer.who):
                answers = await asyncio.gather(*(self._ask(name, subject) for name in self._attestors))
        finally:
            process.close()
        if peer.process.cgroup() != cgroup:
            raise AttestationFailed("the process moved to another cgroup while it was attested")
        peer.check_unchanged()
        found = _Found()
        for name, (answer, seconds) in zip(self._attestors, answers, strict=True):
            found.take(name, answer, seconds)
        if peer.attested is not None and peer.attested.cgroup == cgroup:
            found.carry(peer.attested, self._clock.boot())
        peer.attested = found.attested(self._clock.boot(), cgroup)
        self._shared.put(peer, peer.attested)
        return peer.attested

    async def check(self) -> None:
        """Look at the start whether attestors could tell, so that the operator hears of it before a process asks."""
        await asyncio.gather(*(self._check(name, each) for name, each in self._attestors.items()))

    async def _check(self, name: str, attestor: Attestor) -> None:
        if not isinstance(attestor, Checking):
            return
        try:
            async with asyncio.timeout(ATTESTOR_DEADLINE_SECONDS):
                await attestor.check()
        except Exception as error:
            reason, detail, foreseen = _why(error)
            if not foreseen:
                log.exception("attestor_raised", attestor=name)
        else:
            return
        if not self.tally.records[name].asked:  # else what it said since is newer
            self.tally.note_unfit(name, _plain(reason))
        log.warning("attestor_unfit", attestor=name, reason=_plain(reason), detail=detail)

    async def close(self) -> None:
        """Have every attestor let go of what it holds."""
        for name, attestor in self._attestors.items():
            if isinstance(attestor, Closing):
                try:
                    async with asyncio.timeout(ATTESTOR_DEADLINE_SECONDS):
                        await attestor.close()
                except Exception:
                    log.exception("attestor_not_closed", attestor=name)

    async def _ask(self, name: str, subject: PinnedSubject) -> tuple[Answer | str, float]:
        """One attestor's answer, or the reason why it has none, and how many seconds it took."""
        begun = self._clock.boot()
        answer = await self._answer(name, subject)
        seconds = self._clock.boot() - begun
        self.tally.note(name, seconds, answer if isinstance(answer, str) else "")
        return answer, seconds

    async def _answer(self, name: str, subject: PinnedSubject) -> Answer | str:
        try:
            async with asyncio.timeout(ATTESTOR_DEADLINE_SECONDS):
                answer = await self._attestors[name].attest(subject)
            if len(answer.values) + len(answer.withheld) + len(answer.untold) > SELECTORS_PER_CALLER:
                raise AttestationFailed(f"gave more than {SELECTORS_PER_CALLER} selectors")
            for value in (*answer.values, *answer.withheld, *answer.untold):
                Selector.from_parts(name, value)
                value.encode()
        except Exception as error:
            reason, detail, foreseen = _why(error)
            if not foreseen and self._logged.allow(subject.who):
                log.exception("attestor_raised", attestor=name, pid=subject.pid)
        else:
            for kind, reason in answer.untold.items():
                self._log_failure(f"{name}:{kind}", subject, reason)
            return answer
        self._log_failure(name, subject, reason, detail)
        return _plain(reason)

    def _log_failure(self, what: str, subject: PinnedSubject, reason: str, detail: str = "") -> None:
        if self._logged.allow(subject.who):
            log.warning("attestor_failed", attestor=what, pid=subject.pid, reason=_plain(reason), detail=detail)


def cannot_tell(attested: Attested) -> AttestationFailed:
    """That attestors could not tell, which they were, and why."""
    untold = attested.untold
    reasons = "; ".join(f"{name}: {why}" for name, why in sorted(attested.failures.items()) if name in untold)
    return AttestationFailed(f"an attestor could not tell ({reasons})")


def _why(error: Exception) -> tuple[str, str, bool]:
    """Why an attestor could not tell, what the log has besides, and whether it may end so."""
    match error:
        case TimeoutError():
            return f"did not answer within {ATTESTOR_DEADLINE_SECONDS:g} s", "", True
        case InvalidSelector():
            return f"gave a malformed selector: {error.public}", "", True
        case UnicodeEncodeError():
            return "gave a malformed selector: it is not Unicode", "", True
        case AttestationFailed():
            return error.reason or "could not tell", error.detail, True
        case SojournError():
            return error.public, error.detail, True
    return f"failed: {type(error).__name__}", "", False


def _plain(reason: str) -> str:
    """A reason that callers may be shown, whoever made it up."""
    return "".join(char if char.isprintable() else "?" for char in reason[:ATTESTOR_REASON_MAX])
