"""Changes of an exported folder, each of which whoever checks it must find. Each is a function of a copy of the folder."""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from sojourn.audit.journal import Event, Record, digest_of
from sojourn.audit.leaves import line_of, record_of
from sojourn.evidence.manifest import MANIFEST, MANIFEST_NOTE, RECORDS, statement
from sojourn.tlog.notes import Note, Signer

Change = Callable[[Path], None]


def lines(folder: Path) -> list[bytes]:
    return (folder / RECORDS).read_bytes().splitlines(keepends=True)


def write(folder: Path, made: list[bytes]) -> None:
    (folder / RECORDS).write_bytes(b"".join(made))


def with_its_digest(folder: Path) -> None:
    """Have the manifest say what the records are now; its signature stays as it was."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][RECORDS] = hashlib.sha256((folder / RECORDS).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n")


def byte_of_record(number: int, at: int, by: int) -> Change:
    """Another byte in a record."""

    def change(folder: Path) -> None:
        made = lines(folder)
        line = bytearray(made[number])
        line[at % len(line)] ^= by
        made[number] = bytes(line)
        write(folder, made)

    return change


def dropped(number: int) -> Change:
    def change(folder: Path) -> None:
        made = lines(folder)
        del made[number]
        write(folder, made)

    return change


def swapped(number: int) -> Change:
    def change(folder: Path) -> None:
        made = lines(folder)
        made[number], made[number + 1] = made[number + 1], made[number]
        write(folder, made)

    return change


def doubled(number: int) -> Change:
    def change(folder: Path) -> None:
        made = lines(folder)
        made.insert(number, made[number])
        write(folder, made)

    return change


def truncated(number: int) -> Change:
    def change(folder: Path) -> None:
        write(folder, lines(folder)[:number])

    return change


def chained_anew(number: int) -> Change:
    """Another event in a record, and a fresh chain from there on, with a manifest that fits."""

    def change(folder: Path) -> None:
        made, before = lines(folder), ""
        for each, line in enumerate(made):
            record = record_of(line[:-1])
            if each >= number:
                event = Event(record.at_ms, "task_ended" if each == number else record.event, record.fields)
                digest = digest_of(before, record.seq, event)
                record = Record(record.seq, event.at_ms, event.event, event.fields, digest)
                made[each] = line_of(record) + b"\n"
            before = record.digest
        write(folder, made)
        with_its_digest(folder)

    return change


def byte_of_file(pattern: str, at: int, by: int) -> Change:
    """Another byte in the first file of this pattern."""

    def change(folder: Path) -> None:
        file = sorted(each for each in folder.glob(pattern) if each.is_file())[0]
        octets = bytearray(file.read_bytes())
        octets[at % len(octets)] ^= by
        file.write_bytes(bytes(octets))

    return change


def removed(pattern: str) -> Change:
    def change(folder: Path) -> None:
        for each in [each for each in folder.glob(pattern) if each.is_file()]:
            each.unlink()

    return change


def signed_anew(folder: Path, signer: Signer) -> None:
    """What whoever has the log's key can do: a manifest that fits what is in the folder, and is signed."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    files = [name for name in manifest["files"] if (folder / name).is_file()]
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    text = json.dumps(manifest, separators=(",", ":"), sort_keys=True) + "\n"
    (folder / MANIFEST).write_text(text)
    said = statement(text.encode())
    (folder / MANIFEST_NOTE).write_text(str(Note(said, (signer.sign(said),))))


def changes(records: int, seed: int, *, rotated: bool = True) -> Iterator[tuple[str, Change]]:
    """A hundred and more of them, for a folder with so many records, and a rotation if it has one."""
    chance = random.Random(seed)
    for each in range(60):
        number = chance.randrange(records)
        yield (
            f"byte {each} of record {number}",
            byte_of_record(number, chance.randrange(1 << 16), chance.randrange(1, 256)),
        )
    for number in (0, 1, records // 2, records - 1):
        yield f"drop {number}", dropped(number)
        yield f"twice {number}", doubled(number)
        yield f"chain {number}", chained_anew(number)
    for number in (0, records // 2, records - 2):
        yield f"swap {number}", swapped(number)
    for number in (1, records // 2, records - 1):
        yield f"truncate {number}", truncated(number)
    for pattern in ("logs/*/checkpoint", MANIFEST, MANIFEST_NOTE, "logs/*/tile/0/000", "logs/*/tile/1/**/*"):
        for _ in range(6):
            yield f"byte of {pattern}", byte_of_file(pattern, chance.randrange(1 << 16), chance.randrange(1, 256))
        yield f"without {pattern}", removed(pattern)
    if rotated:
        yield from _of_the_rotation()
    yield "without the records", removed(RECORDS)


def _of_the_rotation() -> Iterator[tuple[str, Change]]:
    yield "a rotation", byte_of_file("logs/*/rotation-*", 300, 1)
    yield "without the rotation", removed("logs/*/rotation-*")
