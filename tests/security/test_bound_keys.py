"""What strangers and thieves have of a node whose name is bound to a key, at a server's port for nodes."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from harness.nodewire import ENTRY, NodeWire
from harness.servers import ServerProcess
from harness.spirenode import bundle_of
from sojourn._pb.spire.api.server.node.v1 import node_pb2 as pb
from sojourn.errors import InvalidInput, Refused, SojournError
from sojourn.spireapi import bound_key as messages
from sojourn.spireapi.bound_key import Answer, Asked
from sojourn.upstream.bound_key import Binding, BoundKey
from sojourn.upstream.connection import ServerConnection
from sojourn.upstream.node_attestation import AttestedNode, attest

DOMAIN = "spire.example"
ASK = pb.GetAuthorizedEntriesRequest()
NOT_ACTIVE = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


class Node:
    """A node's key and stamps."""

    def __init__(self, server: ServerProcess, name: str) -> None:
        self.server, self.name = server, name
        self.binding = Binding(ec.generate_private_key(ec.SECP256R1()), following=os.urandom(32))

    def token(self) -> str:
        made: str = self.server.json("token", "generate", "--node", self.name, "--bound")["token"]
        return made

    def copied(self) -> "Node":
        other = Node(self.server, self.name)
        other.binding = replace(self.binding, following=os.urandom(32))
        return other

    def attestor(self, token: str = "") -> BoundKey:
        return BoundKey(self.binding, DOMAIN, self._taken, token)

    def _taken(self, binding: Binding) -> None:
        self.binding = replace(binding, following=os.urandom(32))

    async def join(self, token: str = "", attestor: Any = None) -> AttestedNode:
        bundle = bundle_of(self.server)
        async with ServerConnection(self.server.address, bundle) as wire:
            return await attest(wire, attestor or self.attestor(token), bundle, datetime.now(UTC))

    async def asks(self, node: AttestedNode) -> tuple[str, int]:
        async with NodeWire(self.server, bundle_of(self.server), node.svid) as wire:
            told = await wire.call(ENTRY + "GetAuthorizedEntries", ASK)
        return told.code, told.reason


@dataclass
class Says:
    """Who says this first, and then that, whatever is asked."""

    payload: bytes
    said: bytes
    type: str = messages.TYPE

    def answer(self, _challenge: bytes) -> bytes:
        return self.said


async def test_a_thief_of_what_was_heard(server: ServerProcess) -> None:
    """Who has heard all that a node has said, but has not its key, is nobody, and has the node not locked."""
    node = Node(server, "heard")
    await node.join(node.token())
    attestor = node.attestor()
    heard = attestor.answer(messages.challenge(os.urandom(32)))
    with pytest.raises(Refused, match="signature"):
        await node.join(attestor=Says(attestor.payload, heard))
    other = ec.generate_private_key(ec.SECP256R1())
    forged = replace(Answer.parse(heard), signature=other.sign(b"that", ec.ECDSA(hashes.SHA256())))
    with pytest.raises(Refused, match="signature"):
        await node.join(attestor=Says(attestor.payload, forged.text()))
    assert "OK" == (await node.asks(await node.join()))[0]
    assert not [each for each in server.events("node_locked") if each["spiffe_id"].endswith("/heard")]


async def test_a_thief_of_the_token(server: ServerProcess) -> None:
    """Of two who show a token one is the node: the other is told, and the operator sees that it has joined."""
    thief, node = Node(server, "first"), Node(server, "first")
    token = node.token()
    await thief.join(token)
    with pytest.raises(InvalidInput, match="already been used"):
        await node.join(token)
    assert any("already been used" in each["reason"] for each in server.events("node_not_joined"))


async def test_a_thief_of_the_files(server: ServerProcess) -> None:
    """Who has all files of a node is the node until the other one attests, and then neither is; a token ends that."""
    node = Node(server, "stolen")
    await node.join(node.token())
    thief = node.copied()
    stolen = await thief.join()
    assert "OK" == (await thief.asks(stolen))[0]
    with pytest.raises(Refused, match="locked"):
        await node.join()
    assert ("PERMISSION_DENIED", NOT_ACTIVE) == await thief.asks(stolen)
    with pytest.raises(Refused, match="locked"):
        await thief.join()
    assert ["stolen"] == [each["spiffe_id"].rpartition("/")[2] for each in server.events("node_locked")]
    again = Node(server, "stolen")
    assert "OK" == (await again.asks(await again.join(again.token())))[0]
    with pytest.raises(Refused, match="no node is bound"):
        await thief.join()


@pytest.mark.parametrize(
    "payload",
    [
        *(b"a", b"{}", b"[" * 4_000, b"{" * 100_000),
        Asked(ec.generate_private_key(ec.SECP521R1()).public_key()).text(),
    ],
)
async def test_what_is_none(server: ServerProcess, payload: bytes) -> None:
    """What is no such message is refused, and the server goes on without a fault of its own."""
    with pytest.raises(SojournError) as error:
        await Node(server, "none").join(attestor=Says(payload, b"{}"))
    assert isinstance(error.value, InvalidInput)
    good = Asked(ec.generate_private_key(ec.SECP256R1()).public_key()).text()
    with pytest.raises(InvalidInput):
        await Node(server, "none").join(attestor=Says(good, payload))
    assert '"code": "internal"' not in server.log.read_text()
