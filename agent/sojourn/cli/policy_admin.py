"""`sojourn policy reload` and `shadow-report`: the task types that the agent has."""

from pathlib import Path
from typing import Annotated, Any

import typer

from sojourn.cli import remote
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable, table
from sojourn.cli.pages import more
from sojourn.cli.policy import word
from sojourn.errors import InvalidInput


def add_to(app: typer.Typer) -> None:
    """Add the commands to `sojourn policy`."""
    app.command()(reload)
    app.command()(shadow)
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
    value |= {"left_out": answer.left_out, "review_blocked": [*answer.review_blocked]}
    rows = [[each["task"], each["type"], each["spiffe_id"], each["outcome"], _lost(each)] for each in tasks]
    if answer.digest == answer.digest_before:
        lines = [f"nothing has changed: {answer.digest[:12]} is in force already"]
    else:
        verb = "would replace" if dry_run else "replaced"
        lines = [f"{answer.digest[:12]} {verb} {answer.digest_before[:12]}"]
        lines += (
            table(["TASK", "TYPE", "SPIFFE ID", "OUTCOME", "LOSES"], rows) if rows else ["no live task is concerned"]
        )
        lines += more(answer.left_out, "those that end or lose something stand first")
        lines += [f"no new task of {name} begins then: its review is overdue" for name in answer.review_blocked]
    emit(output, value, lines)


def shadow(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder of NAME.toml and NAME.cedar, which the agent reads.")
    ] = None,
    off: Annotated[bool, typer.Option("--off", help="Have no candidate set asked any more.")] = False,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Have a candidate set of task types asked beside the one in force until the agent stops (operator).

    Its folder is followed. It decides nothing: `sojourn policy shadow-report` shows what it would answer otherwise.
    Exit status 1 if the set cannot be used: the candidate before stays.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    if (folder is None) != off:
        raise InvalidInput("either a folder is needed, or --off")
    request = pb.SetShadowPolicyRequest(folder="" if folder is None else str(folder.absolute()), off=off)
    value = told(remote.admin(admin_socket, request))
    lines = (
        ["no candidate set is asked any more"]
        if value["shadow"] is None
        else policy_lines("candidate", value["shadow"])
    )
    emit(output, value, lines)


def shadow_report(admin_socket: AdminSocketOption = None, output: OutputOption = Output.PRETTY) -> None:
    """Show what the candidate set of task types would have answered otherwise (operator)."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    answer = remote.admin(admin_socket, pb.GetShadowReportRequest())
    value = told(answer)
    if value["shadow"] is None:
        emit(output, value, ["there is no candidate set: `sojourn policy shadow FOLDER` has one asked beside"])
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
    what = f"{policy['task_types']} task types, {policy['digest'][:12]}"
    if policy["origin"] == "last_good":
        loaded = f"the LAST GOOD set is in force, {what}, of {policy['accepted_at']}"
    else:
        loaded = f"{what}, as of {policy['loaded_at']}" if policy["loaded_at"] else "none could be loaded"
    lines = [f"{name:<14} {printable(policy['folder'])}: {loaded}"]
    if policy["without"]:
        lines.append(f"{'':<14} NO task begins: {printable(policy['without'])}")
    if policy["fault"]:
        lines.append(f"{'':<14} NOT in force: {printable(policy['fault'])}")
    return lines


def _lost(task: dict[str, Any]) -> str:
    lost = "; ".join(f"{', '.join(grant['actions'])} at {grant['resource']}" for grant in task["lost"])
    return f"{lost} ({task['why']})" if lost else ""


def _by(policies: list[str]) -> str:
    return f" by {', '.join(policies)}" if policies else ""
