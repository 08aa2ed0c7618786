"""Tasks that need someone's approval: from the request to the decision, and to the task's beginning.

An approval is for one request, is used once, and is an input to policy, which is asked again with the present context.
Each step that leads to authority is on disk before it is true.
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from sojourn.audit.journal import Audit, Event
from sojourn.errors import FailedPrecondition, NeedsApproval, NotFound, PolicyDenied, TaskOver
from sojourn.errors.oauth import NotOnDisk
from sojourn.identity.entries import Entry
from sojourn.jose.canonical_json import digest_of
from sojourn.policy.approval_request import Approval, ApprovalRequest, Approver, Person
from sojourn.policy.cedar_schema import SOME_TASK, Context, Principal, inputs_of
from sojourn.policy.task_type_tables import ApprovalRule
from sojourn.policy.task_types import TaskType
from sojourn.runtime.background import Background
from sojourn.tasks.break_glass_reviews import Review, Reviews
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.pending import Waiter
from sojourn.tasks.recorded import held_by, params_of
from sojourn.tasks.requester import Asker, person_at
from sojourn.tasks.shadow_policy import Decided
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasks.task_record import Begun, TaskRecord
from sojourn.tasks.transitions import Transition, grant
from sojourn.tasktoken.end_reasons import APPROVAL_DENIED, CONTEXT_CHANGED, POLICY_CHANGED
from sojourn.tasktoken.grants import Authority

log = structlog.get_logger()


class Approve(Transition):
    """The last approval of a task that waits: its life begins."""

    def __init__(self, approving: "Approvals", engine: TaskEngine, task: Task, approver: Approver) -> None:
        super().__init__(engine, task)
        assert task.approval is not None
        self._approving = approving
        self._approval = task.approval
        self._approver = approver

    def check(self) -> None:
        self._approving.check_pending(self.task)
        if self.task.whom is not None:
            self.engine.standing.check(self.task.whom.person, self.task.whom.token)

    def left(self, authority: Authority) -> None:
        if not authority.grants:
            self.engine.end(self.task, REVOKED, POLICY_CHANGED)
            raise TaskOver("policy denies by now all that was asked for: the task is over")
        now, boot, life = self.engine.clock.now(), self.engine.clock.boot(), self._approval.request.life_seconds
        self._begun = Begun(authority, now, now + timedelta(seconds=life), boot, boot + life)

    def record(self) -> TaskRecord:
        return self.task.record_of_approved(self._begun)

    def event(self, decided: Decided) -> Event:
        return self.engine.event(
            "task_begun",
            self.task,
            pid=self.task.holder.pid,
            approval=self._approval.request.id,
            approved_by=[each.document() for each in (*self._approval.given, self._approver)],
            grants=self._begun.authority.document(),
            **decided.record(self._begun.authority.grants, params=True),
            break_glass=self.task.type.break_glass or None,
        )

    def make_true(self, decided: Decided) -> None:
        self._approval.given.append(self._approver)
        self.task.begin(self._begun, decided.record())
        self.engine.waiting.remove(self.task)
        self.engine.deadlines.watch(self.task)

    def denied(self) -> None:
        self.engine.end(self.task, REVOKED, CONTEXT_CHANGED)


class Approvals:
    """Asks for approval, takes decisions, and has approved tasks begin."""

    def __init__(self, engine: TaskEngine, reviews: Reviews, audit: Audit, classes: Collection[str] = ()) -> None:
        """`classes`: consequence classes all of whose types need an approval, whether or not they say so."""
        self._engine = engine
        self._audit = audit
        self.reviews = reviews
        self.check_reviewed: Callable[[TaskType], None] = lambda _: None
        self._classes = frozenset(classes)
        self._on_break_glass: Callable[[Task], None] = lambda _: None
        self._background = Background("approval_failed")

    async def quiet(self) -> None:
        """Return when no approval is under way."""
        await self._background.quiet()

    def on_break_glass(self, hook: Callable[[Task], None]) -> None:
        """Call `hook` whenever a break-glass task has become active."""
        self._on_break_glass = hook

    # --- asking -----------------------------------------------------------------------------------------------------

    def rule(self, kind: TaskType) -> ApprovalRule | None:
        """Who must agree to a task of this type; None: nobody. A class that needs approval needs it for each task."""
        if kind.consequence not in self._classes:
            return kind.approval
        return ApprovalRule() if kind.approval is None else kind.approval.model_copy(update={"when": None})

    def needed(
        self, kind: TaskType, principal: Principal, authority: Authority, context: Context
    ) -> ApprovalRule | None:
        """Who must agree before a task that has `authority` begins; None: nobody."""
        rule = self.rule(kind)
        if rule is None or rule.when is None or kind.needs_approval(principal, authority, context):
            return rule
        return None

    def check_handed_on(self, task: Task, line: Sequence[Task], context: Context) -> None:
        """Raise NeedsApproval if a task that is handed on needs approval, and nobody has agreed to one of its line."""
        if any(each.approved for each in line):
            return
        rule = self.needed(task.type, task.principal(self._engine.clock.now()), task.authority, context)
        if rule is not None:
            raise NeedsApproval(
                f"a task of type {task.type.name!r} needs the approval of {', '.join(rule.approvers)} by now, and"
                " nobody has agreed to the one that is handed on: begin a task of its own"
            )

    def check(self, kind: TaskType) -> None:
        """Raise ReviewOwed if an earlier task of a break-glass type has to be looked at first, ReviewOverdue if the
        type itself has to be.
        """
        self.check_reviewed(kind)
        if kind.break_glass:
            self.reviews.check(kind.name)

    def prepare(
        self, task: Task, peer: Asker, entries: Sequence[Entry], principal: Principal, context: Context
    ) -> None:
        """Have a task that is about to begin wait for approval, if it needs one. `principal`, `context`: with
        what policy was asked.

        Raises NeedsApproval if it is one that cannot wait, LimitExceeded if too many do.
        """
        rule = self.needed(task.type, principal, task.authority, context)
        if rule is None:
            if (unless := self.rule(task.type)) is not None:
                task.give(task.authority, {**task.decided_on, "no_approval_unless": unless.when})
            return
        if isinstance(task.holder.process, NoProcess):
            raise NeedsApproval(
                f"task type {task.type.name!r} needs the approval of {', '.join(rule.approvers)}, and nobody on this"
                " machine would hold the task until then: begin it at the agent's socket"
            )
        self._engine.waiting.check_room(task.uid)
        now, boot = self._engine.clock.now(), self._engine.clock.boot()
        identities = frozenset(str(entry.spiffe_id) for entry in entries)
        request = ApprovalRequest(
            id="apr_" + secrets.token_urlsafe(16),
            digest=digest_of(_asked(task, principal, self._engine.people_key)),
            approvers=rule.approvers,
            count=rule.count,
            requester=person_at(peer, identities),
            program=peer.process.program_path(),
            holder_program=task.holder.process.program_path(),
            grants=task.authority,
            asked_at=now,
            expires_at=now + rule.within,
            life_seconds=task.life_seconds,
            when=rule.when or "",
        )
        task.wait_for(Approval(request), request.expires_at, boot + rule.within.total_seconds())

    def asked(self, task: Task) -> dict[str, Any]:
        """What the record of the request says, and the log."""
        assert task.approval is not None
        request = task.approval.request
        fields = {
            "approval": request.id,
            "digest": request.digest,
            "approvers": list(request.approvers),
            "count": request.count,
            "within": int((request.expires_at - request.asked_at).total_seconds()),
            "when": request.when or None,
            **request.requester.record(),
            "requester_pid": request.requester.pid,
            "type_digest": task.type.digest,
            "holder_start": task.holder.process.start_time,
        }
        if task.type.break_glass:
            fields["break_glass"] = True
            log.warning("break_glass_wanted", task_id=task.id, type=task.type.name, uid=task.uid, approval=request.id)
        else:
            log.info("approval_wanted", task_id=task.id, type=task.type.name, uid=task.uid, approval=request.id)
        return fields

    # --- deciding ---------------------------------------------------------------------------------------------------

    def visible_to(self, person: Person) -> list[Task]:
        """The waiting tasks that a workload with these identities may decide, the oldest request first."""
        return [task for task in self._engine.waiting.all() if _may_decide(task, person)]

    async def approve(self, approval_id: str, digest: str, person: Person, *, operator: bool, reason: str) -> Task:
        """Agree to a request. Once enough have, policy is asked again, and what it leaves begins.

        Raises NotFound, FailedPrecondition, AlreadyExists, PolicyDenied, ReviewOwed, TaskOver, or what the store
        raises: it is then as pending as before, or over. It goes on although the caller goes away meanwhile.
        """
        waiter, approver = self._find(approval_id, digest, person, operator=operator)
        assert waiter.task.approval is not None
        waiter.task.approval.request.check_not_own(person)
        return await asyncio.shield(self._background.run(self._approve(waiter, approver, reason)))

    async def deny(self, approval_id: str, digest: str, person: Person, *, operator: bool, reason: str) -> Task:
        """Refuse a request, one's own too: its task is over. Return when that is on disk, or raise NotOnDisk."""
        waiter, approver = self._find(approval_id, digest, person, operator=operator)
        task = waiter.task
        assert task.approval is not None
        task.approval.denial = reason
        decided = self._audit.event("approval_decided", self._decision(task, approver, "deny", reason))
        self._engine.journal.later(task.record(), decided)
        self._engine.end(task, REVOKED, APPROVAL_DENIED)
        await self._engine.journal.told(task.id)
        return task

    def _find(self, approval_id: str, digest: str, person: Person, *, operator: bool) -> tuple[Waiter, Approver]:
        waiter = self._engine.waiting.find(approval_id)
        if waiter is None or waiter.task.approval is None:
            raise NotFound("there is no such approval request")
        approval = waiter.task.approval
        approver = Approver(person, approval.request.role_of(person, operator=operator))
        approval.check_digest(digest)
        return waiter, approver

    async def _approve(self, waiter: Waiter, approver: Approver, reason: str) -> Task:
        task = waiter.task
        async with waiter.turn:
            self.check_pending(task)
            assert task.approval is not None
            task.approval.check_another(approver)
            self._check_may_begin(task)
            await self._engine.journal.note(
                self._audit.event("approval_decided", self._decision(task, approver, "approve", reason))
            )
            self.check_pending(task)
            if task.approval.missing > 1:
                task.approval.given.append(approver)
                self._engine.announce(task)
            else:
                await self._begin(task, approver)
        return task

    def check_pending(self, task: Task) -> None:
        """Raise FailedPrecondition unless the task waits for approval, TaskOver if it has ended."""
        self._engine.deadlines.check(task)
        task.check_live(self._engine.clock.boot())
        if task.state != PENDING:
            raise FailedPrecondition("the request has been decided already")

    def _check_may_begin(self, task: Task) -> None:
        """Raise what a task of this type would meet that began now, but for policy."""
        self._engine.holding.check(task)
        self.check_pending(task)
        self._engine.blocks.check(task.type.name, task.spiffe_id)
        self.check(task.type)

    async def _begin(self, task: Task, approver: Approver) -> None:
        """The last approval: decide again, write it, and make it true."""
        review = await self._owe_review(task)
        try:
            await grant(Approve(self, self._engine, task, approver))
        except BaseException:
            if review is not None:
                with suppress(NotOnDisk):
                    await self._engine.journal.told(task.id)  # if it is over, that first
                await self.reviews.withdraw(review)
            raise
        if task.type.break_glass:
            self._alarm(task)

    # --- broken glass -----------------------------------------------------------------------------------------------

    async def _owe_review(self, task: Task) -> Review | None:
        """On disk before the task is active: no record, no authority."""
        if not task.type.break_glass:
            return None
        assert task.approval is not None
        who = task.approval.request.requester
        since = int(self._engine.clock.now().timestamp())
        review = Review(
            task.id, task.type.name, str(task.spiffe_id), who.uid, who.login_uid, who.pid, since, who.subuid_of
        )
        await self.reviews.owe(review)
        return review

    async def complete_review(self, task_id: str, finding: str, person: Person) -> None:
        """Someone has looked at what was done behind broken glass. Raise FailedPrecondition while it still may be."""
        task = self._engine.tasks.find(task_id)
        if task is not None and task.live:
            raise FailedPrecondition("the task is not over: end it first, then look at what was done")
        await self.reviews.complete(task_id, finding, person)

    def _alarm(self, task: Task) -> None:
        assert task.approval is not None
        kind, spiffe_id, approval = task.type.name, str(task.spiffe_id), task.approval.request.id
        log.warning("break_glass", task_id=task.id, type=kind, spiffe_id=spiffe_id, uid=task.uid, approval=approval)
        fields = {"task": task.id, "type": kind, "spiffe_id": spiffe_id, "uid": task.uid, "approval": approval}
        self._audit.note("break_glass_begun", **fields, params=params_of(task, self._engine.people_key))
        self._on_break_glass(task)

    def _decision(self, task: Task, approver: Approver, verdict: str, reason: str) -> dict[str, Any]:
        assert task.approval is not None
        return {
            "task": task.id,
            "type": task.type.name,
            "approval": task.approval.request.id,
            "digest": task.approval.request.digest,
            "when": task.approval.request.when or None,
            "verdict": verdict,
            "reason": reason or None,
            **approver.person.record("by_"),
            "by_pid": approver.person.pid,
            "by_role": approver.role,
            **held_by(task, self._engine.people_key),
        }


def _may_decide(task: Task, person: Person) -> bool:
    if task.approval is None:
        return False
    try:
        task.approval.request.role_of(person, operator=False)
    except (NotFound, PolicyDenied):
        return False
    return True


def _asked(task: Task, principal: Principal, key: bytes) -> dict[str, Any]:
    """What the digest of a request is over: all that policy reads of the task, what it asks for, and who holds it."""
    process, context = task.holder.process, Context(task.params)
    return {
        "type_digest": task.type.digest,
        **inputs_of(replace(principal, task_id=SOME_TASK), context, key, task.hidden_params),
        "grants": task.authority.document(),
        "holder": {"pid": process.pid, "start_time": process.start_time},
        "uid": task.uid,
    }
