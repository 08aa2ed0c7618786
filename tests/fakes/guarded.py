"""An agent in a thread of its own for guards of all kinds, and tokens of every sort that it vouches for."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from fakes.fake_agent import ScriptedAgent
from fakes.task_feed import AUDIENCE, HOLDER, ISSUER, delta, heartbeat, live, over, signing_key, snapshot
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.jose.jws import parse_unverified
from sojourn.sdk.client.loop_thread import Portal
from sojourn.tasktoken import dpop, sender_constraint, tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.task_claim import TaskClaim

KEY = signing_key()
HELD = signing_key("held")  # the key that a client proves to hold


class Agent(ScriptedAgent):
    """Knows the tasks t1, which lives, and gone, which is over. Lets each token be used once, where that is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()
        self.reported: list[pb.TokenUse] = []
        self.refused: list[pb.TokenRefusal | pb.OtherRefusals] = []
        self.served: list[pb.Served] = []
        self.ending = False  # of t1

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        more = {
            "ReportUse": self._one("ReportUse", pb.ReportUseRequest),
            "ReportRefusals": self._one("ReportRefusals", pb.ReportRefusalsRequest),
            "DescribeAudience": self._one("DescribeAudience", pb.DescribeAudienceRequest),
        }
        return (grpc.method_handlers_generic_handler("sojourn.v1.Validation", more), *super().handlers())

    async def _stream(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        if method != "WatchTasks":
            async for message in super()._stream(method, request, context):
                yield message
            return
        yield snapshot([KEY], live("t1", 5), over("gone"))
        while True:
            await asyncio.sleep(0.1)
            yield delta(over("t1", 6)) if self.ending else heartbeat()

    async def _unary(self, method: str, request: Any, context: Any) -> Any:
        if method == "ReportUse":
            self.reported += request.uses
            return pb.ReportUseResponse(counted=len(request.uses))
        if method == "ReportRefusals":
            self.refused += [*request.refusals, *request.others]
            return pb.ReportRefusalsResponse()
        if method == "DescribeAudience":
            return pb.DescribeAudienceResponse()
        if method != "ValidateToken":
            return await super()._unary(method, request, context)
        claims = parse_unverified(request.token).unverified_claims
        if claims["task"]["id"] != "t1":
            return pb.ValidateTokenResponse(valid=False, code="task_over", reason="the task is over")
        if request.use and claims["jti"] in self.used:
            return pb.ValidateTokenResponse(valid=False, code="replayed", reason="the token was used before")
        if request.use:
            self.served.append(request.served)
            self.used.add(claims["jti"])
        return pb.ValidateTokenResponse(valid=True, kind=pb.TOKEN_KIND_TASK, spiffe_id=str(HOLDER))


@contextmanager
def agent_at(path: Path) -> Iterator[Agent]:
    """A running agent at a socket."""
    portal = Portal()
    try:
        agent = Agent()
        with portal.inside(agent.serve(path)):
            yield agent
    finally:
        portal.close()


def token(
    *,
    task: str = "t1",
    actions: tuple[str, ...] = ("ticket:read",),
    params: Mapping[str, str | int | bool] | None = None,
    digest: str = "",
    bound: bool = False,
    x5t: str = "",
    high: bool = False,
    asks: tuple[str, ...] = (),
    person: PersonClaims | None = None,
    approved: bool = False,
    also: tuple[str, ...] = (),
) -> str:
    """A token for AUDIENCE, by default for ticket 42."""
    now = datetime.now(UTC)
    binding = sender_constraint.Binding("jkt", HELD.public.thumbprint) if bound else None
    if x5t:
        binding = sender_constraint.Binding("x5t#S256", x5t)
    return tokens.issue(
        KEY,
        issuer=ISSUER,
        spiffe_id=HOLDER,
        grant=Grant.parse(AUDIENCE, actions),
        task=TaskClaim(task, "triage-ticket", 5, "high" if high else "normal", asks=asks, approved=approved, also=also),
        issued_at=now,
        expires_at=now + timedelta(seconds=15),
        params={"ticket": "42"} if params is None else params,
        params_digest=digest,
        binding=binding,
        person=person,
    ).token


@dataclass(frozen=True)
class Outcome:
    """What a call came to. `status` as HTTP has it, `said` what the service made of the token, `error` why not."""

    status: int
    said: str = ""
    error: str = ""
    challenges: tuple[str, ...] = ()
    nonce: str = ""


@dataclass(frozen=True)
class Credentials:
    """What goes with a call."""

    headers: list[tuple[str, str]] = field(default_factory=list)

    @classmethod
    def bearer(cls, text: str) -> "Credentials":
        return cls([("authorization", f"Bearer {text}")])

    @classmethod
    def proved(cls, text: str, url: str, nonce: str = "", *, method: str = "POST") -> "Credentials":
        proof = dpop.make(HELD, method=method, url=url, now=datetime.now(UTC), token=text, nonce=nonce or None)
        return cls([("authorization", f"DPoP {text}"), ("dpop", proof)])
