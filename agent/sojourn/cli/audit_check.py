"""`sojourn audit check`: an export, or the proof of one record, checked with a key and without an agent."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sojourn.cli.audit import record_line
from sojourn.cli.control_lines import FrameworkOption, control_lines, has_failed, loaded
from sojourn.cli.options import Output, OutputOption
from sojourn.cli.output import REFUSED, Progress, emit, moment
from sojourn.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from cryptography import x509

    from sojourn.evidence.check import Verdict
    from sojourn.oversight.controls.walk import ControlWalk
    from sojourn.tlog.notes import VerifierKey

_PROGRESS_SECONDS: Final = 2.0
_PROOF_MAX = _LINE_MAX = 64 << 20  # bytes
NOT_REPLAYED: Final = {
    "old": "recorded by an earlier release",
    "no_beginning": "of tasks that began before these records",
}


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn audit`."""
    app.command()(check)


def check(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="What `sojourn audit export` or `sojourn audit prove` has written."),
    ] = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="VKEY", help="The log's key, as `sojourn audit key` prints it. May be repeated."),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option("--after", metavar="CHECKPOINT", help="An older checkpoint, which the log must begin with."),
    ] = None,
    witnesses: Annotated[
        list[str] | None,
        typer.Option(
            "--witness", metavar="VKEY", help="A witness that must have cosigned, by its verifier key. May be repeated."
        ),
    ] = None,
    tsa_ca: Annotated[
        Path | None,
        typer.Option(
            "--tsa-ca", metavar="FILE", help="Root certificates, PEM, of which one must vouch for the time stamps."
        ),
    ] = None,
    received: Annotated[
        list[Path] | None,
        typer.Option(
            "--received",
            metavar="FILE",
            help="In the place of PATH: the lines that a sink's receiver has. May be repeated, the oldest file first.",
        ),
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Say what the records show of the control map, too.")
    ] = False,
    frameworks: FrameworkOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Check an exported journal, or the proof of a record: digests, chain, tree and signatures. It needs no agent.

    With --received what a sink's receiver has is checked for gaps and changes; --key may be left out then, and no
    signature is looked at. Exit status 1 if anything is wrong, or cannot be shown, or with --controls if a row failed.
    """
    from sojourn.evidence.check import FolderCheck, check_proof, summary
    from sojourn.oversight.controls.walk import ControlWalk
    from sojourn.tlog.notes import VerifierKey

    believed = _keys("--key", keys, VerifierKey.parse)
    cosigners = _keys("--witness", witnesses, VerifierKey.parse_cosigner)
    if frameworks and not controls:
        raise InvalidInput("--framework goes with --controls")
    if received:
        if path is not None or after is not None or cosigners or tsa_ca is not None or controls:
            raise InvalidInput("--received goes without PATH, --after, --witness, --tsa-ca and --controls")
        _check_received(received, believed, output)
        return
    if path is None or not keys:
        raise InvalidInput("PATH and --key are needed, or --received")
    if path.is_dir():
        older = None if after is None else _read(after)
        roots = [] if tsa_ca is None else _roots(tsa_ca)
        walk = ControlWalk(loaded(frameworks)) if controls else None
        told: dict[str, Any] = {} if walk is None else {"told": walk.read}
        verdict = FolderCheck(path, believed, older, Progress(_PROGRESS_SECONDS).tell, cosigners, roots, **told).run()
    else:
        if after is not None or tsa_ca is not None or controls:
            raise InvalidInput("--after, --tsa-ca and --controls go with a folder")
        verdict, walk = check_proof(_read(path), believed, cosigners), None
    value = summary(verdict)
    if walk is not None:
        value["controls"] = _controls(path, walk, verdict)
    record = verdict.record
    if record is not None:
        import json

        said = {"seq": record.seq, "at": moment(record.at_ms / 1000), "event": record.event, "digest": record.digest}
        value["record"] = {**said, "fields": json.loads(record.fields)}
    emit(output, {"path": str(path), **value}, _lines(value))
    if not verdict.good or (walk is not None and has_failed(value["controls"])):
        raise typer.Exit(REFUSED)


def _keys(option: str, given: Sequence[str] | None, parse: Callable[[str], "VerifierKey"]) -> list["VerifierKey"]:
    try:
        return [parse(each) for each in dict.fromkeys(given or ())]
    except InvalidInput as error:
        raise InvalidInput(f"{option}: {error.public}") from error


def _roots(path: Path) -> list["x509.Certificate"]:
    from sojourn.evidence.timestamps import check_installed, roots_of

    check_installed()
    return roots_of(path)


def _controls(folder: Path, walk: "ControlWalk", verdict: "Verdict") -> dict[str, Any]:
    from sojourn.evidence.check import read_file
    from sojourn.oversight.controls.exported_types import ExportedTypes
    from sojourn.oversight.controls.query import Journal, Replayed

    journal = Journal(looked_at=True, whole=verdict.good, first_bad_seq=verdict.faults.first_bad_seq)
    unknown = sum(verdict.not_replayed.values())
    replayed = Replayed(verdict.replayed, unknown, verdict.decided_wrong, verdict.decided_wrong_seqs)
    return walk.summary(journal, replayed, ExportedTypes(partial(read_file, folder)))


def _check_received(files: Sequence[Path], keys: Sequence["VerifierKey"], output: Output) -> None:
    from sojourn.evidence.received import ReceivedCheck

    found = ReceivedCheck(keys)
    for file in files:
        try:
            with file.open("rb") as lines:
                found.read(iter(partial(lines.readline, _LINE_MAX), b""))
        except OSError as error:
            raise NotFound(f"{str(file)!r} cannot be read: {error.strerror}") from error
    found.finish()
    value = found.summary()
    if not value["records"]:
        named = ", ".join(repr(str(each)) for each in files)
        raise NotFound(f"there is nothing to check in {named}: no line is a record")
    lines_told = [
        *_fault_lines(value),
        *(f"told as pruned before: records {first} to {last}" for first, last in value["told"]),
        f"records {value['first_seq']} to {value['last_seq']}: {value['records']}, and {value['again']} of them again",
        f"checkpoints: {value['checkpoints']}, of which {value['compared']} are those of the records that are here",
        *([] if value["signatures"] else ["no signature was looked at: give --key"]),
        "good" if value["good"] else "NOT good",
    ]
    emit(output, {"received": [str(each) for each in files], **value}, lines_told)
    if not found.good:
        raise typer.Exit(REFUSED)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_PROOF_MAX)
    except OSError as error:
        raise NotFound(f"{str(file)!r} cannot be read: {error.strerror}") from error


def _decisions(value: dict[str, Any]) -> str:
    unknown = [f"{many} {NOT_REPLAYED[why]}" for why, many in sorted(value["not_replayed"].items()) if many]
    return f"decisions replayed: {value['replayed']}" + (f"; not: {', '.join(unknown)}" if unknown else "")


def _policy_sets(value: dict[str, Any]) -> str:
    missing = [f"NOT here: {', '.join(value['missing'])}"] if value["missing"] else []
    return "; ".join([f"sets of task types that decided: {len(value['here'])} here", *missing])


def _fault_lines(value: dict[str, Any]) -> list[str]:
    lines = [
        f"wrong: {each['reason']} [{each['code']}]" + (f" at record {each['seq']}" if each["seq"] else "")
        for each in value["faults"]
    ]
    if value["faults_left_out"]:
        lines.append(f"and {value['faults_left_out']} more")
    if value["first_bad_seq"]:
        lines.append(f"the first bad record: {value['first_bad_seq']}")
    return lines


def _witness_line(found: dict[str, Any]) -> str:
    of = f"witness {found['witness']}, log {found['origin']}"
    if not found["size"]:
        return f"{of}: vouches for NOTHING"
    until = f"record {found['until_seq']}" if found["until_seq"] else f"{found['size']} records"
    behind = f"; NOT yet for the {found['not_yet']} records behind that" if found["not_yet"] else ""
    return f"{of}: vouches up to {until}, as of {moment(found['at'])}{behind}"


def _stamp_lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """The last stamp of each log."""
    last = {each["origin"]: each for each in found}
    return [
        f"time-stamped, log {origin}: records up to {each['until_seq']} were there at {moment(each['at'])}"
        f" ({sum(other['origin'] == origin for other in found)} stamps)"
        for origin, each in last.items()
    ]


def _lines(value: dict[str, Any]) -> list[str]:
    lines = _fault_lines(value)
    if "record" in value:
        lines.append(record_line(value["record"]))
    for log in value.get("logs", ()):
        made = "" if log["signed_at"] is None else f", signed {moment(log['signed_at'])}"
        lines.append(f"log {log['origin']}: {log['size']} records from {log['first_seq']} on{made} ({log['reason']})")
    lines += map(_witness_line, value.get("witnesses", ()))
    lines += _stamp_lines(value.get("timestamps", ()))
    if "first_seq" in value:
        pruned = f"; those up to {value['pruned_until']} were pruned" if value["pruned_until"] else ""
        lines.append(f"records {value['first_seq']} to {value['last_seq']}{pruned}")
    if "decisions" in value:
        lines += [_decisions(value["decisions"]), _policy_sets(value["policy_sets"])]
    if "controls" in value:
        lines += control_lines(value["controls"])
    lines.append("good" if value["good"] else "NOT good")
    return lines
