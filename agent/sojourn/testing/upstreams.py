"""What every upstream authority keeps, of anyone's: run over one of yours, it says what is not so.

CONTRACT = UpstreamContract(UpstreamCase(plugin=DeskUpstream, settings={…}, outside=Desk))

@pytest.mark.parametrize("promise", CONTRACT.promises, ids=str)
def test_contract(promise):
promise.run()
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn.authority.intermediate_lint import check_roots, check_signed
from sojourn.authority.root_signer import IntermediateRequest, SignedIntermediate
from sojourn.authority.upstream import Standing, Upstream
from sojourn.authority.x509_profile import signer_id
from sojourn.errors import InvalidConfig, SojournError, UpstreamUnavailable
from sojourn.plugins.upstream import UpstreamPlugin
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.settings.outside import OutsideTable
from sojourn.spiffe.ids import TrustDomain
from sojourn.testing.faults import ELSEWHERE, hangs, lost, of, plain
from sojourn.testing.outside import Answering, Fault, ScriptedHttp, ScriptedMint, well
from sojourn.testing.promises import Broken, Promise, expect, promised, promises_of, told
from sojourn.testing.provider_case import cut_off
from sojourn.testing.signing_authority import SigningAuthority

DOMAIN: Final = TrustDomain("example.org")
TTL: Final = timedelta(hours=24)
SVID_TTL: Final = timedelta(hours=1)
SLACK: Final = timedelta(minutes=5)
PATIENCE_SECONDS: Final = 0.05  # for one that waits for an answer that never says that it is done
_WRONG: Final[tuple[Any, ...]] = (None, 0, -1, True, "", " ", "\x00", "x" * 100_000, [], {}, [None], {"x": 1}, 1e308)


@dataclass(frozen=True, kw_only=True)
class UpstreamCase:
    """What a third party says of its plugin to have it tried. `settings`: of `[authority.upstream]`, with `kind`.

    `outside` makes the outside system that the plugin asks, as it should behave: it signs by the authority that it is
    given. `secrets`: texts among what the plugin has that nobody else may see.
    """

    plugin: UpstreamPlugin
    settings: Mapping[str, Any]
    outside: Callable[[SigningAuthority], Answering]
    secrets: Collection[str] = ()


class UpstreamScript:
    """What a plugin asks by: a request may meet a fault."""

    def __init__(self, http: ScriptedHttp) -> None:
        self._http = http

    async def ask(
        self,
        method: Literal["GET", "POST", "DELETE"],
        url: str,
        *,
        step: str,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> HttpResponse:
        expect(not url.startswith(ELSEWHERE), "it follows an answer to elsewhere")
        try:
            return await self._http.ask_content(method, url, step, headers, content or b"")
        except ProviderUnavailable as error:
            raise UpstreamUnavailable(error.public) from error

    async def close(self) -> None:
        await self._http.close()


class Tried:
    """A plugin of a case, with an outside of its own."""

    def __init__(
        self, case: UpstreamCase, fault: Fault = well, at: int = -1, *, lasting: bool = False, keyless: bool = False
    ) -> None:
        """Its request number `at` meets the fault; if `lasting`, all that follow too. `keyless`: no JWT-SVIDs."""
        self.case = case
        self.authority = SigningAuthority("company issuing", SigningAuthority("company root"))
        self.outside = case.outside(self.authority)
        self.http = ScriptedHttp(self.outside, fault, at, lasting=lasting)
        self.mint = ScriptedMint(broken=keyless)
        self.asked = IntermediateRequest(DOMAIN, ec.generate_private_key(ec.SECP256R1()), TTL)
        self.upstream: Upstream = case.plugin(dict(case.settings), self.reach, self.mint)

    def reach(self, _table: OutsideTable) -> UpstreamScript:
        return UpstreamScript(self.http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.upstream.close()

    @property
    def secrets(self) -> set[str]:
        return {each for each in (*self.mint.given, *self.outside.secrets, *self.case.secrets) if each}

    async def sign(self) -> SignedIntermediate:
        """What it gives, once it was looked at. Raise Broken if the outside was good, and this is not."""
        signed = await self.upstream.sign(self.asked.csr, TTL)
        try:
            return check_signed(self.asked, signed, datetime.now(UTC), SVID_TTL)
        except SojournError as error:
            raise Broken(f"what it gives is not good: {error.public}") from error

    async def attempt(self, what: Literal["sign", "look"]) -> object:
        """What it gives, or the error that it may end with; None: it waits. Raise Broken for any other error."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                if what == "look":
                    return await self.upstream.look()
                return await self.upstream.sign(self.asked.csr, TTL)
        except TimeoutError:
            return None
        except SojournError as error:
            self.hidden(error)
            expect(isinstance(error, UpstreamUnavailable), f"{what} raised {type(error).__name__}: {error.public}")
            return error
        except Exception as error:
            raise Broken(f"{what} raised {type(error).__name__}: {error}") from error

    def hidden(self, error: SojournError) -> None:
        """Raise Broken if an error tells a secret, or nothing."""
        self.unseen("an error", repr(error), str(error), error.detail)
        cause = error.__cause__ or error.__context__
        while cause is not None:  # the log has them too
            self.unseen("the cause of an error", repr(cause), str(cause))
            cause = cause.__cause__ or cause.__context__
        expect(error.public, "an error says nothing")

    def unseen(self, where: str, *texts: str) -> None:
        """Raise Broken if a secret is in one of the texts."""
        for text in texts:
            expect(all(each not in text for each in self.secrets), f"{where} has a secret in it: {text[:300]}")


class UpstreamContract:
    """The promises of an upstream authority as one case has it."""

    def __init__(self, case: UpstreamCase) -> None:
        self.case = case

    @property
    def promises(self) -> Sequence[Promise]:
        return promises_of(self)

    @promised("it is made without a word to the outside, and says where it is without a secret")
    async def made(self) -> None:
        async with Tried(self.case) as tried:
            expect(not tried.http.sent, "it asks the outside while it is made")
            expect(tried.upstream.kind == self.case.settings["kind"], f"its kind is {tried.upstream.kind!r}")
            shown = dict(tried.upstream.describe())
            expect(all(isinstance(each, str) for each in (*shown, *shown.values())), "describe() is not of texts")
            tried.unseen("describe()", repr(shown))

    @promised("closed, it lets go of what it asks by, also if it was never used")
    async def closes(self) -> None:
        for used in (False, True):
            tried = Tried(self.case)
            if used:
                await tried.sign()
            await tried.upstream.close()
            expect(tried.http.closed, "what it asks by is open still")

    @promised("settings that are wrong are InvalidConfig with the key, and nothing else")
    async def settings(self) -> None:
        self._configured({**self.case.settings, "no_such_key": 1}, "no_such_key", must_fail=True)
        for key in self.case.settings:
            if key == "kind":
                continue
            for wrong in _WRONG:
                self._configured({**self.case.settings, key: wrong}, key)
            self._configured({name: each for name, each in self.case.settings.items() if name != key}, key)

    def _configured(self, settings: dict[str, Any], key: str, *, must_fail: bool = False) -> None:
        tried = ScriptedHttp(self.case.outside(SigningAuthority()))
        try:
            self.case.plugin(settings, lambda _table: UpstreamScript(tried), ScriptedMint())
        except InvalidConfig as error:
            expect(error.faults, f"a fault of {key} says nothing")
        except Exception as error:
            raise Broken(f"{key} makes it raise {type(error).__name__}: {error}") from error
        else:
            expect(not must_fail, f"it takes the setting {key}")

    @promised("it has an intermediate signed that is good, for the key of the request, for no longer than was asked")
    async def signs(self) -> None:
        async with Tried(self.case) as tried:
            signed = await tried.sign()
            expect(signed.chain[0].public_key() == tried.asked.key.public_key(), "it is for another key")
            ends, until = signed.chain[0].not_valid_after_utc, datetime.now(UTC) + TTL
            expect(ends <= until + SLACK, f"it lives until {ends}, and was asked for until {until}")
            expect(tried.authority.root in signed.roots, "its roots lack the root")
            expect(tried.authority.certificate in signed.chain, "its chain lacks the authority that signs")

    @promised("it says how it is: what it signs by and the roots, or that it does not say")
    async def looks(self) -> None:
        async with Tried(self.case) as tried:
            standing = await tried.upstream.look()
            expect(isinstance(standing, Standing), f"look() gives {type(standing).__name__}")
            if standing.roots is not None:
                check_roots(standing.roots, DOMAIN, datetime.now(UTC))
                expect(tried.authority.root in standing.roots, "the roots lack the root")
            if standing.signs is not None:
                signed = await tried.sign()
                expect(standing.signs.subject == tried.authority.certificate.subject, "it signs by another")
                expect(signer_id(signed.chain[0]) == _key_id(standing.signs), "what it signs names another")

    @promised("asked again for the same, as after an answer that was lost, it gives something good")
    async def again(self) -> None:
        for at in range(await self._requests("sign")):
            async with Tried(self.case, lost, at) as tried:
                await tried.attempt("sign")
                await tried.sign()

    @promised("cancelled while it waits for an answer it ends at once, and is asked again afterwards")
    async def cancelled(self) -> None:
        for at in range(await self._requests("sign")):
            async with Tried(self.case, hangs, at) as tried:
                asking = asyncio.ensure_future(tried.upstream.sign(tried.asked.csr, TTL))
                if await cut_off(asking, tried.http.count, at):
                    await tried.sign()
                else:
                    with suppress(SojournError):
                        await asking

    @promised("whatever the outside answers, it gives certificates or an UpstreamUnavailable that tells no secret")
    async def lied_to(self) -> None:
        for what in ("look", "sign"):
            for at, body in enumerate(await self._bodies(what)):
                for name, fault in (*plain(), *of(body)):
                    with told(f"{what}, request {at}, {name}"):
                        await self._met(what, fault, at)

    @promised("without a JWT-SVID it says so, or needs none")
    async def keyless(self) -> None:
        async with Tried(self.case, keyless=True) as tried:
            await tried.attempt("sign")

    async def _met(self, what: Literal["look", "sign"], fault: Fault, at: int) -> None:
        async with Tried(self.case, fault, at) as tried:
            given = await tried.attempt(what)
        if isinstance(given, SignedIntermediate):
            certificates = (*given.chain, *given.roots)
        elif isinstance(given, Standing):
            certificates = (*(given.roots or ()), *(() if given.signs is None else (given.signs,)))
        else:
            return
        expect(all(isinstance(each, x509.Certificate) for each in certificates), f"{what} gives no certificates")

    async def _requests(self, what: Literal["look", "sign"]) -> int:
        return len(await self._bodies(what))

    async def _bodies(self, what: Literal["look", "sign"]) -> list[bytes]:
        """What the outside answers while nothing goes wrong."""
        async with Tried(self.case) as tried:
            if what == "look":
                await tried.upstream.look()
            else:
                await tried.sign()
            return [each.body for each in tried.http.answers]


def _key_id(certificate: x509.Certificate) -> str:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest.hex()
