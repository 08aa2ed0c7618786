"""Promises of a provider: how it is made and asked, and what an exchange gives."""

import asyncio
import itertools
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, get_args

from sojourn.errors import InvalidConfig, InvalidInput, Unavailable
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import NOT_OAUTH, Obtained, Recall
from sojourn.testing.faults import hangs, of, plain
from sojourn.testing.outside import Fault, ScriptedHttp
from sojourn.testing.promises import Broken, expect, promised, told
from sojourn.testing.provider_case import Case, Tried, answers, cut_off

SLACK: Final = timedelta(seconds=5)
ABSURD: Final = timedelta(days=366)  # a credential for longer is not believed
AT_ONCE: Final = 20
_WRONG: Final[tuple[Any, ...]] = (None, 0, -1, True, "", " ", "\x00", "x" * 100_000, [], {}, [None], {"x": 1}, 1e308)


class Obtaining:
    """Those that every provider keeps."""

    def __init__(self, case: Case) -> None:
        self.case = case

    # --- how it is made ---

    @promised("it is made without a word to the outside, and says what it can")
    async def made(self) -> None:
        async with Tried(self.case) as tried:
            provider = tried.provider
            expect(provider.kind == self.case.settings["kind"], f"its kind is {provider.kind!r}")
            expect(provider.recall in get_args(Recall), f"recall is {provider.recall!r}")
            expect(isinstance(provider.offline, bool), "offline is not a bool")
            expect(timedelta(0) < provider.longest <= ABSURD, f"longest is {provider.longest}")
            expect(not tried.http.sent, "it asks the outside while it is made")

    @promised("closed, it lets go of the Http that it was given")
    async def closes(self) -> None:
        tried = Tried(self.case)
        await tried.exchange()
        await tried.provider.close()
        expect(tried.http.closed, "its Http is open still")

    @promised("settings that are wrong are InvalidConfig with the key, and nothing else")
    async def settings(self) -> None:
        self._configured({**self.case.settings, "no_such_key": 1}, "no_such_key", must_fail=True)
        for key in self.case.settings:
            if key == "kind":
                continue
            for wrong in _WRONG:
                self._configured({**self.case.settings, key: wrong}, key)
            without = {name: value for name, value in self.case.settings.items() if name != key}
            self._configured(without, key)

    def _configured(self, settings: dict[str, object], key: str, *, must_fail: bool = False) -> None:
        try:
            self.case.plugin("contract", settings, ScriptedHttp(self.case.outside()))
        except InvalidConfig as error:
            wrong = [fault for fault in error.faults if not fault.startswith(tuple(settings)) and key not in fault]
            expect(error.faults and not wrong, f"faults do not begin with their key: {error.faults}")
        except Exception as error:
            raise Broken(f"{key} makes it raise {type(error).__name__}: {error}") from error
        else:
            expect(not must_fail, f"it takes the setting {key}")

    @promised("an ask that is wrong is InvalidInput, and nothing else")
    async def asks(self) -> None:
        async with Tried(self.case) as tried:
            self._asked(tried, {**self.case.ask, "no_such_key": 1}, must_fail=True)
            for key in self.case.ask:
                for wrong in _WRONG:
                    self._asked(tried, {**self.case.ask, key: wrong})
                self._asked(tried, {name: value for name, value in self.case.ask.items() if name != key})

    def _asked(self, tried: Tried, ask: dict[str, object], *, must_fail: bool = False) -> None:
        try:
            read = tried.provider.read_ask(ask, self.case.actions)
            tried.provider.describe(read)
        except InvalidInput:
            return
        except Exception as error:
            raise Broken(f"ask = {str(ask)[:200]} makes it raise {type(error).__name__}: {error}") from error
        expect(not must_fail, f"it takes ask = {str(ask)[:200]}")

    # --- what it obtains ---

    @promised("it obtains a credential with a sane end, and tells no secret about it")
    async def obtains(self) -> None:
        async with Tried(self.case) as tried:
            obtained = await tried.exchange()
            sane(tried, obtained)
            expect(obtained.expires_at <= datetime.now(UTC) + tried.provider.longest + SLACK, "it outlives `longest`")
            shown: list[Any] = [*obtained.public.items(), *tried.provider.describe(tried.ask).items()]
            wrong = [name for name, value in shown if not isinstance(name, str) or not isinstance(value, str)]
            expect(not wrong, f"what is public is not of texts: {wrong}")
            if tried.provider.recall == "revoke":
                expect(obtained.handle, "it says that it revokes, and keeps nothing to revoke by")

    @promised("it asks for the actions that are wanted, and for no other")
    async def narrows(self) -> None:
        words = self.case.words
        possible = self.case.obtainable
        others = [each for each in (self.case.actions, *((one,) for one in self.case.actions)) if each not in possible]
        for wanted in others:
            async with Tried(self.case) as tried:
                with suppress(ProviderRefused):
                    await tried.exchange(wanted)
                    raise Broken(f"it gives something for {wanted}, which cannot be had so")
        for wanted in possible:
            async with Tried(self.case) as tried:
                await tried.exchange(wanted)
                said = " ".join([*(sent.text for sent in tried.http.sent), str(tried.mint.made)])
                for action, word in words.items():
                    if word:
                        asked = re.search(rf"(?<![\w.:/-]){re.escape(word)}(?![\w.:/-])", said) is not None
                        expect(not asked or action in wanted, f"for {wanted} it asks for {word!r} too")
                        expect(asked or action not in wanted, f"for {wanted} nothing that it sends has {word!r} in it")

    @promised("two tasks never share a credential, however they interleave")
    async def apart(self) -> None:
        async with Tried(self.case) as tried:
            first = await tried.exchange(task_id="task_first")
            made = await asyncio.gather(*(tried.exchange(task_id=f"task_{each}") for each in range(AT_ONCE)))
            tokens = {each.token for each in (first, *made)}
            expect(len(tokens) == 1 + AT_ONCE, "two tasks were given the same credential")

    @promised("whatever the outside answers, it is a credential, ProviderRefused or ProviderUnavailable")
    async def garbage(self) -> None:
        unread = {name for name, _ in plain()}  # of what is read in part it is the outside's fault
        for name, at, fault in await self._faults():
            async with Tried(self.case, fault, at) as tried:
                with told(f"request {at + 1}, {name}"):
                    outcome = await tried.attempt()
                    await tried.provider.close()  # which waits for what it still takes back behind
                    if isinstance(outcome, Obtained):
                        sane(tried, outcome)
                    elif tried.outside.live() and name in unread:
                        expect(
                            isinstance(outcome, ProviderUnavailable) and outcome.sent,
                            f"a credential was given, and it says that none was: {outcome!r}",
                        )

    async def _faults(self) -> list[tuple[str, int, Fault]]:
        """Every fault for every request of an exchange: its name, the number of the request, and it."""
        bodies = await answers(self.case, Tried.exchange)
        return [
            (name, at, fault) for at, body in enumerate(bodies) for name, fault in itertools.chain(plain(), of(body))
        ]

    @promised("without a key to sign with nothing is asked for that needs one")
    async def keyless(self) -> None:
        async with Tried(self.case, keyless=True) as tried:
            try:
                await tried.exchange()
            except (Unavailable, ProviderUnavailable):
                expect(not tried.outside.live(), "it was given a credential without an assertion")
            except Exception as error:
                raise Broken(f"exchange raised {type(error).__name__}: {error}") from error
            else:
                raise Broken("it obtains a credential without an assertion")

    @promised("an exchange that is cut off ends at once")
    async def cancelled(self) -> None:
        for at in range(len(await answers(self.case, Tried.exchange))):
            async with Tried(self.case, hangs, at) as tried:
                work = asyncio.ensure_future(tried.exchange())
                expect(await cut_off(work, tried.http.count, at), "it does not wait for its answer")


def sane(tried: Tried, obtained: Obtained) -> None:
    """Raise Broken unless it is a credential that can be handed out, kept and shown."""
    token: Any = obtained.token  # a plugin's: it may be anything
    ends = obtained.expires_at
    expect(isinstance(token, str) and token.strip() == token != "", "the token is no text")
    if obtained.token_type != NOT_OAUTH:
        expect(token.isascii() and token.isprintable() and " " not in token, "the token is none of a header's")
    expect(obtained.token_type and obtained.issued_type, "it does not say what the token is")
    expect(ends.tzinfo is not None and ends.utcoffset() == timedelta(0), "expires_at is not in UTC")
    expect(ends <= datetime.now(UTC) + ABSURD, f"it believes that the credential is good until {ends}")
    tried.unseen("what is public", repr(dict(obtained.public)), repr(tried.provider.describe(tried.ask)))
    tried.unseen("a repr", repr(obtained), repr(tried.provider), repr(tried.ended(obtained)), repr(tried.wanted()))
    kept: list[Any] = [each for pair in obtained.handle.items() for each in pair]
    expect(all(isinstance(each, str) for each in kept), "the handle is not of texts")
