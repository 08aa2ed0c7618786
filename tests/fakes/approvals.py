"""Task types that somebody must agree to, and those who decide."""

from fakes.task_types import task_type
from sojourn.policy.approval_request import Person

BOSS = "spiffe://example.org/boss"
TYPES = {
    "triage": task_type(),
    "asked": task_type("asked", approval='{within = "60s"}', idle_timeout='"30s"'),
    "two": task_type("two", approval="{count = 2}"),
    "boss": task_type("boss", approval=f'{{approvers = ["{BOSS}"]}}'),
    "both": task_type("both", approval=f'{{approvers = ["operator", "{BOSS}"], count = 2}}'),
    "glass": task_type("glass", approval="{}", break_glass="true"),
    "high": task_type("high", consequence='"high"'),
    "picky": task_type(
        "picky",
        '@id("few") permit (principal, action, resource) when { context.params has level && context.params.level < 5 };',
        approval="{}",
    ),
}
DENIED = task_type("asked", '@id("none") forbid (principal, action, resource);', approval='{within = "60s"}')


def person(uid, login_uid=None, *spiffe_ids):
    return Person(uid, login_uid, 1, frozenset(spiffe_ids))


ALICE, BOB = person(501, 501), person(9, 502)


def request_of(task):
    return task.approval.request


async def approve(room, task, by=ALICE, *, operator=True, digest=None):
    request = request_of(task)
    return await room.approving.approve(request.id, digest or request.digest, by, operator=operator, reason="")


async def deny(room, task, by=ALICE, *, operator=True, reason="no"):
    request = request_of(task)
    return await room.approving.deny(request.id, request.digest, by, operator=operator, reason=reason)
