"""The intermediates: the one that signs leaves, those before it, and the next one, which is asked of the root.

The next one is asked for at half of the life of the one that signs, behind all else. Until it is there the one that
signs does so, up to its end.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Protocol, Self

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.authority.asking import Asking, Sleep
from sojourn.authority.root_signer import IntermediateRequest, RootSigner, SignedIntermediate
from sojourn.authority.x509_profile import Signer, signer_id
from sojourn.errors import SojournError, Unavailable
from sojourn.limits import ROOT_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.runtime.hooks import Hooks
from sojourn.spiffe.ids import TrustDomain

log = structlog.get_logger()
LAST_SHARE: Final = (
    1 / 10
)  # of its life: with so much left the one that signs is followed whatever is known of the next


@dataclass(frozen=True, slots=True)
class Issuer:
    """An intermediate and its key. `chain`: the intermediate first, then what is above it, without the root.

    It signs from `begins` to `ends`, the time in which all of its chain is valid.
    """

    signer: Signer
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    begins: datetime
    ends: datetime

    @classmethod
    def of(cls, key: ec.EllipticCurvePrivateKey, chain: tuple[x509.Certificate, ...]) -> Self:
        begins = max(each.not_valid_before_utc for each in chain)
        return cls(Signer(chain[0], key), key, chain, begins, min(each.not_valid_after_utc for each in chain))

    @property
    def root_id(self) -> str:
        """The authority ID of the root."""
        return signer_id(self.chain[-1])

    @property
    def half_life(self) -> datetime:
        return self.begins + (self.ends - self.begins) / 2

    def is_valid(self, now: datetime) -> bool:
        return self.begins <= now < self.ends


class Trust(Protocol):
    """Which roots are in the bundle."""

    def known_in(self, root_id: str) -> timedelta:
        """For how long a root is to be published yet before anything under it signs."""

    def is_lost(self, root_id: str) -> bool:
        """Whether nobody else takes what is below a root any more."""

    def need(self, root_id: str, until: datetime) -> None:
        """Something is about to sign under a root, which ends at `until`. Raise StoreFailed."""


class Keeping(Protocol):
    """Where intermediates are kept over restarts."""

    def save(self, issuers: Iterable[Issuer]) -> None:
        """In the order in which they were made. Raise StoreFailed."""


class Intermediates:
    """Those of one authority."""

    def __init__(
        self,
        root: RootSigner,
        trust_domain: TrustDomain,
        curve: ec.EllipticCurve,
        ttl: timedelta,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`ttl`: the life of those that are asked for. `sleep` is what pauses between tries are made of."""
        self.current: Issuer | None = None
        self.following: Issuer | None = None  # one that is signed, and whose root is to be known before it signs
        self.on_waited: Hooks[[]] = Hooks()  # another one signs, which was waited for
        self.on_use: Hooks[[]] = Hooks()  # another one signs
        self.fault = ""  # why the last try to have another one failed, while none has succeeded since
        self._root = root
        self._trust_domain = trust_domain
        self._curve = curve
        self._ttl = ttl
        self._clock = clock
        self._asking: Asking[SignedIntermediate] = Asking(self._failed, sleep)
        self._trust: Trust | None = None
        self._keeping: Keeping | None = None
        self._alive: dict[str, Issuer] = {}  # by authority ID: those that have signed leaves which may still be good

    @property
    def alive(self) -> tuple[Issuer, ...]:
        """Those that have signed leaves which may still be good."""
        return tuple(self._alive.values())

    @property
    def signers(self) -> dict[str, Signer]:
        """The same by authority ID. Those before are kept while they live: they sign the lists of their own leaves."""
        return {name: each.signer for name, each in self._alive.items()}

    @property
    def under_roots(self) -> set[str]:
        """The authority IDs of the roots of what signs, and of what follows."""
        return {each.root_id for each in (self.current, self.following) if each is not None}

    @property
    def next_change(self) -> datetime | None:
        """When the next one is due, or signs; None: it is asked for."""
        now = self._clock.now()
        if self.following is not None:
            return now + min(self._known_in(self.following), self._ttl)
        due = None if self.current is None else self.current.half_life
        return due if due is not None and due > now else None

    def keep(self, trust: Trust | None, keeping: Keeping | None) -> None:
        """Have the roots of what signs published before that, and what signs kept; None: not any more."""
        self._trust, self._keeping = trust, keeping

    def take_over(self, kept: Iterable[Issuer]) -> None:
        """Those of an earlier run, in the order in which they were made: the last one that is valid signs."""
        now = self._clock.now()
        self._alive = {each.signer.id: each for each in kept if each.ends > now}
        self.current = next((each for each in reversed(self._alive.values()) if each.is_valid(now)), None)

    def look(self) -> None:
        """Have another one if it is due: at once, or as soon as the root has signed it. Raise what a root at once does,
        such as CannotStart.
        """
        now, current = self._clock.now(), self.current
        if self.following is not None:
            if self._root.stands(self.following.chain) and self.following.is_valid(now):
                self._accept(self.following)
                return
            self.following = None  # what signs has changed once more, or the clock was set
        if current is None or now >= current.half_life or now < current.begins or not self._root.stands(current.chain):
            self.renew()

    def renew(self) -> None:
        """Have another one, whatever is left of this one: at once, or as soon as the root has signed it."""
        if not self._asking.under_way and (asked := self.renew_at_once()) is not None:
            self._asking.begin(partial(self._root.sign, asked), partial(self._take, asked))

    def renew_at_once(self) -> IntermediateRequest | None:
        """Have another one from a root that keeps nobody waiting. Return what any other root is to be asked for."""
        asked = self._request()
        signed = self._root.at_once(asked)
        if signed is None:
            return asked
        self._accept(Issuer.of(asked.key, signed.chain))
        return None

    def use_at_once(self, root: RootSigner) -> None:
        """Have one sign that another root signs at once."""
        asked = self._request()
        signed = root.at_once(asked)
        if signed is not None:
            self.use(Issuer.of(asked.key, signed.chain))

    async def use_waited(self, root: RootSigner) -> None:
        """The same of a root that has to be waited for. Raise Unavailable if it does not sign in time."""
        asked = self._request()
        self.use(Issuer.of(asked.key, (await _signed_in_time(root, asked)).chain))

    async def under(self, root_id: str) -> Issuer:
        """One that a certain root has signed, not in use yet. Raise Unavailable if it does not sign in time."""
        asked = self._request(root_id)
        signed = self._root.at_once(asked) or await _signed_in_time(self._root, asked)
        return Issuer.of(asked.key, signed.chain)

    def use(self, issuer: Issuer) -> None:
        """Let one sign from now on."""
        now = self._clock.now()
        alive = {name: each for name, each in self._alive.items() if each.ends > now}
        alive[issuer.signer.id] = issuer
        if self._trust is not None:
            self._trust.need(issuer.root_id, issuer.ends)
        if self._keeping is not None:
            self._keeping.save(alive.values())
        self._alive, self.current, self.following = alive, issuer, None
        self.on_use.tell()

    async def wait(self, seconds: float) -> None:
        """Wait for what was asked for, but no longer than this."""
        await self._asking.wait(seconds)

    def hurry(self) -> None:
        """There is reason to think that the root answers now: ask it at once for what it was asked for."""
        self._asking.hurry()

    async def close(self) -> None:
        await self._asking.close()

    def _request(self, root_id: str = "") -> IntermediateRequest:
        return IntermediateRequest(self._trust_domain, ec.generate_private_key(self._curve), self._ttl, root_id)

    def _take(self, asked: IntermediateRequest, signed: SignedIntermediate) -> None:
        if not self._root.stands(signed.chain):
            raise Unavailable("what signs has changed while it signed: it is asked again")
        self._accept(Issuer.of(asked.key, signed.chain))
        self.fault = ""
        self.on_waited.tell()

    def _accept(self, issuer: Issuer) -> None:
        """Let one sign, or have it follow once its root is known; not so long that nothing signs meanwhile."""
        current, until = self.current, self._clock.now() + self._ttl * LAST_SHARE
        if self._known_in(issuer) and current is not None and current.is_valid(until) and not self._is_lost(current):
            self.following = issuer
        else:
            self.use(issuer)

    def _known_in(self, issuer: Issuer) -> timedelta:
        return timedelta(0) if self._trust is None else self._trust.known_in(issuer.root_id)

    def _is_lost(self, issuer: Issuer) -> bool:
        return self._trust is not None and self._trust.is_lost(issuer.root_id)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            said, detail = f"no answer within {ROOT_SECONDS:g} s", ""
        elif isinstance(error, SojournError):
            said, detail = error.public, error.detail
        else:
            log.error("intermediate_not_signed", exc_info=error)
            said, detail = "it failed by a fault of the agent's, or of a plugin's", ""
        if said != self.fault:
            log.error("intermediate_not_signed", reason=said, detail=detail)
        self.fault = said


async def _signed_in_time(root: RootSigner, asked: IntermediateRequest) -> SignedIntermediate:
    try:
        async with asyncio.timeout(ROOT_SECONDS):
            return await root.sign(asked)
    except TimeoutError:
        raise Unavailable(f"the root has signed nothing within {ROOT_SECONDS:g} s: nothing was changed") from None
