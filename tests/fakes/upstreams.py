"""An upstream authority in memory, which signs what a test has it sign, or is away."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from cryptography import x509
from fakes.certificates import Issued, authority, issue, san, usage
from fakes.clock import FakeClock
from sojourn.authority.root_signer import SignedIntermediate
from sojourn.authority.upstream import Standing, UpstreamSetting
from sojourn.errors import UpstreamUnavailable

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GOOD = {
    "san": (san("spiffe://example.org"), False),
    "constraints": (x509.BasicConstraints(ca=True, path_length=0), True),
    "usage": (usage("key_cert_sign", "crl_sign"), True),
}


def root_at(clock: FakeClock, name: str = "company root", **changes: Any) -> Issued:
    """A root without a SPIFFE ID, as a company has one, valid for years from yesterday on."""
    times = {"begins": clock.now() - DAY, "ends": clock.now() + 3650 * DAY}
    return authority(subject=name, **{"san": None, **times, **changes})


def below(clock: FakeClock, issuer: Issued, name: str = "company issuing", **changes: Any) -> Issued:
    """An authority below another, for a year."""
    times = {"begins": clock.now() - DAY, "ends": clock.now() + 365 * DAY}
    return authority(issuer, subject=name, **{"san": None, **times, **changes})


class FakeUpstream:
    """Signs by the last of `line`, which is from the root down. `wrong` changes what is signed, as for `issue`."""

    kind = "fake"

    def __init__(self, clock: FakeClock, *line: Issued) -> None:
        self.clock = clock
        self.line = line or (root_at(clock),)
        self.answers = asyncio.Event()
        self.answers.set()
        self.failing = ""
        self.caution = ""
        self.wrong: dict[str, Any] = {}
        self.key: Any = None  # for which it signs instead of the one that it is asked for
        self.more_roots: tuple[x509.Certificate, ...] = ()
        self.tells = True  # what it signs by
        self.tainted: frozenset[str] = frozenset()
        self.revokes = False
        self.asked: list[x509.CertificateSigningRequest] = []
        self.closed = False

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        return (self.line[0].certificate, *self.more_roots)

    async def sign(self, csr: x509.CertificateSigningRequest, ttl: timedelta) -> SignedIntermediate:
        self.asked.append(csr)
        await self._answer()
        now = self.clock.now()
        changes = {"begins": now, "ends": now + ttl, **self.wrong}
        key = self.key or SimpleNamespace(public_key=csr.public_key)
        made = issue(self.line[-1], GOOD, subject="an agent's", key=key, **changes)
        above = tuple(each.certificate for each in reversed(self.line))  # with the root, as some give it
        return SignedIntermediate((made.certificate, *above), self.roots, revokes=self.revokes)

    async def look(self) -> Standing:
        await self._answer()
        signs = self.line[-1].certificate if self.tells else None
        return Standing(signs, self.roots, self.caution, self.tainted, self.revokes)

    def describe(self) -> dict[str, str]:
        return {"where": "in memory"}

    async def close(self) -> None:
        self.closed = True

    def setting(self, lead: timedelta = timedelta(0), longest: timedelta = HOUR) -> UpstreamSetting:
        return UpstreamSetting(self, lead, timedelta(milliseconds=5), longest)

    async def _answer(self) -> None:
        await self.answers.wait()
        if self.failing:
            raise UpstreamUnavailable(self.failing)
