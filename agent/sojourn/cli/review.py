"""`sojourn review`: what is to be reviewed, of broken glass and for assurance, and the decisions."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final

import typer

from sojourn.cli import remote
from sojourn.cli.audit import record_lines, record_value, warn_of_unwritten
from sojourn.cli.messages import told
from sojourn.cli.options import AdminSocketOption, Output, OutputOption
from sojourn.cli.output import emit, printable, table
from sojourn.cli.pages import Printer
from sojourn.cli.review_evidence import evidence_lines, evidence_value
from sojourn.errors import InvalidInput
from sojourn.limits import AUDIT_WANTED_TEXT
from sojourn.oversight.review_names import KINDS, WORKLOAD, split
from sojourn.oversight.review_state import KEEP, NARROW, RETIRE

app = typer.Typer(no_args_is_help=True)
Value = dict[str, Any]
_LIMIT: Final = 100
_DONE: Final = frozenset(
    {"approval_decided", "break_glass_begun", "token_used", "request_refused", "refusals_counted"}
    | {"task_used", "task_ended", "review_done"}
)
ItemArgument = Annotated[
    str, typer.Argument(metavar="ITEM", help="type:NAME, workload:SPIFFE_ID, provider:NAME or credential:ID.")
]
OverdueOption = Annotated[bool, typer.Option("--overdue", help="Only what is overdue.")]
OwnerOption = Annotated[str, typer.Option("--owner", help="Only what has this owner.")]


@app.command("list")
def list_(
    overdue: OverdueOption = False,
    owner: OwnerOption = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="How many items.")] = _LIMIT,
    page: Annotated[
        str, typer.Option("--page", metavar="TOKEN", help="Go on where the page before ended, which said how.")
    ] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """List what is to be reviewed: broken glass that is owed, then all items with what is overdue first.

    Until the review of broken glass is done, no task of its type begins. An item is a task type, a workload, a provider
    outside, or a credential that outlives its task. With --output json `next_page` is the token of the next page.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    glass = [] if owner or page else [review_value(each) for each in _owed(admin_socket)]
    request = pb.ListReviewItemsRequest(overdue=overdue, owner=owner, page_token=page)
    items: list[Value] = []
    total = 0
    while len(items) < limit:
        request.page_size = limit - len(items)
        answer = remote.admin(admin_socket, request)
        items += [item_value(each) for each in answer.items]
        request.page_token, total = answer.next_page_token, answer.total
        if not request.page_token:
            break
    emit(
        output,
        {"reviews": glass, "items": items, "total": total, "next_page": request.page_token or None},
        _listed(glass, items),
    )
    if request.page_token and output is Output.PRETTY:
        print(
            f"{len(items)} of {total} items are shown: go on with --page {request.page_token}",
            file=sys.stderr,
        )


@app.command()
def show(
    item: Annotated[
        str,
        typer.Argument(
            metavar="ITEM|TASK",
            help="type:NAME, workload:SPIFFE_ID, provider:NAME or credential:ID; or a break-glass task.",
        ),
    ],
    digest: Annotated[
        str, typer.Option("--digest", help="What was shown once, with this digest, and not what is so now.")
    ] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show the evidence of an item, with the digest to decide by; or what was done behind broken glass.

    Evidence is what was granted and used of it in the last 90 days. The agent keeps it as it was shown, for 60 days. A
    break-glass task is shown with what it was begun for, each request that was made with it, and what services refused.
    """
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    name = item_name(item)
    if not split(name)[0]:
        if digest:
            raise InvalidInput("--digest is of an item, which has its kind before a colon: type:NAME")
        _show_glass(item, admin_socket, output)
        return
    found: list[Value] = []
    request = pb.ShowReviewItemsRequest(items=[name], digest=digest)
    remote.admin_stream(admin_socket, request, lambda part: found.extend(map(shown_value, part.shown)))
    emit(output, found[0], _shown_lines(found[0]))


@app.command()
def decide(
    item: ItemArgument,
    digest: Annotated[str, typer.Option("--digest", help="That of the evidence that was looked at.")],
    keep: Annotated[bool, typer.Option("--keep", help="It stays as it is.")] = False,
    narrow: Annotated[bool, typer.Option("--narrow", help="It stays, and is to be made narrower.")] = False,
    retire: Annotated[bool, typer.Option("--retire", help="It is to go.")] = False,
    reason: Annotated[
        str,
        typer.Option("--reason", help="For the audit journal. It must be given to keep or narrow what nobody used."),
    ] = "",
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Decide on the review of an item. It is a record, and grants and changes nothing: what to do next is said.

    Not from a workload's process, and not by whoever reloaded the task type as it is now.
    """
    chosen = [name for name, given in ((KEEP, keep), (NARROW, narrow), (RETIRE, retire)) if given]
    if len(chosen) != 1:
        raise InvalidInput("one of --keep, --narrow and --retire must be given")
    wanted = {"item": item_name(item), "decision": chosen[0], "digest": digest, "reason": reason}
    (following,) = decide_all(admin_socket, [wanted]).next
    value = {**wanted, "next": following or None}
    lines = [f"{wanted['item']}: {chosen[0]} is recorded, by the evidence {digest[:12]}"]
    emit(output, value, lines + ([f"now: {following}"] if following else []))


@app.command()
def done(
    task: Annotated[str, typer.Argument(help="The break-glass task.")],
    finding: Annotated[str, typer.Option("--finding", help="What was found. For the audit journal.")],
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Say what the review of a break-glass task found. `sojourn review show TASK` shows what was done in it."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.CompleteReviewRequest(task_id=task, finding=finding)
    remote.admin(admin_socket, request)
    emit(output, {"task": task, "finding": finding}, [f"the review of {task} is done"])


# --- what other commands use of it ----------------------------------------------------------------------------------


def decide_all(
    socket: str | None, wanted: Sequence[Mapping[str, str]], *, dry_run: bool = False, as_faults: bool = False
) -> Any:
    """Make decisions, all or none. Raise what is wrong with one that is alone, but `as_faults`."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    decisions = [pb.DecidedItem(**each) for each in wanted]
    return remote.admin(socket, pb.DecideReviewsRequest(decisions=decisions, dry_run=dry_run, as_faults=as_faults))


def item_name(text: str) -> str:
    """An item's whole name: a SPIFFE ID alone is a workload's."""
    return f"{WORKLOAD}:{text}" if text.startswith("spiffe://") else text


def item_value(message: Any) -> Value:
    return told(message)


def shown_value(message: Any) -> Value:
    return {**told(message, "evidence"), "evidence": evidence_value(message.evidence)}


def review_value(message: Any) -> Value:
    return {**told(message, task="task_id"), "login_uid": None if message.login_uid < 0 else message.login_uid}


def review_lines(dates: Value | None) -> list[str]:
    """What `sojourn status` says of reviews."""
    if dates is None or not (dates["due"] or dates["overdue"]):
        return []
    if not dates["overdue"]:
        return [f"{'reviews':<14} {dates['due']} due within two weeks: `sojourn review list`"]
    more = " …" if dates["overdue"] > len(dates["items"]) else ""
    return [f"{'reviews':<14} {dates['overdue']} OVERDUE: {printable(', '.join(dates['items']))}{more}"]


# --- for people -----------------------------------------------------------------------------------------------------


def _owed(socket: str | None) -> Any:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    return remote.admin(socket, pb.ListReviewsRequest()).reviews


def _show_glass(task: str, admin_socket: str | None, output: Output) -> None:
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    printer, found = Printer(output, "records", record_lines), 0

    def each(part: Any) -> None:
        nonlocal found
        warn_of_unwritten(part.unwritten)
        found += len(part.records)
        printer.add([record_value(record) for record in part.records])

    if task and len(task) <= AUDIT_WANTED_TEXT:
        request = pb.ReadAuditRequest(filter=pb.AuditFilter(task_id=task, events=sorted(_DONE)))
        remote.admin_stream(admin_socket, request, each)
    if not found:
        raise InvalidInput(
            f"the audit journal has nothing that was done in a task {task[:100]!r}; an item is written with its kind"
            f" before a colon: {', '.join(KINDS)}"
        )
    printer.end(task=task)


def _listed(glass: Iterable[Value], items: Sequence[Value]) -> Iterator[str]:
    rows = [
        [each["task"], each["type"], each["spiffe_id"], each["uid"], each["since"], "yes" if each["live"] else "no"]
        for each in glass
    ]
    if rows:
        yield from table(["TASK", "TYPE", "WORKLOAD", "UID", "SINCE", "STILL LIVE"], rows)
    else:
        yield "no review of broken glass is owed"
    yield ""
    if items:
        yield from table(["ITEM", "OWNER", "DUE", "LAST DECISION", "WHEN"], map(_row, items))
    else:
        yield "there is nothing else to review"


def _row(each: Value) -> list[object]:
    last = each["last"]
    due = each["due_at"] or "no date"
    return [
        each["item"],
        ", ".join(each["owners"]) or "nobody",
        f"{due} OVERDUE" if each["overdue"] else due,
        last["decision"] if last else "none",
        last["decided_at"] if last else "",
    ]


def _shown_lines(found: Value) -> Iterator[str]:
    item = found["item"]
    lines: dict[str, Callable[[], str] | str] = {
        "item": item["item"],
        "owner": ", ".join(item["owners"]) or "nobody",
        "sponsor": ", ".join(item["sponsors"]),
        "due": (item["due_at"] or "no date") + (" OVERDUE" if item["overdue"] else ""),
        "known since": item["known_at"] or "",
        "changed": _changed(item),
        "last decision": _last(item["last"]),
        "shown at": found["shown_at"],
        "digest": found["digest"],
    }
    for name, text in lines.items():
        if text:
            yield f"{name:<14} {printable(str(text))}"
    yield ""
    yield from evidence_lines(found["evidence"])


def _changed(item: Value) -> str:
    if not item["changed_at"]:
        return ""
    uid, login = item["changed_by_uid"], item["changed_by_login_uid"]
    if uid is None:
        return f"{item['changed_at']}, as the agent followed the folder"
    return f"{item['changed_at']}, reloaded by uid {uid}" + ("" if login is None else f" (logged in as {login})")


def _last(last: Value | None) -> str:
    if last is None:
        return "none"
    login = "" if last["by_login_uid"] is None else f" (logged in as {last['by_login_uid']})"
    reason = f": {last['reason']}" if last["reason"] else ""
    return f"{last['decision']} at {last['decided_at']} by uid {last['by_uid']}{login}{reason}"
