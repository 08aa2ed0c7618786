"""What a stolen node, a workload, and whoever can reach the port can have of a server: nothing that is not theirs."""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.ca import FakeCa
from harness.nodewire import (
    AGENT,
    BUNDLE,
    ENTRY,
    REQUESTS,
    SVID,
    NodeWire,
    attestation,
    csr,
    entry_of,
    hang_up,
    joined,
    new_key,
    new_token,
    signing,
    svid_of,
)
from harness.servers import ServerProcess
from harness.spirenode import bundle_of, command
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.spiffe.x509svid import X509Svid

pytestmark = pytest.mark.forked

EXPIRED, NOT_ATTESTED, NOT_ACTIVE, BANNED, MUST_REATTEST = range(1, 6)
MASK = types.EntryMask(spiffe_id=True, revision_number=True)
USED = "failed to attest: join token does not exist or has already been used"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


def wire(server: ServerProcess, svid: X509Svid | None = None) -> NodeWire:
    return NodeWire(server, bundle_of(server), svid)


class TestAStolenNode:
    async def test_others_entries(self, server: ServerProcess) -> None:
        """A node has nothing signed for another node's entry, and cannot tell such an entry from none."""
        mine, theirs = await joined(server), await joined(server)
        own = await entry_of(server, str(mine.spiffe_id), "/mine")
        other = await entry_of(server, str(theirs.spiffe_id), "/theirs")
        key = new_key()
        async with wire(server, mine) as node:
            asked = [signing(each, csr(key)) for each in (own, other, "00000000-0000-0000-0000-000000000000")]
            told = await node.call(SVID + "BatchNewX509SVID", pb.BatchNewX509SvidRequest(params=asked))
            statuses = [(each.status.code, each.status.message) for each in told.answer.results]
            assert [(0, "OK"), *[(5, "entry not found or not authorized")] * 2] == statuses
            jwts = [
                await node.call(SVID + "NewJWTSVID", pb.NewJwtSvidRequest(entry_id=each, audience=["a"]))
                for each in (own, other)
            ]
            assert ["OK", "NOT_FOUND"] == [each.code for each in jwts]

    async def test_others_entries_are_not_told(self, server: ServerProcess) -> None:
        """A node hears of its own entries: neither a list nor an ID that it knows tells it another's."""
        mine, theirs = await joined(server), await joined(server)
        other = await entry_of(server, str(theirs.spiffe_id), "/not-told")
        made = [f"/many/{number}" for number in range(501)]
        from harness.spirenode import register

        await register(server, str(mine.spiffe_id), made)
        async with wire(server, mine) as node:
            told = await node.call(ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest())
            assert 501 == len(told.answer.entries)
            assert other not in {each.id for each in told.answer.entries}
            asked = pb.SyncAuthorizedEntriesRequest(ids=[other, told.answer.entries[0].id])
            told = await node.call(
                ENTRY + "SyncAuthorizedEntries", pb.SyncAuthorizedEntriesRequest(output_mask=MASK), asked
            )
            revisions = {each.id for page in told.answers for each in page.entry_revisions}
            given = [each.id for page in told.answers for each in page.entries]
            assert (501, False, [asked.ids[1]]) == (len(revisions), other in revisions, given)

    async def test_what_a_request_says(self, server: ServerProcess) -> None:
        """A certificate request for another SPIFFE ID is signed for the entry's, and a node's own for the node's."""
        mine = await joined(server)
        own = await entry_of(server, str(mine.spiffe_id), "/asked")
        key = new_key()
        wanted = f"spiffe://{server.trust_domain}/spire/server"
        async with wire(server, mine) as node:
            asked = [signing(own, csr(key, wanted))]
            told = await node.call(SVID + "BatchNewX509SVID", pb.BatchNewX509SvidRequest(params=asked))
            assert "/asked" == svid_of(told.answer.results[0].svid, key).spiffe_id.path
            request = pb.RenewAgentRequest(params=pb.X509SvidParams(csr=csr(key, wanted)))
            told = await node.call(AGENT + "RenewAgent", request)
            assert mine.spiffe_id == svid_of(told.answer.svid, key).spiffe_id

    async def test_a_key_of_others(self, server: ServerProcess) -> None:
        """Who has another's public key, and not its private one, gets no SVID for it."""
        mine = await joined(server)
        own = await entry_of(server, str(mine.spiffe_id), "/foreign-key")
        forged = bytearray(csr(new_key()))
        forged[-1] ^= 1
        async with wire(server, mine) as node:
            asked = [signing(own, bytes(forged)), signing(own, b"none")]
            told = await node.call(SVID + "BatchNewX509SVID", pb.BatchNewX509SvidRequest(params=asked))
            assert [3, 3] == [each.status.code for each in told.answer.results]
            assert all(not each.svid.cert_chain for each in told.answer.results)

    async def test_too_much_at_once(self, server: ServerProcess) -> None:
        """A call for more than 500 signatures is refused before one is made, and a node has so many calls at once."""
        mine = await joined(server)
        async with wire(server, mine) as node:
            asked = pb.BatchNewX509SvidRequest(params=[signing("a", b"a")] * 501)
            assert "RESOURCE_EXHAUSTED" == (await node.call(SVID + "BatchNewX509SVID", asked)).code
            again = await node.call(ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest())
            assert "OK" == again.code

    @pytest.mark.parametrize(
        "method",
        [
            AGENT + "ListAgents",
            AGENT + "BanAgent",
            AGENT + "CreateJoinToken",
            ENTRY + "BatchCreateEntry",
            ENTRY + "ListEntries",
            SVID + "MintX509SVID",
            SVID + "NewDownstreamX509CA",
            BUNDLE + "BatchSetFederatedBundle",
            "/spire.api.server.localauthority.v1.LocalAuthority/TaintX509Authority",
            "/sojourn.v1.Admin/GetStatus",
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ],
    )
    async def test_what_operators_call(self, server: ServerProcess, method: str) -> None:
        """What operators call is not at the port for nodes, whoever calls it."""
        async with wire(server, await joined(server)) as node:
            assert "UNIMPLEMENTED" == (await node.call(method, types.Status())).code


class TestItsSvid:
    async def test_a_renewed_one_counts_from_its_first_use(self, server: ServerProcess) -> None:
        """The old SVID is good until the new one is shown, and then it is told that it is not active."""
        first = await joined(server)
        key = new_key()
        ask = pb.GetAuthorizedEntriesRequest()
        async with wire(server, first) as old:
            told = await old.call(AGENT + "RenewAgent", pb.RenewAgentRequest(params=pb.X509SvidParams(csr=csr(key))))
            second = svid_of(told.answer.svid, key)
            assert "OK" == (await old.call(ENTRY + "GetAuthorizedEntries", ask)).code
            async with wire(server, second) as new:
                assert "OK" == (await new.call(ENTRY + "GetAuthorizedEntries", ask)).code
            told = await old.call(ENTRY + "GetAuthorizedEntries", ask)
            assert ("PERMISSION_DENIED", NOT_ACTIVE) == (told.code, told.reason)
            told = await old.call(AGENT + "RenewAgent", pb.RenewAgentRequest(params=pb.X509SvidParams(csr=csr(key))))
            assert NOT_ACTIVE == told.reason

    async def test_a_ban_counts_on_an_open_connection(self, server: ServerProcess) -> None:
        """A banned node's next call is refused on the connection that it has, and an evicted one's as well."""
        mine = await joined(server)
        ask = pb.GetAuthorizedEntriesRequest()
        async with wire(server, mine) as node:
            await command(server, "agent", "ban", "-spiffeID", str(mine.spiffe_id))
            assert BANNED == (await node.call(ENTRY + "GetAuthorizedEntries", ask)).reason
            await command(server, "agent", "evict", "-spiffeID", str(mine.spiffe_id))
            assert NOT_ATTESTED == (await node.call(ENTRY + "GetAuthorizedEntries", ask)).reason

    async def test_a_workload_is_no_node(self, server: ServerProcess) -> None:
        """An SVID of a workload, which its node could use as well, opens nothing that is for nodes."""
        mine = await joined(server)
        own = await entry_of(server, str(mine.spiffe_id), "/workload")
        key = new_key()
        async with wire(server, mine) as node:
            asked = pb.BatchNewX509SvidRequest(params=[signing(own, csr(key))])
            told = await node.call(SVID + "BatchNewX509SVID", asked)
        async with wire(server, svid_of(told.answer.results[0].svid, key)) as workload:
            for method in (ENTRY + "GetAuthorizedEntries", SVID + "NewJWTSVID", AGENT + "RenewAgent"):
                assert NOT_ATTESTED == (await workload.call(method, REQUESTS[method]())).reason

    async def test_of_another_authority(self, server: ServerProcess) -> None:
        """A certificate for the very node, by an authority that is none, is refused in the handshake."""
        mine = await joined(server)
        forged = FakeCa.make(server.trust_domain).svid(mine.spiffe_id.path)
        async with wire(server, forged) as node:
            told = await node.call(ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest())
            assert "UNAVAILABLE" == told.code


class TestStrangers:
    async def test_a_token_is_good_once(self, server: ServerProcess) -> None:
        """A token that somebody else has used, at the same moment too, lets nobody else in."""
        token = await new_token(server)
        asked = [attestation("join_token", token.encode(), csr(new_key())) for _ in range(8)]
        async with wire(server) as one, wire(server) as two:
            told = await asyncio.gather(
                *((one, two)[number % 2].call(AGENT + "AttestAgent", each) for number, each in enumerate(asked))
            )
        assert ["INVALID_ARGUMENT"] * 7 + ["OK"] == sorted(each.code for each in told)
        assert {USED, ""} == {each.text for each in told}

    async def test_without_an_svid(self, server: ServerProcess) -> None:
        """Who shows none has the trust domain's bundle, which is public, and nothing else."""
        async with wire(server) as nobody:
            told = await nobody.call(BUNDLE + "GetBundle", bundle_pb2.GetBundleRequest())
            assert server.trust_domain == told.answer.trust_domain
            for method in (ENTRY + "GetAuthorizedEntries", SVID + "BatchNewX509SVID", BUNDLE + "GetFederatedBundle"):
                told = await nobody.call(method, REQUESTS[method]())
                assert ("PERMISSION_DENIED", f"authorization denied for method {method}") == (told.code, told.text)

    async def test_what_is_no_attestation(self, server: ServerProcess) -> None:
        """What is not whole is refused in SPIRE's words, and an attestor that is not there is told."""
        whole = csr(new_key())
        async with wire(server) as nobody:
            for asked, said in (
                (pb.AttestAgentRequest(), "malformed param: missing params"),
                (attestation("", b"a", whole), "malformed param: missing attestation data type"),
                (attestation("join_token", b"", whole), "malformed param: missing attestation data payload"),
                (attestation("join_token", b"a", b""), "malformed param: missing CSR"),
                (attestation("join_token", b"a", b"no"), "failed to parse CSR"),
                (attestation("x509pop", b"a", whole), "could not find node attestor type"),
            ):
                told = await nobody.call(AGENT + "AttestAgent", asked)
                assert said in told.text, told

    async def test_a_token_is_not_used_up_by_a_bad_request(self, server: ServerProcess) -> None:
        """A request that could not be signed uses no token up."""
        token = await new_token(server)
        async with wire(server) as nobody:
            await nobody.call(AGENT + "AttestAgent", attestation("join_token", token.encode(), b"no"))
        assert token in (await joined(server, token)).spiffe_id.path

    async def test_silence(self, server: ServerProcess) -> None:
        """Those who open connections and say nothing keep nobody out."""
        port = server.node_port
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        silent += [await asyncio.open_connection("127.0.0.1", port, ssl=context) for _ in range(20)]
        try:
            assert await joined(server)
        finally:
            await hang_up(*(writer for _, writer in silent))

    async def test_noise(self, server: ServerProcess) -> None:
        """What is no TLS, and no HTTP/2 within TLS, ends its connection and nothing else."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for tls in (None, context):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.node_port, ssl=tls)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await asyncio.wait_for(reader.read(), 20)
            await hang_up(writer)
        assert await joined(server)


async def test_guessing_is_slow(tmp_path: Path) -> None:
    """Who guesses tokens is stopped after a few hundred, each denial is in the journal or counted there, and nodes go on."""
    with ServerProcess(tmp_path / "server") as server:
        mine = await joined(server)
        asked = attestation("join_token", b"guess", csr(new_key()))
        async with wire(server) as nobody, wire(server, mine) as node:
            told = [await nobody.call(AGENT + "AttestAgent", asked) for _ in range(400)]
            # grpcio says this of its own when it is refused before it has sent its message: the server's log has none
            codes = {each.code for each in told if "Internal error from Core" != each.text}
            assert {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"} == codes
            assert '"code": "internal"' not in server.log.read_text()
            again = await node.call(ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest())
            assert "OK" == again.code
        assert server.events("node_not_joined")
