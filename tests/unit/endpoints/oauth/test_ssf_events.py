"""ssf_events.py: how an event is handed in, and what the answer is (RFC 8935, 2)."""

import json
from dataclasses import replace

import httpx
import pytest
from fakes.children import peer_of, waiting_child
from fakes.clock import FakeClock
from fakes.signed_events import IDP, issuer_key, signed
from harness.looking import idle
from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.endpoints.oauth.ssf_events import EventsApi
from sojourn.errors import Bug, InvalidEvent, InvalidInput, LimitExceeded, NoIdentity, StoreFailed, StoreFull
from sojourn.limits import PENDING_DELIVERY_PAUSE_SECONDS
from sojourn.oauth.client_auth import ClientSender
from sojourn.quota.usage import Held
from sojourn.runtime.clock import Alarms
from sojourn.ssf.receiver import ACCEPTED, Issuer, KeysUnavailable
from sojourn.ssf.security_events import Rules
from starlette.applications import Starlette

KEY = issuer_key()
TOKEN = signed(KEY, 0)


class FakeSignals:
    """Takes everything, or raises `failure`."""

    def __init__(self):
        self.issuers = {IDP: Issuer(Rules(IDP, "a", 1), keys=None)}
        self.failure = None
        self.taken = []
        self.since = []
        self.refusals = []

    def issuer_of(self, unverified):
        return self.issuers[unverified.unverified_issuer]

    async def take(self, unverified, by, since):
        if self.failure is not None:
            raise self.failure
        self.taken.append(by)
        self.since.append(since)
        return ACCEPTED

    def refused(self, unverified, error, uid, pid):
        self.refusals.append((error, uid, pid))


class FakeIdentities:
    """Knows nobody."""

    async def of(self, peer):
        raise NoIdentity("no identity issued")


class Door:
    def __init__(self, peer, **limits):
        self.signals = FakeSignals()
        self.peer = peer
        self.clock = FakeClock()
        self.alarms = Alarms(self.clock)
        self.api = EventsApi(self.signals, FakeIdentities(), self.clock, self.alarms, **limits)
        self._app = Starlette(routes=self.api.routes())

    async def later(self):
        """After the pause between two looks whether keys are to be had."""
        self.clock.advance(PENDING_DELIVERY_PAUSE_SECONDS)
        self.alarms.ring_due()
        await idle()

    async def post(self, content=TOKEN, media_type="application/secevent+jwt"):
        async def with_peer(scope, receive, send):
            await self._app({**scope, SENDER: ClientSender(self.peer), HELD: Held(10**6)}, receive, send)

        transport = httpx.ASGITransport(with_peer)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
            return await caller.post("/events", content=content, headers={"Content-Type": media_type})


@pytest.fixture
def peer():
    with waiting_child() as process:
        made = peer_of(process)
        yield made
        made.close()


async def test_taken(peer):
    """202 with nothing in it, and who brought it is known."""
    door = Door(peer)
    answer = await door.post()
    assert (202, b"", "no-store") == (answer.status_code, answer.content, answer.headers["cache-control"])
    assert [{"by_uid": peer.uid, "by_pid": peer.process.pid}] == door.signals.taken


@pytest.mark.parametrize("media_type", ["APPLICATION/secevent+JWT", "application/secevent+jwt; charset=us-ascii"])
async def test_media_type(peer, media_type):
    """Media types have no case, and parameters change nothing."""
    assert 202 == (await Door(peer).post(media_type=media_type)).status_code


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (InvalidEvent("x"), 400, "invalid_request"),
        (InvalidEvent("x", err="invalid_key"), 400, "invalid_key"),
        (InvalidInput("x"), 400, "invalid_request"),
        (LimitExceeded("x"), 429, "limit_exceeded"),
        (StoreFailed("x"), 503, "store_failed"),
        (StoreFull("x"), 503, "store_full"),
        (Bug("x"), 503, "internal"),
        (ValueError("canary"), 500, "internal"),
    ],
)
async def test_failures(peer, failure, status, code):
    """What is the event's fault is 400; what may pass says when to come again; nothing foreign is shown."""
    door = Door(peer)
    door.signals.failure = failure
    answer = await door.post()
    assert (status, code) == (answer.status_code, answer.json()["err"])
    assert "canary" not in answer.text
    assert (status in {429, 503}) == ("retry-after" in answer.headers)
    assert {"err", "description"} == set(json.loads(answer.content))


async def test_one_that_is_slow_to_come(peer):
    """When an event was here is told by when all of it was: its key may be newer than the request."""
    door = Door(peer)
    began = door.clock.boot()

    async def content():
        door.clock.advance(5)
        yield TOKEN.encode()

    assert 202 == (await door.post(content())).status_code
    assert [began + 5] == door.signals.since


async def test_before_its_key(peer):
    """An event that came before its key is taken when the key is there, as of whoever handed it in."""
    door = Door(peer)
    door.signals.failure = KeysUnavailable("not now")
    answer = await door.post()
    assert (503, "unavailable", 1) == (answer.status_code, answer.json()["err"], len(door.api.pending))
    await door.later()
    assert [] == door.signals.taken
    door.signals.failure = None
    await door.later()
    assert ([{"by_uid": peer.uid, "by_pid": peer.process.pid}], 0) == (door.signals.taken, len(door.api.pending))


@pytest.mark.parametrize("failure", [InvalidEvent("x", err="invalid_key"), ValueError("canary")])
async def test_not_by_its_key(peer, failure):
    """An event that came before its key, and is not good by it, is refused on record and not tried again."""
    door = Door(peer)
    door.signals.failure = KeysUnavailable("not now")
    await door.post()
    door.signals.failure = failure
    await door.later()
    assert ([], 0) == (door.signals.taken, len(door.api.pending))
    told = [type(error) for error, _, _ in door.signals.refusals]
    assert [KeysUnavailable, *([InvalidEvent] if isinstance(failure, InvalidEvent) else [])] == told


@pytest.mark.parametrize("failure", [InvalidEvent("x"), LimitExceeded("x"), StoreFailed("x")])
async def test_what_does_not_wait_for_a_key(peer, failure):
    """What is refused for anything else is not kept; and what comes again, and is taken, is not tried any more."""
    door = Door(peer)
    door.signals.failure = failure
    await door.post()
    assert 0 == len(door.api.pending)
    door.signals.failure = KeysUnavailable("not now")
    await door.post()
    door.signals.failure = None
    assert (202, 0) == ((await door.post()).status_code, len(door.api.pending))


async def test_not_of_every_process(peer):
    """An event of an issuer with publishers that a stranger hands in is not kept."""
    door = Door(peer)
    door.signals.failure = KeysUnavailable("not now")
    door.signals.issuers[IDP] = replace(door.signals.issuers[IDP], publishers=frozenset({"spiffe://example.org/x"}))
    assert (400, 0) == ((await door.post()).status_code, len(door.api.pending))


async def test_publishers(peer):
    """Without an identity, nothing is handed in where publishers are named."""
    door = Door(peer)
    door.signals.issuers[IDP] = replace(door.signals.issuers[IDP], publishers=frozenset({"spiffe://example.org/x"}))
    answer = await door.post()
    assert (400, "authentication_failed") == (answer.status_code, answer.json()["err"])
    assert [] == door.signals.taken


async def test_a_flood_is_held_back(peer):
    """A user hands in so many events a second and no more; another user is not kept from it."""
    door = Door(peer, per_uid_per_second=5)
    statuses = [(await door.post()).status_code for _ in range(100)]
    assert {202, 429} == set(statuses)
    door.peer = replace(peer, uid=peer.uid + 1)
    assert 429 != (await door.post()).status_code


async def test_a_process_that_has_gone():
    """Nothing is taken in the name of a process that is no more."""
    with waiting_child() as process:
        door = Door(peer_of(process))
        process.kill()
        process.wait()
        assert 503 == (await door.post()).status_code
        assert [] == door.signals.taken
        door.peer.close()
