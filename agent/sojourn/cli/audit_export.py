"""`sojourn audit export`: the journal as a folder that a stranger checks."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import SinceOption, UntilOption, bound_ms
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import Progress, emit
from sojourn.errors import AlreadyExists, InvalidInput, Unavailable

_NAME: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-/")
_PROGRESS_SECONDS: Final = 1.0


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn audit`."""
    app.command()(export)


def export(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder: a new one, or one that is empty.")],
    since: SinceOption = "",
    until: UntilOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Write the journal, its signed log and all that is needed to check both without the agent into a folder."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.evidence.manifest import MANIFEST_NOTE

    now = datetime.now(UTC)
    request = pb.ExportAuditRequest(
        since_ms=bound_ms("--since", since, now),
        until_ms=bound_ms("--until", until, now),
    )
    with _folder(to) as written:
        remote.admin_stream(admin_socket, request, written.add)
        if written.last != MANIFEST_NOTE:
            raise Unavailable("the agent ended the export before its end: export it again, into another folder")
    value = {"folder": str(to), "records": written.records, "files": written.files, "bytes": written.bytes}
    said = (
        f"{written.records} records in {to}, {written.files} files: check it with `sojourn audit check {to} --key VKEY`"
    )
    emit(output, value, [said])


class _Written:
    """What was written into the folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: BinaryIO | None = None
        self._progress = Progress(_PROGRESS_SECONDS)
        self.last = ""
        self.records = self.files = self.bytes = 0

    def add(self, part: Any) -> None:
        """Write a piece. Raise InvalidInput for a name that no export has, and OSError."""
        if part.file != self.last:
            self.close()
            if not set(part.file) <= _NAME or part.file.startswith("/") or ".." in part.file.split("/"):
                raise InvalidInput(f"the agent named a file that no export has: {part.file[:100]!r}")
            path = self._folder / part.file
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("xb")
            self.last, self.files = part.file, self.files + 1
        assert self._file is not None
        self._file.write(part.content)
        self.bytes += len(part.content)
        self.records = max(self.records, part.done)
        if part.total and part.done < part.total:
            self._progress.tell(part.done, part.total)

    def close(self) -> None:
        """What is written is on disk then."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


@contextmanager
def _folder(to: Path) -> Iterator[_Written]:
    """A folder that is written into. Raise AlreadyExists if something is in it, InvalidInput if it cannot be written.

    However it ends before its end, what is there has no signed manifest, and passes no check.
    """
    try:
        to.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(to.iterdir()):
            raise AlreadyExists(f"the folder {str(to)!r} is not empty: name a new one")
        written = _Written(to)
        try:
            yield written
        finally:
            written.close()
    except OSError as error:
        raise InvalidInput(f"the folder {str(to)!r} cannot be written: {error.strerror}") from error
