"""sojourn.v1.Validation on the public socket."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.clock import Clock
from sojourn.doors import claims
from sojourn.doors.calls import Call, Method
from sojourn.errors import InvalidInput
from sojourn.identity.identities import Identities
from sojourn.limits import HEARTBEAT_SECONDS, WATCHED_AUDIENCES, WATCHED_AUDIENCES_BYTES
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.feed import TaskState, state_of
from sojourn.tasks.service import JWT_SVID, TASK, TokenService
from sojourn.tasks.task import PENDING

SERVICE = "sojourn.v1.Validation"
_KINDS = {pb.TOKEN_KIND_UNSPECIFIED: "", pb.TOKEN_KIND_JWT_SVID: JWT_SVID, pb.TOKEN_KIND_TASK: TASK}
_NUMBERS = {name: number for number, name in _KINDS.items()}


class ValidationApi:
    """Is this token good, and which tasks live?"""

    def __init__(self, service: TokenService, engine: TaskEngine, identities: Identities, clock: Clock) -> None:
        self._service = service
        self._engine = engine
        self._identities = identities
        self._clock = clock

    def methods(self) -> dict[str, Method]:
        return {
            "ValidateToken": Method("unary", pb.ValidateTokenRequest, self.validate_token),
            "WatchTasks": Method("stream", pb.WatchTasksRequest, self.watch_tasks),
        }

    async def validate_token(self, call: Call, request: pb.ValidateTokenRequest) -> pb.ValidateTokenResponse:
        del call  # any process on this machine may ask: the answer is about the token that it holds
        if not request.token:
            raise InvalidInput("token must be specified")
        if not request.audience:
            raise InvalidInput("audience must be specified")
        if request.kind not in _KINDS:
            raise InvalidInput("kind is unknown")
        verdict = self._service.validate(
            request.token, request.audience, kind=_KINDS[request.kind], action=request.action
        )
        answer = pb.ValidateTokenResponse(
            valid=verdict.valid,
            code=verdict.code,
            reason=verdict.reason,
            kind=_NUMBERS[verdict.kind],
            spiffe_id=verdict.spiffe_id,
            actors=verdict.actors,
        )
        if verdict.claims is not None:
            claims.put(answer.claims, verdict.claims)
        return answer

    async def watch_tasks(self, call: Call, request: pb.WatchTasksRequest) -> AsyncIterator[pb.TaskFeed]:
        audiences = _audiences(request.audiences)
        async with self._identities.stream(call.peer, "WatchTasks") as stream:
            with self._engine.feed.watch(audiences) as watcher:
                yield self._snapshot(audiences)
                while True:
                    try:
                        async with asyncio.timeout(HEARTBEAT_SECONDS):
                            await watcher.changed.wait()
                    except TimeoutError:
                        await self._identities.refresh(stream)
                        stream.check_open()
                        yield self._heartbeat()
                        continue
                    if stream.changed.is_set():
                        stream.changed.clear()
                        await self._identities.refresh(stream)
                    stream.check_open()
                    stream.pushed(self._clock.now())
                    states = watcher.take()
                    if watcher.lost:
                        watcher.lost = False
                        yield self._snapshot(audiences)
                    elif states:
                        delta = pb.Delta(tasks=[_state(state) for state in states])
                        yield pb.TaskFeed(delta=delta, epoch=self._engine.epoch)

    def _snapshot(self, audiences: Sequence[str]) -> pb.TaskFeed:
        watched = set(audiences)
        live = [
            task
            for task in self._engine.tasks.all()
            if task.state != PENDING and not watched.isdisjoint(task.authority.resources)
        ]
        return pb.TaskFeed(
            snapshot=pb.Snapshot(tasks=[_state(state_of(task)) for task in live]),
            epoch=self._engine.epoch,
            issuer=self._engine.issuer,
            keys=json.dumps({"keys": [dict(self._engine.key.public.jwk)]}).encode(),
        )

    def _heartbeat(self) -> pb.TaskFeed:
        sent = int(self._clock.now().timestamp() * 1000)
        return pb.TaskFeed(heartbeat=pb.Heartbeat(sent_at_ms=sent), epoch=self._engine.epoch)


def _state(state: TaskState) -> pb.TaskState:
    return pb.TaskState(
        id=state.id, version=state.version, live=state.live, reason=state.reason, suspended=state.suspended
    )


def _audiences(audiences: Sequence[str]) -> tuple[str, ...]:
    if not audiences or not all(audiences):
        raise InvalidInput("audiences must be specified")
    if len(audiences) > WATCHED_AUDIENCES or sum(len(each.encode()) for each in audiences) > WATCHED_AUDIENCES_BYTES:
        raise InvalidInput(f"more than {WATCHED_AUDIENCES} audiences, or {WATCHED_AUDIENCES_BYTES} bytes of them")
    return tuple(audiences)
