"""Envoy's secret discovery service without Envoy: streams whose every message is the test's own."""

import queue
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from google.protobuf.message import Message
from sojourn._pb.envoy.extensions.transport_sockets.tls.v3 import secret_pb2 as tls
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2 as pb

from harness.raw import Wire, _bytes

SDS = "/envoy.service.secret.v3.SecretDiscoveryService/"
SECRET_TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
STREAM_SECONDS = 60.0


class SecretStream:
    """A StreamSecrets or DeltaSecrets call. Use as a context manager."""

    def __init__(
        self, wire: Wire, method: str = "StreamSecrets", *, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        delta = method == "DeltaSecrets"
        self._request: Any = pb.DeltaDiscoveryRequest if delta else pb.DiscoveryRequest
        answer: Any = pb.DeltaDiscoveryResponse if delta else pb.DiscoveryResponse
        self._requests: queue.SimpleQueue[Message | bytes | None] = queue.SimpleQueue()
        call = wire._channel.stream_stream(SDS + method, _bytes, answer.FromString)
        self.call = call(iter(self._requests.get, None), timeout=STREAM_SECONDS, metadata=metadata)

    def tell(self, **fields: Any) -> None:
        self._requests.put(self._request(**fields))

    def tell_bytes(self, data: bytes) -> None:
        self._requests.put(data)

    def hear(self) -> Any:
        """The next answer. Raise grpc.RpcError when the call has ended, or none comes in time."""
        return next(self.call)

    def ask(self, **fields: Any) -> Any:
        """Tell, and hear the next answer."""
        self.tell(**fields)
        return self.hear()

    def about(self, answer: Any, *names: str, **fields: Any) -> None:
        """Tell that an answer has come, on a StreamSecrets call: an ACK, or with `error_detail` a NACK."""
        version = {} if "error_detail" in fields else {"version_info": answer.version_info}
        self.tell(**{"response_nonce": answer.nonce, "resource_names": names, **version, **fields})

    def end(self) -> list[Any]:
        """End the requests; the answers that were not heard yet."""
        self._requests.put(None)
        return list(self.call)

    def close(self) -> None:
        self._requests.put(None)
        self.call.cancel()

    def __enter__(self) -> "SecretStream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fetch(wire: Wire, *names: str, **fields: Any) -> pb.DiscoveryResponse:
    """Call FetchSecrets."""
    request = pb.DiscoveryRequest(resource_names=names, **fields)
    return wire.unary(SDS + "FetchSecrets", request, pb.DiscoveryResponse, metadata=())


def secrets_of(answer: Any) -> dict[str, tls.Secret]:
    """The secrets of an answer by name, in their order."""
    found = {}
    for resource in answer.resources:
        secret = tls.Secret()
        packed = resource.resource if isinstance(resource, pb.Resource) else resource
        assert packed.Unpack(secret)
        assert getattr(resource, "name", secret.name) == secret.name
        found[secret.name] = secret
    assert len(found) == len(answer.resources)
    return found


def names_of(answer: Any) -> list[str]:
    return list(secrets_of(answer))


def certificates(secret: tls.Secret) -> list[x509.Certificate]:
    """The chain of a certificate secret, leaf first."""
    return x509.load_pem_x509_certificates(secret.tls_certificate.certificate_chain.inline_bytes)


def roots(secret: tls.Secret) -> dict[str, list[x509.Certificate]]:
    """The roots of a bundle secret by trust domain; by '' for a plain CA."""
    context = secret.validation_context
    if context.HasField("trusted_ca"):
        return {"": x509.load_pem_x509_certificates(context.trusted_ca.inline_bytes)}
    config = tls.SPIFFECertValidatorConfig()
    assert context.custom_validator_config.typed_config.Unpack(config)
    domains: Iterable[Any] = config.trust_domains
    return {each.name: x509.load_pem_x509_certificates(each.trust_bundle.inline_bytes) for each in domains}
