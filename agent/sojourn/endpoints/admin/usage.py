"""Of sojourn.v1.Admin: what tasks were granted against what was used of it, and what stands unused."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing

import structlog

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.journal import Audit
from sojourn.credentials.index import Index
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput, SojournError
from sojourn.identity.registry import Registry
from sojourn.operating_limits import PAGE_ITEMS, USAGE_DAYS, USAGE_REPORTS, USAGE_ROWS_A_MESSAGE
from sojourn.oversight import standing
from sojourn.oversight.report import ActionUse, Asked, Spread, TypeUse, report
from sojourn.oversight.seen_values import SeenValues
from sojourn.oversight.standing import EntryLife, Standing
from sojourn.oversight.sums import DAY_MS, IssuedSum, Sums, Window
from sojourn.policy.task_types import TaskType
from sojourn.quota.concurrency import Concurrency
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.spiffe.ids import SpiffeId
from sojourn.store.audit import AuditTable
from sojourn.store.audit_pages import AuditPages
from sojourn.store.usage import UsageTable
from sojourn.store.usage_upkeep import UsageUpkeep
from sojourn.tasks.engine import TaskEngine

log = structlog.get_logger()
_MS_MAX = 2**53


class UsageApi:
    """For operators. Nothing is changed, and nothing is kept between two calls."""

    def __init__(
        self,
        engine: TaskEngine,
        usage: UsageTable,
        upkeep: UsageUpkeep,
        journal: AuditTable,
        pages: AuditPages,
        registry: Registry,
        credentials: Index,
        audit: Audit,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._usage = usage
        self._upkeep = upkeep
        self._journal = journal
        self._pages = pages
        self._registry = registry
        self._credentials = credentials
        self._audit = audit
        self._clock = clock
        self._reports = Concurrency(USAGE_REPORTS, "reports of usage under way")

    def admin_methods(self) -> dict[str, Method]:
        return {
            "GetUsage": Method("stream", pb.GetUsageRequest, self.get),
            "ListStanding": Method("stream", pb.ListStandingRequest, self.list_standing),
        }

    async def get(self, call: Call, request: pb.GetUsageRequest) -> AsyncIterator[pb.GetUsageResponse]:
        kinds = self._kinds(request.type)
        if request.workload:
            SpiffeId.parse(request.workload)
        with self._reports.one(call.peer.who):
            behind = await self._is_behind()
            asked = await self._asked(request.since_ms, request.until_ms)
            async with aclosing(self._answers(kinds, asked, request, behind=behind)) as answers:
                async for each in answers:
                    yield each

    async def _answers(
        self, kinds: Sequence[TaskType], asked: Asked, request: pb.GetUsageRequest, *, behind: bool
    ) -> AsyncGenerator[pb.GetUsageResponse, None]:
        time = pb.UsageTime(
            since_ms=asked.since_ms,
            until_ms=asked.until_ms,
            counted_since_ms=asked.counted_since_ms,
            from_journal=request.from_journal,
            behind=behind,
        )
        window = self._window(asked)
        if request.from_journal:
            time.journal_since_ms = (await self._journal.figures()).oldest_ms
            before = await self._pages.before_time(max(1, (window.since - 1) * DAY_MS))
            sums = await self._usage.recount(window, before)
        else:
            sums = await self._usage.read(window)
        time.others, time.unread = _others(sums), sums.unread
        yield pb.GetUsageResponse(time=time)
        for use in await asyncio.to_thread(report, kinds, sums, asked, request.workload):
            for message in _messages(use):
                yield pb.GetUsageResponse(types=[message])

    async def whole(
        self, who: int | str, kinds: Sequence[TaskType]
    ) -> tuple[list[TypeUse], Mapping[str, IssuedSum], Asked]:
        """What was used of these types in the last days, as without `since_ms`; what was issued by each entry; and the
        time that it is about.
        """
        with self._reports.one(who):
            await self._is_behind()
            asked = await self._asked(0, 0)
            sums = await self._usage.read(self._window(asked))
            return await asyncio.to_thread(report, kinds, sums, asked), await self._usage.entries(), asked

    async def list_standing(
        self, call: Call, request: pb.ListStandingRequest
    ) -> AsyncIterator[pb.ListStandingResponse]:
        with self._reports.one(call.peer.who):
            await self._is_behind()
            asked = await self._asked(request.since_ms, 0)
            found = [*await self._entries(asked), *await self._types(asked), *self._outliving()]
        found.sort(key=lambda each: (each.since_ms, each.kind, each.name))
        yield pb.ListStandingResponse(counted_since_ms=asked.counted_since_ms, since_ms=asked.since_ms)
        for at in range(0, len(found), PAGE_ITEMS):
            yield pb.ListStandingResponse(standing=[_standing(each) for each in found[at : at + PAGE_ITEMS]])

    async def _entries(self, asked: Asked) -> list[Standing]:
        lives = [
            EntryLife(each.id, str(each.spiffe_id), each.created_at * 1_000, each.expires_at * 1_000)
            for each in self._registry
            if self._registry.serves(each)
        ]
        issued = await self._usage.entries()
        return await asyncio.to_thread(standing.of_entries, lives, issued, asked.since_ms, asked.counted_since_ms)

    async def _types(self, asked: Asked) -> list[Standing]:
        sums = await self._usage.read(self._window(asked))
        return standing.of_types(await asyncio.to_thread(report, self._kinds(""), sums, asked))

    def _outliving(self) -> Iterator[Standing]:
        """The credentials of providers outside that outlive their tasks."""
        for each in self._credentials.all():
            if each.over_at is not None:
                about = f"{each.provider}: {each.grant.resource} of {each.spiffe_id}"
                since, until = (milliseconds(at) for at in (each.over_at, each.expires_at))
                yield Standing(standing.CREDENTIAL, each.id, about, since, until)

    def _kinds(self, name: str) -> list[TaskType]:
        """Raise UnknownTaskType, NoTaskTypes."""
        if name:
            return [self._engine.type_named(name)]
        self._engine.check_types()
        return [self._engine.types[each] for each in sorted(self._engine.types)]

    async def _is_behind(self) -> bool:
        """Have all written that waits. Whether something waits on, as the disk does not take it."""
        try:
            unwritten = await self._audit.settle()
            await self._upkeep.note_types()
            await self._usage.flush()
        except SojournError as error:
            log.warning("usage_not_kept", reason=error.public, detail=error.detail)
            return True
        return bool(unwritten)

    async def _asked(self, since_ms: int, until_ms: int) -> Asked:
        """The time that is asked about: whole days, up to now. Raise InvalidInput."""
        if not 0 <= since_ms <= _MS_MAX or not 0 <= until_ms <= _MS_MAX:
            raise InvalidInput("since_ms or until_ms is out of range")
        now = milliseconds(self._clock.now())
        until = min(now, (until_ms // DAY_MS + 1) * DAY_MS - 1) if until_ms else now
        since = (since_ms or now - USAGE_DAYS * DAY_MS) // DAY_MS * DAY_MS
        if since > until:
            raise InvalidInput("since_ms is behind until_ms, or yet to come")
        return Asked(since, until, await self._usage.since_ms(), await self._upkeep.in_force())

    def _window(self, asked: Asked) -> Window:
        since_of = {name: at // DAY_MS for name, at in asked.in_force.items()}
        return Window(asked.since_ms // DAY_MS, asked.until_ms // DAY_MS, since_of)


def _others(sums: Sums) -> int:
    tasks = sum(each.tasks for key, each in sums.types.items() if not key.type)
    return tasks + sum(each.granted for key, each in sums.actions.items() if not key.type)


def _messages(use: TypeUse) -> Iterator[pb.TypeUsage]:
    """One type, in parts if it has very many actions."""
    first, rest = use.actions[:USAGE_ROWS_A_MESSAGE], use.actions[USAGE_ROWS_A_MESSAGE:]
    unused = use.unused
    yield pb.TypeUsage(
        type=use.type,
        digest=use.digest,
        since_ms=use.since_ms,
        until_ms=use.until_ms,
        tasks=use.tasks,
        tasks_before=use.before,
        enough=use.enough,
        lacking=use.lacking,
        seconds_max=use.seconds_max,
        seconds_p99=use.seconds_p99,
        tokens=_spread(use.tokens),
        calls=_spread(use.calls),
        depth=_spread(use.depth),
        children=_spread(use.children),
        workloads=[
            pb.WorkloadUsage(workload=each.workload, began=each.began, accepted=each.accepted) for each in use.workloads
        ],
        actions=[_action(each) for each in first],
        bindings=use.bindings,
        policies=use.policies,
        denials=use.denials,
        params=_values(use.params),
        facts=_values(use.facts),
        unused=pb.UnusedParts(
            workloads=unused.workloads,
            delegates=unused.delegates,
            resources=unused.resources,
            actions=_actions(unused.actions),
            uncalled=_actions(unused.uncalled),
            bindings=unused.bindings,
            policies=unused.policies,
            facts=unused.facts,
        ),
    )
    for at in range(0, len(rest), USAGE_ROWS_A_MESSAGE):
        more = [_action(each) for each in rest[at : at + USAGE_ROWS_A_MESSAGE]]
        yield pb.TypeUsage(type=use.type, actions=more)


def _spread(spread: Spread) -> pb.Spread:
    return pb.Spread(max=spread.greatest, p99=spread.p99)


def _action(use: ActionUse) -> pb.ActionUsage:
    found = use.sum
    made = pb.ActionUsage(
        workload=use.workload,
        resource=use.resource,
        action=use.action,
        granted=found.granted,
        taken=found.taken,
        called=found.called,
        tokens=found.tokens,
        calls=found.calls,
        unused_tokens=max(0, found.unused_tokens),  # a call that was told behind midnight takes from another day
        denied=found.denied,
        first_ms=found.first_ms,
        last_ms=found.last_ms,
        blind=use.blind,
    )
    if use.limit is not None:
        made.most, made.limit = found.most, use.limit
    return made


def _actions(names: Sequence[tuple[str, str]]) -> list[pb.UnusedAction]:
    return [pb.UnusedAction(resource=resource, action=action) for resource, action in names]


def _values(seen: Mapping[str, SeenValues]) -> list[pb.ValueUsage]:
    return [
        pb.ValueUsage(
            name=name,
            number=each.number,
            values=sorted(each.values),
            many=each.many,
            min=each.least,
            max=each.greatest,
            longest=each.longest,
        )
        for name, each in sorted(seen.items())
    ]


def _standing(each: Standing) -> pb.Standing:
    return pb.Standing(kind=each.kind, name=each.name, about=each.about, since_ms=each.since_ms, until_ms=each.until_ms)
