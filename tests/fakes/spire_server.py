"""A SPIRE server's node API on loopback, which gives, refuses, lies and goes away as a test says."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from fakes.ca import FakeCa
from google.protobuf.any_pb2 import Any as Packed
from sojourn._pb.google.rpc.status_pb2 import Status
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.jose.jws import SigningKey
from sojourn.spiffe import jwtsvid
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import SpiffeId
from sojourn.upstream.vouching import authority_id

AGENT = "/spire/agent/join_token/a"
REASONS = {"expired": 1, "not_attested": 2, "not_active": 3, "banned": 4, "must_reattest": 5}


class FakeSpireServer:
    """Use as an async context manager. `calls`: the methods that were called, by their last names, in their order.

    `refusing`: why it takes nobody for its node (by REASONS); `failing`: the gRPC status of all calls. `signs_for`: the
    SPIFFE ID in what it signs, in the place of the entry's. `failing_federated`: the gRPC status of calls for
    the bundle of a trust domain; `slow_federated`: those whose bundle takes half a minute. `unusable_bundle`: its own has no authority. `unasked`: entries that each page has beside those that
    were asked for. `own_keys`: it signs for keys of its own. `more_in_chains`: what it
    appends to each chain. `versions`: what it was told of agents; `takes_no_status`: nothing, as older ones. `ahead`: of this machine's clock, by which it signs. `reattestable`: what it says of nodes. `tainted`: IDs of authorities and keys. `age_ms`: after how long it ends connections.
    """

    def __init__(self, *, age_ms: int = 0, port: int = 0, domain: str = "spire.example") -> None:
        self.ca = FakeCa.make(domain)
        self.agent_path = AGENT
        self.jwt_key = SigningKey.generate("k1")
        self.older: list[FakeCa] = []  # whose roots are in the bundle too
        self.entries: dict[str, types.Entry] = {}
        self.federated: dict[str, types.Bundle] = {}
        self.unusable_bundle = False
        self.unasked: list[types.Entry] = []
        self.slow_federated: set[str] = set()
        self.failing_federated: dict[str, grpc.StatusCode] = {}
        self.page = 500
        self.calls: list[str] = []
        self.batches: list[int] = []
        self.refusing = ""
        self.refusing_entries: set[str] = set()
        self.failing: grpc.StatusCode | None = None
        self.failing_says = "it was told to fail"
        self.failing_in: set[str] = set()
        self.signs_for: dict[str, str] = {}
        self.own_keys = False
        self.more_in_chains: list[x509.Certificate] = []
        self.reattestable = False
        self.tainted: set[str] = set()
        self.ttl = timedelta(hours=1)
        self.agent_ttl = timedelta(hours=1)
        self.delay = 0.0
        self.ahead = timedelta()
        self.versions: list[str] = []
        self.takes_no_status = False
        self.port = port
        self._age_ms = age_ms
        self._server: Any = None

    @property
    def bundle(self) -> Bundle:
        return Bundle(self.ca.trust_domain, (self.ca.root,), {"k1": self.jwt_key.public})

    @property
    def root_id(self) -> str:
        return authority_id(self.ca.root)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def renew_authorities(self) -> None:
        """Sign by another authority and another key from now on, of which no node has heard yet."""
        self.older.append(self.ca)
        self.ca = FakeCa.make(self.ca.trust_domain.name)
        self.jwt_key = SigningKey.generate("k2")

    def register(self, name: str, path: str = "", **changes: Any) -> types.Entry:
        """Have an entry of this ID, with a newer revision if there is one."""
        before = self.entries.get(name)
        given: dict[str, Any] = {
            "id": name,
            "spiffe_id": types.SPIFFEID(trust_domain=self.ca.trust_domain.name, path=path or f"/{name}"),
            "selectors": [types.Selector(type="unix", value="uid:1000")],
            "revision_number": 0 if before is None else before.revision_number + 1,
            "created_at": 1_700_000_000,
            **changes,
        }
        self.entries[name] = types.Entry(**given)
        return self.entries[name]

    async def __aenter__(self) -> Self:
        options: list[tuple[str, int]] = [("grpc.so_reuseport", 0)]
        if self._age_ms:
            options += [("grpc.max_connection_age_ms", self._age_ms), ("grpc.max_connection_age_grace_ms", 10_000)]
        self._server = grpc.aio.server(options=options)
        self._server.add_generic_rpc_handlers((_Calls(self),))
        shown = self.ca.svid("/spire/server")
        credentials = grpc.ssl_server_credentials([(shown.key_pem, shown.chain_pem)])
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)

    # --- what it signs ----------------------------------------------------------------------------------------------

    def signed(self, csr_der: bytes, path: str, ttl: timedelta) -> list[bytes]:
        csr = x509.load_der_x509_csr(csr_der)
        key = ec.generate_private_key(ec.SECP256R1()).public_key() if self.own_keys else csr.public_key()
        uri = path if path.startswith("spiffe://") else f"spiffe://{self.ca.trust_domain}{path}"
        now = self.now()
        usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.ca.intermediate_key.public_key())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.ca.intermediate.subject)
            .public_key(key)  # type: ignore[arg-type]  # a node's key is EC
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=10))
            .not_valid_after(now + ttl)
            .add_extension(names, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(purposes, critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(usage, critical=True)
            .sign(self.ca.intermediate_key, hashes.SHA256())
        )
        return [each.public_bytes(Encoding.DER) for each in (leaf, self.ca.intermediate, *self.more_in_chains)]

    def attested(self, csr: bytes) -> types.X509SVID:
        return types.X509SVID(cert_chain=self.signed(csr, self.agent_path, self.agent_ttl))

    def path_of(self, entry_id: str) -> str:
        return self.signs_for.get(entry_id) or self.entries[entry_id].spiffe_id.path


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]  # gRPC has no types
    """Which handler has which call."""

    def __init__(self, server: FakeSpireServer) -> None:
        self._server = server
        self._streams = {"AttestAgent": (pb.AttestAgentRequest, self._attest)}
        self._streams["SyncAuthorizedEntries"] = (pb.SyncAuthorizedEntriesRequest, self._sync)
        self._unary: dict[str, tuple[Any, Any]] = {
            "RenewAgent": (pb.RenewAgentRequest, self._renew),
            "GetAuthorizedEntries": (pb.GetAuthorizedEntriesRequest, self._all),
            "GetBundle": (bundle_pb2.GetBundleRequest, self._bundle),
            "GetFederatedBundle": (bundle_pb2.GetFederatedBundleRequest, self._federated),
            "BatchNewX509SVID": (pb.BatchNewX509SvidRequest, self._x509),
            "PostStatus": (pb.PostStatusRequest, self._status),
            "NewJWTSVID": (pb.NewJwtSvidRequest, self._jwt),
        }

    def service(self, details: Any) -> Any:
        name = details.method.rpartition("/")[2]
        if name in self._streams:
            message, stream = self._streams[name]

            async def streamed(requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
                await self._begin(name, context)
                async for each in stream(requests, context):
                    yield each

            return grpc.stream_stream_rpc_method_handler(streamed, message.FromString, _serialize)
        message, handler = self._unary[name]

        async def answered(request: Any, context: Any) -> Any:
            await self._begin(name, context)
            return await handler(request, context)

        return grpc.unary_unary_rpc_method_handler(answered, message.FromString, _serialize)

    async def _begin(self, name: str, context: Any) -> None:
        server = self._server
        server.calls.append(name)
        if server.delay:
            await asyncio.sleep(server.delay)
        if server.failing is not None and (not server.failing_in or name in server.failing_in):
            await context.abort(server.failing, server.failing_says)
        if server.refusing and name not in {"AttestAgent", "GetBundle"}:
            await _refuse(context, server.refusing)

    async def _attest(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        server = self._server
        request = await anext(requests)
        if server.refusing == "banned":
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "failed to attest: agent is banned")
        if request.params.data.payload == b"used":
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "failed to attest: join token does not exist or has already been used",
            )
        server.refusing = ""
        svid = server.attested(request.params.params.csr)
        yield pb.AttestAgentResponse(result={"svid": svid, "reattestable": server.reattestable})

    async def _renew(self, request: Any, context: Any) -> Any:
        if self._server.reattestable:
            await _refuse(context, "must_reattest")
        return pb.RenewAgentResponse(svid=self._server.attested(request.params.csr))

    async def _sync(self, requests: AsyncIterator[Any], _context: Any) -> AsyncIterator[Any]:
        server = self._server
        await anext(requests)
        found = list(server.entries.values())
        if len(found) <= server.page:
            yield pb.SyncAuthorizedEntriesResponse(entries=found)
            return
        revisions = [
            pb.EntryRevision(id=each.id, revision_number=each.revision_number, created_at=each.created_at)
            for each in found
        ]
        for at in range(0, len(revisions), server.page):
            more = at + server.page < len(revisions)
            yield pb.SyncAuthorizedEntriesResponse(entry_revisions=revisions[at : at + server.page], more=more)
        async for request in requests:
            wanted = [server.entries[each] for each in request.ids if each in server.entries]
            yield pb.SyncAuthorizedEntriesResponse(entries=[*wanted, *server.unasked])

    async def _status(self, request: Any, context: Any) -> Any:
        if self._server.takes_no_status:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unimplemented")
        self._server.versions.append(request.agent_version)
        return pb.PostStatusResponse()

    async def _all(self, _request: Any, _context: Any) -> Any:
        return pb.GetAuthorizedEntriesResponse()

    async def _bundle(self, _request: Any, _context: Any) -> Any:
        server, key = self._server, self._server.jwt_key
        message = types.Bundle(trust_domain=server.ca.trust_domain.name, sequence_number=len(server.tainted))
        message.x509_authorities.add(asn1=server.ca.root_der, tainted=server.root_id in server.tainted)
        if server.unusable_bundle:
            del message.x509_authorities[:]
            return message
        for each in server.older:
            message.x509_authorities.add(asn1=each.root_der)
        message.jwt_authorities.add(
            public_key=key.public.pkix_der, key_id=key.public.kid, tainted=key.public.kid in server.tainted
        )
        return message

    async def _federated(self, request: Any, context: Any) -> Any:
        failing = self._server.failing_federated.get(request.trust_domain)
        if failing is not None:
            await asyncio.sleep(0.2)  # what others are answered has come by then
            await context.abort(failing, "it was told to fail")
        if request.trust_domain in self._server.slow_federated:
            await asyncio.sleep(30)
        found = self._server.federated.get(request.trust_domain)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "bundle not found")
        return found

    async def _x509(self, request: Any, _context: Any) -> Any:
        server = self._server
        server.batches.append(len(request.params))
        answer = pb.BatchNewX509SvidResponse()
        for each in request.params:
            if each.entry_id not in server.entries or each.entry_id in server.refusing_entries:
                answer.results.add(status=types.Status(code=5, message="entry not found or not authorized"))
            else:
                chain = server.signed(each.csr, server.path_of(each.entry_id), server.ttl)
                answer.results.add(status=types.Status(code=0), svid=types.X509SVID(cert_chain=chain))
        return answer

    async def _jwt(self, request: Any, context: Any) -> Any:
        server = self._server
        if request.entry_id not in server.entries:
            await context.abort(grpc.StatusCode.NOT_FOUND, "entry not found or not authorized")
        now = server.now()
        svid = jwtsvid.issue(
            server.jwt_key,
            SpiffeId.from_parts(server.ca.trust_domain.name, server.path_of(request.entry_id)),
            list(request.audience),
            issued_at=now,
            expires_at=now + timedelta(minutes=5),
        )
        return pb.NewJwtSvidResponse(svid=types.JWTSVID(token=svid.token))


async def _refuse(context: Any, reason: str) -> None:
    packed = Packed(
        type_url="type.googleapis.com/spire.api.types.PermissionDeniedDetails",
        value=pb.PermissionDeniedDetails(reason=REASONS[reason]).SerializeToString(),
    )
    status = Status(code=7, message="refused")
    status.details.add(type_url=packed.type_url, value=packed.value)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, f"agent is {reason}")


def _serialize(message: Any) -> bytes:
    return bytes(message.SerializeToString())
