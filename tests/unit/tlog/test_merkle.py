"""tlog/merkle.py, tlog/tiles.py: the tree and its proofs are RFC 6962's, at every size."""

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sojourn.tlog.merkle import (
    consistency_proof,
    inclusion_proof,
    is_consistent,
    leaf_hash,
    node_hash,
    root,
    root_by_inclusion,
    split,
)
from sojourn.tlog.tiles import TILE_BYTES, Edge, TileNodes, path_of, widths

# The tree of Certificate Transparency's own tests: leaves, and the root at each size.
LEAVES = [
    *(b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"\x40\x41\x42\x43"),
    *(bytes.fromhex("5051525354555657"), bytes.fromhex("606162636465666768696a6b6c6d6e6f")),
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = [*range(1, 68), 127, 128, 129, 255, 256, 257, 300, 511, 512, 513, 600]


def mth(leaves):
    """MTH of RFC 6962, 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    left = split(len(leaves))
    return node_hash(mth(leaves[:left]), mth(leaves[left:]))


class Tree:
    """A tree in tiles."""

    def __init__(self):
        self.edge, self.tiles, self.leaves = Edge(), {}, []

    def grow(self, size):
        while self.edge.size < size:
            leaf = f"leaf {self.edge.size}".encode()
            self.leaves.append(leaf)
            for level, index, tile in self.edge.append(leaf_hash(leaf)):
                self.tiles[level, index] = tile
        for level, index, tile in self.edge.partial():
            self.tiles[level, index] = tile
        return self

    @property
    def nodes(self):
        return TileNodes(self.read)

    def read(self, level, index):
        return self.tiles[level, index]


@pytest.fixture(scope="module")
def tree():
    return Tree().grow(700)


def root_at(tree, size):
    return root(tree.nodes, size)


class TestRoots:
    def test_known_ones(self):
        """The roots are those that Certificate Transparency's tests have for the same leaves."""
        edge, found = Edge(), []
        for leaf in LEAVES:
            assert [] == list(edge.append(leaf_hash(leaf)))
            found.append(edge.root().hex())
        assert found == ROOTS
        assert Edge().root() == hashlib.sha256(b"").digest()

    @pytest.mark.parametrize("size", [*SIZES, 700])
    def test_at_every_size(self, size):
        """The root that a growing tree has, by its edge, by its tiles and by an edge made of these, is RFC 6962's."""
        grown = Tree().grow(size)
        expected = mth(grown.leaves)
        assert grown.edge.root() == expected
        assert root(grown.nodes, size) == expected
        assert Edge.of(size, grown.read).root() == expected

    def test_a_higher_tree(self):
        """A tree of more than 65,536 leaves has tiles of a third level, and the root that one without tiles has."""
        grown = Tree().grow(65_536 + 300)
        assert (2, 0) in grown.tiles
        assert mth(grown.leaves) == grown.edge.root() == root(grown.nodes, grown.edge.size)
        path = inclusion_proof(grown.nodes, 65_700, grown.edge.size)
        leaf = leaf_hash(grown.leaves[65_700])
        assert grown.edge.root() == root_by_inclusion(leaf, 65_700, grown.edge.size, path)


class TestProofs:
    @pytest.mark.parametrize("size", SIZES)
    def test_each_leaf_is_shown(self, tree, size):
        """The audit path of each leaf leads to the root, and of no other leaf and at no other place."""
        expected = root_at(tree, size)
        for index in range(size):
            path = inclusion_proof(tree.nodes, index, size)
            leaf = leaf_hash(tree.leaves[index])
            assert root_by_inclusion(leaf, index, size, path) == expected
            assert root_by_inclusion(leaf_hash(b"other"), index, size, path) != expected
            if size > 1:
                assert root_by_inclusion(leaf, (index + 1) % size, size, path) != expected
                assert root_by_inclusion(leaf, index, size, path[:-1]) != expected
                assert root_by_inclusion(leaf, index, size, [*path, path[0]]) != expected

    @pytest.mark.parametrize("size", SIZES)
    def test_each_older_tree_is_shown(self, tree, size):
        """The consistency proof from each smaller size holds, and not with another root, size or path."""
        new = root_at(tree, size)
        for old in range(1, size + 1, max(1, size // 40)):
            path, before = consistency_proof(tree.nodes, old, size), root_at(tree, old)
            assert is_consistent(old, before, size, new, path)
            assert not is_consistent(old, leaf_hash(b"x"), size, new, path)
            assert not is_consistent(old, before, size, leaf_hash(b"x"), path)
            assert not is_consistent(old, before, size, new, [*path, new])
            if path:
                assert not is_consistent(old, before, size, new, path[:-1])

    @settings(deadline=None)
    @given(st.integers(1, 700), st.integers(0, 699), st.randoms())
    def test_a_path_that_is_not_its(self, size, index, chance: random.Random):
        """No change of a byte of a path, and no other order of it, leads to the root."""
        tree = Tree().grow(size)
        index %= size
        path = inclusion_proof(tree.nodes, index, size)
        if not path:
            return
        at = chance.randrange(len(path))
        changed = bytearray(path[at])
        changed[chance.randrange(32)] ^= 1 << chance.randrange(8)
        wrong = [*path[:at], bytes(changed), *path[at + 1 :]]
        assert root_by_inclusion(leaf_hash(tree.leaves[index]), index, size, wrong) != tree.edge.root()

    @pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
    def test_a_leaf_that_is_not_there(self, tree, index, size):
        """A leaf that a tree has not got has no path in it."""
        with pytest.raises(ValueError, match="not in a tree"):
            inclusion_proof(tree.nodes, index, size)
        assert root_by_inclusion(leaf_hash(b""), index, size, []) is None

    @pytest.mark.parametrize(("old", "new"), [(0, 3), (4, 3), (-1, 3)])
    def test_a_tree_that_is_not_older(self, tree, old, new):
        """Nothing shows that a tree begins with a larger one, or with none."""
        with pytest.raises(ValueError, match="does not begin"):
            consistency_proof(tree.nodes, old, new)
        assert not is_consistent(old, b"", new, b"", [])


class TestTiles:
    def test_the_example_of_the_specification(self):
        """A tree of 70,000 leaves has the tiles that C2SP's tlog-tiles names for it."""
        found = list(widths(70_000))
        assert 273 == sum(level == 0 and width == 256 for level, _, width in found)
        assert (0, 273, 112) in found
        assert [(1, 0, 256), (1, 1, 17), (2, 0, 1)] == [each for each in found if each[0]]
        assert [(0, 0, 256), (1, 0, 1)] == list(widths(256))
        assert [] == list(widths(0))

    def test_paths(self):
        """Tiles lie where C2SP's tlog-tiles has them."""
        assert "tile/0/x001/x234/067" == path_of(0, 1_234_067, 256)
        assert "tile/1/000.p/17" == path_of(1, 0, 17)

    def test_a_tile_that_is_cut_short(self, tree):
        """A tile that lacks hashes is not taken for one."""
        nodes = TileNodes(lambda level, index: tree.tiles[level, index][: TILE_BYTES // 2])
        with pytest.raises(KeyError):
            nodes(8, 0) and nodes(7, 1)
        with pytest.raises(KeyError):
            Edge.of(700, lambda _level, _index: b"")
