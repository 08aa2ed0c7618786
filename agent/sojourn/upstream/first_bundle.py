"""The bundle of a server that cannot be verified yet, by the digest that its operator has given."""

import ssl

import grpc

from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.errors import Refused, UpstreamUnavailable
from sojourn.limits import UPSTREAM_CALL_SECONDS
from sojourn.net.tls_versions import demand_modern_tls
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffetls.bridge import Bridge
from sojourn.spireapi import messages
from sojourn.upstream.authorized_entries import BUNDLE
from sojourn.upstream.join_string import JoinString, digest_of


async def bundle_at(address: str, said: JoinString) -> Bundle:
    """The bundle of the server at HOST:PORT, if it is the one that was meant. Nothing is told there.

    Raise UpstreamUnavailable if nobody answers, Refused if it is another bundle, InvalidBundle if it is none.
    """
    bridge = Bridge(address, _unverified())
    await bridge.open()
    try:
        async with grpc.aio.insecure_channel(f"unix:{bridge.path}", options=[("grpc.enable_retries", 0)]) as channel:
            call = channel.unary_unary(
                BUNDLE,
                request_serializer=bundle_pb2.GetBundleRequest.SerializeToString,
                response_deserializer=types.Bundle.FromString,
            )
            message = await call(bundle_pb2.GetBundleRequest(), timeout=UPSTREAM_CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        why = bridge.failure or error.details() or error.code().name
        raise UpstreamUnavailable(f"the server at {address} does not give its bundle: {why}") from error
    finally:
        await bridge.close()
    bundle = messages.bundle(message)
    if bundle.trust_domain != said.trust_domain or digest_of(bundle.x509_authorities) != said.digest:
        raise Refused(
            f"whoever answers at {address} gives another bundle than the one that was meant: it is another server, or"
            " its keys have changed since; look at the address, and make another token"
        )
    return bundle


def _unverified() -> ssl.SSLContext:
    """For what is public, and is compared with a digest: the server cannot be verified before that."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    demand_modern_tls(context)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context
