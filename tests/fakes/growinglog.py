"""A log that signs whatever tree it is given: one that grows as logs do, and forks of it."""

from functools import cache, partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sojourn.tlog.add_checkpoint import AddCheckpoint
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import Nodes, consistency_proof, leaf_hash, node_hash, root
from sojourn.tlog.notes import Note, Signer


@cache
def _node(forked_at: int | None, height: int, index: int) -> bytes:
    if forked_at is not None and forked_at >= (index + 1) << height:
        return _node(None, height, index)
    if height:
        return node_hash(*(_node(forked_at, height - 1, 2 * index + side) for side in (0, 1)))
    return leaf_hash(f"{'leaf' if forked_at is None else 'other'} {index}".encode())


class GrowingLog:
    """Leaves are texts; a fork has other ones from a place on."""

    def __init__(self, origin: str = "example.org/audit/here/0123456789abcdef", seed: bytes = b"7") -> None:
        self.signer = Signer(origin, Ed25519PrivateKey.from_private_bytes(seed * 32))
        self.at = 1_700_000_000

    @property
    def vkey(self) -> str:
        return str(self.signer.key)

    def nodes(self, forked_at: int | None = None) -> Nodes:
        return partial(_node, forked_at)

    def note(self, size: int, forked_at: int | None = None, signer: Signer | None = None) -> Note:
        by = signer or self.signer
        text = Checkpoint(self.signer.key.name, size, root(self.nodes(forked_at), size)).text
        return Note(text, (by.sign(text), by.cosign(text, self.at)))

    def request(self, old: int, size: int, forked_at: int | None = None) -> AddCheckpoint:
        proof = consistency_proof(self.nodes(forked_at), old, size) if 0 < old <= size else []
        return AddCheckpoint(old, tuple(proof), self.note(size, forked_at))
