"""Write docs/codes.md from the code, or, with `--check`, fail if it is stale: all that Sojourn says by a stable name.

Errors come from their classes, audit events and reasons from their tables, and metrics from the calls that make them.
"""

import ast
import importlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sojourn.audit.events import EVENTS
from sojourn.endpoints.http1.oauth_responses import http_status
from sojourn.errors import InvalidInput, SojournError
from sojourn.tasktoken.end_reasons import CAUSES, REASONS
from trees import tree_of

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "agent" / "sojourn"
PAGE = ROOT / "docs" / "codes.md"
CELL_MAX = 300
CLIENT_SIDE = "(client side) "
NONE = "-"
_FAMILY = "MetricFamily"
_PREFIX = "sojourn_"
_KINDS = {"counter", "gauge", "histogram", "summary"}


@dataclass(frozen=True, slots=True)
class Code:
    """An error's code. `status` and `oauth` are empty if no answer of the agent has it."""

    name: str
    status: str
    oauth: str
    text: str


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as it is scraped."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def _trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if "_pb" not in path.parts:
            yield path, tree_of(path)


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    bracket = CLIENT_SIDE if paragraph.startswith(CLIENT_SIDE) else ""
    return bracket + re.split(r"(?<=[.?!]) (?=[A-Z(`])", paragraph.removeprefix(bracket))[0]


def _has_code(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef) and any(
        isinstance(each, ast.Assign)
        and isinstance(each.value, ast.Constant)
        and isinstance(each.value.value, str)
        and any(isinstance(target, ast.Name) and target.id == "code" for target in each.targets)
        for each in node.body
    )


def _module(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _below(kind: type[SojournError]) -> Iterator[type[SojournError]]:
    for each in kind.__subclasses__():
        yield each
        yield from _below(each)


def kinds() -> list[type[SojournError]]:
    """Every class below SojournError of the agent that has a code of its own."""
    for path, tree in _trees():
        if any(_has_code(node) for node in tree.body):
            importlib.import_module(_module(path))
    ours = (kind for kind in _below(SojournError) if kind.__module__.startswith("sojourn."))
    return sorted({kind for kind in ours if "code" in vars(kind)}, key=lambda kind: kind.code)


def code_of(kind: type[SojournError]) -> Code:
    """What the page says of an error."""
    text = first_sentence(vars(kind).get("__doc__") or "")
    # What one file keeps for itself is answered there, by other means.
    if text.startswith(CLIENT_SIDE) or kind.__name__.startswith("_"):
        return Code(kind.code, "", "", text)
    # The root's OAuth error is for what is malformed; other classes that have none of their own have no OAuth answer.
    fits = issubclass(kind, InvalidInput) or any(
        "oauth_error" in vars(each) for each in kind.__mro__[:-1] if each is not SojournError
    )
    return Code(kind.code, kind.grpc_status, f"`{kind.oauth_error}`, {http_status(kind)}" if fits else "", text)


def _imported(tree: ast.Module) -> dict[str, str]:
    """What a module calls the kinds of metrics, each with its kind."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client"):
            for each in node.names:
                kind = each.name.removesuffix(_FAMILY).lower()
                if kind in _KINDS:
                    found[each.asname or each.name] = kind
    return found


def _text(node: ast.expr) -> str:
    value = ast.literal_eval(node)
    assert isinstance(value, str)
    return value


def _made(node: ast.Call, kind: str) -> Metric:
    labels = [*node.args[2:3], *(each.value for each in node.keywords if each.arg in {"labels", "labelnames"})]
    name = _text(node.args[0])
    if kind == "counter" and not name.endswith("_total"):
        name += "_total"
    return Metric(name, kind, tuple(ast.literal_eval(labels[0])) if labels else (), _text(node.args[1]))


def _is_gauge(parts: list[ast.expr]) -> bool:
    """Whether these are a gauge of `agent/measuring.py`: its name, what it tells, and what is asked for its value."""
    match parts:
        case [ast.Constant(value=str(name)), ast.Constant(value=str()), ast.Lambda() | ast.Attribute()]:
            return name.startswith(_PREFIX)
    return False


@cache
def metrics() -> list[Metric]:
    """Every metric that the agent makes, and every gauge of `agent/measuring.py`."""
    found = []
    for _, tree in _trees():
        names = _imported(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                if isinstance(node.args[0], ast.Constant):
                    found.append(_made(node, names[node.func.id]))
            elif isinstance(node, ast.Tuple) and _is_gauge(node.elts):
                found.append(Metric(_text(node.elts[0]), "gauge", (), _text(node.elts[1])))
    return sorted(found, key=lambda each: each.name)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        cells = (cell.replace("|", "\\|") or NONE for cell in row)
        yield f"| {' | '.join(cells)} |"


def _sentences(said: Mapping[str, str]) -> list[tuple[str, ...]]:
    return [(f"`{name}`", text) for name, text in sorted(said.items())]


def _linked(code: str) -> str:
    """An error's code, with the way to what helps."""
    return f"[`{code}`](operate/troubleshooting.md#{code})"


def page() -> str:
    """docs/codes.md, whole."""
    codes = [code_of(kind) for kind in kinds()]
    lines = [
        "# Codes",
        "",
        "Every name that Sojourn says and does not change, with one sentence each. `make codes` writes this page from",
        "the code. [troubleshooting.md](operate/troubleshooting.md) has the cause of each error and what helps.",
        "",
        "## Errors",
        "",
        "The status is that of gRPC; the OAuth error and the HTTP status are those of the token service's endpoints.",
        "`POST /events` answers by RFC 8935 instead. What is marked (client side) is raised by the SDK itself, and no",
        "answer of the agent has it.",
        "",
        *table(
            ("Code", "Status", "OAuth", "What it means"),
            ((_linked(each.name), each.status and f"`{each.status}`", each.oauth, each.text) for each in codes),
        ),
        "",
        "## Reasons",
        "",
        "Why a task has ended, has lost authority or is suspended: `reason` of the task.",
        "",
        *table(("Reason", "What happened"), _sentences(REASONS)),
        "",
        "What suspends a task: `cause` of `task_suspended` and `task_resumed`. A task is active when no cause is left.",
        "",
        *table(("Cause", "What it waits for"), _sentences(CAUSES)),
        "",
        "## Audit events",
        "",
        "What the audit journal records: `event` of `sojourn audit tail` and `sojourn task why`.",
        "",
        *table(("Event", "What happened"), _sentences(EVENTS)),
        "",
        "## Metrics",
        "",
        "[operate/metrics.md](operate/metrics.md) has them, by area.",
    ]
    return "\n".join(lines) + "\n"


def faults(text: str) -> list[str]:
    """What is wrong with the page's tables."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("|") and not line.startswith("|--"):
            cells = [each.strip() for each in re.split(r"(?<!\\)\|", line)[1:-1]]
            if any(len(cell) > CELL_MAX for cell in cells):
                found.append(f"docs/codes.md:{number}: a cell has more than {CELL_MAX} characters: say it shorter")
            if cells[0].lstrip("[").startswith("`") and cells[-1][-1] != ".":
                found.append(f"docs/codes.md:{number}: {cells[0]} has no sentence: give it one in the code")
    return found


def main() -> None:
    text = page()
    if wrong := faults(text):
        raise SystemExit("\n".join(wrong))
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        raise SystemExit("docs/codes.md is not what the code says: run `make codes`")
    else:
        print("docs/codes.md is up to date")


if __name__ == "__main__":
    main()
