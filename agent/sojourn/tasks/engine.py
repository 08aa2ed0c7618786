"""The task engine: keeps tasks, issues tokens under them, and ends them whatever happens.

What grants is journaled before it is true; what takes away is made true in memory and told to validators first, and
journaled then: an end that is not on disk yet is an end all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sojourn.audit.journal import Audit, Event
from sojourn.audit.journal_room import Recordable, always
from sojourn.errors import BudgetSpent, InvalidInput, NoTaskTypes, Refused, SojournError, TaskOver, UnknownTaskType
from sojourn.facts.facts import ANYWHERE, Facts
from sojourn.policy import rules
from sojourn.policy.cedar_schema import Context, Param
from sojourn.policy.task_types import TaskType, TypeSet
from sojourn.runtime.clock import Alarms, Clock
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.action_limits import offered
from sojourn.tasks.announcements import Announcements, Place
from sojourn.tasks.blocks import Blocks
from sojourn.tasks.delegation_tickets import Tickets
from sojourn.tasks.end_record import end_of
from sojourn.tasks.expiry import Deadlines
from sojourn.tasks.family import Family
from sojourn.tasks.for_person import ids_of
from sojourn.tasks.holder_watch import HolderWatch
from sojourn.tasks.holders import Holders
from sojourn.tasks.journal import RETRY_SECONDS, Journal, TaskStore
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.origin import NO_UID
from sojourn.tasks.pairwise import PairwiseNames
from sojourn.tasks.pending import Waiting
from sojourn.tasks.pseudonyms import Pseudonyms
from sojourn.tasks.registry import LiveTasks
from sojourn.tasks.shadow_policy import Decided, Shadow
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasks.standing import Standing
from sojourn.tasks.task import CASCADED, COMPLETED, PENDING, REVOKED, Task
from sojourn.tasks.token_issuer import TokenIssuer
from sojourn.tasks.validator_feed import Feed
from sojourn.tasktoken.end_reasons import (
    AGENT_STOPPED,
    BUDGET,
    CANCELLED,
    FAILURE,
    NOT_WRITTEN,
    PARENT_ENDED,
    SUCCESS,
)
from sojourn.tasktoken.grants import Authority, Grant
from sojourn.tasktoken.sender_constraint import Binding
from sojourn.tasktoken.tokens import TaskToken


@dataclass(frozen=True, slots=True)
class GrantVerdict:
    """Policy's yes to a grant of a task, and what it was said of: the task's version and type, the facts' revision."""

    grant: Grant
    decided: Decided
    version: int
    digest: str  # of the task's type
    revision: int


class TaskEngine:
    """All tasks of this agent."""

    def __init__(
        self,
        types: Mapping[str, TaskType],
        store: TaskStore,
        audit: Audit,
        keys: TokenKeys,
        issuer: str,
        epoch: int,
        clock: Clock,
        alarms: Alarms,
        holders: Holders,
        facts: Facts | None = None,
        boot_id: str = "",
        *,
        names: PairwiseNames | None = None,
        retry_seconds: float = RETRY_SECONDS,
        pseudonyms: Pseudonyms | None = None,
    ) -> None:
        """`facts` None: none are known. `boot_id`: of this boot of the machine. `names`: of people, at resources that
        are told no others. `retry_seconds`: until what the disk did not take, or what came too early, is tried again.
        `pseudonyms`: of people, in records; None: other ones in each run.
        """
        self.feed = Feed()
        self.announcements = Announcements()
        self.announcements.subscribe(Place.VALIDATORS, self.feed.publish)
        self.tasks = LiveTasks(holders.owner)
        self.family = Family(self.tasks)
        self.tickets = Tickets(clock, alarms, holders.owner)
        self.waiting = Waiting(holders.owner)
        self.types = TypeSet(types)
        self.no_types = ""  # why there are none, where those that there should be cannot be used
        self.shadow: Shadow | None = None  # a candidate set that is asked beside
        self.keys = keys
        self.issuing = TokenIssuer(keys, issuer, epoch, clock, boot_id, names)
        self.announcements.subscribe(Place.STATUS_LISTS, self.issuing.lists.note)
        keys.on_change(self.feed.keys_changed)
        self.epoch = epoch
        self.journal = Journal(store, retry_seconds=retry_seconds)
        self.blocks = Blocks()
        self.pseudonyms = pseudonyms or Pseudonyms.of_this_run()
        self.standing = Standing(self.blocks, self.pseudonyms)  # of people
        self.deadlines = Deadlines(self.tasks, clock, alarms, self.end, self.announcements.tell_holder)
        self.holding = HolderWatch(self.tasks, holders, self.announcements, audit, alarms, self.end)
        self.audit = audit
        self.clock = clock
        self.holders = holders
        self.facts = facts
        self.closing = False
        self.check_recordable: Recordable = always  # that what a workload asks for may add records
        self.people_key = self.pseudonyms.key_of_inputs  # under which kept digests have a person: nobody can guess it
        self.on_decision: Hooks[[Task, bool, float]] = Hooks()  # of policy: yes or no, and how many seconds it took
        self._counter = 0

    @property
    def issuer(self) -> str:
        """Of tokens, and the URL of the token service."""
        return self.issuing.issuer

    def adopt(self, task: Task) -> None:
        """Take a task among the live ones; it ends when its time is up, or when it is idle for too long."""
        self.tasks.add(task)
        self.family.add(task)
        self.waiting.add(task)
        self.deadlines.watch(task)

    def next_version(self) -> int:
        """A version that is later than any that was given before."""
        self._counter += 1
        return (self.epoch << 32) | self._counter

    def check_types(self) -> None:
        """Raise NoTaskTypes if there is no set in force, not even an empty one."""
        if self.no_types:
            raise NoTaskTypes(self.no_types)

    def type_named(self, name: str) -> TaskType:
        self.check_types()
        kind = self.types.get(name)
        if kind is None:
            raise UnknownTaskType(f"there is no task type {name[:64]!r}")
        return kind

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def token(
        self,
        task: Task,
        resource: str,
        actions: Sequence[str],
        *,
        not_after: datetime | None = None,
        binding: Binding | None = None,
        agent_key: bool = False,
        params_digest: str = "",
    ) -> TaskToken:
        """Issue a token for one resource of a live task; its life ends with the type's, the task's and `not_after`.

        It is bound to `binding`, or with `agent_key` to the task's own key; with `params_digest` it is for one request.
        Raises TaskOver, InvalidTarget, ActionOutsideType, PolicyDenied, InvalidInput, or what the store raises; no
        token then.
        """
        await self.settled(task)
        self.check_budget(task)
        grant, also = offered(task, rules.narrow(task.authority, resource, actions), actions, params_digest)
        bound = self.issuing.binding_of(task, grant, binding, agent_key, params_digest)
        told = await self.issuing.told(task, grant)
        verdict = self.decide(task, grant)
        token = self.issuing.sign(task, grant, not_after, bound, params_digest, also=also, person=told)
        fields = {
            "resource": grant.resource,
            "actions": list(grant.actions),
            "jti": token.claims["jti"],
            **({"cnf": token.claims["cnf"]} if bound else {}),
            **({"params_digest": params_digest} if params_digest else {}),
            **verdict.decided.record((grant,)),
        }
        event = self.event("token_issued", task, expires_at=token.claims["exp"], **fields)
        task.count_token(grant)  # before the record is written: those who ask meanwhile share the budget
        self.deadlines.used(task)
        try:
            await self.note_use(task, event)
            self.check_still(task, verdict)  # if not, the token never leaves here
        except BaseException:
            task.count_token(grant, -1)
            raise
        return token

    async def settled(self, task: Task) -> None:
        """Return when what is on disk of a task that is active is its newest state. Raise TaskOver for any other, and
        StoreFailed if the disk takes no change of it.
        """
        self.check_active(task)
        await self.journal.settled(task.id)
        task.check_active(self.clock.boot())

    def check_budget(self, task: Task) -> None:
        """Raise BudgetSpent if the task may have no more tokens, AuditFull or LimitExceeded if it may add no record."""
        self.check_recordable(task.spiffe_id)
        if task.type.max_tokens is not None and task.spent.tokens >= task.type.max_tokens:
            raise BudgetSpent(f"the task has had its {task.type.max_tokens} tokens")

    async def note_use(self, task: Task, event: Event) -> None:
        """Return when an audit record of what a task used is on disk. Raise what the store raises."""
        if task.binding == ONE_SHOT:
            await self.journal.note(event)
        else:  # what was used must outlive the agent, as the task may
            await self.journal.now(task.record(), event)

    def decide(self, task: Task, grant: Grant) -> GrantVerdict:
        """Ask policy for a token. Raise PolicyDenied."""
        return GrantVerdict(grant, self._decide(task, grant), task.version, task.type.digest, self.facts_revision)

    def check_still(self, task: Task, verdict: GrantVerdict) -> None:
        """Raise TaskOver if the task has ended or changed since the verdict, PolicyDenied if policy now denies it."""
        task.check_active(self.clock.boot())
        if task.version != verdict.version:
            raise TaskOver("the task has changed meanwhile: ask again")
        if (task.type.digest, self.facts_revision) != (verdict.digest, verdict.revision):
            self._decide(task, verdict.grant)

    def _decide(self, task: Task, grant: Grant) -> Decided:
        decided = self.decided(task)
        try:
            rules.authorize(task.type, decided.principal, Authority((grant,)), decided.context, decided)
        except Refused as error:
            self.denied("token_denied", task, error, **decided.record(params=True))
            raise
        return decided

    def decided(self, task: Task) -> Decided:
        """Who hears the decisions on a request of a task, on its context as it is now."""
        asked = task.principal(self.clock.now())
        return Decided(
            task, asked, self.shadow, self.context, self.types.digest, self.on_decision.tell, self.people_key
        )

    def report_use(self, task: Task, resource: str, action: str, calls: int = 1) -> None:
        """Count calls that a service accepted under the task. Raise TaskOver if it is over, also by this."""
        self.check_active(task)
        if action not in task.authority.at(resource):
            raise InvalidInput("the task does not have this action there")
        task.count_calls(resource, action, calls)
        self.deadlines.used(task)
        if task.type.max_reported_calls is not None and task.spent.calls > task.type.max_reported_calls:
            self.end(task, REVOKED, BUDGET)
            task.check_active(self.clock.boot())

    def check_active(self, task: Task) -> None:
        """Raise TaskOver unless the task is active now. What is over in its line ends first."""
        self.end_what_is_over(task)
        task.check_active(self.clock.boot())

    def end_what_is_over(self, task: Task) -> None:
        """End a task, or those of its line, if its time is up or its holder has gone, and nobody has noticed yet."""
        for above in self.family.line(task):
            self.holding.check(above)
            self.deadlines.check(above)
        self.holding.check(task)

    # --- looking ----------------------------------------------------------------------------------------------------

    def check_token(self, token: TaskToken) -> None:
        """Raise TaskOver unless the token's task lives and the token is not older than its last change."""
        task = self.tasks.find(token.task_id)
        if task is None:
            raise TaskOver("the task is over")
        self.check_active(task)
        if token.task_version < task.version:
            raise TaskOver("the task has changed since the token was issued")
        self.deadlines.used(task)

    # --- end --------------------------------------------------------------------------------------------------------

    async def complete(self, task: Task, *, failed: bool) -> None:
        """End a task as its holder wishes, and return when that is on disk. An ended task stays what it is."""
        if task.live:
            outcome = CANCELLED if task.state == PENDING else FAILURE if failed else SUCCESS
            self.end(task, COMPLETED, outcome)
        await self.journal.told(task.id)

    async def revoke(self, task: Task, reason: str, explanation: str = "") -> None:
        """End a task against its holder's will, and return when that is on disk. `explanation`: an operator's words.

        Raise NotOnDisk, as `complete` does, if it has ended, and the disk has not taken that yet.
        """
        if task.live:
            self.stop(task, reason, explanation)
        await self.journal.told(task.id)

    def stop(self, task: Task, reason: str, explanation: str) -> None:
        """End a live task now as an operator wishes, who says why. See `end`."""
        self.end(task, REVOKED, reason, explanation=explanation)

    def end(self, task: Task, state: str, reason: str, *, explanation: str = "", **decided: Any) -> None:
        """End a live task now with all that came of it, tell validators, and have it written.

        `journal.written` waits for that. `explanation`: an operator's words. `decided`: on what, for the audit.
        """
        if task.state == CASCADED:  # whoever ends several may have ended its parent before
            return
        root = next(iter(self.family.line(task)), None)
        task.finish(state, reason, explanation)
        family = self.family.disown(task)
        for each in family:
            each.finish(CASCADED, PARENT_ENDED)
        if root is not None and root.live and any(each.tokens_issued or each.calls for each in (task, *family)):
            # What they used is used, and the journal forgets those that have ended.
            used = {"tokens": root.spent.tokens, "calls": root.spent.calls}  # what is counted is written by then
            self.journal.later(root.record(), self.event("family_used", root, by=task.id, **used))
        self._ended(task, **decided)  # all are over before anybody hears of one
        for each in family:
            self._ended(each)

    def _ended(self, task: Task, **decided: Any) -> None:
        """Let go of a task that has just ended, tell of it, and have it written."""
        self._settle(task, keep=True)
        self.announce(task)
        self.journal.later(task.record(), self.event("task_ended", task, **end_of(task, self.clock.now()), **decided))
        task.shed()

    def close(self) -> None:
        """Begin nothing more, let streams close, and leave tasks to the next run; those that cannot come back end."""
        self.closing = True
        for task in self.tasks.all():
            if task.doom or task.binding == ONE_SHOT or task.state == PENDING:
                self.end(task, REVOKED, task.doom or AGENT_STOPPED)
            else:
                self.announcements.tell_holder(task)

    def announce(self, task: Task, before: Authority | None = None) -> None:
        """A task has changed: tell all who must hear of it. `before`: what it held, if that is less now."""
        self.announcements.announce(task, before)

    def forget(self, task: Task) -> None:
        """A task that never began: nobody was told of it."""
        if task.live:
            task.finish(REVOKED, NOT_WRITTEN)
            self._settle(task, keep=False)

    def context(self, task: Task, kind: TaskType | None = None) -> Context:
        """What the policies of the task's type, or of `kind`, may read beside the task, as it is now."""
        return self.known(kind or task.type, str(task.spiffe_id), task.params, task.id, *ids_of(task.whom))

    @property
    def facts_revision(self) -> int:
        """Another number whenever policies might read another fact."""
        return self.facts.revision if self.facts is not None else 0

    def known(self, kind: TaskType, workload: str, params: Mapping[str, Param], *about: str) -> Context:
        """What the policies of a type may read about a task of this workload. `about`: the task, and its person."""
        if not kind.facts:
            return Context(params)
        if self.facts is None:
            return Context(params, absent=dict.fromkeys(kind.facts, "missing"))
        return self.facts.context(params, kind.facts, (*about, workload, ANYWHERE))

    def _settle(self, task: Task, *, keep: bool) -> None:
        """Let go of what a live task holds."""
        self.tasks.remove(task, keep=keep)
        self.family.remove(task)
        self.tickets.void(task)
        self.waiting.remove(task)
        self.deadlines.forget(task)
        task.holder.release()
        if task.heir is not None:
            task.heir.release()
        if self.facts is not None:
            self.facts.forget_subject(task.id)

    def denied(self, event: str, task: Task, error: SojournError, **fields: Any) -> None:
        """Record a refusal to a task's holder, or of the task itself, which has not begun then."""
        named = {"task": task.id, **task.type.named, **self.pseudonyms.shown(task.whom)}
        if task.uid != NO_UID:  # else it is who was refused
            named["spiffe_id"] = str(task.spiffe_id)
        self.audit.denied(event, task.owner, **named, code=error.code, reason=error.public, **fields)

    def event(self, event: str, task: Task, **fields: Any) -> Event:
        """An audit record about a task."""
        return self.audit.event(event, {**self.named(task), **fields})

    def named(self, task: Task) -> dict[str, Any]:
        """Which task it is, as audit records say it."""
        return {
            "task": task.id,
            **task.type.named,
            "spiffe_id": str(task.spiffe_id),
            "uid": task.uid if task.uid != NO_UID else None,
            **self.pseudonyms.shown(task.whom),
        }
