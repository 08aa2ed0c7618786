"""Mutated messages over the real sockets: any bytes are answered, and by nothing but our errors.

SOJOURN_FUZZ_CASES sets how many, SOJOURN_FUZZ_SEED which; a failure names the seed and the bytes.
"""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from harness.agent import AgentProcess
from harness.raw import BUNDLE_API, ENTRY_API, HEADER, WORKLOAD_API, Admin, Wire, entry, module_agent
from sojourn._pb import workload_pb2 as workload
from sojourn._pb.envoy.service.discovery.v3 import discovery_pb2
from sojourn._pb.sojourn.v1 import admin_pb2, validation_pb2
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.entry.v1 import entry_pb2
from sojourn._pb.spire.api.server.svid.v1 import svid_pb2
from sojourn._pb.spire.api.server.trustdomain.v1 import trustdomain_pb2
from sojourn._pb.spire.api.types import types_pb2 as types

pytestmark = pytest.mark.full

CASES = int(os.environ.get("SOJOURN_FUZZ_CASES", "4000"))
SEED = int(os.environ.get("SOJOURN_FUZZ_SEED", "1"))
SECONDS = 120 + CASES / 50
SDS = "/envoy.service.secret.v3.SecretDiscoveryService/"
FEDERATION_API = "/spire.api.server.trustdomain.v1.TrustDomain/"
# What a call may end with. The page token of a list is SPIRE's exception: it is told as INTERNAL there.
REFUSALS = {
    *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "FAILED_PRECONDITION"),
    *("RESOURCE_EXHAUSTED", "UNIMPLEMENTED"),
}
PAGE_TOKEN = "failed to list entries: could not parse token"


@dataclass(frozen=True)
class Target:
    """A method and good requests of it."""

    method: str
    seeds: tuple[Message, ...]
    kind: str = "unary"


TOKEN = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEiLCJ0eXAiOiJKV1QifQ.eyJzdWIiOiJzcGlmZmU6Ly9leGFtcGxlLm9yZy94IiwiYXVkIjpbImEiXSwiZXhwIjoxfQ.AAAA"
FULL = entry(
    "/fuzz/web",
    "unix:uid:60001",
    "unix:path:/bin/x",
    id="fuzz-web",
    hint="h",
    dns_names=["a.example.org"],
    x509_svid_ttl=60,
    jwt_svid_ttl=60,
    expires_at=4_102_444_800,
    federates_with=["known.org"],
)
BUNDLE = types.Bundle(
    trust_domain="fuzz.org",
    sequence_number=1,
    refresh_hint=60,
    x509_authorities=[types.X509Certificate(asn1=b"\x30\x03\x02\x01\x00")],
    jwt_authorities=[types.JWTKey(key_id="a", public_key=b"\x30\x03\x02\x01\x00", expires_at=4_102_444_800)],
)
PUBLIC = [
    Target(WORKLOAD_API + "FetchX509SVID", (workload.X509SVIDRequest(),), "stream"),
    Target(WORKLOAD_API + "FetchX509Bundles", (workload.X509BundlesRequest(),), "stream"),
    Target(WORKLOAD_API + "FetchJWTBundles", (workload.JWTBundlesRequest(),), "stream"),
    Target(
        WORKLOAD_API + "FetchJWTSVID",
        (workload.JWTSVIDRequest(audience=["a", "b"], spiffe_id="spiffe://example.org/self"),),
    ),
    Target(WORKLOAD_API + "ValidateJWTSVID", (workload.ValidateJWTSVIDRequest(audience="a", svid=TOKEN),)),
    Target(
        "/sojourn.v1.Validation/ValidateToken",
        (validation_pb2.ValidateTokenRequest(token=TOKEN, audience="a", action="x"),),
    ),
    Target(
        SDS + "FetchSecrets",
        (
            discovery_pb2.DiscoveryRequest(
                resource_names=["default", "ROOTCA"], type_url="type.googleapis.com/x", node={"id": "e"}
            ),
        ),
    ),
    Target("/grpc.health.v1.Health/Check", (types.Selector(type=""),)),
]
ADMIN = [
    Target(ENTRY_API + "BatchCreateEntry", (entry_pb2.BatchCreateEntryRequest(entries=[FULL, entry("/f/b", "a:b")]),)),
    Target(
        ENTRY_API + "BatchUpdateEntry",
        (entry_pb2.BatchUpdateEntryRequest(entries=[FULL], input_mask=types.EntryMask(hint=True, dns_names=True)),),
    ),
    Target(ENTRY_API + "BatchDeleteEntry", (entry_pb2.BatchDeleteEntryRequest(ids=["fuzz-web", "x"]),)),
    Target(ENTRY_API + "GetEntry", (entry_pb2.GetEntryRequest(id="fuzz-web"),)),
    Target(
        ENTRY_API + "ListEntries",
        (
            entry_pb2.ListEntriesRequest(page_size=2, page_token="1:a"),
            entry_pb2.ListEntriesRequest(
                filter={"by_selectors": {"selectors": [{"type": "unix", "value": "uid:1"}], "match": 1}}
            ),
        ),
    ),
    Target(ENTRY_API + "CountEntries", (entry_pb2.CountEntriesRequest(),)),
    Target("/sojourn.v1.Admin/ApplyEntries", (admin_pb2.ApplyEntriesRequest(entries=[FULL], dry_run=True),)),
    Target(BUNDLE_API + "BatchSetFederatedBundle", (bundle_pb2.BatchSetFederatedBundleRequest(bundle=[BUNDLE]),)),
    Target(
        FEDERATION_API + "BatchCreateFederationRelationship",
        (
            trustdomain_pb2.BatchCreateFederationRelationshipRequest(
                federation_relationships=[
                    types.FederationRelationship(
                        trust_domain="fuzz.org", bundle_endpoint_url="https://fuzz.org/b", https_web={}
                    )
                ]
            ),
        ),
    ),
    Target("/spire.api.server.svid.v1.SVID/MintX509SVID", (svid_pb2.MintX509SVIDRequest(csr=b"\x30\x03\x02\x01\x00"),)),
    Target(
        "/spire.api.server.svid.v1.SVID/MintJWTSVID",
        (svid_pb2.MintJWTSVIDRequest(id=types.SPIFFEID(trust_domain="example.org", path="/m"), audience=["a"]),),
    ),
]
ODD = (b"\xff", b"\x00", b"\x80", b"\xff\xff\xff\xff\x0f", b"\x7f", b"\xed\xa0\x80", b"\n", b"/..", b"\x0a\x00", b"%00")


def mutated(source: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Some bytes that are like these."""
    made = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 4, 16))):
        place = source.randrange(len(made) + 1)
        match source.randrange(8):
            case 0 if made:
                made[place % len(made)] ^= 1 << source.randrange(8)
            case 1 if made:
                made[place % len(made)] = source.randrange(256)
            case 2:
                made[place:place] = source.choice(ODD)
            case 3:
                del made[place : place + source.choice((1, 2, 8))]
            case 4:
                del made[place:]
            case 5:
                made[place:place] = made[source.randrange(len(made) + 1) :][:64]
            case 6:
                other = source.choice(others)
                made[place:] = other[source.randrange(len(other) + 1) :]
            case 7:
                made += bytes(made[:200]) * source.choice((1, 3))
    return bytes(made[:65_536])


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register(
            "/self", f"unix:uid:{os.getuid()}", "unix:gid:0" if os.getuid() == 0 else f"unix:gid:{os.getgid()}"
        )
        admin.trust("known.org")
        yield running


def ask(wire: Wire, target: Target, data: bytes) -> str:
    """Make a call; what is wrong with how it ended, or ''."""
    try:
        if target.kind == "stream":
            wire.first(target.method, data, metadata=HEADER, timeout=30)
        else:
            wire.unary(target.method, data, metadata=HEADER, timeout=30)
    except StopIteration:
        return "the stream ended without an answer"
    except grpc.RpcError as error:
        ended: Any = error
        code, ours = ended.code().name, dict(ended.trailing_metadata() or ()).get("sojourn-code")
        if target.method.endswith("ListEntries") and (ended.details() or "").startswith(PAGE_TOKEN):
            return ""
        if code not in REFUSALS or not ours:
            return f"{code} ({ended.details()}) with the code {ours}"
    return ""


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("side", ["public", "admin"])
def test_mutated_messages(agent: AgentProcess, side: str) -> None:
    """However a request's bytes are changed, it is answered or refused with a stable code, and the agent goes on."""
    source = random.Random(f"{SEED} {side}")
    targets = PUBLIC if side == "public" else ADMIN
    seeds = [[seed.SerializeToString() for seed in target.seeds] for target in targets]
    everything = [seed for each in seeds for seed in each]
    wrong: list[str] = []
    with Wire(agent.socket if side == "public" else agent.admin_socket) as wire:
        for _ in range(CASES // 2):
            place = source.randrange(len(targets))
            data = mutated(source, source.choice(seeds[place]), everything)
            fault = ask(wire, targets[place], data)
            if fault:
                wrong.append(f"seed {SEED}: {targets[place].method} {data.hex()}: {fault}")
    assert [] == wrong[:5]
    assert agent.process is not None
    assert agent.process.poll() is None
    with Wire(agent.socket) as wire:
        assert "spiffe://example.org/self" in wire.x509_ids()


@pytest.mark.timeout(SECONDS)
def test_mutated_streams(agent: AgentProcess) -> None:
    """However a message's bytes are changed on an open stream of secrets, that goes on, or ends with a stable code."""
    source = random.Random(f"{SEED} streams")
    good = [
        discovery_pb2.DiscoveryRequest(resource_names=["default"], response_nonce="x").SerializeToString(),
        discovery_pb2.DeltaDiscoveryRequest(
            resource_names_subscribe=["default", "ALL"], initial_resource_versions={"default": "0" * 16}
        ).SerializeToString(),
    ]
    wrong: list[str] = []
    with Wire(agent.socket) as wire:
        for number in range(max(1, CASES // 20)):
            method = ("StreamSecrets", "DeltaSecrets")[number % 2]
            sent = [mutated(source, source.choice(good), good) for _ in range(5)]
            call = wire._channel.stream_stream(SDS + method)(iter(sent), timeout=30)
            try:
                for _ in call:
                    pass
            except grpc.RpcError as error:
                ended: Any = error
                code, ours = ended.code().name, dict(ended.trailing_metadata() or ()).get("sojourn-code")
                if code not in REFUSALS or not ours:
                    wrong.append(f"seed {SEED}: {method} {[each.hex() for each in sent]}: {code} {ended.details()}")
    assert [] == wrong[:5]


@pytest.mark.timeout(SECONDS)
def test_what_was_taken_can_be_read_again() -> None:
    """Whatever of mutated registrations, bundles and relationships was taken is there, as it was, after a restart."""
    source = random.Random(f"{SEED} restart")
    targets = [each for each in ADMIN if "Create" in each.method or "Set" in each.method or "Update" in each.method]
    lists = (
        ENTRY_API + "ListEntries",
        BUNDLE_API + "ListFederatedBundles",
        FEDERATION_API + "ListFederationRelationships",
    )
    with AgentProcess() as own:
        with Admin(own.admin_socket) as admin:
            admin.trust("known.org")
            for _ in range(CASES // 8):
                target = source.choice(targets)
                seeds = [seed.SerializeToString() for seed in target.seeds]
                ask(admin, target, mutated(source, source.choice(seeds), seeds))
            before = [admin.unary(method, b"") for method in lists]
        assert 0 == own.stop()
        own.start()
        with Admin(own.admin_socket) as admin:
            assert before == [admin.unary(method, b"") for method in lists]
