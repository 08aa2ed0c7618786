"""Write docs/operate/logs.md from the code, or, with `--check`, fail if it is stale: every event of the agent's log.

Sentences come from the table of events, levels and fields from the calls that log.
"""

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sojourn.runtime.log_events import ALERTS, LOG_EVENTS, LOG_FIELDS
from trees import nodes_of

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "agent" / "sojourn"
PAGE = ROOT / "docs" / "operate" / "logs.md"
_LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "exception": "error", "log": ""}
_EVENT = re.compile(r"[a-z][a-z0-9_]+")
# Those whose event is chosen when it happens are errors, but for these.
_CHOSEN = {f"{name}_certificate_read": "info" for name in ("https", "trust")} | {
    "policy_loaded": "debug, info",
    "shadow_policy_loaded": "debug, info",
    "library_message": "warning, error",
    "svid_not_rotated": "warning, error",
    "svid_not_signed": "warning, error",
}
_CHOSEN_FIELDS = {name: {"spiffe_id", "entry_id"} for name in ("svid_not_rotated", "svid_not_signed")}
_ORDER = ["debug", "info", "warning", "error"]

HEAD = """\
# What the log says

One JSON object a line, on standard error: under systemd the journal has it (`journalctl -u sojourn -o cat` prints
the lines as they are), in a container the container's log. `log.level` says from which level on; after a change of it
SIGHUP brings it into force. A line holds no tokens, no keys and no parameters of tasks. `make codes` writes
this page from the code.

    jq -c 'select(.alert)' agent.log
    jq -c 'select(.event == "call_refused") | {code, method, uid, reason}' agent.log
    jq -c 'select(.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736")' agent.log

The first line of a start is `agent_starting`, with `version`, `node`, `python` and `kernel`. What went wrong of late is
in `sojourn status` too. The audit journal (`sojourn audit tail`) is apart from this: it has what was issued, refused
and changed, and its [events](../codes.md#audit-events) are other ones.

## Fields

These mean the same in every line that has them, and keep their names. Others may change.
"""
TRACES = """\
## Traces

A caller's `traceparent` (W3C Trace Context), in gRPC metadata or as an HTTP header, is `trace_id` of each line and each
audit record that its request leads to, and goes on to the provider outside that the agent asks for it, as it came. The
agent makes no spans of its own. What happens after the request is over, as the end of a task, is of no trace. A header
that is malformed, or there twice, is ignored.
"""


@dataclass(slots=True)
class Logged:
    """How an event is logged: by which levels, with which of the stable fields."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def _calls() -> Iterator[tuple[str, ast.Call]]:
    """Each call that logs, with its level ('' if that is chosen when it runs)."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "structlog.get_logger" not in path.read_text():
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LEVELS:
                place = ast.unparse(node.func.value)
                if place in {"log", "self._log", "structlog.get_logger()"}:
                    yield _LEVELS[node.func.attr], node


def logged() -> dict[str, Logged]:
    """The events that stand as texts in calls that log."""
    found: dict[str, Logged] = {}
    for level, call in _calls():
        for each in call.args[:2]:
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and _EVENT.fullmatch(each.value):
                made = found.setdefault(each.value, Logged())
                made.levels |= {level} if level else set()
                made.fields |= {keyword.arg for keyword in call.keywords if keyword.arg in LOG_FIELDS}
    return found


def texts() -> set[str]:
    """Every text of the code, parts of f-strings too: events that are chosen when they happen are among them."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        if path.name == "log_events.py" or "_pb" in path.parts:
            continue
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def faults() -> list[str]:
    """What the code logs and the table has not, and the other way round."""
    said, known, parts = logged(), set(LOG_EVENTS), texts()
    found = [f"{name}: give it a sentence in runtime/log_events.py" for name in sorted(said.keys() - known)]
    for name in sorted(known - said.keys()):
        ends = (name[at:] for at in range(len(name)) if name[at] == "_")
        if name not in parts and not any(end in parts for end in ends):
            found.append(f"{name}: nothing logs it")
    found += [f"{name}: an alert that is no event" for name in sorted(ALERTS - known)]
    return found


def page() -> str:
    """docs/operate/logs.md, whole."""
    said = logged()
    lines = [*HEAD.splitlines(), "", "| Field | What it is |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in LOG_FIELDS.items()]
    lines += ["", *TRACES.splitlines(), "", "## Events", ""]
    lines += [
        "Those marked ! have `alert`. The fields are those of the table above that each line of the event has.",
        "",
    ]
    lines += ["| Event | Level | Fields | What happened |", "|---|---|---|---|"]
    for name, text in sorted(LOG_EVENTS.items()):
        how = said.get(name, Logged())
        levels = ", ".join(sorted(how.levels, key=_ORDER.index)) or _CHOSEN.get(name, "error")
        fields = (
            ", ".join(f"`{each}`" for each in LOG_FIELDS if each in how.fields | _CHOSEN_FIELDS.get(name, set())) or "-"
        )
        lines.append(f"| `{name}`{' !' if name in ALERTS else ''} | {levels} | {fields} | {text} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    if wrong := faults():
        raise SystemExit("\n".join(wrong))
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        raise SystemExit("docs/operate/logs.md is not what the code says: run `make codes`")
    else:
        print("docs/operate/logs.md is up to date")


if __name__ == "__main__":
    main()
