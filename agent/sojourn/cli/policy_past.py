"""What was decided, for commands that ask another set of task types the same: by an agent's records, or an export's."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sojourn.cli import remote
from sojourn.cli.output import Progress
from sojourn.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from sojourn.audit.journal import Record
    from sojourn.policy.task_types import TypeSet

_PROGRESS_SECONDS: Final = 2.0
_LATEST_MS: Final = 253_402_300_800_000  # the year 10000
_SUPPRESSED: Final = "denials_suppressed"
# Event, sequence number, milliseconds since the epoch, the record's fields, the parameters of its task.
Take = Callable[[str, int, int, Mapping[str, Any], Mapping[str, Any]], object]


# Event, sequence number, the record's fields.
Hear = Callable[[str, int, Mapping[str, Any]], object]


class Past:
    """Decisions of a time, each of which `take` is told. `suppressed`: denials of which there is the number alone."""

    def __init__(
        self,
        wanted: Collection[str],
        first_ms: int,
        last_ms: int,
        take: Take,
        hear: Hear = lambda *_: None,
        heard: Collection[str] = (),
    ) -> None:
        """`wanted`: names of types; none: all. Times are milliseconds since the epoch; `last_ms` 0: until now.

        `hear`: is told of records of these other events, of tasks of the types.
        """
        from sojourn.evidence.decisions import Decisions
        from sojourn.evidence.faults import Faults

        self._wanted = wanted
        self._first_ms, self._last_ms = first_ms, last_ms
        self._take = take
        self._hear, self._heard = hear, heard
        self._first: Record | None = None
        self._faults = Faults()
        self._decisions = Decisions(self._faults, self._decided)
        self._last_set = ""  # the digest of the one that decided last
        self._files: dict[str, bytes] = {}  # of the sets that decided, by their paths in an export
        self.suppressed = 0

    @property
    def unknown(self) -> Mapping[str, int]:
        """How many decisions no record says enough of, by why."""
        return self._decisions.unknown

    @property
    def wrong(self) -> int:
        """How many records are wrong."""
        return self._faults.count

    @property
    def since_ms(self) -> int:
        """From when on there are records, where those of before are gone and would be of the time; 0: they are not."""
        if self._first is None or self._first.seq <= 1 or self._first.at_ms <= self._first_ms:
            return 0
        return self._first.at_ms

    def last_types(self) -> "TypeSet | None":
        """The set of task types that decided last; None: it is not there."""
        from sojourn.evidence import policy_sets
        from sojourn.policy.task_types import made_of

        try:
            digests = policy_sets.parse(self._files[policy_sets.path_of(self._last_set)])
            texts = {name: self._files[policy_sets.text_path_of(each)].decode() for name, each in digests.items()}
        except (KeyError, UnicodeError, InvalidInput):
            return None
        return made_of(Path(self._last_set), texts)

    def read_export(self, folder: Path) -> None:
        """Raise NotFound if it cannot be read, InvalidInput if a line is no record."""
        from sojourn.evidence.manifest import RECORDS
        from sojourn.evidence.policy_sets import SETS, TEXTS

        try:
            for each in (*folder.glob(f"{SETS}/*"), *folder.glob(f"{TEXTS}/*")):
                self._files[f"{each.parent.name}/{each.name}"] = each.read_bytes()
            with (folder / RECORDS).open("rb") as file:
                for line in file:
                    self._line(line.removesuffix(b"\n"))
        except OSError as error:
            raise NotFound(f"{error.filename!r} cannot be read: {error.strerror}") from error

    def read_agent(self, admin_socket: str | None) -> None:
        """All records up to the last time: a decision may be of a task that began long before the first one."""
        from sojourn._pb.sojourn.v1 import admin_pb2 as pb
        from sojourn.evidence.manifest import RECORDS
        from sojourn.evidence.policy_sets import SETS, TEXTS

        rest, progress = b"", Progress(_PROGRESS_SECONDS)

        def each(part: Any) -> None:
            nonlocal rest
            if part.file.startswith((f"{SETS}/", f"{TEXTS}/")):
                self._files[part.file] = self._files.get(part.file, b"") + part.content
            if part.file != RECORDS:
                return
            progress.tell(part.done, part.total)
            *lines, rest = (rest + part.content).split(b"\n")
            for text in lines:
                self._line(text)

        remote.admin_stream(admin_socket, pb.ExportAuditRequest(until_ms=self._last_ms), each)

    def _line(self, text: bytes) -> None:
        """Look at the next record. Raise InvalidInput if it is none."""
        from sojourn.audit.leaves import record_of
        from sojourn.jose.canonical_json import exactly

        record = record_of(text)
        if not 0 <= record.at_ms < _LATEST_MS:
            raise InvalidInput(f"record {record.seq} is of a time that there is not")
        self._first = self._first or record
        try:
            if record.event == _SUPPRESSED and self._is_of_time(record):
                self.suppressed += exactly(int, json.loads(record.fields)["count"])
            elif record.event in self._heard and self._is_of_time(record):
                self._tell(record, exactly(dict, json.loads(record.fields)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidInput):
            self._faults.add("record_unreadable", seq=record.seq)
        self._decisions.read(record)

    def _tell(self, record: "Record", fields: Mapping[str, Any]) -> None:
        if not self._wanted or fields.get("type") in self._wanted:
            self._hear(record.event, record.seq, fields)

    def _decided(self, record: "Record", fields: Mapping[str, Any], params: Mapping[str, Any]) -> None:
        self._last_set = str(fields.get("policy_set"))
        if not self._is_of_time(record) or (self._wanted and fields["type"] not in self._wanted):
            return
        try:
            self._take(record.event, record.seq, record.at_ms, fields, params)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):  # signed, and yet no decision
            self._faults.add("inputs_unreadable", seq=record.seq)

    def _is_of_time(self, record: "Record") -> bool:
        return self._first_ms <= record.at_ms and (not self._last_ms or record.at_ms <= self._last_ms)
