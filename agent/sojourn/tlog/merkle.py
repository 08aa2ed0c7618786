"""Merkle tree hashes and proofs of RFC 6962, 2.1, with SHA-256.

A hash is 32 bytes. A tree is known by its `nodes`, which give the hash of each complete subtree: `nodes(height, index)`
is that of the 2**height leaves from index * 2**height on.
"""

import hashlib
from collections.abc import Callable, Sequence

HASH_BYTES = 32
EMPTY = hashlib.sha256(b"").digest()  # the root of a tree without leaves
Nodes = Callable[[int, int], bytes]


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of one leaf (2.1: MTH({d(0)}))."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees beside each other."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """How many of `size` leaves, two or more, are in the left subtree: the largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over these hashes: of leaves, or of complete subtrees of one size with a smaller one at the end."""
    level = list(hashes)
    if not level:
        return EMPTY
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        level = [node_hash(level[each], level[each + 1]) for each in range(0, len(level) - 1, 2)] + odd
    return level[0]


def range_root(nodes: Nodes, begin: int, end: int) -> bytes:
    """The root of the leaves from `begin` to `end`, which are one subtree of a tree."""
    size = end - begin
    if size & (size - 1) == 0:
        return nodes(size.bit_length() - 1, begin // size)
    left = split(size)
    return node_hash(range_root(nodes, begin, begin + left), range_root(nodes, begin + left, end))


def root(nodes: Nodes, size: int) -> bytes:
    """The root of a tree of `size` leaves."""
    return range_root(nodes, 0, size) if size else EMPTY


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """The audit path of a leaf in a tree of `size` leaves (2.1.1), from its sibling up. Raise ValueError."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    begin, end = 0, size
    path: list[bytes] = []
    while end - begin > 1:
        middle = begin + split(end - begin)
        if index < middle:
            path.append(range_root(nodes, middle, end))
            end = middle
        else:
            path.append(range_root(nodes, begin, middle))
            begin = middle
    return path[::-1]


def consistency_proof(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """The proof that a tree of `new` leaves begins with one of `old` (2.1.2). Raise ValueError if none has."""
    if not 0 < old <= new:
        raise ValueError(f"a tree of {new} leaves does not begin with one of {old}")
    begin, end = 0, new
    path: list[bytes] = []
    while end != old:
        middle = begin + split(end - begin)
        if old <= middle:
            path.append(range_root(nodes, middle, end))
            end = middle
        else:
            path.append(range_root(nodes, begin, middle))
            begin = middle
    if begin:
        path.append(range_root(nodes, begin, end))
    return path[::-1]


def root_by_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of the tree in which a leaf hash has this audit path; None: it is no path (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return None
    at, last, found = index, size - 1, leaf
    for each in path:
        if last == 0:
            return None
        if at % 2 or at == last:
            found = node_hash(each, found)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node_hash(found, each)
        at, last = at >> 1, last >> 1
    return None if last else found


def is_consistent(old: int, old_root: bytes, new: int, new_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether the proof shows that the tree of `new` leaves begins with that of `old` (RFC 9162, 2.1.4.2)."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not path and old_root == new_root
    rest = list(path)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    if not rest:
        return False
    at, last = old - 1, new - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    of_old = of_new = rest[0]
    for each in rest[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            of_old, of_new = node_hash(each, of_old), node_hash(each, of_new)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            of_new = node_hash(of_new, each)
        at, last = at >> 1, last >> 1
    return last == 0 and of_old == old_root and of_new == new_root
