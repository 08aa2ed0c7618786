"""`sojourn policy reload` and `shadow-report`: the task types that the agent has."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable, table
from sojourn.cli.policy import word
from sojourn.errors import InvalidInput


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn policy`."""
    app.command()(reload)
    app.command("shadow-report")(shadow_report)


def reload(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which live tasks it would end or narrow.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="With --dry-run: a folder that the agent does not follow.")
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Have the agent read its task types now. Live tasks of changed types are decided again (operator).

    Exit status 1 if the set cannot be used: what was in force stays.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if folder is not None and not dry_run:
        raise InvalidInput("--folder goes with --dry-run: the agent has the types of its own folder")
    candidate = str(folder.absolute()) if folder is not None else ""
    answer = remote.admin(admin_socket, pb.ReloadPolicyRequest(dry_run=dry_run, folder=candidate))
    tasks = [told(each, task="task_id") for each in answer.consequences]
    value = {"digest": answer.digest, "digest_before": answer.digest_before, "dry_run": dry_run, "tasks": tasks}
    rows = [[each["task"], each["type"], each["spiffe_id"], each["outcome"], _lost(each)] for each in tasks]
    if answer.digest == answer.digest_before:
        lines = [f"nothing has changed: {answer.digest[:12]} is in force already"]
    else:
        verb = "would replace" if dry_run else "replaced"
        lines = [f"{answer.digest[:12]} {verb} {answer.digest_before[:12]}"]
        lines += (
            table(["TASK", "TYPE", "SPIFFE ID", "OUTCOME", "LOSES"], rows) if rows else ["no live task is concerned"]
        )
    emit(output, value, lines)


def shadow_report(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show what the candidate set of task types would have answered otherwise (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.GetShadowReportRequest())
    value = told(answer)
    if value["shadow"] is None:
        emit(output, value, ["there is no candidate set: name its folder in tasks.shadow_types_dir"])
        return
    differences = value["differences"]
    lines = policy_lines("candidate", value["shadow"])
    beyond = f", {answer.beyond} more were not kept" if answer.beyond else ""
    lines.append(
        f"{answer.compared} decisions compared, {answer.errors} errors, {len(differences)} differences{beyond}"
    )
    rows = [
        [
            *(each[name] for name in ("count", "type", "spiffe_id", "action", "resource")),
            f"{word(each['allowed'])}{_by(each['policies'])}",
            f"{word(each['candidate_allows'])}{_by(each['candidate_policies'] or [each['candidate_rule']])}",
        ]
        for each in differences
    ]
    if rows:
        lines += table(["TIMES", "TYPE", "SPIFFE ID", "ACTION", "RESOURCE", "IN FORCE", "CANDIDATE"], rows)
    emit(output, value, lines)


def policy_lines(name: str, policy: dict[str, Any]) -> list[str]:
    """A set of task types for people."""
    loaded = f"{policy['task_types']} task types, {policy['digest'][:12]}, as of {policy['loaded_at']}"
    lines = [f"{name:<14} {printable(policy['folder'])}: {loaded if policy['loaded_at'] else 'none could be loaded'}"]
    if policy["fault"]:
        lines.append(f"{'':<14} NOT in force: {printable(policy['fault'])}")
    return lines


def _lost(task: dict[str, Any]) -> str:
    lost = "; ".join(f"{', '.join(grant['actions'])} at {grant['resource']}" for grant in task["lost"])
    return f"{lost} ({task['why']})" if lost else ""


def _by(policies: list[str]) -> str:
    return f" by {', '.join(policies)}" if policies else ""
