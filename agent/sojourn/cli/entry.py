"""`sojourn entry`: which processes get which SPIFFE ID."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import entry_messages as messages
from sojourn.cli import remote
from sojourn.cli.options import INT32_MAX, INT64_MAX, AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, emit, printable, show_error, table
from sojourn.errors import AlreadyExists, InvalidInput

app = typer.Typer(no_args_is_help=True)
_PAGE = 500

SelectorOption = Annotated[
    list[str] | None,
    typer.Option(
        "--selector", metavar="TYPE:VALUE", help="A selector, such as unix:uid:1000. May be repeated: all must hold."
    ),
]
ParentOption = Annotated[
    str | None,
    typer.Option("--parent-id", help="The node that serves it. Default: this agent; at a server one has to be named."),
]
NodeOption = Annotated[
    str | None,
    typer.Option("--node", metavar="NAME", help="At a server: the node of this name, in the place of --parent-id."),
]
EveryNodeOption = Annotated[bool, typer.Option("--every-node", help="At a server: all its nodes.")]
X509TtlOption = Annotated[
    str | None,
    typer.Option(
        "--x509-svid-ttl", metavar="DURATION", help="Life of X.509-SVIDs, from 10s. Default: the agent's, 1h."
    ),
]
JwtTtlOption = Annotated[
    str | None,
    typer.Option("--jwt-svid-ttl", metavar="DURATION", help="Life of JWT-SVIDs, from 10s. Default: the agent's, 5m."),
]
HintOption = Annotated[str | None, typer.Option("--hint", help="Tells identities of one workload apart.")]
DnsOption = Annotated[
    list[str] | None, typer.Option("--dns-name", help="A DNS name in the X.509-SVID. May be repeated.")
]
ExpiryOption = Annotated[
    int | None,
    typer.Option(
        "--entry-expiry",
        metavar="SECONDS",
        max=INT64_MAX,
        help="When the entry ends, in seconds since the epoch. Default: never.",
    ),
]
PriorityOption = Annotated[
    int | None,
    typer.Option(
        "--priority",
        metavar="N",
        min=-INT32_MAX,
        max=INT32_MAX,
        help="Of the identities of one process the highest comes first. Default: 0.",
    ),
]


FederatesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--federates-with", metavar="TRUST_DOMAIN", help="A foreign trust domain whose bundle it gets. May be repeated."
    ),
]
ClaimOption = Annotated[
    list[str] | None,
    typer.Option(
        "--jwt-claim",
        metavar="NAME=TEXT",
        help="A further claim of its JWT-SVIDs; NAME:=JSON for what is no text. May be repeated.",
    ),
]
OwnerOption = Annotated[
    str | None, typer.Option("--owner", help="Who is responsible for it: a text, or oidc:ISSUER#SUBJECT.")
]
SponsorOption = Annotated[str | None, typer.Option("--sponsor", help="Who answers for the owner, likewise.")]


@app.command()
def create(
    spiffe_id: Annotated[
        str,
        typer.Option(
            "--spiffe-id",
            help="The SPIFFE ID to give. {TYPE.KEY} stands for what is attested: {k8s.ns} for that of k8s:ns:….",
        ),
    ],
    selector: SelectorOption = None,
    parent_id: ParentOption = None,
    node: NodeOption = None,
    every_node: EveryNodeOption = False,
    x509_svid_ttl: X509TtlOption = None,
    jwt_svid_ttl: JwtTtlOption = None,
    hint: HintOption = None,
    dns_name: DnsOption = None,
    entry_expiry: ExpiryOption = None,
    priority: PriorityOption = None,
    federates_with: FederatesOption = None,
    jwt_claim: ClaimOption = None,
    owner: OwnerOption = None,
    sponsor: SponsorOption = None,
    entry_id: Annotated[str, typer.Option("--entry-id", help="The entry's own ID. Default: a new one.")] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Register: processes with all these selectors get the SPIFFE ID. In force when the command returns."""
    from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb

    if not selector:
        raise InvalidInput("at least one --selector TYPE:VALUE is needed, such as unix:uid:1000")
    entry = messages.message(
        spiffe_id,
        selector,
        messages.parent_of(parent_id, node, spiffe_id, every_node=every_node),
        x509_svid_ttl,
        jwt_svid_ttl,
        hint,
        dns_name,
        entry_expiry,
        priority,
        federates_with,
        jwt_claim,
        owner,
        sponsor,
    )
    entry.id = entry_id
    answer = remote.admin(admin_socket, pb.BatchCreateEntryRequest(entries=[entry]))
    made = answer.results[0]
    error = remote.failure(made.status)
    if error is not None:
        error.public += f": {made.entry.id}" if isinstance(error, AlreadyExists) and made.entry.id else ""
        raise error
    _made(made, output)


@app.command("list")
@app.command("show")
def show(
    entry_id: Annotated[str | None, typer.Argument(help="One entry's ID. Default: all entries.")] = None,
    spiffe_id: Annotated[str | None, typer.Option("--spiffe-id", help="Only those for this SPIFFE ID.")] = None,
    selector: Annotated[
        list[str] | None,
        typer.Option("--selector", metavar="TYPE:VALUE", help="Only those with these selectors, perhaps more."),
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show entries, the oldest first; `show` and `list` are the same."""
    if entry_id:
        found = [_get(admin_socket, entry_id)]
        emit(output, found[0], _lines(found[0]))
        return
    found = entries_with(admin_socket, spiffe_id, selector)
    # Columns that few need are there only if somebody does.
    extra = [name for name in ("priority", "owner", "origin") if any(each[name] for each in found)]
    if len({each["parent_id"] for each in found}) > 1:  # as at a server, which has the entries of many nodes
        extra.insert(0, "parent_id")
    rows = [
        [each["id"], each["spiffe_id"], " ".join(each["selectors"]), *(each[name] for name in extra)] for each in found
    ]
    headings = ["ENTRY ID", "SPIFFE ID", "SELECTORS", *(name.upper().replace("_", " ") for name in extra)]
    emit(output, {"entries": found}, table(headings, rows) if rows else ["no entries"])


@app.command()
def update(
    entry_id: Annotated[str, typer.Argument(help="The entry's ID.")],
    spiffe_id: Annotated[
        str | None, typer.Option("--spiffe-id", metavar="SPIFFE_ID", help="The SPIFFE ID to give from now on.")
    ] = None,
    selector: SelectorOption = None,
    parent_id: ParentOption = None,
    x509_svid_ttl: X509TtlOption = None,
    jwt_svid_ttl: JwtTtlOption = None,
    hint: HintOption = None,
    dns_name: DnsOption = None,
    entry_expiry: ExpiryOption = None,
    priority: PriorityOption = None,
    federates_with: FederatesOption = None,
    jwt_claim: ClaimOption = None,
    owner: OwnerOption = None,
    sponsor: SponsorOption = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Change an entry: only what is given here changes."""
    from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb
    from sojourn._pb.spire.api.types import types_pb2 as types

    given: dict[str, Any] = {
        "spiffe_id": spiffe_id,
        "selectors": selector,
        "parent_id": parent_id,
        "x509_svid_ttl": x509_svid_ttl,
        "jwt_svid_ttl": jwt_svid_ttl,
        "hint": hint,
        "dns_names": dns_name,
        "expires_at": entry_expiry,
        "priority": priority,
        "federates_with": federates_with,
        "jwt_claims": jwt_claim,
        "owner": owner,
        "sponsor": sponsor,
    }
    entry = messages.message(**given)
    entry.id = entry_id
    mask = types.EntryMask(**{name: True for name, value in given.items() if value is not None})
    if mask == types.EntryMask():
        raise InvalidInput("nothing to change: give at least one option")
    answer = remote.admin(admin_socket, pb.BatchUpdateEntryRequest(entries=[entry], input_mask=mask))
    remote.check(answer.results[0].status)
    _made(answer.results[0], output)


@app.command()
def delete(
    entry_id: Annotated[list[str], typer.Argument(help="The entries' IDs.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Remove entries. What they served ends at once."""
    from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb

    answer = remote.admin(admin_socket, pb.BatchDeleteEntryRequest(ids=entry_id))
    results = [
        {"id": result.id, "deleted": result.status.code == 0, "message": result.status.message}
        for result in answer.results
    ]
    emit(output, {"results": results}, (f"deleted {each['id']}" for each in results if each["deleted"]))
    errors = [(result.id, remote.failure(result.status)) for result in answer.results]
    for id_, error in errors if output is Output.PRETTY else ():
        if error is not None:
            error.public = f"{id_}: {error.public}"
            show_error(error, as_json=False)
    if not all(each["deleted"] for each in results):
        raise typer.Exit(REFUSED)


@app.command()
def count(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Count entries."""
    from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb

    answer = remote.admin(admin_socket, pb.CountEntriesRequest())
    emit(output, {"count": answer.count}, [str(answer.count)])


@app.command()
def apply(
    file: Annotated[Path, typer.Option("--file", "-f", help="A YAML or JSON file, or a folder of them.")],
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete entries that this node serves and that are not in the files.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Make the entries those of files: checked as a whole, applied all or nothing, and shown as a diff."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.cli import entry_files

    request = pb.ApplyEntriesRequest(entries=entry_files.read(file), prune=prune, dry_run=dry_run)
    answer = remote.admin(admin_socket, request)
    steps: list[dict[str, Any]] = [
        {
            "action": step.action,
            "entry": messages.value_of(step.entry),
            "changed": list(step.changed),
            "warnings": list(step.warnings),
        }
        for step in answer.steps
    ]
    signs = {"create": "+", "update": "~", "delete": "-"}
    lines = []
    for step in steps:
        entry = step["entry"]
        changed = " (" + ", ".join(step["changed"]) + ")" if step["changed"] else ""
        lines.append(f"{signs[step['action']]} {entry['spiffe_id']} {' '.join(entry['selectors'])}{changed}")
    would = "would change" if dry_run else "changed"
    lines.append(f"{len(steps)} {would}, {answer.unchanged} as they are")
    emit(output, {"dry_run": dry_run, "steps": steps, "unchanged": answer.unchanged}, lines)
    if output is Output.PRETTY:
        for step in steps:
            _warn(step["warnings"], f"{step['entry']['spiffe_id']}: ")


def _made(result: Any, output: Output) -> None:
    """Print an entry as it is registered now, and what is to be said of it."""
    value = messages.value_of(result.entry)
    warnings = list(result.warnings)
    emit(output, {**value, "warnings": warnings}, _lines(value))
    if output is Output.PRETTY:
        _warn(warnings)


def _warn(warnings: list[str], of: str = "") -> None:
    for each in warnings:
        print(printable(f"warning: {of}{each}"), file=sys.stderr)


def entries_with(
    socket: str | None, spiffe_id: str | None = None, selectors: list[str] | None = None
) -> list[dict[str, Any]]:
    """All entries, or those for this SPIFFE ID and with these selectors."""
    from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb
    from sojourn._pb.spire.api.types import types_pb2 as types

    request = pb.ListEntriesRequest(page_size=_PAGE)
    if spiffe_id:
        request.filter.by_spiffe_id.CopyFrom(messages.id_or_template(spiffe_id))
    if selectors:
        request.filter.by_selectors.selectors.extend(messages.selector_messages(selectors))
        request.filter.by_selectors.match = types.SelectorMatch.MATCH_SUPERSET
    found: list[dict[str, Any]] = []
    while True:
        answer = remote.admin(socket, request)
        found += [messages.value_of(entry) for entry in answer.entries]
        if not answer.next_page_token:
            return found
        request.page_token = answer.next_page_token


def _get(socket: str | None, entry_id: str) -> dict[str, Any]:
    from sojourn._pb.spire.api.server.entry.v1 import entry_pb2 as pb

    return messages.value_of(remote.admin(socket, pb.GetEntryRequest(id=entry_id)))


def _lines(entry: dict[str, Any]) -> list[str]:
    set_attributes = [name for name, value in entry["additional_attributes"].items() if value]
    claims = [f"{name}:={json.dumps(value, ensure_ascii=False)}" for name, value in entry["jwt_claims"].items()]
    shown = {**entry, "additional_attributes": set_attributes, "jwt_claims": claims}
    return [
        f"{name:<21} {' '.join(value) if isinstance(value, list) else value}"
        for name, value in shown.items()
        if value not in (None, "", [], {}, 0) or name == "revision"
    ]
