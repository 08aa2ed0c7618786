"""Runs the attestors: side by side, each with a deadline, around two checks that the process stayed what it was."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint
from typing import Any

import structlog

from sojourn.attestation.attestor import Answer, Asked, Attested, Attestor, Closing, PinnedSubject
from sojourn.attestation.peer import Peer
from sojourn.attestation.selectors import Selector
from sojourn.clock import Clock
from sojourn.errors import AttestationFailed, InvalidConfig, InvalidSelector, SojournError
from sojourn.limits import (
    ATTESTATION_FRESH_SECONDS,
    ATTESTATIONS_PER_UID,
    ATTESTOR_DEADLINE_SECONDS,
    SELECTORS_PER_CALLER,
)
from sojourn.plugins import make_plugins

log = structlog.get_logger()


class _Turns:
    """So many at once for each uid: one user's slow programs keep nobody else waiting."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._of_uid: dict[int, tuple[asyncio.Semaphore, int]] = {}  # and how many have it or wait for it

    @asynccontextmanager
    async def of(self, uid: int) -> AsyncIterator[None]:
        turn, users = self._of_uid.get(uid, (asyncio.Semaphore(self._at_once), 0))
        self._of_uid[uid] = (turn, users + 1)
        try:
            async with turn:
                yield
        finally:
            turn, users = self._of_uid[uid]
            if users > 1:
                self._of_uid[uid] = (turn, users - 1)
            else:
                del self._of_uid[uid]


class Attestation:
    """Turns a Peer into what is proved of it."""

    def __init__(self, attestors: Mapping[str, Attestor], clock: Clock) -> None:
        self._attestors = dict(attestors)
        self._clock = clock
        self._turns = _Turns(ATTESTATIONS_PER_UID)
        self._running: dict[Peer, asyncio.Future[Attested]] = {}

    async def attest(self, peer: Peer) -> Attested:
        """Return what is proved of `peer` now. Raise AttestationFailed if it has gone, changed, or nothing can tell.

        What was proved within ATTESTATION_FRESH_SECONDS is used again if the process still runs the same program in the
        same cgroup.
        """
        peer.check_unchanged()
        kept = peer.attested
        fresh = self._clock.boot() - ATTESTATION_FRESH_SECONDS
        if kept is not None and not kept.failures and kept.at > fresh and kept.cgroup == peer.process.cgroup():
            return kept
        running = self._running.get(peer)
        if running is None:
            running = self._running[peer] = asyncio.ensure_future(self._attest(peer))
            running.add_done_callback(lambda _: self._running.pop(peer, None))
        return await asyncio.shield(running)

    async def _attest(self, peer: Peer) -> Attested:
        peer.check_unchanged()
        cgroup = peer.process.cgroup()
        subject = PinnedSubject(peer.process.pid, peer.uid, peer.gid, peer.groups, peer.process.pidfd, cgroup)
        async with self._turns.of(peer.uid):
            answers = await asyncio.gather(*(self._ask(name, subject) for name in self._attestors))
        if peer.process.cgroup() != cgroup:
            raise AttestationFailed("the process moved to another cgroup while it was attested")
        peer.check_unchanged()
        selectors: set[Selector] = set()
        withheld: dict[str, str] = {}
        failures: dict[str, str] = {}
        asked: dict[str, Asked] = {}
        for name, (answer, seconds) in zip(self._attestors, answers, strict=True):
            if isinstance(answer, str):
                failures[name] = answer
                asked[name] = Asked(seconds)
                continue
            asked[name] = Asked(seconds, len(answer.values), answer.age)
            selectors.update(Selector.from_parts(name, value) for value in answer.values)
            withheld.update({f"{name}:{kind}": reason for kind, reason in answer.withheld.items()})
        if self._attestors and len(failures) == len(self._attestors):
            reasons = "; ".join(f"{name} {reason}" for name, reason in sorted(failures.items()))
            raise AttestationFailed(detail=reasons)
        peer.attested = Attested(frozenset(selectors), withheld, failures, self._clock.boot(), cgroup, asked)
        return peer.attested

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
        return answer, self._clock.boot() - begun

    async def _answer(self, name: str, subject: PinnedSubject) -> Answer | str:
        try:
            async with asyncio.timeout(ATTESTOR_DEADLINE_SECONDS):
                answer = await self._attestors[name].attest(subject)
            if len(answer.values) > SELECTORS_PER_CALLER:
                return f"gave more than {SELECTORS_PER_CALLER} selectors"
            for value in answer.values:
                Selector.from_parts(name, value)
        except TimeoutError:
            reason = f"did not answer within {ATTESTOR_DEADLINE_SECONDS:g} s"
        except InvalidSelector as error:
            reason = f"gave a malformed selector: {error.public}"
        except SojournError as error:
            reason = error.public
        except Exception as error:
            log.exception("attestor_raised", attestor=name, pid=subject.pid)
            reason = f"failed: {type(error).__name__}"
        else:
            return answer
        log.warning("attestor_failed", attestor=name, pid=subject.pid, reason=reason)
        return reason


def load_attestors(tables: Mapping[str, Mapping[str, Any]], pool: Executor) -> dict[str, Attestor]:
    """Make every attestor that `tables` names. Raise InvalidConfig with all faults of all tables."""

    def make(name: str, settings: Mapping[str, Any], found: Mapping[str, EntryPoint]) -> Attestor:
        if name not in found:
            raise InvalidConfig([f": no such attestor is installed; there are: {', '.join(sorted(found))}"])
        made: Attestor = found[name].load()(settings, pool)
        return made

    return make_plugins("attestors", tables, make)
