"""Of sojourn.v1.Admin: what became of the agent's data folder. Restores, backups, and the mark outside of it."""

from dataclasses import dataclass

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.backup.last_backup import LastBackup
from sojourn.backup.mark import Mark, MarkUpkeep
from sojourn.backup.restoration import UNKNOWN, Restoration


@dataclass(frozen=True, slots=True)
class DataFolderState:
    """What status tells of it."""

    restored: Restoration | None
    backups: LastBackup
    mark: Mark | None
    marking: MarkUpkeep | None

    def message(self) -> pb.DataFolder:
        return pb.DataFolder(restored=self._restored(), backup=self._backup(), mark=self._mark())

    def _restored(self) -> pb.Restoration | None:
        found = self.restored
        if found is None:
            return None
        return pb.Restoration(
            how=found.how,
            restored_at=found.at,
            unknown_after=found.unknown_from,
            unknown_until=found.unknown_until,
            unknown=UNKNOWN,
            lost_records=None if found.lost_records < 0 else found.lost_records,
            new_root=found.new_root,
            file=found.file,
            epoch=found.epoch,
            reason=found.reason,
        )

    def _backup(self) -> pb.Backup | None:
        found = self.backups.read()
        if found is None:
            return None
        return pb.Backup(made_at=found.at, file=found.file, size=found.size, sha256=found.sha256)

    def _mark(self) -> pb.Mark | None:
        if self.mark is None or self.marking is None:
            return None
        return pb.Mark(file=str(self.mark.path), since=self.mark.since, fault=self.marking.fault)
