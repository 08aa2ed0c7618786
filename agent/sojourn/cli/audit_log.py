"""`sojourn audit key`, `rotate-key`, `prove`: the signed log of the journal."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import INT64_MAX, AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable
from sojourn.errors import AlreadyExists, InvalidInput


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn audit`."""
    app.command()(key)
    app.command()(rotate_key)
    app.command()(prove)


def key(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Print the key by which the signed journal is checked, and those of earlier logs: give them to who checks it."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    _show(remote.admin(admin_socket, pb.GetAuditLogRequest()), output)


def rotate_key(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Have the journal signed with a new key. The key before signs that: who has it can go on from it."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    _show(remote.admin(admin_socket, pb.RotateAuditKeyRequest()), output)


def _show(answer: Any, output: Output) -> None:
    value = told(answer)
    emit(output, value, [value["vkey"]])
    if output is Output.PRETTY:
        for each in value["earlier"]:
            print(f"of an earlier log: {printable(each['vkey'])}", file=sys.stderr)


def prove(
    seq: Annotated[int, typer.Argument(metavar="SEQ", min=1, max=INT64_MAX, help="The record's number.")],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="Where it is written. Default: record-SEQ.tlog-proof.")
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Write one record with the proof that it is in the signed journal, as one file for `sojourn audit check`."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    file = to or Path(f"record-{seq}.tlog-proof")
    proof = remote.admin(admin_socket, pb.ProveAuditRequest(seq=seq)).proof
    try:
        with file.open("x", encoding="utf-8") as made:
            made.write(proof)
    except FileExistsError as error:
        raise AlreadyExists(f"{str(file)!r} is there already: name another --to") from error
    except OSError as error:
        raise InvalidInput(f"{str(file)!r} cannot be written: {error.strerror}") from error
    emit(output, {"seq": seq, "file": str(file)}, [f"record {seq} with its proof: {file}"])


def witness_lines(found: list[dict[str, Any]]) -> list[str]:
    """What `sojourn status` tells of witnesses."""
    lines: list[str] = []
    for each in found:
        last = f"records up to {each['until_seq']}, at {each['cosigned_at']}" if each["size"] else "nothing yet"
        lines.append(f"{'witness':<14} {each['name']} has cosigned {last}")
        if each["forked"]:
            lines.append(f"{'':<14} knows of ANOTHER HEAD of this log: somebody else signs with its key")
        if each["fault"]:
            lines.append(f"{'':<14} cosigns NOTHING since {each['failing_since']}: {printable(each['fault'])}")
    return lines


def stamp_lines(found: dict[str, Any] | None) -> list[str]:
    """What `sojourn status` tells of time stamps. None: there is no authority."""
    if found is None:
        return []
    last = f"records up to {found['until_seq']}, at {found['stamped_at']}" if found["size"] else "nothing yet"
    lines = [f"{'time stamps':<14} {printable(found['to'])} has stamped {last}"]
    if found["fault"]:
        lines.append(f"{'':<14} stamps NOTHING since {found['failing_since']}: {printable(found['fault'])}")
    return lines


def log_lines(value: dict[str, Any] | None) -> list[str]:
    """What `sojourn status` tells of the signed log. None, or no origin: the agent is of a release that has none."""
    if value is None or not value["origin"]:
        return []
    made = value["checkpoint_at"] or "none since the start"
    waiting = f", {value['unsigned']} records without one yet" if value["unsigned"] else ""
    lines = [f"{'signed journal':<14} {value['size']} records, checkpoint {made}{waiting}"]
    if value["reason"] != "first":
        lines.append(f"{'':<14} a NEW LOG since {value['begun_at']}: {value['reason']}; see `sojourn audit key`")
    if value["fault"]:
        lines.append(f"{'':<14} NOT signed: {printable(value['fault'])}")
    return lines
