"""Task types that differ in some way or other, and questions to ask of them: for what may be said of any two."""

import random
from dataclasses import replace

from fakes.task_types import PERMIT_ALL, TICKETS, TRIAGE, WIKI, task_type
from sojourn.errors import InvalidPolicy
from sojourn.policy.cedar_schema import some_task
from sojourn.policy.questions import Question, ask
from sojourn.policy.task_types import TaskType

OTHER = "spiffe://example.org/agent/other"
CEILING = f'[{{resource = "{TICKETS}", actions = [%s]}}, {{resource = "{WIKI}", actions = ["page:read"]}}]'
BOTH = '"ticket:read", "ticket:write"'
FORBID = '@id("few") forbid (principal, action, resource) when { principal.tokens_issued > 2 };'
LOW = '@id("low") permit (principal, action, resource) when { context.params has level && context.params.level < 3 };'
UNLESS = """@id("calm") permit (principal, action, resource)
unless { context.facts has alarm && context.facts.alarm };"""
USES = """@id("seldom") forbid (principal, action, resource)
when { principal.uses has "ticket:write" && principal.uses["ticket:write"] > 1 };"""
ALARM = '{alarm = {type = "boolean", max_age = "60s"}}'
BASE = {
    "allowed_workloads": f'["{TRIAGE}", "{OTHER}"]',
    "review_every": '"90d"',
    "when_overdue": '"block_new"',
    "max_tokens": "5",
    "binding": '["stream", "process"]',
    "params": '{level = {type = "long", required = true, min = 1, max = 9}, kind = {type = "string", one_of = ["a", "b"]}}',
    "facts": ALARM,
    "limits": '{"ticket:write" = 3}',
    "bind": '{"ticket:write" = ["level", "kind"]}',
    "delegation": f'{{to = ["{OTHER}"], max_depth = 2, max_children = 3}}',
    "approval": '{approvers = ["operator"], count = 2, within = "10m"}',
}
# Of each: whether the change may allow more.
CHANGES = {
    "owner": ({"owner": '"support"', "sponsor": '"it"'}, False),
    "reviewed more often": ({"review_every": '"30d"'}, False),
    "reviewed more seldom": ({"review_every": '"99d"'}, True),
    "overdue is told": ({"when_overdue": '"tell"'}, True),
    "workload less": ({"allowed_workloads": f'["{TRIAGE}"]'}, False),
    "workload more": ({"allowed_workloads": f'["{TRIAGE}", "{OTHER}", "spiffe://example.org/third"]'}, True),
    "action less": ({"ceiling": CEILING % '"ticket:write"'}, False),
    "resource less": ({"ceiling": f'[{{resource = "{TICKETS}", actions = [{BOTH}]}}]'}, False),
    "action more": ({"ceiling": CEILING % (BOTH + ', "ticket:delete"')}, True),
    "resource more": ({"ceiling": '[{resource = "https://x.example.org", actions = ["ticket:write"]}]'}, True),
    "shorter": ({"max_duration": '"5m"', "token_ttl": '"10s"', "idle_timeout": '"60s"'}, False),
    "longer": ({"max_duration": '"20m"'}, True),
    "fewer tokens": ({"max_tokens": "4", "max_reported_calls": "9"}, False),
    "more tokens": ({"max_tokens": "6"}, True),
    "all tokens": ({"max_tokens": None}, True),
    "binding less": ({"binding": '["stream"]'}, False),
    "binding more": ({"binding": '["stream", "process", "one-shot"]'}, True),
    "param tighter": ({"params": BASE["params"].replace("max = 9", "max = 8").replace("min = 1", "min = 2")}, False),
    "choices less": ({"params": BASE["params"].replace('"a", "b"', '"a"')}, False),
    "choices more": ({"params": BASE["params"].replace('"a", "b"', '"a", "b", "c"')}, True),
    "choices gone": ({"params": BASE["params"].replace('one_of = ["a", "b"]', "max_length = 1")}, True),
    "choices of numbers": ({"params": BASE["params"].replace("min = 1, max = 9", "one_of = [1, 2]")}, False),
    "other numbers": ({"params": BASE["params"].replace("min = 1, max = 9", "one_of = [1, 20]")}, True),
    "param looser": ({"params": BASE["params"].replace("max = 9", "max = 10")}, True),
    "param optional": ({"params": BASE["params"].replace("required = true, ", "")}, True),
    "param required": ({"params": BASE["params"].replace("one_of", "required = true, one_of")}, False),
    "param gone": ({"params": '{level = {type = "long", required = true, min = 1, max = 9}}', "bind": None}, True),
    "param more": ({"params": BASE["params"].replace("{level", '{more = "string", level')}, True),
    "param not in tokens": (
        {"params": BASE["params"].replace("one_of", "in_tokens = false, one_of"), "bind": None},
        True,
    ),
    "compared with less": ({"bind": '{"ticket:write" = ["level"]}'}, True),
    "fact required": ({"facts": ALARM.replace("max_age", "required = true, max_age")}, False),
    "fact sooner stale": ({"facts": ALARM.replace("60s", "30s")}, True),
    "fact of another source": ({"facts": ALARM.replace("max_age", f'sources = ["{TRIAGE}"], max_age')}, True),
    "fact narrows": ({"facts": ALARM.replace("max_age", 'on_deny = "narrow", max_age')}, True),
    "fact gone": ({"facts": None}, False),
    "limit less": ({"limits": '{"ticket:write" = 2, "ticket:read" = 7}'}, False),
    "limit more": ({"limits": '{"ticket:write" = 4}'}, True),
    "limit gone": ({"limits": None}, True),
    "delegation less": ({"delegation": f'{{to = ["{OTHER}"], max_depth = 1, max_children = 1}}'}, False),
    "delegation none": ({"delegation": None}, False),
    "delegation deeper": ({"delegation": f'{{to = ["{OTHER}"], max_depth = 3, max_children = 3}}'}, True),
    "delegation to more": ({"delegation": f'{{to = ["{OTHER}", "{TRIAGE}"], max_depth = 2, max_children = 3}}'}, True),
    "approval of more": ({"approval": '{approvers = ["operator"], count = 3, within = "5m"}'}, False),
    "approval of fewer": ({"approval": '{approvers = ["operator"], count = 1, within = "10m"}'}, True),
    "approval of others": ({"approval": f'{{approvers = ["operator", "{TRIAGE}"], count = 2, within = "10m"}}'}, True),
    "approval at times": (
        {"approval": '{approvers = ["operator"], count = 2, within = "10m", when = "context.params.level > 3"}'},
        True,
    ),
    "approval none": ({"approval": None}, True),
    "high": ({"consequence": '"high"', "token_ttl": None}, False),
    "for people": ({"person": '{need = "optional"}'}, True),
    "a forbid more": ({"cedar": PERMIT_ALL + FORBID}, False),
    "a permit more": ({"cedar": PERMIT_ALL + LOW}, True),
    "another permit": ({"cedar": PERMIT_ALL.replace("all", "other")}, True),
}


def drawn(draw: random.Random, said: dict[str, str], number: int) -> dict[str, str]:
    """What a type says, with so many changes of whatever sort."""
    changes = [changes for changes, _ in (CHANGES[what] for what in draw.sample(sorted(CHANGES), number))]
    policies = draw.sample([PERMIT_ALL, LOW, UNLESS, FORBID, USES], draw.randrange(1, 6))
    made = {name: value for each in changes for name, value in each.items() if name != "cedar"}
    return {**said, **made, "cedar": "".join(sorted(policies)) if draw.random() < 0.5 else said["cedar"]}


def made(said: dict[str, str]) -> TaskType | None:
    """The type that says so; None: that does not go together."""
    try:
        return task_type(**said)
    except InvalidPolicy:
        return None


def question(draw: random.Random) -> Question:
    uses = tuple((action, draw.randrange(4)) for action in ("ticket:write", "ticket:read"))
    said = {"tokens_issued": draw.randrange(5), "depth": draw.choice([0, 0, 0, 1, 2]), "uses": uses}
    params = {"level": str(draw.randrange(11)), "kind": draw.choice("abc"), "more": "x"}
    return Question(
        some_task("triage", draw.choice([TRIAGE, TRIAGE, OTHER, "spiffe://example.org/third"]), **said),
        draw.choice(["ticket:read", "ticket:write", "ticket:delete", "page:read"]),
        draw.choice([TICKETS, TICKETS, WIKI]),
        {name: params[name] for name in draw.choice([("level",), ("level", "kind"), ("kind",), (), ("level", "more")])},
        draw.choice(["", "", "stream", "one-shot"]),
        draw.choice([{}, {"alarm": True}, {"alarm": False}]),
    )


def asked_of(kind: TaskType, asked: Question) -> bool:
    """With the facts that the type reads."""
    return bool(
        ask(kind, replace(asked, facts={name: asked.facts[name] for name in asked.facts if name in kind.facts}))
    )
