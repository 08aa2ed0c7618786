"""Calls to a server's port for nodes, with whatever SVID and whatever requests a test makes up."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import Message
from sojourn._pb.google.rpc.status_pb2 import Status
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.x509svid import X509Svid, spiffe_id_of
from sojourn.spiffetls.authorize import authorize_id
from sojourn.spiffetls.bridge import Bridge
from sojourn.spiffetls.context import SpiffeContext, UnshownContext
from sojourn.upstream.connection import _Shown, server_id

from harness.spirenode import NodeServer, bundle_of, command

AGENT, ENTRY = "/spire.api.server.agent.v1.Agent/", "/spire.api.server.entry.v1.Entry/"
SVID, BUNDLE = "/spire.api.server.svid.v1.SVID/", "/spire.api.server.bundle.v1.Bundle/"
ANSWERS: dict[str, type[Message]] = {
    AGENT + "AttestAgent": pb.AttestAgentResponse,
    AGENT + "RenewAgent": pb.RenewAgentResponse,
    AGENT + "PostStatus": pb.PostStatusResponse,
    ENTRY + "GetAuthorizedEntries": pb.GetAuthorizedEntriesResponse,
    ENTRY + "SyncAuthorizedEntries": pb.SyncAuthorizedEntriesResponse,
    SVID + "BatchNewX509SVID": pb.BatchNewX509SvidResponse,
    SVID + "NewJWTSVID": pb.NewJwtSvidResponse,
    BUNDLE + "GetBundle": types.Bundle,
    BUNDLE + "GetFederatedBundle": types.Bundle,
}
REQUESTS: dict[str, type[Message]] = {
    AGENT + "AttestAgent": pb.AttestAgentRequest,
    AGENT + "RenewAgent": pb.RenewAgentRequest,
    AGENT + "PostStatus": pb.PostStatusRequest,
    ENTRY + "GetAuthorizedEntries": pb.GetAuthorizedEntriesRequest,
    ENTRY + "SyncAuthorizedEntries": pb.SyncAuthorizedEntriesRequest,
    SVID + "BatchNewX509SVID": pb.BatchNewX509SvidRequest,
    SVID + "NewJWTSVID": pb.NewJwtSvidRequest,
    BUNDLE + "GetBundle": bundle_pb2.GetBundleRequest,
    BUNDLE + "GetFederatedBundle": bundle_pb2.GetFederatedBundleRequest,
}
STREAMS = {AGENT + "AttestAgent", ENTRY + "SyncAuthorizedEntries"}
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_ANSWERED_EARLY = "Internal error from Core"  # grpc.aio says so of itself, and no server


@dataclass
class Told:
    """What a call was answered: its status by name and text, why a node is none (0: not said), and its messages."""

    code: str
    text: str = ""
    reason: int = 0
    answers: list[Any] = field(default_factory=list)

    @property
    def answer(self) -> Any:
        assert "OK" == self.code, self
        return self.answers[0]


class NodeWire:
    """A connection that shows an SVID, or none. Use as an async context manager."""

    def __init__(self, server: NodeServer, bundle: Bundle, svid: X509Svid | None = None) -> None:
        kind = UnshownContext if svid is None else SpiffeContext
        context = kind(_Shown(bundle, svid), authorize_id(server_id(bundle)), server_side=False)
        context.set_alpn_protocols(["h2"])
        self.svid = svid
        self.bridge = Bridge(f"127.0.0.1:{server.node_port}", context)

    async def __aenter__(self) -> Self:
        await self.bridge.open()
        self._channel = grpc.aio.insecure_channel(f"unix:{self.bridge.path}", options=[("grpc.enable_retries", 0)])
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._channel.close()
        finally:
            await self.bridge.close()

    async def call(self, method: str, *requests: Message) -> Told:
        """Send these, one after the other, and say that there are no more. Then hear all that is said.

        A client of gRPC that is answered while it still writes may have no answer to tell: then it asks again.
        """
        while (told := await self._call(method, *requests)).text == _ANSWERED_EARLY:
            pass
        return told

    async def _call(self, method: str, *requests: Message) -> Told:
        answer = ANSWERS.get(method, types.Status)
        answers: list[Any] = []
        try:
            if method in STREAMS:
                stream = self._channel.stream_stream(
                    method, request_serializer=_bytes, response_deserializer=answer.FromString
                )(iter(requests), timeout=30)
                async for each in stream:  # what came before a failure is heard
                    answers.append(each)  # noqa: PERF401
            else:
                unary = self._channel.unary_unary(
                    method, request_serializer=_bytes, response_deserializer=answer.FromString
                )
                answers.append(await unary(requests[0], timeout=30))
        except grpc.aio.AioRpcError as error:
            return Told(error.code().name, error.details() or "", _reason(error), answers)
        return Told("OK", answers=answers)


async def hang_up(*writers: asyncio.StreamWriter) -> None:
    """End connections without a word, and return when the loop has let go of them.

    One that is only told to close waits for TLS's farewell from the other end. If that is slow, the test's loop ends
    before it comes, and what is left of the connection is a warning in whichever test comes next.
    """
    for each in writers:
        each.transport.abort()
    for each in writers:
        with suppress(OSError):
            await each.wait_closed()


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _reason(error: grpc.aio.AioRpcError) -> int:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for packed in Status.FromString(value).details:
                if packed.type_url.endswith("spire.api.types.PermissionDeniedDetails"):
                    return pb.PermissionDeniedDetails.FromString(packed.value).reason
    return 0


# --- what nodes ask -----------------------------------------------------------------------------------------------


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def csr(key: Key, uri: str = "") -> bytes:
    """A request in DER, perhaps for a URI."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uri:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def attestation(kind: str, payload: bytes, request: bytes) -> pb.AttestAgentRequest:
    data, params = pb.AttestationData(type=kind, payload=payload), pb.X509SvidParams(csr=request)
    return pb.AttestAgentRequest(params=pb.AttestAgentRequest.Params(data=data, params=params))


def signing(entry_id: str, request: bytes) -> pb.NewX509SvidParams:
    return pb.NewX509SvidParams(entry_id=entry_id, csr=request)


def svid_of(message: types.X509SVID, key: Key) -> X509Svid:
    """An SVID in an answer, with its key."""
    chain = tuple(x509.load_der_x509_certificate(each) for each in message.cert_chain)
    return X509Svid(spiffe_id_of(chain[0]), chain, key)


async def new_token(server: NodeServer) -> str:
    return (await command(server, "token", "generate")).split()[1]


async def joined(server: NodeServer, token: str = "") -> X509Svid:
    """The SVID of a node that has joined by a token."""
    key = new_key()
    async with NodeWire(server, bundle_of(server)) as wire:
        payload = (token or await new_token(server)).encode()
        told = await wire.call(AGENT + "AttestAgent", attestation("join_token", payload, csr(key)))
    return svid_of(told.answer.result.svid, key)


async def entry_of(server: NodeServer, parent: str, path: str, *more: str, selectors: Sequence[str] = ()) -> str:
    """Register an entry, and return its ID."""
    words = ["-parentID", parent, "-spiffeID", f"spiffe://{server.trust_domain}{path}", *more]
    for each in selectors or (f"unix:user:{path.strip('/').replace('/', '-')}",):
        words += ["-selector", each]
    made = await command(server, "entry", "create", *words)
    return next(line.split(":")[1].strip() for line in made.splitlines() if line.startswith("Entry ID"))
