"""What a log sends to a witness (C2SP tlog-witness, add-checkpoint): a checkpoint, and how it follows on an older one.

old SIZE
BASE64 of each hash of the consistency proof

CHECKPOINT
"""

import base64
import re
from dataclasses import dataclass
from typing import Final, Self

from sojourn.errors import InvalidInput
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import EMPTY, HASH_BYTES, is_consistent
from sojourn.tlog.notes import Note, unbase64

PATH: Final = "/add-checkpoint"
SIZE_TYPE: Final = "text/x.tlog.size"
PROOF_MOST: Final = 63  # hashes of a proof: more have no tree of less than 2**63 leaves
SIZE: Final = re.compile("0|[1-9][0-9]{0,18}")
_OLD: Final = re.compile(rf"old ({SIZE.pattern})")


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """One request. `old`: the size of the tree that the witness is thought to know. Nothing is verified by itself."""

    old: int
    proof: tuple[bytes, ...]
    note: Note

    @classmethod
    def parse(cls, octets: bytes) -> Self:
        """Raise InvalidInput."""
        head, empty, note = octets.partition(b"\n\n")
        try:
            lines = head.decode("ascii").split("\n")
        except UnicodeError as error:
            raise InvalidInput("the request is not ASCII before its checkpoint") from error
        matched = _OLD.fullmatch(lines[0])
        if not empty or matched is None:
            raise InvalidInput("the request does not begin with the old size, or has no checkpoint")
        if len(lines) - 1 > PROOF_MOST:
            raise InvalidInput(f"the consistency proof has more than {PROOF_MOST} hashes")
        proof = [unbase64(each, "a hash of the consistency proof") for each in lines[1:]]
        if any(len(each) != HASH_BYTES for each in proof):
            raise InvalidInput("a hash of the consistency proof is not 32 bytes of base64")
        return cls(int(matched[1]), tuple(proof), Note.parse(note))

    def written(self) -> bytes:
        """As it is posted."""
        proof = "".join(f"{base64.b64encode(each).decode()}\n" for each in self.proof)
        return f"old {self.old}\n{proof}\n{self.note}".encode()

    def proves(self, old_root: bytes, checkpoint: Checkpoint) -> bool:
        """Whether the proof shows that the checkpoint's tree begins with that of `old` leaves, which has this root.

        Everything begins with a tree without leaves, and a proof of that is empty.
        """
        if self.old == 0:
            return not self.proof and (checkpoint.size > 0 or checkpoint.root == EMPTY)
        return is_consistent(self.old, old_root, checkpoint.size, checkpoint.root, self.proof)
