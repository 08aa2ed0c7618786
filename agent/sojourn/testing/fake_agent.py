"""An agent for tests of a guarded service: it says yes to the tokens that a test has of it, and no to all others."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors.oauth import ActionUsedUp
from sojourn.jose.jws import SigningKey
from sojourn.limits import HEARTBEAT_SECONDS
from sojourn.sdk.client.loop_thread import Portal
from sojourn.sdk.task.values import AccessToken
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.task_claim import NORMAL, TaskClaim

WORKLOAD: Final = "spiffe://example.org/agent/test"
_ISSUER: Final = "https://agent.example.org"
_VARIABLE: Final = "SOJOURN_SOCKET"
_GOOD_FOR: Final = timedelta(hours=1)  # also while somebody steps through a test


class FakeAgent:
    """An agent without tasks, policies and attestation, for use as `with FakeAgent() as agent`.

    Within the block the variable SOJOURN_SOCKET names it, so that guards which start there ask it, in this process and
    in those that it starts. Its tokens are those of tasks of class normal, for whoever holds them, and guards judge
    them as they judge any. It knows of no task types: a guard that is `strict` has nothing to refuse at its start.
    """

    def __init__(self) -> None:
        self.socket = ""  # the path, within the block
        self._key = SigningKey.from_private("test", ec.generate_private_key(ec.SECP256R1()))
        self._issued: dict[str, _Issued] = {}
        self._followers: set[asyncio.Queue[pb.TaskFeed]] = set()
        self._portal: Portal
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.socket = str(Path(stack.enter_context(TemporaryDirectory(prefix="sojourn-")), "agent.sock"))
            self._portal = Portal()
            stack.callback(self._portal.close)
            stack.enter_context(self._portal.inside(self._serving()))
            stack.enter_context(_named(self.socket))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def token(
        self,
        resource: str,
        actions: Sequence[str],
        *,
        params: Mapping[str, str | int | bool] | None = None,
        bind: Mapping[str, Sequence[str]] | None = None,
        limits: Mapping[str, int] | None = None,
        person: Mapping[str, Any] | None = None,
        approved: bool = False,
        workload: str = WORKLOAD,
    ) -> AccessToken:
        """A token of a task of its own, of `workload`, for `actions` at `resource`, which is the service's audience.

        `params` are the task's, each of its type: 2500 is a `long`, and "42" a `string`. `bind` and `limits` are what
        the task's type has under these names: which parameters concern an action, else all do, and how often it may be
        done. `person` is whom the task is for, with what `token.person` has: `issuer` and `subject` at least.
        `approved`: somebody has approved the task. Raise InvalidInput.
        """
        now = datetime.now(UTC)
        bound = {action: tuple(names) for action, names in (bind or {}).items()}
        asks = tuple(action for action in actions if action in (limits or {}))
        told = tokens.issue(
            self._key,
            issuer=_ISSUER,
            spiffe_id=SpiffeId.parse(workload),
            grant=Grant.parse(resource, actions),
            task=TaskClaim(f"tsk_test-{len(self._issued)}", "test", 1, NORMAL, bound, asks, approved),
            issued_at=now,
            expires_at=now + _GOOD_FOR,
            params=params,
            person=None if person is None else PersonClaims(**person),
        )
        self._issued[told.token] = _Issued(told, dict(limits or {}))
        return AccessToken(told.token, resource, tuple(actions), told.expires_at)

    def end(self, token: AccessToken, reason: str = "completed: success") -> None:
        """End the task of a token: the next request with it is refused, and answers that go on end soon after."""
        issued = self._issued[token.token]
        issued.over = reason
        state = pb.TaskState(id=issued.told.task_id, version=issued.told.task_version, reason=reason)

        async def tell() -> None:
            for follower in self._followers:
                follower.put_nowait(pb.TaskFeed(delta=pb.Delta(tasks=[state]), epoch=1))

        self._portal.run(tell())

    # --- what a guard asks ---

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        server = grpc.aio.server()
        methods = {
            "WatchTasks": _handler(self._watch, pb.WatchTasksRequest, grpc.unary_stream_rpc_method_handler),
            "ValidateToken": _handler(self._validate, pb.ValidateTokenRequest),
            "ReportUse": _handler(_answering(pb.ReportUseResponse), pb.ReportUseRequest),
            "ReportRefusals": _handler(_answering(pb.ReportRefusalsResponse), pb.ReportRefusalsRequest),
            "DescribeAudience": _handler(_answering(pb.DescribeAudienceResponse), pb.DescribeAudienceRequest),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("sojourn.v1.Validation", methods),))
        server.add_insecure_port(f"unix:{self.socket}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)

    async def _watch(self, _request: pb.WatchTasksRequest, _context: Any) -> AsyncIterator[pb.TaskFeed]:
        """No task is in the snapshot, so that guards ask about each token; of an end they hear while answers go on."""
        news: asyncio.Queue[pb.TaskFeed] = asyncio.Queue()
        self._followers.add(news)
        try:
            keys = json.dumps({"keys": [dict(self._key.public.jwk)]}).encode()
            yield pb.TaskFeed(snapshot=pb.Snapshot(), epoch=1, issuer=_ISSUER, keys=keys)
            while True:
                try:
                    yield await asyncio.wait_for(news.get(), HEARTBEAT_SECONDS)
                except TimeoutError:
                    yield pb.TaskFeed(heartbeat=pb.Heartbeat(), epoch=1)
        finally:
            self._followers.discard(news)

    async def _validate(self, request: pb.ValidateTokenRequest, _context: Any) -> pb.ValidateTokenResponse:
        issued = self._issued.get(request.token)
        if issued is None or issued.told.resource != request.audience:
            return _no("invalid_token", "the token is none that this agent gave for this service")
        if issued.over:
            return _no("task_over", f"the task is over: {issued.over}")
        times = request.served.times or 1
        if request.use and request.action in issued.left:
            if issued.left[request.action] < times:
                return _no(ActionUsedUp.code, f"the action {request.action!r} is used up")
            issued.left[request.action] -= times
        return pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK, times=times)


@dataclass(slots=True)
class _Issued:
    """A token, and the state of its task."""

    told: tokens.TaskToken
    left: dict[str, int]  # uses of the actions that are limited
    over: str = ""  # why the task is over


def _no(code: str, reason: str) -> pb.ValidateTokenResponse:
    return pb.ValidateTokenResponse(valid=False, code=code, reason=reason)


def _answering(answer: Callable[[], Any]) -> Callable[[Any, Any], Any]:
    async def answered(_request: Any, _context: Any) -> Any:
        return answer()

    return answered


def _handler(method: Any, request: Any, kind: Any = grpc.unary_unary_rpc_method_handler) -> Any:
    return kind(method, request.FromString, lambda answer: answer.SerializeToString())


@contextmanager
def _named(socket: str) -> Iterator[None]:
    """Within the block the environment names the socket."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = socket
    try:
        yield
    finally:
        del os.environ[_VARIABLE]
        if before is not None:
            os.environ[_VARIABLE] = before
