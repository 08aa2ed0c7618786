"""`sojourn validate`, `explain` and `status`: looking at tokens, processes and the agent."""

import json
import sys
from typing import Annotated, Any

import typer

from sojourn.cli import attestors, authority_lines, federation, remote
from sojourn.cli.audit_log import log_lines, stamp_lines, witness_lines
from sojourn.cli.audit_sinks import room_lines, sink_lines
from sojourn.cli.data_folder import data_folder_lines
from sojourn.cli.messages import told
from sojourn.cli.options import INT32_MAX, AdminSocketOption, Output, OutputOption, SocketOption
from sojourn.cli.output import REFUSED, dated, emit, printable, table, whole
from sojourn.cli.pages import more
from sojourn.cli.policy_admin import policy_lines
from sojourn.cli.review import review_lines, review_value
from sojourn.cli.upstream_lines import upstream_lines
from sojourn.cli.watch import INTERVAL, IntervalOption, WatchOption, show
from sojourn.errors import InvalidInput, quoted
from sojourn.identity.nodes import other_nodes_told


def validate(
    token: Annotated[str, typer.Argument(help="The token, or - to read it from standard input.")],
    audience: Annotated[str, typer.Option("--audience", help="Who the token must be for.")],
    task: Annotated[bool, typer.Option("--task", help="It must be a task token, not a JWT-SVID.")] = False,
    action: Annotated[str, typer.Option("--action", help="The action that a task token must grant.")] = "",
    proof: Annotated[str, typer.Option("--proof", help="The DPoP proof that came with it, which this uses up.")] = "",
    method: Annotated[
        str, typer.Option("--method", help="The method of the request that the proof came with.")
    ] = "GET",
    url: Annotated[str, typer.Option("--url", help="The URL of the request that the proof came with.")] = "",
    params_digest: Annotated[
        str, typer.Option("--params-digest", metavar="DIGEST", help="Of the request, if the token is for one alone.")
    ] = "",
    socket: SocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Validate a JWT-SVID or a task token. Exit status 0 if it is good, 1 if not."""
    from sojourn.tasktoken.sender_constraint import Sender

    text = sys.stdin.read().strip() if token == "-" else token  # noqa: S105  # a dash
    sender = Sender(dpop_proof=proof, method=method, url=url) if proof else None
    verdict = remote.public(
        socket,
        lambda client: client.validate_token(text, audience, action, sender=sender, params_digest=params_digest),
    )
    valid, code, reason, person = verdict.valid, verdict.code, verdict.reason, verdict.person
    if valid and task and verdict.kind != "task":
        valid, code, reason = False, "wrong_type", "the token is a JWT-SVID, not a task token"
    value = {
        "valid": valid,
        "code": code,
        "reason": reason,
        "kind": verdict.kind,
        "spiffe_id": str(verdict.spiffe_id) if verdict.spiffe_id else None,
        "actors": [str(each) for each in verdict.actors],
        "person": None if person is None else person._asdict() | {"amr": list(person.amr), "claims": person.listed()},
        "claims": {name: whole(each) for name, each in verdict.claims.items()},
    }
    if valid:
        presents = f", presented by {' for '.join(map(str, verdict.actors))}" if verdict.actors else ""
        whose = verdict.spiffe_id if person is None else f"{quoted(person.subject)} at {quoted(person.issuer)}"
        lines = [f"valid: {verdict.kind} of {whose}{presents}"]
        lines += [f"  {name:<22} {_claim(name, each)}" for name, each in sorted(verdict.claims.items())]
    else:
        lines = [f"not valid: {reason} [{code}]"]
    emit(output, value, lines)
    if not valid:
        raise typer.Exit(REFUSED)


def explain(
    pid: Annotated[
        int | None, typer.Option("--pid", metavar="PID", max=INT32_MAX, help="The process, such as $$ for this shell.")
    ] = None,
    selector: Annotated[
        list[str] | None,
        typer.Option(
            "--selector", metavar="TYPE:VALUE", help="In the place of a process: what it might have. May be repeated."
        ),
    ] = None,
    selectors: Annotated[
        str, typer.Option("--selectors", metavar="TYPE:VALUE,…", help="The same, in one list with commas.")
    ] = "",
    watch: WatchOption = False,
    interval: IntervalOption = INTERVAL,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Explain which identities a process gets, or would get, and what is missing for those that it does not get."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb
    from sojourn.attestation.selectors import Selector

    held = [*(selector or ()), *filter(None, selectors.split(","))]
    for text in held:
        Selector.parse(text)
    if (pid is None) == (not held):
        raise InvalidInput("either --pid or selectors are needed, such as --selector unix:uid:1000")
    request = pb.ExplainRequest(pid=pid, selectors=held)

    def get() -> dict[str, Any]:
        return _explanation(remote.admin(admin_socket, request))

    show(output, get, _explained, watch=watch, interval=interval, apart_from=_still)


def _explanation(answer: Any) -> dict[str, Any]:
    nobody = {} if answer.pid else dict.fromkeys(("pid", "uid", "gid"))
    return {**told(answer), **nobody, "attestors": [attestors.answer_value(each) for each in answer.attestors]}


def _still(value: dict[str, Any]) -> dict[str, Any]:
    """Without what is never the same twice: how often attestors were asked, and how long that took."""
    moving = {"asked", "seconds", "age_seconds"}
    still = [{name: each[name] for name in each.keys() - moving} for each in value["attestors"]]
    return {**value, "attestors": still}


def _explained(value: dict[str, Any]) -> list[str]:
    lines = []
    if value["pid"] is not None:
        program = printable(value["exe"]) or "program not readable"
        lines.append(f"process {value['pid']}: uid {value['uid']}, gid {value['gid']}, {program}")
    lines += ["selectors", *(f"  {printable(selector)}" for selector in value["selectors"])]
    lines += more(value["selectors_left_out"], "the process has more than an answer takes")
    if value["withheld"]:
        lines += ["not proved", *(f"  {each['what']}: {each['reason']}" for each in value["withheld"])]
    if value["attestors"]:
        lines += ["attestors", *(f"  {line}" for each in value["attestors"] for line in attestors.answer_lines(each))]
    lines.append("entries" if value["verdicts"] else "entries: none")
    for each in value["verdicts"]:
        missing = f": {printable(', '.join(each['missing']))}" if each["missing"] else ""
        if each["reason"]:
            missing = f": {printable(each['reason'])}"
        priority = f", priority {each['priority']}" if each["priority"] else ""
        lines.append(
            f"  {each['spiffe_id']} ({each['entry_id']}{priority}): {each['verdict'].replace('_', ' ')}{missing}"
        )
        if each["template"] not in ("", each["spiffe_id"]):
            lines.append(f"    made of {printable(each['template'])}")
        if each["jwt_claims"]:
            lines.append(f"    JWT claims: {printable(json.dumps(each['jwt_claims'], ensure_ascii=False))}")
        svid = each["x509_svid"]
        if svid is not None:
            lines.append(f"    X.509-SVID {svid['serial']}, ends {svid['not_after']}, next at {svid['rotate_at']}")
            lines.append(f"    its life: {svid['lifetime']}")
        elif each["verdict"] == "matched":
            lines.append("    no X.509-SVID in use")
    return [*lines, value["conclusion"]]


def status(
    all_: Annotated[bool, typer.Option("--all", help="All streams and SVIDs in use, however many.")] = False,
    watch: WatchOption = False,
    interval: IntervalOption = INTERVAL,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Show the agent: entries, streams, SVIDs, tasks, recent failures, and what it cannot do here."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    request = pb.GetStatusRequest()

    def get() -> dict[str, Any]:
        found = _status(remote.admin(admin_socket, request))
        return {**found, **_in_use(admin_socket)} if all_ else found

    show(output, get, _status_lines, watch=watch, interval=interval, apart_from=_still)


def _status(answer: Any) -> dict[str, Any]:
    return {
        **told(answer),
        "reviews": [review_value(each) for each in answer.reviews],
        "federation": [federation.value_of(each) for each in answer.federation],
        "attestors": [attestors.state_value(each) for each in answer.attestors],
    }


def _in_use(admin_socket: str | None) -> dict[str, Any]:
    """All streams and SVIDs, of which a status has the first."""
    from sojourn._pb.sojourn.v1 import admin_pb2 as pb

    streams: list[dict[str, Any]] = []
    svids: list[dict[str, Any]] = []
    remote.admin_pages(admin_socket, pb.ListStreamsRequest(), lambda page: streams.extend(map(told, page.streams)))
    remote.admin_pages(admin_socket, pb.ListSvidsRequest(), lambda page: svids.extend(map(told, page.svids)))
    return {"streams": streams, "streams_left_out": 0, "svids": svids, "svids_left_out": 0}


def _status_lines(value: dict[str, Any]) -> list[str]:
    names = ("trust_domain", "node_id", "version", "started_at", "entries", "live_tasks", "connections")
    lines = [f"{'NOT READY' if value['state'] == 'unready' else 'degraded':<14} {each['name']}: {each['found']}"
             for each in value["faults"]]  # fmt: skip
    lines += [f"{name.replace('_', ' '):<14} {value[name]}" for name in names]
    lines += _owner_lines(value)
    lines.append(f"{'task types':<14} {', '.join(value['task_types']) or 'none'}")
    lines.append(f"{'authority':<14} {authority_lines.in_short(value['authority'])}")
    lines += upstream_lines(value["upstream"])
    lines += [
        f"{each['name'] + ' listener':<14} {each['address']}, {each['connections']} connections"
        for each in value["listeners"]
    ]
    if value["other_nodes"]:
        counts = {each["node"]: each["entries"] for each in value["other_nodes"]}
        here = value["node_id"].rpartition("/")[2]
        lines.append(f"{'entries':<14} {printable(other_nodes_told(counts, here))}")
    followed = value["followed"]
    if followed is not None:
        applied = f"as of {followed['applied_at']}" if followed["applied_at"] else "as the agent found them"
        folder = printable(followed["folder"])
        lines.append(f"{'folder':<14} {folder}: {followed['entries']} entries, {applied}")
        if followed["fault"]:
            lines.append(f"{'':<14} NOT in force: {printable(followed['fault'])}")
    lines += _config_lines(value["config"])
    for name, policy in (("policy", value["policy"]), ("shadow", value["shadow"])):
        lines += policy_lines(name, policy) if policy is not None else []
    for each in value["reviews"]:
        glass = "BREAK-GLASS is active" if each["live"] else "review owed"
        lines.append(f"{glass}: task {each['task']} of type {each['type']}, uid {each['uid']}, since {each['since']}")
    lines += review_lines(value["review_dates"])
    if value["approvals_waiting"]:
        lines.append(f"{'approvals':<14} {value['approvals_waiting']} wait: `sojourn approval list`")
    lines += _signal_lines(value["signals"])
    lines += federation.status_lines(value["federation"])
    lines += [f"{'attestor':<14} {attestors.state_line(each)}" for each in value["attestors"]]
    lines += [f"{'limitation':<14} {each['what']}: {each['reason']}" for each in value["limitations"]]
    lines += data_folder_lines(value["data_folder"])
    lines += log_lines(value["audit_log"])
    lines += witness_lines(value["audit_witnesses"])
    lines += stamp_lines(value["audit_timestamps"])
    lines += sink_lines(value["audit_sinks"])
    lines += room_lines(value["journal_room"])
    lines += _standstill_lines(value["standstills"])
    if value["svids"]:
        rows = [
            [each["spiffe_id"], each["serial"][:16], each["not_after"], each["rotate_at"], each["lifetime"]]
            for each in value["svids"]
        ]
        lines += ["", *table(["X.509-SVID", "SERIAL", "NOT AFTER", "ROTATES", "LIFE"], rows)]
        lines += more(value["svids_left_out"], "`sojourn status --all` has them")
    if value["streams"]:
        rows = [
            [
                *(each[name] for name in ("method", "pid", "uid", "exe", "since")),
                each["last_push"] or "none",
                each["pushes"],
            ]
            for each in value["streams"]
        ]
        lines += ["", *table(["STREAM", "PID", "UID", "PROGRAM", "SINCE", "LAST PUSH", "PUSHES"], rows)]
        lines += more(value["streams_left_out"], "`sojourn status --all` has them")
    if value["failures"]:
        rows = [
            [each["last_at"], each["count"], each["what"], each["subject"], each["reason"]]
            for each in value["failures"]
        ]
        lines += ["", *table(["LAST", "TIMES", "FAILURE", "OF", "REASON"], rows)]
    return lines


def _owner_lines(value: dict[str, Any]) -> list[str]:
    """Whose the live tasks are."""
    lines = []
    for each in value["task_owners"]:
        who = f"uid {each['uid']}" if each["uid"] is not None else each["spiffe_id"]
        lines.append(f"{'tasks of':<14} {printable(who)}: {each['tasks']} of {each['limit']} at most")
    return lines + more(value["task_owners_left_out"], "they have fewer")


def _claim(name: str, value: Any) -> str:
    told = dated(name, whole(value))
    return told if isinstance(told, str) else json.dumps(told, ensure_ascii=False)


def _config_lines(config: dict[str, Any] | None) -> list[str]:
    """The configuration, if something of it is not in force."""
    if config is None or not (config["fault"] or config["restart_needed"]):
        return []
    lines = [f"{'configuration':<14} {printable(config['file'])}, read {config['read_at']}"]
    if config["restart_needed"]:
        keys = ", ".join(map(printable, config["restart_needed"]))
        lines.append(f"{'':<14} NOT in force until the agent is restarted: {keys}")
    if config["fault"]:
        lines.append(f"{'':<14} NOT taken when it was read again: {printable(config['fault'])}")
    return lines


def _standstill_lines(found: dict[str, Any] | None) -> list[str]:
    """When nobody was answered for a while."""
    if found is None:
        return []
    caller = ", ".join(f"{name} {printable(value)}" for name, value in sorted(found["last_caller"].items()))
    asked = f"of {caller}" if caller else "nobody is known who asked for it"
    times = f"{found['count']} times, {found['longest_seconds']:.3g} s at most"
    last = f"{found['last_seconds']:.3g} s, computing {found['last_computing_seconds']:.2g} s"
    return [
        f"{'stood still':<14} {times}; last at {found['last_at']} for {last}",
        f"{'':<14} {printable(found['last_doing'])}; {asked}",
    ]


def _signal_lines(issuers: list[dict[str, Any]]) -> list[str]:
    """The issuers of signed events."""
    lines = []
    for each in issuers:
        last = f"last {each['last_at']}" if each["last_at"] else "none yet"
        counts = f"{each['accepted']} accepted, {each['repeated']} repeated, {each['refused']} refused"
        counts += f", {each['not_ours']} about nobody of ours" if each["not_ours"] else ""
        lines.append(f"{'signals':<14} {each['issuer']}: {last}; {counts}")
        if each["fault"]:
            lines.append(f"{'':<14} NOT heard, its keys cannot be used: {each['fault']}")
        if each["polled"]:
            lines.append(f"{'':<14} last polled {each['polled_at'] or 'never'}")
        if each["not_sent"]:
            lines.append(f"{'':<14} will NOT send {', '.join(kind.rpartition('/')[2] for kind in each['not_sent'])}")
        if each["stream_status"]:
            lines.append(f"{'':<14} NOTHING comes: its transmitter says of its stream: {each['stream_status']}")
        if each["poll_fault"]:
            lines.append(f"{'':<14} NOT polled: {each['poll_fault']}")
    return lines
