"""The agent's sockets without the SDK: gRPC calls whose path, metadata and bytes are the test's own."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from sojourn._pb import workload_pb2 as workload
from sojourn._pb.sojourn.v1 import admin_pb2 as admin
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2 as bundle_api
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as entry_api
from sojourn._pb.spire.api.server.localauthority.v1 import localauthority_pb2 as authority_api
from sojourn._pb.spire.api.types import types_pb2 as types

from harness.agent import AgentProcess

HEADER = (("workload.spiffe.io", "true"),)
ANSWER_SECONDS = 45.0
WORKLOAD_API = "/SpiffeWorkloadAPI/"
ENTRY_API = "/spire.api.server.entry.v1.Entry/"
BUNDLE_API = "/spire.api.server.bundle.v1.Bundle/"
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 1 << 20),
    ("grpc.absolute_max_metadata_size", 1 << 20),
)


class Wire:
    """One channel. Requests are messages or ready bytes; answers are parsed, or bytes without a type."""

    def __init__(self, address: str, *options: tuple[str, int]) -> None:
        """`address` is a path, or a whole gRPC target; `options` are gRPC's, beside those that all channels have."""
        target = address if ":" in address else f"unix:{address}"
        self._channel = grpc.insecure_channel(target, options=[*_OPTIONS, *options])

    def unary(self, method: str, request: Message | bytes, answer: Any = None, **options: Any) -> Any:
        call = self._channel.unary_unary(method, _bytes, answer and answer.FromString)
        return call(request, **{"metadata": HEADER, "timeout": ANSWER_SECONDS, **options})

    def stream(self, method: str, request: Message | bytes, answer: Any = None, **options: Any) -> Any:
        call = self._channel.unary_stream(method, _bytes, answer and answer.FromString)
        return call(request, **{"metadata": HEADER, "timeout": ANSWER_SECONDS, **options})

    def first(self, method: str, request: Message | bytes, answer: Any = None, **options: Any) -> Any:
        """The first message of a stream, which is ended then."""
        stream = self.stream(method, request, answer, **options)
        try:
            return next(stream)
        finally:
            stream.cancel()

    def x509(self) -> Any:
        return self.first(WORKLOAD_API + "FetchX509SVID", workload.X509SVIDRequest(), workload.X509SVIDResponse)

    def x509_ids(self) -> list[str]:
        return [svid.spiffe_id for svid in self.x509().svids]

    def x509_stream(self) -> Any:
        """An open stream of FetchX509SVID; `next` waits for its messages."""
        method = WORKLOAD_API + "FetchX509SVID"
        return self.stream(method, workload.X509SVIDRequest(), workload.X509SVIDResponse, timeout=60)

    def x509_bundles_stream(self) -> Any:
        """An open stream of FetchX509Bundles."""
        method = WORKLOAD_API + "FetchX509Bundles"
        return self.stream(method, workload.X509BundlesRequest(), workload.X509BundlesResponse, timeout=60)

    def jwt(self, *audience: str) -> Any:
        request = workload.JWTSVIDRequest(audience=audience)
        return self.unary(WORKLOAD_API + "FetchJWTSVID", request, workload.JWTSVIDResponse)

    def validate(self, audience: str, token: str) -> Any:
        request = workload.ValidateJWTSVIDRequest(audience=audience, svid=token)
        return self.unary(WORKLOAD_API + "ValidateJWTSVID", request, workload.ValidateJWTSVIDResponse)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Admin(Wire):
    """The admin socket: entries as SPIRE's API has them, and the agent's own view of itself."""

    def create(self, *entries: types.Entry) -> Sequence[Any]:
        request = entry_api.BatchCreateEntryRequest(entries=entries)
        return self.unary(ENTRY_API + "BatchCreateEntry", request, entry_api.BatchCreateEntryResponse).results

    def update(self, *entries: types.Entry, mask: types.EntryMask | None = None) -> Sequence[Any]:
        request = entry_api.BatchUpdateEntryRequest(entries=entries, input_mask=mask)
        return self.unary(ENTRY_API + "BatchUpdateEntry", request, entry_api.BatchUpdateEntryResponse).results

    def delete(self, *ids: str) -> Sequence[Any]:
        request = entry_api.BatchDeleteEntryRequest(ids=ids)
        return self.unary(ENTRY_API + "BatchDeleteEntry", request, entry_api.BatchDeleteEntryResponse).results

    def list(self, **fields: Any) -> Any:
        request = entry_api.ListEntriesRequest(**fields)
        return self.unary(ENTRY_API + "ListEntries", request, entry_api.ListEntriesResponse)

    def get(self, entry_id: str) -> types.Entry:
        return self.unary(ENTRY_API + "GetEntry", entry_api.GetEntryRequest(id=entry_id), types.Entry)

    def register(self, path: str, *selectors: str, **fields: Any) -> types.Entry:
        """Create one entry and return it."""
        [result] = self.create(entry(path, *selectors, **fields))
        assert (0, "OK") == (result.status.code, result.status.message)
        return result.entry

    def bundle(self) -> types.Bundle:
        """The agent's own bundle."""
        return self.unary(BUNDLE_API + "GetBundle", bundle_api.GetBundleRequest(), types.Bundle)

    def know(self, *bundles: types.Bundle) -> None:
        """Set the bundles of foreign trust domains."""
        request = bundle_api.BatchSetFederatedBundleRequest(bundle=bundles)
        answer = self.unary(BUNDLE_API + "BatchSetFederatedBundle", request, bundle_api.BatchSetFederatedBundleResponse)
        assert [(0, "OK")] * len(bundles) == [(each.status.code, each.status.message) for each in answer.results]

    def trust(self, *names: str) -> None:
        """Set an empty bundle for foreign trust domains, so that entries may federate with them."""
        self.know(*(types.Bundle(trust_domain=name) for name in names))

    def explain(self, pid: int) -> admin.ExplainResponse:
        return self.unary("/sojourn.v1.Admin/Explain", admin.ExplainRequest(pid=pid), admin.ExplainResponse)

    def status(self) -> admin.GetStatusResponse:
        return self.unary("/sojourn.v1.Admin/GetStatus", admin.GetStatusRequest(), admin.GetStatusResponse)

    def streams(self) -> Sequence[admin.Stream]:
        """All open streams."""
        request, found = admin.ListStreamsRequest(), []
        while True:
            page = self.unary("/sojourn.v1.Admin/ListStreams", request, admin.ListStreamsResponse)
            found += page.streams
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    def local_authority(self, method: str, authority_id: str = "") -> Any:
        """A call of SPIRE's local authority API."""
        request = getattr(authority_api, f"{method}Request")()
        if authority_id:
            request.authority_id = authority_id
        path = f"/spire.api.server.localauthority.v1.LocalAuthority/{method}"
        return self.unary(path, request, getattr(authority_api, f"{method}Response"))

    def streams_of(self, pid: int) -> Sequence[str]:
        return [stream.method for stream in self.streams() if stream.pid == pid]


def entry(path: str, *selectors: str, **fields: Any) -> types.Entry:
    """An entry for `spiffe://example.org` + path; selectors as in `unix:uid:1000`."""
    pairs = [selector.partition(":") for selector in selectors]
    return types.Entry(
        spiffe_id=types.SPIFFEID(trust_domain="example.org", path=path),
        selectors=[types.Selector(type=kind, value=value) for kind, _, value in pairs],
        **fields,
    )


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """The status code and the text with which `call` is refused."""
    try:
        answered = call()
    except grpc.RpcError as error:
        return error.code().name, error.details()  # type: ignore[attr-defined]  # it is a grpc.Call too
    raise AssertionError(f"not refused, but answered {answered!r}"[:400])


@contextlib.contextmanager
def module_agent(config: str | None = None) -> Iterator[AgentProcess]:
    """An agent that the tests of a module share. At the end no call may have failed inside it."""
    with AgentProcess(config=config) as running:
        yield running
        failed = {"call_failed", "http_failed", "attestor_raised"}
        found = [line for line in running.log_lines() if line["event"] in failed]
        assert [] == found, found  # pytest does not explain asserts of helpers by itself


@contextlib.contextmanager
def over(connection: socket.socket) -> Iterator[Wire]:
    """Calls over a connected socket. It is closed afterwards."""
    name = f"sojourn-test-{id(connection)}-{time.monotonic_ns()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen(1)
        wire = Wire(f"unix-abstract:{name}")
        splicer = threading.Thread(target=_splice, args=(listener, connection), daemon=True)
        splicer.start()
        try:
            yield wire
        finally:
            wire.close()
            for each in (listener, connection):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            splicer.join(ANSWER_SECONDS)
            connection.close()


def _splice(listener: socket.socket, connection: socket.socket) -> None:
    """Join the first connection of `listener` to `connection`, and refuse all later ones."""
    try:
        inner, _ = listener.accept()
        listener.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
    with inner:
        back = threading.Thread(target=_pump, args=(connection, inner), daemon=True)
        back.start()
        _pump(inner, connection)
        back.join(ANSWER_SECONDS)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _bytes(request: Message | bytes) -> bytes:
    return request if isinstance(request, bytes) else request.SerializeToString()
