"""The contract of providers: it holds for the example, and each fault that it is there for is found."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from harness.agent import ROOT
from harness.exampleplugins import loaded
from sojourn.errors import Unavailable
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.provider import Obtained, Step
from sojourn.testing.promises import Broken
from sojourn.testing.providers import ProviderContract

pytestmark = pytest.mark.full

EXAMPLE = ROOT / "docs" / "examples" / "provider"


DESK = loaded(EXAMPLE, "test_desk")
GOOD = DESK.CONTRACT.case
Desk = GOOD.plugin
URL = GOOD.settings["url"]


class TellsTheAnswer(Desk):
    async def exchange(self, wanted, mint):
        answer = await self._http.post_json(
            f"{URL}/keys", {"assertion": await mint(URL), "rights": list(wanted.actions), "seconds": 9}, step="key"
        )
        if answer.status != 200:
            raise ProviderRefused(f"no: {answer.body.decode()}")
        return Obtained(answer.json("key")["key"], datetime.now(UTC) + timedelta(seconds=9))


class TrustsTheAnswer(Desk):
    async def exchange(self, wanted, mint):
        body = {"assertion": await mint(URL), "rights": list(wanted.actions), "seconds": 9}
        value = (await self._http.post_json(f"{URL}/keys", body, step="key")).json("key")
        return Obtained(value["key"], datetime.now(UTC) + timedelta(seconds=value["seconds"]))


class AsksForAll(Desk):
    async def exchange(self, wanted, mint):
        await mint(URL, claims={"rights": sorted(GOOD.words)})
        return await super().exchange(wanted, mint)


class AsksForTooLittle(Desk):
    async def exchange(self, wanted, mint):
        return await super().exchange(replace(wanted, actions=wanted.actions[:1]), mint)


class Remembers(Desk):
    kept = None

    async def exchange(self, wanted, mint):
        self.kept = self.kept or await super().exchange(wanted, mint)
        return self.kept


class ForgetsTheTimeZone(Desk):
    async def exchange(self, wanted, mint):
        made = await super().exchange(wanted, mint)
        return Obtained(made.token, datetime.now() + timedelta(seconds=9), handle=made.handle)


class ShowsTheKey(Desk):
    async def exchange(self, wanted, mint):
        made = await super().exchange(wanted, mint)
        return Obtained(made.token, made.expires_at, handle=made.handle, public={"key": made.token})


class SaysThatNothingWasSent(Desk):
    async def exchange(self, wanted, mint):
        try:
            return await super().exchange(wanted, mint)
        except ProviderUnavailable as error:
            raise ProviderUnavailable(error.public) from None


class OutlivesCancelling(Desk):
    async def exchange(self, wanted, mint):
        try:
            return await super().exchange(wanted, mint)
        except asyncio.CancelledError:
            raise ProviderUnavailable("cancelled") from None


class AsksWhileItIsMade(Desk):
    def __init__(self, name, settings, http):
        super().__init__(name, settings, http)
        asyncio.ensure_future(http.get(URL, step="discovery")).add_done_callback(lambda done: done.exception())
        http.sent.append(URL)


class TakesAnySetting(Desk):
    def __init__(self, name, settings, http):
        super().__init__(name, {key: settings.get(key, URL) for key in GOOD.settings}, http)


class TakesAnyAsk(Desk):
    def read_ask(self, ask, actions):
        return super().read_ask({"queue": "printers"}, actions)


class ConfirmsWithoutAnAnswer(Desk):
    async def take_back(self, ended, mint):
        await self._http.post_json(f"{URL}/keys/end", {"assertion": await mint(URL), **ended.handle}, step="end")


class NeedsItsMemory(Desk):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._mine = set()

    async def exchange(self, wanted, mint):
        made = await super().exchange(wanted, mint)
        self._mine.add(made.handle["id"])
        return made

    async def take_back(self, ended, mint):
        if ended.handle.get("id") in self._mine:
            await super().take_back(ended, mint)


class NeedsTheAsk(Desk):
    async def take_back(self, ended, mint):
        assert ended.ask.queue
        await super().take_back(ended, mint)


class NeedsAHandle(Desk):
    async def take_back(self, ended, mint):
        assert ended.handle["id"]
        await super().take_back(ended, mint)


class LeavesAKey(Desk):
    async def check(self, wanted, mint):
        if wanted is not None:
            await self.exchange(wanted, mint)
        yield Step("key", "skipped", "it was tried, and left there")


class RaisesInTheCheck(Desk):
    async def check(self, wanted, mint):
        if wanted is not None:
            made = await self.exchange(wanted, mint)
            await self._end(wanted, made, mint)
        yield Step("key", "skipped", "all is well")


class TakesBackOnlyIfReadToTheEnd(Desk):
    async def check(self, wanted, mint):
        if wanted is None:
            yield Step("key", "skipped", "nobody")
            return
        made = await self.exchange(wanted, mint)
        yield Step("key", "ok", "there is a key")
        await self._end(wanted, made, mint)
        yield Step("end", "ok", "it is taken back")


class GoesOn(Desk):
    async def check(self, wanted, mint):
        try:
            await self._http.get(URL, step="look")
        except ProviderUnavailable as error:
            yield Step("look", "failed", error.public)
        yield Step("key", "skipped", "nobody")


class ChecksForNobody(Desk):
    async def check(self, wanted, mint):
        if wanted is None:
            yield Step("key", "failed", "there is nobody", "say for whom")
            return
        yield Step("key", "ok", "well")


class RefusesWithoutAKey(Desk):
    async def exchange(self, wanted, mint):
        try:
            return await super().exchange(wanted, mint)
        except Unavailable:
            raise ProviderRefused("no key") from None


class OutlivesCancellingAtTheEnd(Desk):
    async def take_back(self, ended, mint):
        with suppress(asyncio.CancelledError):
            await super().take_back(ended, mint)


class OutlivesCancellingInTheCheck(Desk):
    async def check(self, wanted, mint):
        with suppress(asyncio.CancelledError):
            async for step in super().check(wanted, mint):
                yield step


class NeverCloses(Desk):
    async def close(self):
        pass


class LeavesAFileOpen(Desk):
    async def exchange(self, wanted, mint):
        os.open("/dev/null", os.O_RDONLY)
        return await super().exchange(wanted, mint)


class LeavesATask(Desk):
    async def exchange(self, wanted, mint):
        asyncio.get_running_loop().pending = asyncio.ensure_future(asyncio.Event().wait())
        return await super().exchange(wanted, mint)


LEFT: list[threading.Event] = []  # by which threads that were left end


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No thread is left by the test itself."""
    yield
    while LEFT:
        LEFT.pop().set()


class LeavesAThread(Desk):
    async def exchange(self, wanted, mint):
        self.stop = threading.Event()
        LEFT.append(self.stop)
        self.thread = threading.Thread(target=self.stop.wait, args=(120,))
        self.thread.start()
        return await super().exchange(wanted, mint)


class GoesItsOwnWay(Desk):
    async def exchange(self, wanted, mint):
        with socket.socket() as found, socket.create_server(("127.0.0.1", 0)) as server:
            found.connect(server.getsockname())
        return await super().exchange(wanted, mint)


FOUND = [
    (TellsTheAnswer, "garbage", "has a secret in it"),
    (TrustsTheAnswer, "garbage", "exchange raised KeyError"),
    (AsksForAll, "narrows", "' too"),
    (AsksForTooLittle, "narrows", "nothing that it sends has '"),
    (Remembers, "apart", "given the same credential"),
    (ForgetsTheTimeZone, "obtains", "not in UTC"),
    (ShowsTheKey, "obtains", "has a secret in it"),
    (SaysThatNothingWasSent, "garbage", "says that none was"),
    (OutlivesCancelling, "cancelled", "made something else of it"),
    (AsksWhileItIsMade, "made", "while it is made"),
    (TakesAnySetting, "settings", "it takes the setting"),
    (TakesAnyAsk, "asks", "it takes ask"),
    (ConfirmsWithoutAnAnswer, "garbage_at_the_end", "it is confirmed, and good still"),
    (NeedsItsMemory, "over_restarts", "it is good still"),
    (NeedsTheAsk, "ends", "take_back raised AttributeError"),
    (NeedsAHandle, "without_handle", "take_back raised KeyError"),
    (LeavesAKey, "checks", "is good still"),
    (RaisesInTheCheck, "failed_checks", "check raised"),
    (TakesBackOnlyIfReadToTheEnd, "left_checks", "is good still"),
    (GoesOn, "failed_checks", "goes on after look failed"),
    (ChecksForNobody, "checks_for_nobody", "though all is well"),
    (RefusesWithoutAKey, "keyless", "exchange raised ProviderRefused"),
    (OutlivesCancellingAtTheEnd, "cancelled_end", "made something else of it"),
    (OutlivesCancellingInTheCheck, "cancelled_checks", "made something else of it"),
    (NeverCloses, "closes", "is open still"),
    (LeavesAFileOpen, "obtains", "left files open"),
    (LeavesATask, "obtains", "left tasks running"),
    (LeavesAThread, "obtains", "left threads running"),
    (GoesItsOwnWay, "obtains", "reached the outside by itself: socket.connect"),
]


def contract_of(plugin):
    return ProviderContract(replace(GOOD, plugin=plugin))


@pytest.mark.parametrize("promise", DESK.CONTRACT.promises, ids=str)
def test_the_example_keeps_it(promise):
    """The provider of docs/examples keeps every promise."""
    promise.run()


@pytest.mark.parametrize(("plugin", "name", "seen"), FOUND, ids=lambda each: getattr(each, "__name__", str(each))[:30])
def test_what_is_wrong_is_found(plugin, name, seen):
    """A provider that has the fault breaks the promise that is there for it."""
    (promise,) = [each for each in contract_of(plugin).promises if each.name == name]
    with pytest.raises(Broken, match=seen):
        promise.run()


def test_every_promise_can_be_broken():
    """No promise is there that none of these faults breaks."""
    assert {each.name for each in DESK.CONTRACT.promises} == {name for _, name, _ in FOUND}
