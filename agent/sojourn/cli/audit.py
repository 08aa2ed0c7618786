"""`sojourn audit`: the journal of issues, denials and task transitions."""

import json
import re
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, dated, emit, moment, printable, whole

app = typer.Typer(no_args_is_help=True)


@app.command()
def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many records.")] = 20,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print the last records, oldest first."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.ListAuditRequest(limit=lines))
    records = [record_value(each) for each in answer.records]
    emit(output, {"records": records}, [record_line(record) for record in records])


def record_value(record: Any) -> dict[str, Any]:
    """One record, as it is printed."""
    from google.protobuf.json_format import MessageToDict

    return {
        "seq": record.seq,
        "at": moment(record.at_ms / 1000),
        "event": record.event,
        "fields": whole(MessageToDict(record.fields)),
        "digest": record.digest,
    }


def record_line(record: dict[str, Any]) -> str:
    """One record as a line: each field as `name=value`, the value in JSON unless it is one plain word."""
    fields = " ".join(f"{name}={_shown(dated(name, value))}" for name, value in record["fields"].items())
    return printable(f"{record['seq']} {record['at']} {record['event']} {fields}")


def _shown(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r'[^\s"{\[]+', value)
    return value if plain else json.dumps(value, ensure_ascii=False)


@app.command()
def verify(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Check the journal's chain of digests, from what was pruned last to its end. Exit status 1 if it is broken."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.VerifyAuditRequest())
    value = {
        "intact": answer.intact,
        "records": answer.records,
        "first_bad_seq": answer.first_bad_seq or None,
        "reason": answer.reason,
        "first_seq": answer.first_seq,
    }
    begins = f", from {answer.first_seq} on: those before were pruned" if answer.first_seq > 1 else ""
    broken = f"broken at {answer.first_bad_seq}: {answer.reason}"
    emit(output, value, [f"intact: {answer.records} records{begins}" if answer.intact else broken])
    if not answer.intact:
        raise typer.Exit(REFUSED)
