"""sojourn.v1.Validation, on the public socket and for validators on other machines."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from typing import Protocol, TypedDict
from weakref import WeakValueDictionary

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.endpoints.api.refusal_reports import RefusalReports, served_of
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import InvalidInput
from sojourn.identity.identities import Identities
from sojourn.identity.streams import IdentityStream
from sojourn.limits import (
    AUDIENCE_MAX_BYTES,
    FEED_DELTAS_KEPT,
    FEEDS_PER_CALLER,
    HEARTBEAT_SECONDS,
    REFUSALS_PER_REPORT,
    SNAPSHOT_TASKS_AT_ONCE,
    SNAPSHOT_TASKS_PER_MESSAGE,
    SNAPSHOTS_HELD_BYTES,
    TOKEN_USES_PER_REPORT,
    USES_JUDGED_AT_ONCE,
    WATCHED_AUDIENCES,
    WATCHED_AUDIENCES_BYTES,
)
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.validation import JWT_SVID, TASK, TokenValidation
from sojourn.policy.task_types import TaskType
from sojourn.quota.concurrency import Concurrency
from sojourn.runtime.clock import Clock, milliseconds
from sojourn.spiffe.ids import SpiffeId
from sojourn.spireapi import struct_claims
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasks.task import PENDING
from sojourn.tasks.validator_feed import TaskState, state_of
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.sender_constraint import Sender

SERVICE = "sojourn.v1.Validation"
_KINDS = {pb.TOKEN_KIND_UNSPECIFIED: "", pb.TOKEN_KIND_JWT_SVID: JWT_SVID, pb.TOKEN_KIND_TASK: TASK}
_NUMBERS = {name: number for number, name in _KINDS.items()}


class _Asked(TypedDict):
    kind: str
    action: str
    sender: Sender
    params_digest: str


class Standing(Protocol):
    """A caller that may hear of tasks, for as long as it may."""

    @property
    def identities(self) -> Iterable[SpiffeId]:
        """Who it is, as of the last `check`."""

    async def check(self, *, anew: bool) -> None:
        """Raise what the caller's stream ends with. `anew`: look again, even if nothing is known to have changed."""

    def pushed(self) -> None:
        """The caller is sent something new."""


class Callers(Protocol):
    """Those who call here."""

    def standing(self, call: Call) -> AbstractAsyncContextManager[Standing]:
        """Within what a caller may watch tasks; entering it raises if it may not."""

    async def identities(self, call: Call) -> frozenset[SpiffeId]:
        """Who calls. Raise NoIdentity if it is nobody that is known."""


class ValidationApi:
    """Is this token good, and which tasks live?"""

    def __init__(
        self,
        judging: TokenValidation,
        engine: TaskEngine,
        audiences: Audiences,
        clock: Clock,
        callers: Callers,
        refusals: RefusalCounts,
    ) -> None:
        self._judging = judging
        self._refused = RefusalReports(judging, refusals)
        self._audiences = audiences
        self._engine = engine
        self._clock = clock
        self._callers = callers
        self._feeds = Concurrency(FEEDS_PER_CALLER, "feeds of tasks")
        self._turns: WeakValueDictionary[int | str, asyncio.Lock] = WeakValueDictionary()  # by caller
        self._held = Concurrency(SNAPSHOTS_HELD_BYTES, "snapshots of tasks that it does not read")
        self._delta = lru_cache(FEED_DELTAS_KEPT)(self._make_delta)  # all who hear of the same hear the same bytes

    def methods(self) -> dict[str, Method]:
        return {
            "ValidateToken": Method("unary", pb.ValidateTokenRequest, self.validate_token),
            "WatchTasks": Method("stream", pb.WatchTasksRequest, self.watch_tasks),
            "ReportUse": Method("unary", pb.ReportUseRequest, self.report_use),
            "ReportRefusals": Method("unary", pb.ReportRefusalsRequest, self.report_refusals),
            "DescribeAudience": Method("unary", pb.DescribeAudienceRequest, self.describe_audience),
        }

    async def validate_token(self, call: Call, request: pb.ValidateTokenRequest) -> pb.ValidateTokenResponse:
        if not request.token:
            raise InvalidInput("token must be specified")
        if not request.audience:
            raise InvalidInput("audience must be specified")
        if request.kind not in _KINDS:
            raise InvalidInput("kind is unknown")
        sender = _sender(request.sender)
        sender.check()
        if request.no_action and (request.action or not request.use):
            raise InvalidInput("no_action is for a use that names no action")
        asked: _Asked = {
            "kind": _KINDS[request.kind],
            "action": request.action,
            "sender": sender,
            "params_digest": request.params_digest,
        }
        times = 0
        if request.use:  # it takes something from the task: only its service may
            self._audiences.check_serves(await self._callers.identities(call), request.audience)
            served = served_of(request.served)
            verdict = await self._judging.let_through(
                request.token, request.audience, **asked, no_action=request.no_action, served=served
            )
            times = served.times
        else:  # whoever may call may ask: the answer is about the token that it holds
            verdict = self._judging.validate(request.token, request.audience, **asked)
        answer = pb.ValidateTokenResponse(
            valid=verdict.valid,
            code=verdict.code,
            reason=verdict.reason,
            kind=_NUMBERS[verdict.kind],
            spiffe_id=verdict.spiffe_id,
            actors=verdict.actors,
            dpop_nonce=verdict.nonce,
            times=times if verdict.valid else 0,
        )
        if verdict.person is not None:
            answer.person.CopyFrom(_person(verdict.person))
        if verdict.claims is not None:
            struct_claims.put(answer.claims, verdict.claims)
        return answer

    async def report_use(self, call: Call, request: pb.ReportUseRequest) -> pb.ReportUseResponse:
        if len(request.uses) > TOKEN_USES_PER_REPORT:
            raise InvalidInput(f"more than {TOKEN_USES_PER_REPORT} uses in one report")
        who = await self._callers.identities(call)

        def may_report(resource: str) -> bool:
            service = self._audiences.service(resource)  # where none is named, whoever is known and has the token
            return service is None or not who.isdisjoint(service.workloads)

        counted = 0
        for place, use in enumerate(request.uses, 1):
            counted += self._judging.count_use(use.token, use.action, use.calls, may_report)
            if place % USES_JUDGED_AT_ONCE == 0:
                await asyncio.sleep(0)
        await self._judging.uses.written()
        return pb.ReportUseResponse(counted=counted)

    async def report_refusals(self, call: Call, request: pb.ReportRefusalsRequest) -> pb.ReportRefusalsResponse:
        if max(len(request.refusals), len(request.others)) > REFUSALS_PER_REPORT:
            raise InvalidInput(f"more than {REFUSALS_PER_REPORT} refusals in one report")
        if not request.audience or len(request.audience.encode()) > AUDIENCE_MAX_BYTES:
            raise InvalidInput("audience must be specified")
        who = await self._callers.identities(call)
        self._audiences.check_serves(who, request.audience)
        service = self._audiences.service(request.audience)
        who = who if service is None else who & service.workloads
        return await self._refused.told(str(min(who, key=str)), request)

    async def describe_audience(self, call: Call, request: pb.DescribeAudienceRequest) -> pb.DescribeAudienceResponse:
        [audience] = _audiences([request.audience])
        self._audiences.check_serves(await self._callers.identities(call), audience)
        types = [kind for _, kind in sorted(self._engine.types.items()) if audience not in kind.outside]
        return pb.DescribeAudienceResponse(types=[_at(kind, audience) for kind in types if kind.ceiling.at(audience)])

    async def watch_tasks(self, call: Call, request: pb.WatchTasksRequest) -> AsyncIterator[pb.TaskFeed | bytes]:
        audiences, who = _audiences(request.audiences), call.visitor.who
        async with self._callers.standing(call) as standing:
            self._check_serves(standing, audiences)
            with self._feeds.one(who), self._engine.feed.watch(audiences, who) as watcher:
                async with self._snapshot(who, audiences) as snapshot:
                    for message in snapshot:
                        yield message
                while True:
                    try:
                        async with asyncio.timeout(HEARTBEAT_SECONDS):
                            await watcher.changed.wait()
                    except TimeoutError:
                        await standing.check(anew=True)
                        self._check_serves(standing, audiences)
                        yield self._heartbeat()
                        continue
                    await standing.check(anew=False)
                    self._check_serves(standing, audiences)
                    standing.pushed()
                    states = watcher.take()
                    keys, watcher.keys_changed = self._engine.keys.jwks if watcher.keys_changed else b"", False
                    if watcher.lost:
                        watcher.lost = False
                        async with self._snapshot(who, audiences) as snapshot:
                            for message in snapshot:
                                yield message
                    elif states or keys:
                        yield self._delta(tuple(states), keys)

    @asynccontextmanager
    async def _snapshot(self, who: int | str, audiences: Sequence[str]) -> AsyncIterator[list[bytes]]:
        """A snapshot for one who watches already, as messages: what changes while it is made comes behind them.

        One is made at a time for each caller, and counts as held until the caller has taken it. Raise LimitExceeded.
        """
        turn = self._turns.setdefault(who, asyncio.Lock())
        async with turn:
            made = await self._make_snapshot(frozenset(audiences))
        with self._held.some(who, sum(map(len, made))):
            yield made

    async def _make_snapshot(self, audiences: frozenset[str]) -> list[bytes]:
        """Of more tasks than one message takes, the others follow as parts: none is in force before the last."""
        engine, states = self._engine, list[pb.TaskState]()
        for place, task in enumerate(engine.tasks.all(), 1):
            if task.live and task.state != PENDING and not audiences.isdisjoint(task.authority.resources):
                states.append(_state(state_of(task)))
            if place % SNAPSHOT_TASKS_AT_ONCE == 0:
                await asyncio.sleep(0)
        most = SNAPSHOT_TASKS_PER_MESSAGE
        parts = [pb.Snapshot(tasks=states[at : at + most], more=True) for at in range(0, max(1, len(states)), most)]
        parts[-1].more = False
        messages = [pb.TaskFeed(snapshot=part, epoch=engine.epoch) for part in parts]
        messages[0].issuer, messages[0].keys = engine.issuer, engine.keys.jwks
        messages[-1].steady_seconds = engine.issuing.steady()
        return [each.SerializeToString() for each in messages]

    def _check_serves(self, standing: Standing, audiences: Sequence[str]) -> None:
        """Raise Refused if a caller is no workload of the services behind these: their tasks are no business of others.

        Looked up each time: the configuration may be read again.
        """
        for audience in audiences:
            self._audiences.check_serves(standing.identities, audience)

    def _make_delta(self, states: tuple[TaskState, ...], keys: bytes) -> bytes:
        delta = pb.Delta(tasks=[_state(state) for state in states])
        return pb.TaskFeed(delta=delta, epoch=self._engine.epoch, keys=keys).SerializeToString()

    def _heartbeat(self) -> pb.TaskFeed:
        sent = milliseconds(self._clock.now())
        beat = pb.Heartbeat(sent_at_ms=sent)
        return pb.TaskFeed(heartbeat=beat, epoch=self._engine.epoch, steady_seconds=self._engine.issuing.steady())


class AttestedCallers:
    """Callers of this machine: they may watch as long as they have an identity."""

    def __init__(self, identities: Identities, clock: Clock) -> None:
        self._identities = identities
        self._clock = clock

    async def identities(self, call: Call) -> frozenset[SpiffeId]:
        return frozenset(entry.spiffe_id for entry in await self._identities.of(call.peer))

    @asynccontextmanager
    async def standing(self, call: Call) -> AsyncIterator[Standing]:
        async with self._identities.stream(call.peer, "WatchTasks") as stream:
            yield _Attested(self._identities, self._clock, stream)


class _Attested:
    def __init__(self, identities: Identities, clock: Clock, stream: IdentityStream) -> None:
        self._identities = identities
        self._clock = clock
        self._stream = stream

    @property
    def identities(self) -> Iterable[SpiffeId]:
        return [entry.spiffe_id for entry in self._stream.entries]

    async def check(self, *, anew: bool) -> None:
        if anew or self._stream.changed:
            self._stream.changed = False
            await self._identities.refresh(self._stream)
        self._stream.check_open()

    def pushed(self) -> None:
        self._stream.pushed(self._clock.now())


def _person(person: PersonClaims) -> pb.ValidateTokenResponse.Person:
    return pb.ValidateTokenResponse.Person(
        issuer=person.issuer, subject=person.subject, auth_time=person.auth_time, acr=person.acr, amr=person.amr
    )


def _at(kind: TaskType, audience: str) -> pb.TypeAtAudience:
    actions = [pb.ActionAtAudience(name=each, params=kind.concerning(each)) for each in kind.ceiling.at(audience)]
    return pb.TypeAtAudience(name=kind.name, consequence=kind.consequence, actions=actions)


def _state(state: TaskState) -> pb.TaskState:
    return pb.TaskState(
        id=state.id, version=state.version, live=state.live, reason=state.reason, suspended=state.suspended
    )


def _sender(sender: pb.Sender) -> Sender:
    return Sender(
        sender.dpop_proof, sender.method, sender.url, sender.client_certificate, jkt=sender.jkt, x5t=sender.x5t
    )


def _audiences(audiences: Sequence[str]) -> tuple[str, ...]:
    if not audiences or not all(audiences):
        raise InvalidInput("audiences must be specified")
    if len(audiences) > WATCHED_AUDIENCES or sum(len(each.encode()) for each in audiences) > WATCHED_AUDIENCES_BYTES:
        raise InvalidInput(f"more than {WATCHED_AUDIENCES} audiences, or {WATCHED_AUDIENCES_BYTES} bytes of them")
    return tuple(audiences)
