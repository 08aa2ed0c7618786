"""`sojourn policy narrow`: a narrower version of a task type, by what was used of it."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import unified_diff
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import moment_ms
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import REFUSED, emit
from sojourn.cli.policy_past import Past
from sojourn.cli.policy_replay import tally, tally_lines
from sojourn.cli.usage import report_of
from sojourn.errors import AlreadyExists, InvalidInput, SojournError, UnknownTaskType
from sojourn.files import atomic

if TYPE_CHECKING:
    from sojourn.policy.narrowing import Narrowed, Narrowing
    from sojourn.policy.task_types import TaskType, TypeSet


def add_to(app: typer.Typer) -> None:
    """Add the command to `sojourn policy`."""
    app.command()(narrow)


def narrow(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The task type.")],
    to: Annotated[
        Path, typer.Option("--to", metavar="DIR", help="A new folder: a copy of all types, with this one narrower.")
    ],
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="By what was used since this time: a time, or 30d for ago.")
    ] = "90d",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="The folder that the agent follows. Default: the agent says it.")
    ] = None,
    tighten: Annotated[
        bool,
        typer.Option("--tighten", help="Propose also smaller numbers and fewer values, by the greatest that was seen."),
    ] = False,
    even_if_used: Annotated[
        bool, typer.Option("--even-if-used", help="Propose also what would have kept out something that was used.")
    ] = False,
    even_if_little: Annotated[
        bool, typer.Option("--even-if-little", help="Propose also by less than 30 days or 20 tasks.")
    ] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Propose a narrower version of a task type, by what was used of it, and try it on what was decided (operator).

    Each change takes something away that nobody used, and says why. Nothing is applied: a person looks at the folder,
    and moves it. Exit status 1 if there is too little evidence, if something that was used would be
    refused, a case fails, a live task loses something or could not be asked, a record is wrong or gone, or nothing
    could be asked again.
    """
    from sojourn.policy import cases
    from sojourn.policy.task_types import load

    now = datetime.now(UTC)
    asked = _Asked(type_, moment_ms("--since", since, now), int(now.timestamp() * 1_000), admin_socket)
    folder = folder or _followed(admin_socket)
    _check_new(to, folder)
    types = cases.read_all(folder, load(folder))
    if type_ not in types:
        raise UnknownTaskType(f"{str(folder)!r} has no task type {type_[:64]!r}")
    use = asked.use(types[type_])
    value = {**_NOTHING, **{name: use[name] for name in _OF_USE}}
    if not use["enough"] and not even_if_little:
        emit(output, value, [f"{type_}: {use['lacking']}", "nothing is proposed: --even-if-little does"])
        raise typer.Exit(REFUSED)
    proposal, past = _proposal(types, use, asked, tighten=tighten, even_if_used=even_if_used)
    value["edits"] = [{"change": each.what, "evidence": each.evidence} for each in proposal.narrowed.edits]
    value["left_out"] = [
        {"change": each.edit.what, "evidence": each.edit.evidence, "why": each.why, "seq": each.seq}
        for each in proposal.left_out
    ]
    if proposal.narrowed.edits:
        value["replay"] = tally(past, proposal.replay)
        value |= _written(types, proposal.narrowed, asked, folder, to)
    emit(output, value, _lines(value))
    if value["folder"] is not None and _needs_a_look(value):
        raise typer.Exit(REFUSED)


_OF_USE: Final = ("type", "digest", "since", "tasks", "enough", "lacking", "not_counted")
_NOTHING: Final[Mapping[str, Any]] = {
    "edits": [],
    "left_out": [],
    "diff": "",
    "folder": None,
    "replay": None,
    "failing_cases": [],
    "new_cases": [],
    "live": None,
    "live_fault": "",
}


@dataclass(frozen=True)
class _Asked:
    """A type, and a time in milliseconds since the epoch."""

    type: str
    first_ms: int
    last_ms: int
    admin_socket: str | None

    def use(self, kind: "TaskType") -> dict[str, Any]:
        """What was used of it. Raise InvalidInput if the agent has another version of it in force."""
        report = report_of(self.admin_socket, kind.name, "", self.first_ms, 0, from_journal=False)
        (use,), time = report["types"], report["time"]
        if use["digest"] != kind.digest:
            raise InvalidInput(f"{kind.name!r} is another in the folder than in force: `sojourn policy reload` first")
        not_counted = {name: time[name] for name in ("others", "unread") if time[name]}
        return {**use, "not_counted": {**not_counted, **({"behind": True} if time["behind"] else {})}}

    def past(self, proposal: "Narrowing") -> Past:
        """Have a proposal told what was decided for it, and what else was used."""
        from sojourn.policy.narrowing import HEARD

        past = Past({self.type}, self.first_ms, self.last_ms, proposal.take, proposal.hear, HEARD)
        past.read_agent(self.admin_socket)
        return past


def _followed(admin_socket: str | None) -> Path:
    """The folder that the agent follows."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    policy = remote.admin(admin_socket, pb.GetStatusRequest()).policy
    if not policy.folder:
        raise InvalidInput("the agent follows no folder of task types")
    return Path(policy.folder)


def _check_new(to: Path, folder: Path) -> None:
    """Raise AlreadyExists or InvalidInput unless a copy of `folder` may be written to `to`."""
    if to.exists() and not to.is_dir():
        raise AlreadyExists(f"{str(to)!r} is no folder: name a new one")
    if to.exists() and any(to.iterdir()):
        raise AlreadyExists(f"the folder {str(to)!r} is not empty: name a new one")
    if folder.resolve() in (to.resolve(), *to.resolve().parents):
        raise InvalidInput(f"{str(to)!r} is in the folder that the agent follows: name another place")


def _proposal(
    types: "TypeSet", use: Mapping[str, Any], asked: _Asked, *, tighten: bool, even_if_used: bool
) -> tuple["Narrowing", Past]:
    """A proposal, once nothing more of it turns out to be used, and the time by which it was tried."""
    from sojourn.policy.narrowing import Narrowing
    from sojourn.policy.narrowing_edits import edits_of

    kind = types[asked.type]
    edits = edits_of(kind, use, tighten=tighten) if use["tasks"] else []
    files = types.texts[f"{kind.name}.toml"], types.texts[f"{kind.name}.cedar"]
    proposal = Narrowing(kind, *files, edits, even_if_used=even_if_used)
    past = asked.past(proposal)
    while proposal.again():
        past = asked.past(proposal)
    return proposal, past


def _written(types: "TypeSet", narrowed: "Narrowed", asked: _Asked, folder: Path, to: Path) -> dict[str, Any]:
    """Write the folder, and say what its cases and live tasks would be by it."""
    from sojourn.policy.narrowing_cases import failing, with_denials
    from sojourn.policy.task_types import CASES

    name = f"{narrowed.kind.name}{CASES}"
    cases, added = with_denials(types[narrowed.kind.name], narrowed.kind, types.texts.get(name, ""), narrowed.edits)
    texts = {**types.texts, **narrowed.texts, **({name: cases} if cases else {})}
    _write(to, texts, folder)
    live, fault = _live(asked, to)
    return {
        "diff": "".join(_diff(types.texts, texts)),
        "folder": str(to),
        "failing_cases": failing(narrowed.kind, cases),
        "new_cases": added,
        "live": live,
        "live_fault": fault,
    }


def _needs_a_look(value: Mapping[str, Any]) -> bool:
    replay, live = value["replay"], value["live"]
    used = any(each["tokens"] or each["begins"] for each in replay["denied"])
    lost = live is None or any(each["outcome"] != "keep" for each in live)
    unasked = not replay["asked"] or replay["wrong"] or replay["records_since"] is not None
    return bool(unasked or used or replay["allowed"] or lost or value["failing_cases"] or value["not_counted"])


def _write(to: Path, texts: Mapping[str, str], like: Path) -> None:
    """The whole folder, or none; who may read the files of `like` may read these. Raise InvalidInput."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        made = Path(mkdtemp(prefix=f".{to.name[:100]}.", dir=to.parent))
        try:
            _fill(made, texts, like)
            made.replace(to)
        except BaseException:
            rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        raise InvalidInput(f"the folder {str(to)!r} cannot be written: {error.strerror}") from error


def _fill(made: Path, texts: Mapping[str, str], like: Path) -> None:
    status = like.stat()
    for name, text in texts.items():
        old = like / name
        atomic.write(made / name, text.encode(), (old if old.exists() else like).stat().st_mode & 0o644)
        _give(made / name, status.st_gid)
    _give(made, status.st_gid)
    made.chmod(status.st_mode & 0o755)


def _give(path: Path, group: int) -> None:
    with suppress(PermissionError):  # of a group that we are not in
        os.chown(path, -1, group)


def _live(asked: _Asked, folder: Path) -> tuple[list[dict[str, Any]] | None, str]:
    """What becomes of live tasks of the type; None, and why: the agent could not be asked."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.ReloadPolicyRequest(dry_run=True, folder=str(folder.absolute()))
    try:
        answer = remote.admin(asked.admin_socket, request)
    except SojournError as error:
        return None, error.public
    return [told(each, task="task_id") for each in answer.consequences if each.type == asked.type], ""


def _diff(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name, text in after.items():
        old = before.get(name, "").splitlines(keepends=True)
        yield from unified_diff(old, text.splitlines(keepends=True), name, name)


# --- for people -------------------------------------------------------------------------------------------------------


def _lines(value: Mapping[str, Any]) -> Iterator[str]:
    if not value["enough"]:
        yield f"{value['type']}: {value['lacking']}"
    if value["not_counted"]:
        said = ", ".join(f"{name}: {number}" for name, number in value["not_counted"].items())
        yield f"NOT all was counted: see `sojourn usage` ({said})"
    for each in value["edits"]:
        yield f"{each['change']}"
        yield f"    {each['evidence']}"
    for each in value["left_out"]:
        at = f" (record {each['seq']})" if each["seq"] else ""
        yield f"not proposed: {each['change']}: {each['why']}{at}"
    if value["folder"] is None:
        yield f"{value['type']}: nothing is proposed, and nothing written"
        return
    yield from value["diff"].splitlines()
    yield ""
    yield from tally_lines(value["replay"])
    yield from (f"CASE FAILS: {each}" for each in value["failing_cases"])
    if value["new_cases"]:
        yield f"cases added: {len(value['new_cases'])}"
    yield from _live_lines(value)
    yield f"written to {value['folder']}. Nothing is in force: look at it, and have it take the place of the other"


def _live_lines(value: Mapping[str, Any]) -> Iterator[str]:
    if value["live"] is None:
        yield f"live tasks were NOT looked at: {value['live_fault']}"
        return
    for each in value["live"]:
        if each["outcome"] != "keep":
            yield f"live task {each['task']} of {each['spiffe_id']}: {each['outcome']}: {each['why']}"
