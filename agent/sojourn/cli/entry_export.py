"""`sojourn entry export`: the entries as files that `apply` takes, or SPIRE."""

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from sojourn.cli.entry import entries_with
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable
from sojourn.errors import CannotStart
from sojourn.extras import how_to_install

_REGISTRYS: Final = frozenset({"revision", "created_at", "origin"})  # what nobody declares
# What SPIRE's form has, by our names; a list of selectors and the two that are named otherwise are made beside.
_SPIRES: Final = (
    *("spiffe_id", "parent_id", "x509_svid_ttl", "jwt_svid_ttl", "federates_with", "admin", "downstream"),
    *("dns_names", "store_svid", "hint"),
)
_OURS: Final = ("priority", "jwt_claims", "owner", "sponsor")  # SPIRE's entries have no such thing


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn entry`."""
    app.command()(export)


def export(
    spire: Annotated[
        bool, typer.Option("--spire", help="As `spire-server entry create -data` takes them, which is JSON.")
    ] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Print all entries as `apply` takes them: YAML, or JSON with --output json.

    A SPIRE server's entries too: --admin-socket may be its socket.
    """
    found = [_declared(entry) for entry in entries_with(admin_socket)]
    if spire:
        print(json.dumps({"entries": [_for_spire(each) for each in found if _fits_spire(each)]}, indent=2))
        return
    if output is Output.JSON:
        emit(output, {"entries": found}, [])
        return
    try:
        import yaml
    except ModuleNotFoundError:
        raise CannotStart(f"printing YAML needs PyYAML; take --output json, or {how_to_install('agent')}") from None
    print(yaml.safe_dump({"entries": found}, sort_keys=False, allow_unicode=True), end="")


def _declared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What of a registered entry somebody would write who declares it."""
    kept = {name: value for name, value in entry.items() if value and name not in _REGISTRYS}
    if not any(entry["additional_attributes"].values()):
        del kept["additional_attributes"]
    if "expires_at" in kept:
        kept["expires_at"] = int(datetime.fromisoformat(kept["expires_at"]).timestamp())
    return kept


def _fits_spire(entry: Mapping[str, Any]) -> bool:
    """Whether SPIRE can have this entry as it is, told on standard error if not."""
    if "{" in entry["spiffe_id"]:
        print(printable(f"warning: left out {entry['spiffe_id']}: SPIRE has no templates"), file=sys.stderr)
        return False
    for name in _OURS:
        if name in entry:
            print(printable(f"warning: {entry['spiffe_id']}: without {name}, which SPIRE has not"), file=sys.stderr)
    return True


def _for_spire(entry: Mapping[str, Any]) -> dict[str, Any]:
    """An entry in the form of `spire-server entry create -data`. Without its ID: SPIRE gives it one of its own."""
    made: dict[str, Any] = {name: entry[name] for name in _SPIRES if name in entry}
    pairs = (each.partition(":") for each in entry["selectors"])
    made["selectors"] = [{"type": type_, "value": value} for type_, _, value in pairs]
    if "expires_at" in entry:
        made["entry_expiry"] = entry["expires_at"]
    return made
