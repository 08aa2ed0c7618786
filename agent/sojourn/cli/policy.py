"""`sojourn policy`: task types, before the agent has them and while it has them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sojourn.cli.options import AdminSocketOption, Output, OutputOption, ParamOption, option_spiffe_id
from sojourn.cli.output import REFUSED, emit, moment, printable, table
from sojourn.errors import InvalidConfig, InvalidInput, InvalidPolicy, UnknownTaskType
from sojourn.limits import USES_MAX

if TYPE_CHECKING:
    from sojourn.policy.conditions import Conditions
    from sojourn.policy.task_types import TaskType
    from sojourn.spiffe.ids import TrustDomain

app = typer.Typer(no_args_is_help=True)
FolderArgument = Annotated[Path, typer.Argument(help="A folder of NAME.toml and NAME.cedar.")]


@app.command()
def check(
    folder: FolderArgument,
    trust_domain: Annotated[
        str | None,
        typer.Option(
            "--trust-domain",
            help="Refuse workloads that are not in this trust domain. Default: warn of those that are not in"
            " that of this machine's configuration, if there is one.",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are faults.")] = False,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Parse, validate and lint every task type of a folder. Exit status 2 with all faults if one is wrong."""
    from sojourn.policy import cases, lint
    from sojourn.policy.task_types import load
    from sojourn.policy.type_faults import placed
    from sojourn.spiffe.ids import TrustDomain

    domain = None if trust_domain is None else TrustDomain.parse(trust_domain)
    configured = _configured() if domain is None else None
    types = load(folder)
    faults, warnings = [], []
    for kind in types.values():
        faults += placed(folder, lint.faults(kind, domain))
        warnings += placed(folder, lint.warnings(kind))
        if configured is not None:
            warnings += placed(folder, lint.strangers(kind, configured))
        try:
            cases.load(folder, kind)
        except InvalidPolicy as error:
            faults += error.faults
    if faults or (strict and warnings):
        raise InvalidPolicy([*faults, *(warnings if strict else [])])
    _checked(types, warnings, output)


def _configured() -> "TrustDomain | None":
    """The trust domain of this machine's configuration; None: there is none, or it cannot be used."""
    from sojourn.config.load import load
    from sojourn.config.paths import default_config_file
    from sojourn.spiffe.ids import TrustDomain

    try:
        file = default_config_file()
        loaded = load(file, {})
    except (InvalidConfig, InvalidInput):  # whoever asks may not read it, and it is not what was asked about
        return None
    return None if file is None and "trust_domain" not in loaded.origins else TrustDomain(loaded.config.trust_domain)


def _checked(types: Any, warnings: list[Any], output: Output) -> None:
    """Print task types that have no fault."""
    from sojourn.policy.cedar import OWN
    from sojourn.policy.conditions import conditions

    found = {kind.name: conditions(kind, kind.approval) for kind in types.values()}
    value = [
        {
            "name": kind.name,
            "description": kind.description,
            "digest": kind.digest,
            "consequence": kind.consequence,
            "bound": kind.bound,
            "high": sorted(kind.high),
            "ceiling": [{"resource": grant.resource, "actions": list(grant.actions)} for grant in kind.ceiling.grants],
            "policies": [clause.id for clause in kind.policy.clauses],
            "conditions": asdict(found[kind.name]),
            "owner": kind.owner,
            "sponsor": kind.sponsor,
        }
        for kind in types.values()
    ]
    rows = [
        [kind.name, kind.digest[:12], kind.consequence, _tokens(kind), found[kind.name].names(), kind.description]
        for kind in types.values()
    ]
    columns = ["TYPE", "DIGEST", "CLASS", "TOKENS", "CONDITIONS", "DESCRIPTION"]
    lines = list(table(columns, rows)) if rows else ["no task types"]
    if rows:
        ours = ", ".join(clause.id for clause in OWN)
        lines.append(f"before the policies of each stands {ours}: asked, and a task that is over may do nothing")
    asked = sorted({each.provider for kind in types.values() for each in kind.outside.values()})
    if asked:
        told = "providers are not looked at here, nor what they are asked with: `sojourn policy reload` does that"
        lines.append(f"{told} (of {', '.join(map(printable, asked))})")
    lines += [f"warning: {printable(str(warning))}" for warning in warnings]
    emit(
        output,
        {
            "digest": types.digest,
            "task_types": value,
            "injected": [clause.id for clause in OWN],
            "warnings": [asdict(warning) for warning in warnings],
        },
        lines,
    )


def _tokens(kind: "TaskType") -> str:
    """What a type's tokens must be bound to: a sender, one request."""
    if kind.consequence == "normal":
        return "bound" if kind.bound else "any"
    some = kind.high != {action for grant in kind.ceiling.grants for action in grant.actions}
    return f"bound, one request{f': {chr(32).join(sorted(kind.high))}' if some else ''}"


@app.command("test")
def run_cases(folder: FolderArgument, output: OutputOption = Output.PRETTY) -> None:
    """Ask the cases in NAME.test.toml beside each task type. Exit status 1 if one is answered otherwise."""
    from sojourn.policy import cases
    from sojourn.policy.task_types import load

    results: list[dict[str, Any]] = []
    failed, lines = 0, []
    for kind in load(folder).values():
        outcomes = cases.run(kind, cases.load(folder, kind))
        undecided = cases.undecided(kind, outcomes)
        bad = [outcome for outcome in outcomes if outcome.differences]
        failed += len(bad)
        results.append(
            {
                "task_type": kind.name,
                "cases": len(outcomes),
                "failed": [{"case": each.case.name, "differences": list(each.differences)} for each in bad],
                "undecided_policies": undecided,
            }
        )
        lines += [f"FAILED {kind.name}: {each.case.name}: {'; '.join(each.differences)}" for each in bad]
        if not outcomes:
            lines.append(f"warning: {kind.name} has no cases")
        elif undecided:
            lines.append(f"warning: {kind.name}: no case is decided by {', '.join(undecided)}")
    count = sum(result["cases"] for result in results)
    lines.append(f"{count} cases of {len(results)} task types, {failed} failed")
    emit(output, {"task_types": results, "cases": count, "failed": failed}, map(printable, lines))
    if failed:
        raise typer.Exit(REFUSED)


@app.command()
def explain(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The task type.")],
    workload: Annotated[str, typer.Option("--workload", help="The SPIFFE ID that asks.")],
    action: Annotated[str, typer.Option("--action", help="What it would do.")],
    resource: Annotated[str, typer.Option("--resource", help="Where, an absolute URI.")],
    param: ParamOption = None,
    fact: Annotated[
        list[str] | None,
        typer.Option("--fact", metavar="NAME=VALUE", help="A fact, instead of what the agent knows. May be repeated."),
    ] = None,
    tokens_issued: Annotated[int, typer.Option("--tokens-issued", min=0, help="Tokens that the task has had.")] = 0,
    reported_calls: Annotated[
        int, typer.Option("--reported-calls", min=0, help="Calls under the task that services have reported.")
    ] = 0,
    uses: Annotated[
        list[str] | None,
        typer.Option("--uses", metavar="ACTION=N", help="Uses of an action that the type limits. May be repeated."),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", min=0, help="How often the task was handed on.")] = 0,
    task: Annotated[
        list[str] | None,
        typer.Option("--task", metavar="NAME=VALUE", help="Any attribute of the task, as state. May be repeated."),
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ISSUER/SUBJECT", help="The person whom the task is for.")
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", help="A group of the person, as the issuer names it. May be repeated."),
    ] = None,
    acr: Annotated[str, typer.Option("--acr", help="How the person logged in.")] = "",
    amr: Annotated[
        list[str] | None, typer.Option("--amr", help="A method by which the person logged in. May be repeated.")
    ] = None,
    auth_age: Annotated[int, typer.Option("--auth-age", min=0, help="Seconds since the person logged in.")] = 0,
    claim: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="NAME=VALUE", help="A claim that the type declares. May be repeated."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="A folder of NAME.toml and NAME.cedar. Default: what the agent has.")
    ] = None,
    admin_socket: AdminSocketOption = None,
    output: OutputOption = Output.PRETTY,
) -> None:
    """Say what policy answers, which policies decide that, on what, and what would change it."""
    from sojourn.cli import remote

    params, facts = remote.pairs(param), remote.pairs(fact, "fact")
    counts = {"tokens_issued": tokens_issued, "reported_calls": reported_calls, "depth": depth}
    counts |= {f"uses[{action}]": n for action, n in _counts(remote.pairs(uses, "uses")).items()}
    said = {name: str(number) for name, number in counts.items()} | remote.pairs(task, "task")
    workload = option_spiffe_id("--workload", workload)
    claims = remote.pairs(claim, "claim")
    if user is None and (group or acr or amr or auth_age or claims):
        raise InvalidInput("--group, --acr, --amr, --auth-age and --claim are of a person: name one by --user")
    if folder is None:
        from sojourn._pb.sojourn.v1 import admin_pb2 as pb

        request = pb.ExplainPolicyRequest(
            type=type_,
            workload=workload,
            action=action,
            resource=resource,
            params=params,
            task=said,
            facts=facts,
            user=pb.PolicyUser(name=user, groups=group, acr=acr, amr=amr, auth_age=auth_age, claims=claims)
            if user is not None
            else None,
        )
        answer = remote.admin(admin_socket, request)
        _explained(answer, _conditions(answer.conditions), output)
        return
    from sojourn.policy.asked_task import read_texts
    from sojourn.policy.asked_user import read_user
    from sojourn.policy.cedar_schema import some_task
    from sojourn.policy.conditions import conditions
    from sojourn.policy.explanation import explain as explained
    from sojourn.policy.questions import Question
    from sojourn.policy.task_types import load

    kind = load(folder).get(type_)
    if kind is None:
        raise UnknownTaskType(f"there is no task type {type_[:64]!r} in {folder}")
    person = None if user is None else read_user(kind, user, group or (), acr, amr or (), auth_age, claims)
    question = Question(
        some_task(kind.name, workload, user=person, **read_texts(said)),
        action,
        resource,
        params,
        facts=kind.read_facts(facts),
    )
    _explained(explained(kind, question), conditions(kind, kind.approval), output)


def _counts(pairs: Mapping[str, str]) -> dict[str, int]:
    """Raise InvalidInput for what is no count."""
    for action, text in pairs.items():
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(USES_MAX))):
            raise InvalidInput(f"--uses {action[:64]}: {text[:20]!r} is not a number of uses")
    return {action: int(text) for action, text in pairs.items()}


def _conditions(message: Any) -> "Conditions":
    from sojourn.policy.conditions import (
        ApprovalCondition,
        ClaimCondition,
        Conditions,
        DelegationCondition,
        FactCondition,
        LimitCondition,
        PersonCondition,
        ReviewCondition,
    )

    review = message.review
    approval, delegation, person = message.approval, message.delegation, message.person
    return Conditions(
        approval=ApprovalCondition(tuple(approval.approvers), approval.count, approval.within_seconds, approval.when)
        if message.HasField("approval")
        else None,
        break_glass=message.break_glass,
        delegation=DelegationCondition(tuple(delegation.to), delegation.max_depth, delegation.max_children)
        if message.HasField("delegation")
        else None,
        facts=tuple(
            FactCondition(
                each.name,
                each.type,
                each.required,
                tuple(each.sources),
                each.max_age_seconds if each.HasField("max_age_seconds") else None,
                each.on_deny,
            )
            for each in message.facts
        ),
        limits=tuple(LimitCondition(each.action, each.uses) for each in message.limits),
        person=PersonCondition(
            person.need,
            tuple(person.issuers),
            tuple(person.groups),
            tuple(person.acr),
            person.max_auth_age_seconds if person.HasField("max_auth_age_seconds") else None,
            tuple(ClaimCondition(each.name, each.type) for each in person.claims),
            person.several,
            person.max_live,
        )
        if message.HasField("person")
        else None,
        review=ReviewCondition(review.every_seconds, review.block_new, review.due_at, review.overdue)
        if message.HasField("review")
        else None,
    )


def _explained(found: Any, conditions: "Conditions", output: Output) -> None:
    """Print an Explanation, or the agent's message of the same fields."""
    standings = [
        {"id": each.id, "effect": each.effect, "line": each.line, "applies": each.applies, "misses": list(each.misses)}
        for each in found.standings
    ]
    changes = [{"what": each.what, "allowed": each.allowed} for each in found.changes]
    value = {
        "type": found.type,
        "digest": found.digest,
        "allowed": found.allowed,
        "rule": found.rule,
        "reason": found.reason,
        "policies": list(found.policies),
        "needs_approval": found.needs_approval,
        "attributes": [{"name": name, "value": text} for name, text in sorted(found.attributes.items())],
        "standings": standings,
        "changes": changes,
        "conditions": asdict(conditions),
    }
    review = conditions.review
    if review is not None:
        value["conditions"]["review"]["due_at"] = moment(review.due_at)
    by = f": {', '.join(found.policies)}" if found.policies else ""
    lines = [f"{word(found.allowed)} by {found.rule}{by}", f"because {found.reason}"]
    if review is not None and review.overdue and review.block_new:
        lines.append("but NO new task of the type begins, as its review is overdue (review_overdue)")
    if found.allowed and conditions.approval is not None:
        lines.append(f"a task that asks for it needs {'' if found.needs_approval else 'no '}approval")
    lines.append("decided on")
    lines += [f"  {name} = {text}" for name, text in sorted(found.attributes.items())]
    lines += ["policies"] if standings else []
    for each in standings:
        why = "applies" if each["applies"] else "; ".join(each["misses"])
        lines.append(f"  {each['effect']} {each['id']}: {why}")
    lines.append("what would change it" if changes else "no single change that was tried would change it")
    lines += [f"  {each['what']}: {word(each['allowed'])}" for each in changes]
    around = list(conditions.lines())
    lines += ["whatever policy answers of such a task", *(f"  {line}" for line in around)] if around else []
    emit(output, value, map(printable, lines))


def word(allowed: bool) -> str:
    """An answer for people."""
    return "allowed" if allowed else "denied"
