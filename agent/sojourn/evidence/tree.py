"""The tree of one exported log: whether its tiles are those of its signed checkpoint."""

from pathlib import Path

from sojourn.evidence.faults import Faults
from sojourn.evidence.manifest import ExportedLog
from sojourn.tlog.checkpoints import Checkpoint
from sojourn.tlog.merkle import HASH_BYTES, root, root_of
from sojourn.tlog.tiles import HEIGHT, TILE_BYTES, WIDTH, Edge, TileNodes, hashes_of, path_of, widths


class ExportedTree:
    """The tiles of a log in a folder. `check` comes first."""

    def __init__(self, folder: Path, log: ExportedLog, pruned_until: int) -> None:
        """`pruned_until`: the last record of the journal that is gone: tiles of such leaves alone need not be there."""
        self._folder = folder / log.folder
        self._log = log
        self._gone = max(0, pruned_until - log.first_seq + 1)
        self._kept: tuple[tuple[int, int], bytes] = ((-1, 0), b"")

    def tile(self, level: int, index: int) -> bytes:
        """The hashes of a tile. Raise KeyError."""
        if self._kept[0] != (level, index):
            width = min(WIDTH, (self._log.size >> HEIGHT * level) - index * WIDTH)
            try:
                with (self._folder / path_of(level, index, width)).open("rb") as file:
                    found = file.read(TILE_BYTES + 1)
            except (OSError, ValueError) as error:
                raise KeyError(f"tile {level}/{index} is not there") from error
            if len(found) != width * HASH_BYTES:
                raise KeyError(f"tile {level}/{index} is not as long as it is to be")
            self._kept = ((level, index), found)
        return self._kept[1]

    def check(self, checkpoint: Checkpoint, faults: Faults) -> None:
        """Look at each tile: it is what the one above has of it, and those at the edge are what was signed."""
        size = self._log.size
        try:
            if Edge.of(size, self.tile).root() != checkpoint.root:
                faults.add("tree_changed")
        except KeyError as error:
            faults.add("tile_missing", str(error.args[0]))
            return
        above: dict[tuple[int, int], bytes] = {}
        for level, index, width in reversed(list(widths(size))):
            try:
                tile = self.tile(level, index)
            except KeyError as error:
                if level or (index + 1) * WIDTH > self._gone:
                    faults.add("tile_missing", str(error.args[0]))
                continue
            if level:
                above[level, index] = tile
            if width == WIDTH:
                parent = above.get((level + 1, index // WIDTH), b"")
                at = index % WIDTH * HASH_BYTES
                if root_of(hashes_of(tile)) != parent[at : at + HASH_BYTES]:
                    seq = self._log.first_seq + index * WIDTH if not level else 0
                    faults.add("tree_changed", f"tile {level}/{index} is not the one that was signed", seq)

    def extends(self, older: Checkpoint, faults: Faults) -> None:
        """Look whether the tree begins with that of an older checkpoint of the log."""
        if older.size > self._log.size:
            faults.add("head_behind")
            return
        begins = self.begins_with(older)
        if not begins:
            faults.add("head_unproved" if begins is None else "head_forked")

    def begins_with(self, older: Checkpoint) -> bool | None:
        """Whether the tree begins with that of a checkpoint that is no larger; None: that was pruned."""
        try:
            return root(TileNodes(self.tile), older.size) == older.root
        except KeyError:
            return None
