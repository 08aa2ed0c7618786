"""The agent's end of the key process: whatever that does, the agent hears a clear reason, ends it, and starts another."""

import asyncio
import os
from dataclasses import replace
from datetime import timedelta

import pytest
from fakes.clock import FakeClock
from fakes.token_keys import program
from sojourn.authority.token import asked_process, key_process
from sojourn.authority.token.key_process import KeyProcess
from sojourn.authority.token.pin import PinRecord, TriedPin, read_pin
from sojourn.authority.token.places import Pkcs11Place, ServicePlace
from sojourn.authority.token.settings import TokenSettings
from sojourn.errors import KeysUnavailable, PinRefused
from sojourn.limits import KEY_RETRY_MAX_SECONDS
from sojourn.spiffe.ids import TrustDomain


class Place:
    """A key process that behaves as `how` says, and what it was asked so far."""

    def __init__(self, folder, monkeypatch):
        self.log, self.pin = folder / "asked", folder / "pin"
        self.pin.write_text("1234")
        self.clock, self._patch = FakeClock(), monkeypatch
        settings = TokenSettings(
            Pkcs11Place("/lib/module.so", "token", str(self.pin)),
            *(TrustDomain("example.org"), "n1", "ec-p256"),
            *(timedelta(days=3650), timedelta(days=1)),
        )
        self.record = PinRecord(folder / "tried-pin")
        self.process = KeyProcess(settings, self.record, self.clock)

    def behave(self, how):
        self._patch.setattr(asked_process, "_BEGIN", program(how, self.log))

    async def failed_wait(self, do="look"):
        """For how long there is no other process after this failed; that time goes by."""
        with pytest.raises(KeysUnavailable):
            await self.process.ask(do)
        wait = self.process._due - self.clock.boot()
        self.clock.advance(KEY_RETRY_MAX_SECONDS + 1)
        return wait

    def asked(self):
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
async def place(tmp_path, monkeypatch):
    made = Place(tmp_path, monkeypatch)
    yield made
    await made.process.close()


async def test_asks(place):
    """A process is started by the first question, and asked on and on."""
    place.behave("good")
    assert [{}, {}] == [await place.process.ask("look"), await place.process.ask("look")]
    assert (["open", "login", "look", "look"], 1, "") == (place.asked(), place.process.starts, place.process.fault)


@pytest.mark.parametrize("how", ["garbage", "endless", "cut", "other", "twice", "more", "strange", "ends"])
async def test_wrong_answers(place, how):
    """What is no answer, is cut, answers another question, or comes with something else ends the process with the reason;
    the next question has another one, once its pause is over.
    """
    place.behave(how)
    with pytest.raises(KeysUnavailable, match="key process"):
        await place.process.ask("look")
    assert place.process.pid is None
    place.behave("good")
    with pytest.raises(KeysUnavailable, match="the key process"):
        await place.process.ask("look")
    place.clock.advance(2)
    assert {} == await place.process.ask("look")
    assert (2, "") == (place.process.starts, place.process.fault)


async def test_late(place, monkeypatch):
    """One that does not answer in time is killed, so that no late answer is taken for another's."""
    monkeypatch.setattr(key_process, "KEY_ANSWER_SECONDS", 0.3)
    place.behave("late")
    with pytest.raises(KeysUnavailable, match="did not answer"):
        await place.process.ask("look")
    assert place.process.pid is None


async def test_given_up(place):
    """A question that whoever asked has given up ends the process too."""
    place.behave("late")
    asking = asyncio.ensure_future(place.process.ask("look"))
    while "look" not in place.asked():
        await asyncio.sleep(0.02)
    pid = place.process.pid
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (None, True) == (place.process.pid, pid is not None)


async def test_pauses(place):
    """Pauses between starts grow up to a minute, though the process opens the token each time; once it does what it did
    not, they are short again.
    """
    place.behave("ends")
    waits = [await place.failed_wait() for _ in range(9)]
    assert waits[:5] == sorted(waits[:5])
    assert (True, True) == (KEY_RETRY_MAX_SECONDS / 2 < waits[-1] <= KEY_RETRY_MAX_SECONDS, waits[0] <= 1)
    place.behave("good")
    await place.process.ask("look")
    place.behave("ends")
    os.kill(place.process.pid, 9)
    assert await place.failed_wait() <= 1


async def test_one_thing_that_fails(place):
    """A token that is there, and does one thing badly, is asked for that no sooner though each look at it is good: nobody
    is told that it is back, and the pauses grow.
    """
    told = []
    place.behave("looks")
    assert {} == await place.process.ask("look")
    place.process.on_back(lambda: told.append(1))
    waits = []
    for _ in range(8):
        waits.append(await place.failed_wait("sign"))
        assert {} == await place.process.ask("look")
        assert "" == place.process.fault
    assert ([], True) == (told, waits[-1] > KEY_RETRY_MAX_SECONDS / 2)


async def test_pin_once(place):
    """After a PIN that the token refused no process is started until the file has changed, and it is recorded."""
    place.behave("pin")
    for _ in range(5):
        with pytest.raises(PinRefused):
            await place.process.ask("look")
        place.clock.advance(3600)
    assert (["open", "login"], TriedPin("token", "00", "AA==", True)) == (place.asked(), place.record.read())
    place.behave("good")
    place.pin.write_text("12345")
    assert {} == await place.process.ask("look")
    assert None is place.record.read()


async def test_outcome_unknown(place):
    """That a PIN is tried is on disk before it is: if the process, or the agent, ends in it, the next one is told."""
    place.behave("dies")
    with pytest.raises(KeysUnavailable):
        await place.process.ask("look")
    assert TriedPin("token", "00", "AA==") == place.record.read()
    place.behave("good")
    place.clock.advance(60)
    await place.process.ask("look")
    assert None is place.record.read()


async def test_not_written_down(place, monkeypatch):
    """Where that cannot be written no PIN is tried."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place.record, "write", full)
    place.behave("good")
    with pytest.raises(KeysUnavailable, match="no PIN is tried"):
        await place.process.ask("look")
    assert ["open"] == place.asked()


async def test_back(place):
    """Whoever waits for the token is told when it is back."""
    told = []
    place.process.on_back(lambda: told.append(place.process.fault))
    place.behave("ends")
    with pytest.raises(KeysUnavailable):
        await place.process.ask("look")
    place.behave("good")
    place.clock.advance(60)
    await place.process.ask("look")
    assert [""] == told


async def test_watched(place):
    """One that ends while nobody asks is followed by another."""
    place.behave("good")
    place.process.watch()
    while place.process.pid is None or "look" not in place.asked():
        await asyncio.sleep(0.02)
    pid = place.process.pid
    os.kill(pid, 9)
    while place.process.pid == pid:
        await asyncio.sleep(0.02)
    place.clock.advance(60)
    async with asyncio.timeout(60):
        while place.process.pid is None or place.process.fault:
            await asyncio.sleep(0.02)
    assert pid != place.process.pid


class TestPin:
    """The file with the PIN, and what is kept of one that was refused."""

    def test_read(self, tmp_path):
        """It has the PIN and at most the end of its line."""
        path = tmp_path / "pin"
        for content in (b"1234", b"1234\n"):
            path.write_bytes(content)
            path.chmod(0o600)
            assert "1234" == read_pin(path)

    @pytest.mark.parametrize("content", [b"", b"\n", b"1\n2", b"\xff", b"1" * 256, b"1\x00"])
    def test_none(self, tmp_path, content):
        """Any other is none."""
        path = tmp_path / "pin"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(PinRefused):
            read_pin(path)

    def test_readable(self, tmp_path):
        """One that others can read is not used."""
        path = tmp_path / "pin"
        path.write_text("1234")
        path.chmod(0o644)
        with pytest.raises(PinRefused, match="chmod"):
            read_pin(path)

    def test_recorded(self, tmp_path):
        """A refused PIN is told from others, of this token alone, and the record does not have it."""
        record, tried = PinRecord(tmp_path / "refused"), TriedPin("token").of("987654")
        record.write(tried)
        read = record.read()
        assert tried == read == read.of("987654")
        record.write(replace(tried, refused=True))
        assert record.read().refused
        assert read != read.of("987655")
        assert read.digest != TriedPin("other", read.salt).of("987654").digest
        assert "987654" not in (tmp_path / "refused").read_text()

    @pytest.mark.parametrize("content", [b"", b"[]", b"[1,2,3]", b'["a","zz","c",true]', b"\xff"])
    def test_damaged(self, tmp_path, content):
        """A record that is none counts as if there were none."""
        (tmp_path / "refused").write_bytes(content)
        assert None is PinRecord(tmp_path / "refused").read()


class RefusingService:
    """A key process that is a service of its own, whose token refuses the PIN until `right`."""

    pid, has_left, right = 1, False, False

    def __init__(self):
        self.gone, self.asked = asyncio.Event(), []

    async def ask(self, do, told):
        self.asked.append(do)
        if do == "open" and not self.right:
            return {"failed": "pin_refused", "said": "the token refuses the PIN", "more": ""}
        return {"ok": {"salt": "", "digest": ""} if do == "open" else {}}

    def end(self):
        self.gone.set()


async def test_a_service_follows_its_pin(tmp_path, monkeypatch):
    """Of a service the PIN's file is not the agent's to look at: it is asked again until the service has the right one."""
    service, clock = RefusingService(), FakeClock()
    monkeypatch.setattr(key_process, "begun", lambda _: service)
    settings = TokenSettings(
        ServicePlace("/run/keys.sock"),
        *(TrustDomain("example.org"), "n1", "ec-p256", timedelta(days=3650), timedelta(days=1)),
    )
    process = KeyProcess(settings, PinRecord(tmp_path / "tried-pin"), clock)
    with pytest.raises(PinRefused):
        await process.ask("look")
    clock.advance(KEY_RETRY_MAX_SECONDS)
    with pytest.raises(PinRefused):
        await process.ask("look")
    service.right = True
    clock.advance(KEY_RETRY_MAX_SECONDS)
    assert {} == await process.ask("look")
    assert ["open", "open", "open", "login", "look"] == service.asked
    await process.close()
