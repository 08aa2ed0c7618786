"""`sojourn evidence`: what the agent's records say of the rows of published frameworks."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import SinceOption, UntilOption, bound_ms
from sojourn.cli.control_lines import FrameworkOption, control_lines, has_failed, loaded
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, Progress, emit
from sojourn.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from sojourn.oversight.controls.frameworks import Framework

app = typer.Typer(no_args_is_help=True)
_PROGRESS_SECONDS: Final = 2.0


@app.command()
def controls(
    frameworks: FrameworkOption = None,
    since: SinceOption = "",
    until: UntilOption = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Say which claims about the agent its records show, row by row of each framework (operator).

    Each row is shown, failed (with the records that speak against it), no data, or not ours. It says nothing of the
    organisation. `sojourn audit check DIR --controls` says the same of an export. Exit status 1 if a row failed.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.evidence.manifest import MANIFEST_NOTE

    now = datetime.now(UTC)
    heard = Heard(loaded(frameworks))
    request = pb.ExportAuditRequest(since_ms=bound_ms("--since", since, now), until_ms=bound_ms("--until", until, now))
    remote.admin_stream(admin_socket, request, heard.add)
    if heard.last != MANIFEST_NOTE:
        raise Unavailable("the agent ended before the end of its records: ask again")
    value = heard.value()
    emit(output, value, control_lines(value))
    if has_failed(value):
        raise typer.Exit(REFUSED)


class Heard:
    """An export as it comes from the agent: its records are walked along, and of its files the task types are kept."""

    def __init__(self, frameworks: "Sequence[Framework]") -> None:
        from sojourn.evidence.decisions import Decisions
        from sojourn.evidence.faults import Faults
        from sojourn.oversight.controls.walk import ControlWalk

        self._walk = ControlWalk(frameworks)
        self._faults = Faults()
        self._decisions = Decisions(self._faults)
        self._progress = Progress(_PROGRESS_SECONDS)
        self._rest = b""
        self._files: dict[str, bytearray] = {}
        self._first: tuple[Any, str] | None = None  # the first record, and the digest of the last one
        self._last_seq = 0
        self.last = ""

    def add(self, part: Any) -> None:
        """Take a piece. Raise InvalidInput if a line of it is no record."""
        from sojourn.evidence.manifest import MANIFEST, RECORDS
        from sojourn.evidence.policy_sets import SETS, TEXTS

        self.last = part.file
        if part.file == RECORDS:
            self._progress.tell(part.done, part.total)
            *lines, self._rest = (self._rest + part.content).split(b"\n")
            for line in lines:
                self._record(line)
        elif part.file == MANIFEST or part.file.startswith((f"{SETS}/", f"{TEXTS}/")):
            self._files.setdefault(part.file, bytearray()).extend(part.content)

    def _record(self, line: bytes) -> None:
        from sojourn.audit.leaves import chained, record_of

        record = record_of(line)
        if self._first is None:
            self._first = (record, record.digest)
        else:
            first, before = self._first
            if not chained(record, before):
                self._faults.add("record_changed", seq=record.seq)
            self._first = (first, record.digest)
        self._last_seq = record.seq
        self._decisions.read(record, self._walk.read(record))

    def value(self) -> Mapping[str, Any]:
        """What came of it, as JSON has it."""
        from sojourn.oversight.controls.exported_types import ExportedTypes
        from sojourn.oversight.controls.query import Journal, Replayed

        self._check_ends()
        decisions = self._decisions
        journal = Journal(looked_at=True, whole=not self._faults.count, first_bad_seq=self._faults.first_bad_seq)
        unknown = sum(decisions.unknown.values())
        replayed = Replayed(decisions.replayed, unknown, decisions.wrong, decisions.wrong_seqs)
        return self._walk.summary(journal, replayed, ExportedTypes(self._file))

    def _check_ends(self) -> None:
        """The manifest says which records there are, and what is before the first."""
        from sojourn.audit.leaves import chained
        from sojourn.evidence.manifest import MANIFEST, Manifest

        if self._first is None:
            raise InvalidInput("the agent sent no records")
        manifest, (first, _) = Manifest.parse(self._file(MANIFEST)), self._first
        if first.seq != manifest.begin:
            self._faults.add("record_missing", seq=manifest.begin)
        elif not chained(first, manifest.before):
            self._faults.add("record_changed", seq=first.seq)
        if self._last_seq != manifest.end:
            self._faults.add("record_missing", seq=min(self._last_seq, manifest.end) + 1)

    def _file(self, name: str) -> bytes:
        return bytes(self._files[name])
