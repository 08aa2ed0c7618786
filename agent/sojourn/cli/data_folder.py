"""What `sojourn status` tells of the data folder: restores, backups, and the mark outside of it."""

from typing import Any

from sojourn.cli.output import printable


def data_folder_lines(value: dict[str, Any] | None) -> list[str]:
    """None: the agent is of a release that does not tell."""
    if value is None:
        return []
    lines = []
    restored, backup, mark = value["restored"], value["backup"], value["mark"]
    if restored is not None:
        lost = "" if restored["lost_records"] is None else f", {restored['lost_records']} records lost"
        span = f"from {restored['unknown_after'] or 'the beginning'} until {restored['unknown_until']}"
        lines += [
            f"{'RESTORED':<14} {restored['restored_at']}: {printable(restored['reason'].partition(':')[0])}{lost}",
            f"{'':<14} unknown {span}: {', '.join(map(printable, restored['unknown']))}",
        ]
    made = "none is known of" if backup is None else f"{backup['made_at']} {printable(backup['file'])}"
    lines.append(f"{'last backup':<14} {made}")
    if mark is None:
        lines.append(f"{'mark':<14} none: a data folder that is put back whole is not noticed (mark_dir)")
    else:
        fault = f"; NOT written: {printable(mark['fault'])}" if mark["fault"] else ""
        lines.append(f"{'mark':<14} {printable(mark['file'])}, since {mark['since']}{fault}")
    return lines
