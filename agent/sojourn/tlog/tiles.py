"""A tree in tiles (C2SP tlog-tiles): 256 hashes of one level side by side, of which each is the root of a tile below.

A tile is written once it is full. Those at the right edge are partial: what is in them stays as it is, and more comes.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sojourn.tlog.merkle import HASH_BYTES, root_of

WIDTH: Final = 256
HEIGHT: Final = 8  # of the subtree that a tile is
TILE_BYTES: Final = WIDTH * HASH_BYTES
# The bytes of a tile by its level and its index; a tile may be wider than the tree needs it.
Tiles = Callable[[int, int], bytes]


def hashes_of(tile: bytes) -> list[bytes]:
    """The hashes of a tile."""
    return [tile[each : each + HASH_BYTES] for each in range(0, len(tile), HASH_BYTES)]


def widths(size: int) -> Iterator[tuple[int, int, int]]:
    """Each tile of a tree of `size` leaves: level, index, and how many hashes are in it."""
    level = 0
    while (count := size >> HEIGHT * level) > 0:
        for index in range(count // WIDTH):
            yield level, index, WIDTH
        if count % WIDTH:
            yield level, count // WIDTH, count % WIDTH
        level += 1


def path_of(level: int, index: int, width: int) -> str:
    """Where a tile lies: `tile/LEVEL/INDEX`, and `.p/WIDTH` behind it if it is partial."""
    parts = [f"{index % 1000:03d}"]
    while index := index // 1000:
        parts.insert(0, f"x{index % 1000:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(parts)}{partial}"


class TileNodes:
    """The hashes of complete subtrees, by the tiles of a tree. The last tiles that were read are kept."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles
        self._kept: dict[tuple[int, int], bytes] = {}

    def __call__(self, height: int, index: int) -> bytes:
        """Raise KeyError if the tile has not got it."""
        level, above = divmod(height, HEIGHT)
        first = index << above
        tile_index, at = divmod(first, WIDTH)
        tile = self._tile(level, tile_index)
        found = tile[at * HASH_BYTES : (at + (1 << above)) * HASH_BYTES]
        if len(found) != HASH_BYTES << above:
            raise KeyError(f"tile {level}/{tile_index} is not wide enough")
        return root_of(hashes_of(found))

    def _tile(self, level: int, index: int) -> bytes:
        if (level, index) not in self._kept:
            if len(self._kept) > WIDTH:
                self._kept.clear()
            self._kept[level, index] = self._tiles(level, index)
        return self._kept[level, index]


class Edge:
    """The right edge of a tree that grows: what is needed to go on, and to tell its root."""

    def __init__(self, size: int = 0, partial: Iterable[bytes | bytearray] = ()) -> None:
        """`partial`: the partial tile of each level, from the lowest on; empty where there is none."""
        self.size = size
        self._levels = [bytearray(each) for each in partial]

    @classmethod
    def of(cls, size: int, tiles: Tiles) -> "Edge":
        """The edge of a tree of this size. Raise KeyError if a tile is not there."""
        partial, level = [], 0
        while count := size >> HEIGHT * level:
            index, width = divmod(count, WIDTH)
            tile = tiles(level, index)[: width * HASH_BYTES] if width else b""
            if len(tile) != width * HASH_BYTES:
                raise KeyError(f"tile {level}/{index} is not wide enough")
            partial.append(tile)
            level += 1
        return cls(size, partial)

    def copy(self) -> "Edge":
        return Edge(self.size, self._levels)

    def append(self, leaf_hash: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Add a leaf; each tile that is full by it comes back, with its level and index."""
        self.size += 1
        found, level = leaf_hash, 0
        while True:
            if level == len(self._levels):
                self._levels.append(bytearray())
            tile = self._levels[level]
            tile += found
            if len(tile) < TILE_BYTES:
                return
            full = bytes(tile)
            tile.clear()
            yield level, (self.size >> HEIGHT * (level + 1)) - 1, full
            found, level = root_of(hashes_of(full)), level + 1

    def partial(self) -> Iterator[tuple[int, int, bytes]]:
        """The partial tiles as they are now, with their levels and indexes."""
        for level, tile in enumerate(self._levels):
            if tile:
                yield level, self.size >> HEIGHT * (level + 1), bytes(tile)

    def root(self) -> bytes:
        """The root of the tree."""
        carry: list[bytes] = []
        for tile in self._levels:
            below = hashes_of(bytes(tile)) + carry
            carry = [root_of(below)] if below else []
        return carry[0] if carry else root_of([])
