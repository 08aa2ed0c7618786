"""An upstream authority: what signs the agent's intermediate instead of a root of its own, and how it is.

It is asked for an intermediate at half of the life of the one that signs, and looked at beside that, so that its roots
are in the bundle before anything under them signs, and that its absence is told at once.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

import structlog
from cryptography import x509

from sojourn.authority.intermediate_lint import check_roots, check_signed
from sojourn.authority.published_roots import PublishedRoots
from sojourn.authority.root_signer import IntermediateRequest, RootSigner, SignedIntermediate
from sojourn.authority.x509_profile import key_id, signer_id
from sojourn.errors import SojournError, UpstreamNotGood, UpstreamUnavailable
from sojourn.limits import ROOT_SECONDS
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import TrustDomain

log = structlog.get_logger()
Operation = Literal["sign", "look"]
Result = Literal["ok", "failed", "refused"]


@dataclass(frozen=True)
class Standing:
    """What an upstream authority says of itself. `signs`: the certificate that it signs by, None if it does not say;
    `roots`: those above it, None if it does not say; `tainted`: the authority IDs of those among them that are not to
    be trusted any more; `revokes`: whether a root that it names no more, though it has not ended, is revoked by that.

    `caution`: why what it is to be by now cannot be used, so that this is what it was before.
    """

    signs: x509.Certificate | None
    roots: tuple[x509.Certificate, ...] | None
    caution: str = ""
    tainted: frozenset[str] = frozenset()
    revokes: bool = False


class Upstream(Protocol):
    """One kind of upstream authority. What it gives is checked here; it raises UpstreamUnavailable, or its like."""

    kind: str

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        """Sign an intermediate for the key of a request, with its extensions. `roots` are all that it may chain to."""

    async def look(self) -> Standing:
        """How it is now."""

    def describe(self) -> Mapping[str, str]:
        """Where it is, for people: no secrets."""

    async def close(self) -> None:
        """Let go of what it holds."""


@dataclass(frozen=True)
class UpstreamSetting:
    """An upstream authority as it is configured. `lead`: for how long a root is in the bundle before anything under it
    signs. `look_every`: between two looks. `longest`: the longest life of SVIDs.
    """

    upstream: Upstream
    lead: timedelta
    look_every: timedelta
    longest: timedelta


@dataclass
class UpstreamHealth:
    """How an upstream authority has answered in this run. `seconds`: how long by operation, in all."""

    clock: Clock
    last_success: datetime | None = None
    failing_since: datetime | None = None
    over: bool = False  # the agent stops: what is broken off by that is no fault
    results: Counter[tuple[Operation, Result]] = field(default_factory=Counter)
    seconds: dict[Operation, float] = field(default_factory=dict)
    _faults: dict[Operation, tuple[str, str]] = field(default_factory=dict)  # that it is there does not mean it signs

    @property
    def fault(self) -> str:
        """Why it does not answer as it should; empty: it does."""
        return next((said for said, _ in self._faults.values()), "")

    def fails(self, operation: Operation) -> bool:
        """Whether the last such call failed."""
        return operation in self._faults

    @property
    def code(self) -> str:
        """The stable code of that."""
        return next((code for _, code in self._faults.values()), "")

    @contextmanager
    def asking(self, operation: Operation) -> Iterator[None]:
        """Note how a call ends that is made within it, but for its success: see `succeed`."""
        begun = self.clock.boot()
        result: Result = "failed"
        try:
            yield
            result = "ok"
        except SojournError as error:
            if isinstance(error, UpstreamNotGood):
                result = "refused"
            self.fail(operation, error.public, error.code, error.detail)
            raise
        except (asyncio.CancelledError, TimeoutError):
            if self.over:
                raise
            self.fail(operation, f"no answer within {ROOT_SECONDS:g} s", UpstreamUnavailable.code)
            raise
        except Exception:
            self.fail(operation, "it failed by a fault of the agent's, or of a plugin's", SojournError.code)
            raise
        finally:
            self.results[operation, result] += 1
            self.seconds[operation] = self.seconds.get(operation, 0.0) + self.clock.boot() - begun

    def fail(self, operation: Operation, fault: str, code: str, detail: str = "") -> None:
        """It does not answer, or not as it should; each new reason is logged once."""
        if self._faults.get(operation) != (fault, code):
            log.error("upstream_failing", reason=fault, code=code, detail=detail, operation=operation)
        self.failing_since = self.failing_since or self.clock.now()
        self._faults[operation] = fault, code

    def succeed(self, operation: Operation) -> None:
        """It answers as it should."""
        self.last_success = self.clock.now()
        before = self._faults.pop(operation, None)
        if not self._faults:
            self.failing_since = None
            if before is not None:
                log.warning("upstream_answers_again", reason=before[0])


class UpstreamRoot:
    """Asks an upstream authority for intermediates; lists are signed by own roots that were before it."""

    def __init__(
        self, setting: UpstreamSetting, trust_domain: TrustDomain, own: RootSigner, trust: PublishedRoots, clock: Clock
    ) -> None:
        self.health = UpstreamHealth(clock)
        self.upstream = setting.upstream
        self.setting = setting
        self._trust_domain = trust_domain
        self._own = own
        self._trust = trust
        self._clock = clock
        self._signs = ""  # the authority ID of what signs there now; empty: it is not known
        self._tells = True  # whether it says what that is

    def at_once(self, _asked: IntermediateRequest) -> None:
        return None

    async def sign(self, asked: IntermediateRequest) -> SignedIntermediate:
        """Raise UpstreamNotGood if what came back breaks a rule. Its roots are in the bundle when this returns."""
        with self.health.asking("sign"):
            given = await self.upstream.sign(asked.csr, asked.ttl)
            signed = check_signed(asked, given, self._clock.now(), self.setting.longest)
            self._check_trusted(signer_id(signed.chain[-1]))
        self._trust.give(signed.roots, gone_is_revoked=signed.revokes)
        if self._tells:
            self._signs = signer_id(signed.chain[0])
        self.health.succeed("sign")
        return signed

    async def look(self) -> None:
        """See how it is, and have its roots in the bundle. Raise what is wrong."""
        with self.health.asking("look"):
            async with asyncio.timeout(ROOT_SECONDS):
                standing = await self.upstream.look()
            if standing.roots is not None:
                check_roots(standing.roots, self._trust_domain, self._clock.now())
        if standing.roots is not None:
            self._trust.give(standing.roots, standing.tainted, gone_is_revoked=standing.revokes)
        self._tells = standing.signs is not None
        self._signs = "" if standing.signs is None else key_id(standing.signs)
        if standing.caution:
            self.health.fail("look", standing.caution, UpstreamNotGood.code)
        else:
            self.health.succeed("look")

    def stands(self, chain: tuple[x509.Certificate, ...]) -> bool:
        return self._signs in {"", signer_id(chain[0])} and signer_id(chain[-1]) not in self._trust.tainted

    def _check_trusted(self, root_id: str) -> None:
        if root_id in self._trust.tainted | self._trust.revoked:
            raise UpstreamNotGood(
                f"the intermediate is below the root {root_id}, which is tainted or revoked: have another sign there"
            )

    def list_at_once(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes | None:
        return self._own.list_at_once(root_id, builder)

    async def sign_list(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes:
        return await self._own.sign_list(root_id, builder)

    async def sign_test(self, root_id: str, nonce: bytes) -> bytes:
        return await self._own.sign_test(root_id, nonce)

    async def follow(self, looked: Callable[[], None], back: Callable[[], None]) -> None:
        """Look again and again until cancelled; `looked` is told after each time that it answered, and `back` before
        that if it did not the time before.
        """
        while True:
            away = self.health.fails("look")
            try:
                await self.look()
                if away:
                    back()
                looked()
            except SojournError:
                pass  # noted
            except Exception as error:  # whatever is asked may be a plugin's
                log.error("upstream_not_looked_at", exc_info=error)
            await asyncio.sleep(self.setting.look_every.total_seconds())
