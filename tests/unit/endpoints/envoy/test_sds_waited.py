"""sds.py with a signer that keeps callers waiting: what is there is sent, and the rest follows when it is signed."""

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import pytest
from fakes.identity_room import WEB, Room
from fakes.registrations import entry
from fakes.signers import late_signers
from harness.looking import idle
from sojourn._pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2 as tls
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from sojourn.endpoints.envoy import sds
from sojourn.endpoints.envoy.sds import SdsApi
from sojourn.errors import Unavailable

DEADLINE_SECONDS = 20
CERTIFICATE, BUNDLE = str(WEB.spiffe_id), "ROOTCA"


@dataclass
class Call:
    peer: Any
    requests: Any = None


class Requests:
    """Requests as they are put."""

    def __init__(self):
        self._queue = asyncio.Queue()
        self.put = self._queue.put_nowait

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self._queue.get()


@pytest.fixture
async def room(tmp_path):
    room = Room(tmp_path / "keys", [WEB], signers=late_signers)
    room.signer = room.issuing.signers.x509
    yield room
    room.close()


@pytest.fixture
def api(room):
    return SdsApi(room.identities, room.clock)


async def soon(awaitable):
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await awaitable


def names(answer):
    secrets = [tls.Secret.FromString(each.value) for each in answer.resources]
    return [each.name for each in secrets]


async def test_state_of_the_world(room, api):
    """A stream gets the bundle at once, and both once the certificate is signed."""
    requests = Requests()
    async with aclosing(api.stream_secrets(Call(room.peer, requests), None)) as answers:
        requests.put(pb.DiscoveryRequest(resource_names=[CERTIFICATE, BUNDLE]))
        assert [BUNDLE] == names(await soon(anext(answers)))
        room.signer.let_go()
        assert [BUNDLE, CERTIFICATE] == names(await soon(anext(answers)))
    assert 1 == len(room.signer.asked)


async def test_a_certificate_alone(room, api):
    """A stream that asks for a certificate alone hears nothing until it is signed: never that there is none."""
    requests = Requests()
    async with aclosing(api.stream_secrets(Call(room.peer, requests), None)) as answers:
        requests.put(pb.DiscoveryRequest(resource_names=["default"]))
        first = asyncio.ensure_future(anext(answers))
        await idle()
        assert not first.done()
        room.signer.let_go()
        assert ["default"] == names(await soon(first))


async def test_delta(room, api):
    """A delta stream is not told that what is being signed is removed; it is sent when it is there."""
    requests = Requests()
    async with aclosing(api.delta_secrets(Call(room.peer, requests), None)) as answers:
        requests.put(pb.DeltaDiscoveryRequest(resource_names_subscribe=[CERTIFICATE, BUNDLE]))
        first = await soon(anext(answers))
        assert ([BUNDLE], []) == ([each.name for each in first.resources], list(first.removed_resources))
        room.signer.let_go()
        second = await soon(anext(answers))
        assert ([CERTIFICATE], []) == ([each.name for each in second.resources], list(second.removed_resources))


async def test_what_is_there_waits_for_no_other(room, api):
    """A new identity whose signature hangs holds up no certificate that is there."""
    room.signer.let_go()
    await room.issuing.x509.get(WEB)
    room.signer.hold()
    await room.registry.create([entry("/more")])
    requests = Requests()
    async with aclosing(api.stream_secrets(Call(room.peer, requests), None)) as answers:
        requests.put(pb.DiscoveryRequest())
        assert ["spiffe://example.org", CERTIFICATE] == names(await soon(anext(answers)))


async def test_a_single_fetch(room, api):
    """A single fetch waits for all that it asks for."""
    asking = asyncio.ensure_future(
        api.fetch_secrets(Call(room.peer), pb.DiscoveryRequest(resource_names=[CERTIFICATE, BUNDLE]))
    )
    await idle()
    assert not asking.done()
    room.signer.let_go()
    assert [BUNDLE, CERTIFICATE] == names(await soon(asking))


async def test_a_single_fetch_that_is_never_answered(room, api, monkeypatch):
    """A single fetch is told in time if a certificate cannot be had."""
    monkeypatch.setattr(sds, "SIGNATURE_WAIT_SECONDS", 0.02)
    with pytest.raises(Unavailable):
        await api.fetch_secrets(Call(room.peer), pb.DiscoveryRequest(resource_names=[CERTIFICATE]))
