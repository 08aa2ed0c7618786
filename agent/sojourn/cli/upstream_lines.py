"""What `sojourn status` says of the server whose node an agent is."""

from typing import Any

from sojourn.cli.output import printable


def upstream_lines(value: dict[str, Any] | None) -> list[str]:
    """None if the agent is its own authority."""
    if value is None:
        return []
    again = "" if value["reattestable"] else ", which cannot be used again"
    server = value["server"] or "none answers"
    lines = [f"{'upstream':<14} {value['kind']} server {server}; joined by {value['attestor']}{again}"]
    lines.append(f"{'':<14} own SVID until {value['svid_until'] or 'never had one'}")
    if value["synced_at"]:
        lines.append(f"{'':<14} synced {value['synced_at']}, {value['synced_seconds']:.0f} s ago")
    if value["svids_until"]:
        near = f"; {value['svids_near_end']} near their end" if value["svids_near_end"] else ""
        ends = f"from {value['svids_until']} to {value['last_svid_until']}"
        lines.append(f"{'':<14} SVIDs in use end {ends}; {value['prefetched']} entries ahead of use{near}")
    if value["left_out"]:
        lines.append(f"{'':<14} {value['left_out']} entries of the server cannot be served: the log says why")
    if value["refused"]:
        lines.append(f"{'':<14} REFUSED by the server: {printable(value['refused'])}; {printable(value['remedy'])}")
    if value["away_seconds"] is not None:
        lines.append(f"{'':<14} AWAY for {value['away_seconds']:.0f} s: {printable(value['fault'])}")
    elif value["fault"]:
        lines.append(f"{'':<14} NOT synced: {printable(value['fault'])}")
    return lines
