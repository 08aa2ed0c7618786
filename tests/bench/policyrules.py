"""The same rules as Cedar and as Rego, and questions to them: permits by action and level, forbids for what is tainted."""

import random
from dataclasses import dataclass

from harness.taskagent import PLACE_A
from harness.taskagent import TRIAGE as TRIAGE_ID
from sojourn.policy.cedar_schema import Context, Principal

ACTIONS = tuple(f"doc:step{number}" for number in range(10))
TYPE = f"""
allowed_workloads = ["{TRIAGE_ID}"]
[params]
level = {{ type = "long", required = true }}
tainted = {{ type = "boolean", required = true }}
[[ceiling]]
resource = "{PLACE_A}"
actions = [{", ".join(f'"{action}"' for action in ACTIONS)}]
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """Every fifth of `number` forbids."""

    number: int

    @property
    def action(self) -> str:
        return ACTIONS[(self.number + self.number // len(ACTIONS)) % len(ACTIONS)]

    @property
    def forbids(self) -> bool:
        return self.number % 5 == 4

    @property
    def limit(self) -> int:
        return 400 + self.number if self.forbids else 40 + self.number * 7 % 60

    def cedar(self) -> str:
        scope = f'(principal, action == Sojourn::Action::"{self.action}", resource)'
        if self.forbids:
            when = f"context.params.tainted && principal.reported_calls > {self.limit}"
        else:
            when = f"context.params.level <= {self.limit} && principal.depth < 3"
        return f'@id("p{self.number}") {"forbid" if self.forbids else "permit"} {scope} when {{ {when} }};'

    def rego(self) -> str:
        if self.forbids:
            when = f"input.context.params.tainted\n\tinput.principal.reported_calls > {self.limit}"
        else:
            when = f"input.context.params.level <= {self.limit}\n\tinput.principal.depth < 3"
        return f'{"forbid" if self.forbids else "permit"} if {{\n\tinput.action == "{self.action}"\n\t{when}\n}}'


def rules(count: int) -> tuple[Rule, ...]:
    return tuple(map(Rule, range(count)))


def cedar(count: int) -> str:
    return "\n".join(rule.cedar() for rule in rules(count))


def rego(count: int) -> str:
    said = "\n\n".join(rule.rego() for rule in rules(count))
    return f"package sojourn\n\ndefault allow := false\n\nallow if {{\n\tpermit\n\tnot forbid\n}}\n\n{said}\n"


@dataclass(frozen=True, slots=True)
class Question:
    """What a task asks."""

    principal: Principal
    action: str
    context: Context

    def document(self) -> dict[str, object]:
        """As OPA reads it."""
        task = self.principal
        principal = {"id": task.task_id, "type": task.task_type, "workload": task.workload, "state": task.state}
        principal |= {"tokens_issued": task.tokens_issued, "reported_calls": task.reported_calls, "depth": task.depth}
        return {
            "principal": principal,
            "action": self.action,
            "resource": PLACE_A,
            "context": self.context.document(),
        }


def questions(count: int) -> list[Question]:
    """The same each time; no two are alike."""
    chance = random.Random(8693)
    made = []
    for number in range(count):
        principal = Principal(
            f"tsk_{number:022d}",
            "many",
            TRIAGE_ID,
            "active",
            chance.randrange(50),
            number,
            chance.randrange(3),
            (),
            user=None,
        )
        params = {"level": chance.randrange(110), "tainted": chance.random() < 0.2}
        made.append(Question(principal, chance.choice(ACTIONS), Context(params=params)))
    return made
