"""The same requests to a real spire-server and to a server of ours: what differs in the answers is named here."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.json_format import MessageToDict
from harness.nodewire import (
    AGENT,
    BUNDLE,
    ENTRY,
    REQUESTS,
    SVID,
    NodeWire,
    Told,
    attestation,
    csr,
    entry_of,
    joined,
    new_key,
    signing,
    svid_of,
)
from harness.spirenode import Machines, NodeServer, RunningNode, bundle_of, command, server_of
from sojourn._pb.spire.api.server.bundle.v1 import bundle_pb2
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn._pb.spire.api.types import types_pb2 as types
from sojourn.spiffe.x509svid import X509Svid

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]

ALL_FIELDS = types.EntryMask(
    **dict.fromkeys(
        (
            *("spiffe_id", "parent_id", "selectors", "x509_svid_ttl", "federates_with", "admin", "downstream"),
            *("expires_at", "dns_names", "revision_number", "store_svid", "jwt_svid_ttl", "hint"),
            "additional_attributes",
        ),
        True,
    )
)


@pytest.fixture(scope="module")
def machines() -> Machines:
    return Machines()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, machines: Machines) -> Iterator[tuple[NodeServer, NodeServer]]:
    """SPIRE's server and ours, both of the same trust domain."""
    folder = tmp_path_factory.mktemp("servers")
    (folder / "ca.pem").write_bytes(machines.certificate.public_bytes(Encoding.PEM))
    (folder / "ca.pem").chmod(0o600)
    with (
        server_of("spire", folder / "spire", folder / "ca.pem") as spire,
        server_of("sojourn", folder / "sojourn", folder / "ca.pem") as ours,
    ):
        yield spire, ours


class Node:
    """One node at one server, with an entry of its own and one of another node's; and what tells their names apart.

    `wire` shows its SVID, `nobody` shows none: both while a test has it open.
    """

    wire: NodeWire
    nobody: NodeWire

    def __init__(self, server: NodeServer, svid: X509Svid) -> None:
        self.server, self.svid = server, svid
        self.bundle = bundle_of(server)
        self.names: dict[str, str] = {str(svid.spiffe_id): "NODE", svid.spiffe_id.path: "NODE-PATH"}
        self.names[str(svid.leaf.serial_number)] = "SERIAL"
        self.key = new_key()

    @classmethod
    async def of(cls, server: NodeServer) -> "Node":
        """A new one, once the server has its entries: SPIRE's looks for new ones each five seconds."""
        mine, other = await joined(server), await joined(server)
        self = cls(server, mine)
        path = f"/{mine.spiffe_id.path.rpartition('/')[2]}"
        self.names[path] = "/PATH"
        more = ["-x509SVIDTTL", "600", "-jwtSVIDTTL", "60", "-dns", "a.example", "-dns", "b.example", "-hint", "in"]
        own = f"{path}/own"
        self.own = await entry_of(server, str(mine.spiffe_id), own, *more, selectors=["unix:uid:1", "unix:gid:2"])
        parent = f"spiffe://{server.trust_domain}{own}"
        self.nested = await entry_of(server, parent, f"{path}/nested", selectors=["unix:uid:3"])
        self.theirs = await entry_of(server, str(other.spiffe_id), f"{path}/theirs", selectors=["unix:uid:4"])
        self.names |= {self.own: "OWN", self.nested: "NESTED", self.theirs: "THEIRS"}
        async with NodeWire(server, self.bundle, mine) as wire:
            for _ in range(150):
                told = await wire.call(ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest())
                if 2 == len(told.answer.entries):
                    return self
                await asyncio.sleep(0.2)
        raise AssertionError("the entries did not come")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Node"]:
        shown, none = NodeWire(self.server, self.bundle, self.svid), NodeWire(self.server, self.bundle)
        async with shown as self.wire, none as self.nobody:
            yield self

    def plain(self, told: Told) -> dict[str, Any]:
        """An answer without what is another at each server: IDs, keys, serial numbers and times."""
        answers = [self._plain(MessageToDict(each, preserving_proto_field_name=True)) for each in told.answers]
        return {"code": told.code, "text": self._named(told.text), "reason": told.reason, "answers": answers}

    def _plain(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._plain(each, key) for key, each in value.items()}
        if name == "cert_chain":
            return "CHAIN"  # ours has an intermediate
        if isinstance(value, list):
            found = [self._plain(each, name) for each in value]
            return sorted(found, key=json.dumps) if name in {"entries", "selectors"} else found
        if name in {"expires_at", "issued_at", "created_at"}:
            return "TIME"
        if name in {"token", "asn1", "public_key", "key_id", "challenge"}:
            return name.upper()
        return self._named(value) if isinstance(value, str) else value

    def _named(self, text: str) -> str:
        for known, name in sorted(self.names.items(), key=lambda each: -len(each[0])):
            text = text.replace(known, name)
        return text


@pytest.fixture(scope="module")
def prepared(both: tuple[NodeServer, NodeServer]) -> tuple[Node, Node]:
    """A node at each, for whoever asks and changes nothing."""

    async def made() -> tuple[Node, Node]:
        return await Node.of(both[0]), await Node.of(both[1])

    return asyncio.run(made())


@pytest.fixture
async def nodes(prepared: tuple[Node, Node]) -> AsyncIterator[tuple[Node, Node]]:
    async with prepared[0].open() as spire, prepared[1].open() as ours:
        yield spire, ours


Ask = Callable[[Node], Any]


async def compared(nodes: tuple[Node, Node], ask: Ask) -> tuple[dict[str, Any], dict[str, Any]]:
    """What SPIRE's server answers, and what ours does."""
    spire, ours = [node.plain(await ask(node)) for node in nodes]
    return spire, ours


def batch(*params: Any) -> pb.BatchNewX509SvidRequest:
    return pb.BatchNewX509SvidRequest(params=params)


# What is asked, by what it is about. Each is asked of both, and the answers have to be the same.
SAME: dict[str, Ask] = {
    "all entries": lambda node: node.wire.call(
        ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest(output_mask=ALL_FIELDS)
    ),
    "entries without a mask": lambda node: node.wire.call(
        ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest()
    ),
    "IDs of entries alone": lambda node: node.wire.call(
        ENTRY + "GetAuthorizedEntries", pb.GetAuthorizedEntriesRequest(output_mask=types.EntryMask())
    ),
    "a sync": lambda node: node.wire.call(
        ENTRY + "SyncAuthorizedEntries", pb.SyncAuthorizedEntriesRequest(output_mask=ALL_FIELDS)
    ),
    "a sync without a mask": lambda node: node.wire.call(
        ENTRY + "SyncAuthorizedEntries", pb.SyncAuthorizedEntriesRequest()
    ),
    "a sync that masks revisions": lambda node: node.wire.call(
        ENTRY + "SyncAuthorizedEntries", pb.SyncAuthorizedEntriesRequest(output_mask=types.EntryMask(spiffe_id=True))
    ),
    "a sync that begins with IDs": lambda node: node.wire.call(
        ENTRY + "SyncAuthorizedEntries", pb.SyncAuthorizedEntriesRequest(output_mask=ALL_FIELDS, ids=["a"])
    ),
    "signatures": lambda node: node.wire.call(
        SVID + "BatchNewX509SVID", batch(signing(node.own, csr(node.key)), signing(node.nested, csr(node.key)))
    ),
    "signatures of others": lambda node: node.wire.call(
        SVID + "BatchNewX509SVID", batch(signing(node.theirs, csr(node.key)), signing("none", csr(node.key)))
    ),
    "signatures without entry or request": lambda node: node.wire.call(
        SVID + "BatchNewX509SVID", batch(signing("", csr(node.key)), signing(node.own, b""))
    ),
    "no signatures": lambda node: node.wire.call(SVID + "BatchNewX509SVID", batch()),
    "a token": lambda node: node.wire.call(
        SVID + "NewJWTSVID", pb.NewJwtSvidRequest(entry_id=node.own, audience=["a", "b"])
    ),
    "a token of others": lambda node: node.wire.call(
        SVID + "NewJWTSVID", pb.NewJwtSvidRequest(entry_id=node.theirs, audience=["a"])
    ),
    "a token for nobody": lambda node: node.wire.call(SVID + "NewJWTSVID", pb.NewJwtSvidRequest(entry_id=node.own)),
    "a token of no entry": lambda node: node.wire.call(SVID + "NewJWTSVID", pb.NewJwtSvidRequest(audience=["a"])),
    "a renewal": lambda node: node.wire.call(
        AGENT + "RenewAgent", pb.RenewAgentRequest(params=pb.X509SvidParams(csr=csr(node.key)))
    ),
    "a renewal without a request": lambda node: node.wire.call(
        AGENT + "RenewAgent", pb.RenewAgentRequest(params=pb.X509SvidParams())
    ),
    "a renewal without anything": lambda node: node.wire.call(AGENT + "RenewAgent", pb.RenewAgentRequest()),
    "a foreign bundle that is not there": lambda node: node.wire.call(
        BUNDLE + "GetFederatedBundle", bundle_pb2.GetFederatedBundleRequest(trust_domain="other.example")
    ),
    "the own bundle as a foreign one": lambda node: node.wire.call(
        BUNDLE + "GetFederatedBundle", bundle_pb2.GetFederatedBundleRequest(trust_domain=node.server.trust_domain)
    ),
    "an attestation of nothing": lambda node: node.nobody.call(AGENT + "AttestAgent", pb.AttestAgentRequest()),
    "an attestation without a type": lambda node: node.nobody.call(
        AGENT + "AttestAgent", attestation("", b"a", csr(node.key))
    ),
    "an attestation without a payload": lambda node: node.nobody.call(
        AGENT + "AttestAgent", attestation("join_token", b"", csr(node.key))
    ),
    "an attestation without a request": lambda node: node.nobody.call(
        AGENT + "AttestAgent", attestation("join_token", b"a", b"")
    ),
    "a token that is none": lambda node: node.nobody.call(
        AGENT + "AttestAgent", attestation("join_token", b"a", csr(node.key))
    ),
    "an attestor that is none": lambda node: node.nobody.call(
        AGENT + "AttestAgent", attestation("nobody", b"a", csr(node.key))
    ),
    **{
        f"{method.rpartition('/')[2]} without an SVID": lambda node, method=method: node.nobody.call(
            method, REQUESTS[method]()
        )
        for method in sorted(REQUESTS)
        if not method.endswith(("AttestAgent", "GetBundle", "PostStatus"))
    },
}


@pytest.mark.parametrize("what", sorted(SAME))
async def test_the_same_answer(nodes: tuple[Node, Node], what: str) -> None:
    """Status, text, reason and each field are as at SPIRE's server."""
    spire, ours = await compared(nodes, SAME[what])
    assert spire == ours


# Texts that differ behind the part that is compared: each with that part.
BEGINS: dict[str, tuple[Ask, str]] = {
    "a request that cannot be read": (
        lambda node: node.wire.call(SVID + "BatchNewX509SVID", batch(signing(node.own, b"none"))),
        "malformed CSR",
    ),
    "a request for a node that cannot be read": (
        lambda node: node.wire.call(AGENT + "RenewAgent", pb.RenewAgentRequest(params=pb.X509SvidParams(csr=b"none"))),
        "failed to parse CSR",
    ),
    "a certificate that cannot be read": (
        lambda node: node.nobody.call(AGENT + "AttestAgent", attestation("x509pop", b"none", csr(node.key))),
        "",
    ),
    "a foreign trust domain that is none": (
        lambda node: node.wire.call(
            BUNDLE + "GetFederatedBundle", bundle_pb2.GetFederatedBundleRequest(trust_domain="No!")
        ),
        "trust domain argument is not valid",
    ),
}


@pytest.mark.parametrize("what", sorted(BEGINS))
async def test_the_same_status(nodes: tuple[Node, Node], what: str) -> None:
    """What a parser has to say is our own; status, and how the text begins, are as at SPIRE's server."""
    ask, begins = BEGINS[what]
    found = [await _statuses(node, ask) for node in nodes]
    for spire, ours in zip(*found, strict=True):
        assert spire[0] == ours[0]
        assert spire[1].startswith(begins)
        assert ours[1].startswith(begins)


async def _statuses(node: Node, ask: Ask) -> list[tuple[Any, str]]:
    """The status of a call, or those of its items."""
    told = await ask(node)
    if told.code != "OK":
        return [(told.code, told.text)]
    return [(each.status.code, each.status.message) for each in told.answers[0].results]


async def test_a_ban_and_an_eviction(both: tuple[NodeServer, NodeServer]) -> None:
    """Banned, evicted and overtaken nodes are told so in the same words, with the same reasons."""
    async with (await Node.of(both[0])).open() as spire, (await Node.of(both[1])).open() as ours:
        found = [await _ended(node) for node in (spire, ours)]
    assert found[0] == found[1]
    assert ["OK", 3, 4, 2] == [found[1][0], *(each["reason"] for each in found[1][1:])]


async def _ended(node: Node) -> list[Any]:
    """What a node hears by its new SVID, by the one before, banned, and evicted."""
    ask = pb.GetAuthorizedEntriesRequest()
    asked = pb.RenewAgentRequest(params=pb.X509SvidParams(csr=csr(node.key)))
    newer = svid_of((await node.wire.call(AGENT + "RenewAgent", asked)).answer.svid, node.key)
    node.names[str(newer.leaf.serial_number)] = "NEWER"
    async with NodeWire(node.server, node.bundle, newer) as renewed:
        heard = [(await renewed.call(ENTRY + "GetAuthorizedEntries", ask)).code]
        heard.append(node.plain(await node.wire.call(ENTRY + "GetAuthorizedEntries", ask)))
        for verb in ("ban", "evict"):
            await command(node.server, "agent", verb, "-spiffeID", str(node.svid.spiffe_id))
            heard.append(node.plain(await renewed.call(ENTRY + "GetAuthorizedEntries", ask)))
    return heard


async def test_what_is_signed(nodes: tuple[Node, Node]) -> None:
    """Names, uses, purposes and life of an X.509-SVID are the same; so are the claims of a JWT-SVID, but for its `jti`."""
    leaves, claims = [], []
    for node in nodes:
        told = await node.wire.call(SVID + "BatchNewX509SVID", batch(signing(node.own, csr(node.key))))
        said = _told_of(svid_of(told.answer.results[0].svid, node.key))
        leaves.append({**said, "uris": [node._named(each) for each in said["uris"]]})
        told = await node.wire.call(SVID + "NewJWTSVID", pb.NewJwtSvidRequest(entry_id=node.own, audience=["a", "b"]))
        claims.append({**(said := _claims(told.answer.svid.token)), "sub": node._named(said["sub"])})
    spire, ours = leaves
    assert spire.pop("subject") != ours.pop("subject")  # ours says nothing of SPIRE
    assert spire.pop("uses") > ours.pop("uses")  # keys of ours are for signatures, as the standard needs it
    assert abs(spire.pop("life") - ours.pop("life")) <= 1  # a second that was begun is whole at ours
    assert spire == ours
    assert "jti" in claims[1]
    assert {**claims[0], "jti": ""} == {**claims[1], "jti": ""}


async def test_a_machines_certificate(both: tuple[NodeServer, NodeServer], machines: Machines, tmp_path: Path) -> None:
    """By a certificate a node has the same ID and the same selectors, and what it can do is said alike."""
    files = machines.files(tmp_path, ec.generate_private_key(ec.SECP256R1()), "compared")
    shown = []
    for number, server in enumerate(both):
        async with RunningNode(server, tmp_path / str(number), files) as running:
            node = str(running.node.spiffe_id)
            told = await command(server, "agent", "show", "-spiffeID", node, "-output", "json")
            agent = json.loads(told)
            agent["selectors"] = sorted(agent["selectors"], key=json.dumps)
            shown.append({name: each for name, each in agent.items() if name in {"id", "selectors", "attestation_type",
                                                                                 "banned", "can_reattest"}})  # fmt: skip
    assert shown[0] == shown[1]


async def test_by_revisions(both: tuple[NodeServer, NodeServer], tmp_path: Path) -> None:
    """Where there are more than 500 entries pages and marks of more to come are the same."""
    found = []
    for server in both:
        mine = await joined(server)
        made = [
            {
                "parent_id": str(mine.spiffe_id),
                "spiffe_id": f"spiffe://{server.trust_domain}/n{number}",
                "selectors": [{"type": "unix", "value": f"uid:{number + 1}"}],
            }
            for number in range(1_001)
        ]
        (tmp_path / "entries.json").write_text(json.dumps({"entries": made}))
        await command(server, "entry", "create", "-data", str(tmp_path / "entries.json"))
        async with NodeWire(server, bundle_of(server), mine) as wire:
            ask = pb.SyncAuthorizedEntriesRequest(output_mask=ALL_FIELDS)
            for _ in range(150):
                told = await wire.call(ENTRY + "SyncAuthorizedEntries", ask)
                ids = sorted(each.id for page in told.answers for each in page.entry_revisions)
                if len(ids) == 1_001:
                    break
                await asyncio.sleep(0.2)
            wanted = [
                pb.SyncAuthorizedEntriesRequest(ids=ids[:500]),
                pb.SyncAuthorizedEntriesRequest(ids=["unknown"]),
                # Twice the same would be answered twice by SPIRE's, and once by ours.
                pb.SyncAuthorizedEntriesRequest(ids=[*ids[:3], "unknown"]),
            ]
            told = await wire.call(ENTRY + "SyncAuthorizedEntries", ask, *wanted)
            found.append([(len(each.entry_revisions), len(each.entries), each.more) for each in told.answers])
    assert found[0] == found[1]


def _told_of(svid: X509Svid) -> dict[str, Any]:
    """What a leaf says, but for keys, numbers and times of day."""
    leaf = svid.leaf
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage)
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    uses = ("digital_signature", "key_encipherment", "key_agreement", "key_cert_sign", "crl_sign")
    life: Callable[[datetime, datetime], float] = lambda begin, end: (end - begin).total_seconds()  # noqa: E731
    return {
        "subject": leaf.subject.rfc4514_string(),
        "uris": names.get_values_for_type(x509.UniformResourceIdentifier),
        "names": names.get_values_for_type(x509.DNSName),
        "uses": {name for name in uses if getattr(usage.value, name)},
        "critical": (usage.critical, purposes.critical, constraints.critical),
        "purposes": sorted(each.dotted_string for each in purposes.value),
        "ca": constraints.value.ca,
        "life": life(leaf.not_valid_before_utc, leaf.not_valid_after_utc),
        "key": type(leaf.public_key()).__name__,
    }


def _claims(token: str) -> dict[str, Any]:
    import base64

    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    claims["exp"] -= claims.pop("iat")
    return dict(claims)
