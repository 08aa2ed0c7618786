"""The Workload API on a real socket, with a signer that takes a second for each signature behind it."""

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

import pytest
from fakes.doorways import served, shares
from fakes.identity_room import WEB, Room
from fakes.registrations import entry
from fakes.signers import late_signers
from sojourn.endpoints.api import workload
from sojourn.endpoints.api.workload import WorkloadApi
from sojourn.endpoints.grpc.calls import Calls
from sojourn.http2.server import Server
from sojourn.limits import PUBLIC_REQUEST_MAX_BYTES
from sojourn.sdk.client.client import Client

pytestmark = pytest.mark.forked

SIGNED_SECONDS = 1.0
FETCHES = 50
AUDIENCES = 30
DEADLINE_SECONDS = 60


class Site(Room):
    """An agent's Workload API in this process, whose callers are all one process."""

    def __init__(self, folder):
        super().__init__(folder, [WEB], signers=lambda real: late_signers(real, held=False, seconds=SIGNED_SECONDS))
        self.socket = f"unix:{folder}.sock"
        self._api = WorkloadApi(self.identities, self.auditing, self.clock, wit=False)

    def asked(self):
        return len(self.issuing.signers.x509.asked), len(self.issuing.signers.jwt.asked)

    @asynccontextmanager
    async def open(self):
        handlers = Calls(self.auditing, header=True).service(workload.SERVICE, self._api.methods())
        server = Server(handlers, message_max=PUBLIC_REQUEST_MAX_BYTES, **shares())
        async with served(server, self.peer, self.socket.removeprefix("unix:")), asyncio.timeout(DEADLINE_SECONDS):
            yield self


@pytest.fixture
async def site(tmp_path):
    site = Site(tmp_path / "k")
    async with site.open():
        yield site
    site.close()


async def test_what_is_there_costs_nothing(site):
    """A caller waits for its first SVID and JWT-SVID, and whoever comes after it for none."""
    async with Client(site.socket) as client:
        begun = monotonic()
        first = await client.fetch_x509_svids()
        token = await client.fetch_jwt_svid("a")
        assert monotonic() - begun >= 2 * SIGNED_SECONDS
        begun = monotonic()
        for _ in range(FETCHES):
            assert first.default.leaf == (await client.fetch_x509_svids()).default.leaf
            assert token.token == (await client.fetch_jwt_svid("a")).token
        assert monotonic() - begun < FETCHES * SIGNED_SECONDS  # each would be two of them
    assert (1, 1) == site.asked()


async def test_all_wait_at_the_same_time(site):
    """Callers for as many audiences wait side by side, and others are answered meanwhile."""
    async with Client(site.socket) as client:
        await asyncio.gather(*(client.fetch_x509_svids() for _ in range(10)))
        waiting = [asyncio.ensure_future(client.fetch_jwt_svid(f"a{number}")) for number in range(AUDIENCES)]
        while len(site.issuing.signers.jwt.asked) < 1:
            await asyncio.sleep(0.01)
        for _ in range(5):
            await client.fetch_x509_svids()
        assert not any(each.done() for each in waiting)
        begun = monotonic()
        assert AUDIENCES == len({svid.token for svid in await asyncio.gather(*waiting)})
        assert monotonic() - begun < AUDIENCES * SIGNED_SECONDS / 2
    assert (1, AUDIENCES) == site.asked()


async def test_a_stream_hears_of_a_new_identity_when_it_is_signed(site):
    """A stream keeps what it has while an SVID for a new entry is signed, and has both then."""
    async with Client(site.socket) as client:
        updates = client.watch_x509_contexts()
        assert 1 == len((await anext(updates)).svids)
        begun = monotonic()
        await site.registry.create([entry("/more")])
        while len((await anext(updates)).svids) < 2:
            pass
        assert monotonic() - begun >= SIGNED_SECONDS
        await updates.aclose()
    assert 2 == site.asked()[0]
