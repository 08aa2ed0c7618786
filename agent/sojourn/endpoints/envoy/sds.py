"""Envoy's secret discovery service (SDS v3): state of the world, delta, and a single fetch.

Envoy sends no security header, so none is asked for here.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from prometheus_client import Counter as Metric

from sojourn._pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2 as tls
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2 as pb
from sojourn._pb.envoy.service.secret.v3 import sds_pb2
from sojourn.attestation.peer import Peer
from sojourn.endpoints.envoy.secrets import SECRET_TYPE, SecretMaker, takes_spiffe_validator
from sojourn.endpoints.grpc.calls import Call, Method, next_of
from sojourn.errors import InvalidInput, LimitExceeded, Unavailable
from sojourn.identity.identities import Identities
from sojourn.identity.signatures import Overtaken
from sojourn.identity.streams import IdentityStream
from sojourn.limits import (
    REFUSALS_LOGGED_PER_SECOND,
    SECRET_NAME_BYTES,
    SECRET_NAMES_BYTES_PER_UID,
    SECRETS_PER_STREAM,
    SIGNATURE_WAIT_SECONDS,
    SPIFFE_ID_MAX_BYTES,
)
from sojourn.quota.rate import Rate
from sojourn.quota.usage import Held
from sojourn.runtime.clock import Clock

log = structlog.get_logger()
SERVICE = sds_pb2.DESCRIPTOR.services_by_name["SecretDiscoveryService"].full_name
_VERSION_LENGTH = 16
REJECTED = Metric("sojourn_sds_rejected_total", "Updates that an Envoy rejected (NACK).")


class SdsApi:
    """SDS for callers on this machine."""

    def __init__(self, identities: Identities, clock: Clock) -> None:
        self._identities = identities
        self._clock = clock
        self._rejections = Rate(REFUSALS_LOGGED_PER_SECOND)
        self._subscribed = Held(SECRET_NAMES_BYTES_PER_UID)  # names that delta streams keep

    def methods(self) -> dict[str, Method]:
        return {
            "StreamSecrets": Method("bidi", pb.DiscoveryRequest, self.stream_secrets),
            "DeltaSecrets": Method("bidi", pb.DeltaDiscoveryRequest, self.delta_secrets),
            "FetchSecrets": Method("unary", pb.DiscoveryRequest, self.fetch_secrets),
        }

    async def fetch_secrets(self, call: Call, request: pb.DiscoveryRequest) -> pb.DiscoveryResponse:
        async with self._identities.stream(call.peer, "FetchSecrets", required=False) as stream:
            names, type_url = _names(request.resource_names), _type_url(request.type_url)
            try:
                async with asyncio.timeout(SIGNATURE_WAIT_SECONDS):
                    made = await self._signed(stream, names, takes_spiffe_validator(request.node))
            except TimeoutError:
                raise Unavailable(f"an SVID was not signed within {SIGNATURE_WAIT_SECONDS:g} s: ask again") from None
            return _answer(made, type_url)

    async def _signed(self, stream: IdentityStream, names: frozenset[str], spiffe_validator: bool) -> list[tls.Secret]:
        """All secrets of these names, once they are there."""
        while True:
            maker = self._maker(stream, spiffe_validator)
            unsigned = maker.unsigned(names)
            if not unsigned:
                return maker.make(names)
            with suppress(Overtaken):
                await asyncio.gather(*map(self._identities.issuing.x509.get, unsigned.values()))
            await self._identities.refresh(stream)

    async def stream_secrets(self, call: Call, _request: None) -> AsyncIterator[pb.DiscoveryResponse]:
        async with self._identities.stream(call.peer, "StreamSecrets", required=False) as stream:
            state = _World(partial(self._rejected, call.peer))
            async with aclosing(_requests_and_changes(call, stream)) as events:
                async for request in events:
                    if request is not None and not state.take(request):
                        continue
                    if state.names is None:  # nothing was asked for yet
                        continue
                    await self._identities.refresh(stream)
                    maker = self._maker(stream, state.spiffe_validator)
                    unsigned = self._begin(maker, state.names)
                    made = maker.make(state.names, unsigned)
                    if unsigned and not made:
                        continue
                    answer = _answer(made, state.type_url)
                    body = answer.SerializeToString(deterministic=True)
                    if request is None and body == state.last:
                        continue
                    if request is None or not state.last:
                        state.version += 1
                    state.last, state.nonce = body, secrets.token_hex(4)
                    answer.version_info, answer.nonce = str(state.version), state.nonce
                    stream.pushed(self._clock.now())
                    yield answer

    async def delta_secrets(self, call: Call, _request: None) -> AsyncIterator[pb.DeltaDiscoveryResponse]:
        async with self._identities.stream(call.peer, "DeltaSecrets", required=False) as stream:
            state = _Delta(partial(self._rejected, call.peer))
            try:
                async with aclosing(_requests_and_changes(call, stream)) as events:
                    async for request in events:
                        names, entries = state.names, stream.entries
                        if request is not None:
                            names = self._take(request, state, call)
                        await self._identities.refresh(stream)
                        if stream.entries is not entries:
                            names = state.names
                        answer = self._delta(stream, state, names)
                        if answer is not None:
                            stream.pushed(self._clock.now())
                            yield answer
            finally:
                self._keep(call.peer.who, -state.weight)

    def _take(self, request: pb.DeltaDiscoveryRequest, state: "_Delta", call: Call) -> set[str]:
        """Take in a request, and return the names on which it asks for an answer. Raise InvalidInput, or LimitExceeded
        if all of the user's streams keep too much.
        """
        before = state.weight
        try:
            return state.take(request)
        finally:
            self._keep(call.peer.who, state.weight - before)

    def _keep(self, who: int, weight: int) -> None:
        """Count so many bytes more, or fewer. Raise LimitExceeded."""
        if not self._subscribed.hold(who, weight):
            raise LimitExceeded("the user's streams are subscribed to too many names")

    def _delta(self, stream: IdentityStream, state: "_Delta", names: set[str]) -> pb.DeltaDiscoveryResponse | None:
        """What has changed of these names, or None. One that is not the caller's counts as removed."""
        maker = self._maker(stream, state.spiffe_validator)
        unsigned = self._begin(maker, names) if names else ()
        answer = pb.DeltaDiscoveryResponse(type_url=state.type_url)
        for name in sorted(names):
            if name in unsigned:
                continue
            secret = maker.one(name)
            if secret is None:
                if state.sent.get(name) != "":  # subscribed to just now, or had until now
                    answer.removed_resources.append(name)
                    state.sent[name] = ""
                continue
            version = _digest(secret)
            if state.sent.get(name) != version:
                state.sent[name] = version
                added = answer.resources.add(name=name, version=version)
                added.resource.Pack(secret)
        if not answer.resources and not answer.removed_resources:
            return None
        state.version += 1
        answer.system_version_info, answer.nonce = str(state.version), secrets.token_hex(4)
        return answer

    def _rejected(self, peer: Peer, message: str) -> None:
        REJECTED.inc()
        if self._rejections.allow(peer.who):
            log.warning("sds_update_rejected", pid=peer.process.pid, uid=peer.uid, reason=message[:500])

    def _begin(self, maker: SecretMaker, names: Collection[str]) -> Collection[str]:
        """Those of these names whose SVIDs have to be waited for: they follow when these are signed, since what an
        answer leaves out is not taken away by that (xDS). Nothing else waits for them.
        """
        unsigned = maker.unsigned(names)
        for entry in unsigned.values():
            self._identities.issuing.x509.begin(entry)
        return unsigned

    def _maker(self, stream: IdentityStream, spiffe_validator: bool) -> SecretMaker:
        stream.check_closing()
        return SecretMaker(
            stream.entries,
            self._identities.x509_svid,
            self._identities.bundles_of(stream.entries),
            self._identities.bundle.trust_domain,
            spiffe_validator=spiffe_validator,
        )


@dataclass(slots=True)
class _Told:
    """What a stream's requests tell beside names."""

    rejected: Callable[[str], None]  # hears why an Envoy did not take an update
    spiffe_validator: bool = True  # all that is kept of the node: it may be large, and streams are many
    type_url: str = SECRET_TYPE
    version: int = 0

    def hear(self, request: pb.DiscoveryRequest | pb.DeltaDiscoveryRequest) -> None:
        if request.HasField("error_detail"):
            self.rejected(request.error_detail.message)
        if request.HasField("node"):
            self.spiffe_validator = takes_spiffe_validator(request.node)


@dataclass(slots=True)
class _World(_Told):
    """What one StreamSecrets stream has asked for and been told."""

    names: frozenset[str] | None = None
    nonce: str = ""
    last: bytes = b""

    def take(self, request: pb.DiscoveryRequest) -> bool:
        """Take in a request; say whether it asks for an answer of its own."""
        if self.nonce and request.response_nonce != self.nonce:
            return False  # about an answer that is no longer the last
        self.hear(request)
        names = _names(request.resource_names)
        changed = names != self.names
        self.names, self.type_url = names, _type_url(request.type_url)
        return changed


@dataclass(slots=True)
class _Delta(_Told):
    """What one DeltaSecrets stream is subscribed to and has been sent (name -> version, '' for removed).

    `weight`: what keeping the names takes, in bytes.
    """

    names: set[str] = field(default_factory=set)
    weight: int = 0
    sent: dict[str, str] = field(default_factory=dict)

    def take(self, request: pb.DeltaDiscoveryRequest) -> set[str]:
        """Take in a request, and return the names on which it asks for an answer: those that it subscribes to. So it
        costs as much as it is long, however many names there are.
        """
        self.hear(request)
        self.type_url = _type_url(request.type_url)
        asked = _names(request.resource_names_subscribe)
        for name in asked:
            self.sent.pop(name, None)  # asked for again: sent again
            if name not in self.names:
                self.names.add(name)
                self.weight += len(name) + SECRET_NAME_BYTES
        for name in request.resource_names_unsubscribe:
            self.sent.pop(name, None)
            if name in self.names:
                self.names.remove(name)
                self.weight -= len(name) + SECRET_NAME_BYTES
        _check_number(self.names)
        for name, version in request.initial_resource_versions.items():
            # Nothing else is kept, so that nobody fills our memory: another version is not ours and is replaced anyway.
            if name in self.names and len(version) == _VERSION_LENGTH:
                self.sent[name] = version
        return self.names & asked


async def _requests_and_changes(call: Call, stream: IdentityStream) -> AsyncGenerator[Any, None]:
    """Each request of the client as it comes, and None for each change on our side; ends when the client ends."""
    request = asyncio.ensure_future(next_of(call.requests))
    change = asyncio.ensure_future(stream.next_change())
    try:
        while True:
            await asyncio.wait({request, change}, return_when=asyncio.FIRST_COMPLETED)
            if request.done():
                taken = request.result()
                if taken is None:
                    return
                yield taken
                request = asyncio.ensure_future(next_of(call.requests))
            if change.done():
                change.result()
                yield None
                change = asyncio.ensure_future(stream.next_change())
    finally:
        for future in (request, change):
            future.cancel()
        await asyncio.gather(request, change, return_exceptions=True)


def _answer(made: list[tls.Secret], type_url: str) -> pb.DiscoveryResponse:
    answer = pb.DiscoveryResponse(type_url=type_url)
    for secret in made:
        answer.resources.add().Pack(secret, deterministic=True)
    return answer


def _digest(secret: tls.Secret) -> str:
    return hashlib.sha256(secret.SerializeToString(deterministic=True)).hexdigest()[:_VERSION_LENGTH]


def _names(names: Any) -> frozenset[str]:
    found = frozenset(name for name in names if name)
    _check_number(found)
    if any(len(name) > SPIFFE_ID_MAX_BYTES for name in found):
        raise InvalidInput(f"a resource name is longer than {SPIFFE_ID_MAX_BYTES} characters")
    return found


def _check_number(names: Collection[str]) -> None:
    if len(names) > SECRETS_PER_STREAM:
        raise InvalidInput(f"more than {SECRETS_PER_STREAM} resource names")


def _type_url(asked: str) -> str:
    """The type of an answer: the request's own word for it, as at SPIRE."""
    if len(asked) > SPIFFE_ID_MAX_BYTES:
        raise InvalidInput(f"the type URL is longer than {SPIFFE_ID_MAX_BYTES} characters")
    return asked or SECRET_TYPE
