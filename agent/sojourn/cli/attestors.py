"""Attestors, as `sojourn explain` and `sojourn status` show them."""

from typing import Any

from sojourn.cli.messages import told
from sojourn.cli.output import printable


def answer_value(answer: Any) -> dict[str, Any]:
    """What one attestor said of a process."""
    needed = {
        "entry_id": answer.entry_id,
        "spiffe_id": answer.spiffe_id,
        "selectors": list(answer.needed),
        "also_missing": list(answer.also_missing),
    }
    return {
        "name": answer.name,
        "seconds": round(answer.seconds, 6),
        "selectors": answer.selectors,
        "age_seconds": round(answer.age_seconds, 3),
        "failure": answer.failure,
        "needed": needed if answer.entry_id else None,
    }


def answer_lines(value: dict[str, Any]) -> list[str]:
    took = f"{value['seconds'] * 1000:.1f} ms"
    if not value["failure"]:
        number = value["selectors"]
        said = f"{number} selector{'' if number == 1 else 's'} in {took}"
        age = f", up to {value['age_seconds']:.0f} s old" if value["age_seconds"] >= 1 else ""
        return [f"{value['name']}: {said}{age}"]
    after = f", after {took}" if value["seconds"] else ""  # nothing: of a kind of selectors alone
    lines = [f"{value['name']}: could not tell{after}: {printable(value['failure'])}"]
    needed = value["needed"]
    if needed is not None:
        wanted = printable(", ".join(needed["selectors"]))
        lines.append(f"  for {needed['spiffe_id']} ({needed['entry_id']}) it would have to say {wanted}")
        if needed["also_missing"]:
            lines.append(f"  and that also asks for {printable(', '.join(needed['also_missing']))}")
    return lines


def state_value(state: Any) -> dict[str, Any]:
    """How one attestor fares."""
    return {**told(state), "seconds": round(state.seconds, 6)}


def state_line(value: dict[str, Any]) -> str:
    mean = f", {value['seconds'] / value['asked'] * 1000:.1f} ms each" if value["asked"] else ""
    line = f"{value['name']}: asked {_times(value['asked'])}{mean}"
    if not value["failure"]:
        return line
    how = "FAILS now" if value["failing"] else "failed last"
    failed = f", failed {_times(value['failed'])}" if value["failed"] else ""
    return f"{line}{failed}; {how}: {printable(value['failure'])} (at {value['failed_at']})"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
