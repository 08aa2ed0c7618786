"""Envoy's external authorization (v3): services behind an Envoy are guarded without a line of code.

Each answer is an HTTP answer, never a gRPC error: an Envoy that is told to let requests through when we fail
(`failure_mode_allow`) must not have that happen because of what a request or a route says.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

import structlog
from prometheus_client import Counter as Metric

from sojourn._pb.envoy.config.core.v3 import base_pb2 as core
from sojourn._pb.envoy.service.auth.v3 import external_auth_pb2 as pb
from sojourn._pb.envoy.type.v3 import http_status_pb2
from sojourn._pb.google.rpc import status_pb2
from sojourn.endpoints.envoy.check_request import Ruling, content_of, read_request
from sojourn.endpoints.envoy.route_guards import RouteGuards
from sojourn.endpoints.grpc.calls import Call, Method
from sojourn.errors import SojournError
from sojourn.identity.identities import Identities
from sojourn.limits import REFUSALS_LOGGED_PER_SECOND
from sojourn.oauth.resource_servers import Audiences
from sojourn.quota.rate import Rate
from sojourn.sdk.guard.challenges import GuardAnswer, Refusal
from sojourn.sdk.guard.guard import HttpRequest
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.tokens import TaskToken

log = structlog.get_logger()
SERVICE: Final = pb.DESCRIPTOR.services_by_name["Authorization"].full_name
CHECKS = Metric("sojourn_envoy_checks_total", "Requests that an Envoy asked about, by the answer's status.", ["status"])
PREFIX: Final = "x-sojourn-"  # ours alone: what a client sends of them never reaches the service
TOKEN_HEADERS: Final = ("authorization", "dpop")
# By these some services take another method or path than those that were judged; letters and dashes alone.
REROUTING: Final = frozenset(
    {"x-http-method", "x-http-method-override", "x-method-override", "x-original-method"}
    | {"x-original-url", "x-original-uri", "x-rewrite-url", "x-envoy-original-path"}
)
# Some services read an underscore in a name as a dash, and those that know headers as variables (CGI) a dot and others.
_NO_LETTER: Final = re.compile("[^a-z0-9]")
_PERMISSION_DENIED: Final = 7  # any gRPC status but OK makes it a denial
_UNABLE: Final = Refusal(503, "temporarily_unavailable", "the request cannot be authorized now")


class ExtAuthzApi:
    """Judges the requests of Envoys on this machine."""

    def __init__(self, guards: RouteGuards, identities: Identities, audiences: Audiences) -> None:
        self._guards = guards
        self._identities = identities
        self._audiences = audiences
        self._refusals = Rate(REFUSALS_LOGGED_PER_SECOND)

    def methods(self) -> dict[str, Method]:
        return {"Check": Method("unary", pb.CheckRequest, self.check)}

    async def check(self, call: Call, request: pb.CheckRequest) -> pb.CheckResponse:
        """Allow or deny. An Envoy that has no identity guards nothing, nor one in front of another's service."""
        said = request.attributes
        try:
            entries = await self._identities.of(call.peer)
            ruling = Ruling.read(said.context_extensions)
            self._audiences.check_serves([entry.spiffe_id for entry in entries], ruling.audience)
            asked = read_request(said)

            async def content() -> bytes:
                return content_of(said, ruling)

            verdict = await self._guards.judge(ruling, asked, content)
            answer = _allowed(verdict, ruling, asked) if isinstance(verdict, TaskToken) else _denied(verdict)
        except SojournError as error:
            self._log(call, error)
            answer = _denied(_UNABLE)
        except Exception:
            log.exception("envoy_check_failed", pid=call.peer.process.pid)
            answer = _denied(_UNABLE)
        CHECKS.labels(str(answer.denied_response.status.code or 200)).inc()
        return answer

    def _log(self, call: Call, error: SojournError) -> None:
        """Tell the Envoy's owner: its client learns no more than that it cannot be served."""
        if self._refusals.allow(call.peer.who):
            by = {"pid": call.peer.process.pid, "uid": call.peer.uid}
            log.warning("envoy_check_refused", **by, code=error.code, reason=error.public, detail=error.detail or None)


def _denied(answer: GuardAnswer) -> pb.CheckResponse:
    """To Envoy whatever is not let through is denied, also what a guard answers itself with a 200."""
    return pb.CheckResponse(
        status=status_pb2.Status(code=_PERMISSION_DENIED),
        denied_response=pb.DeniedHttpResponse(
            status=http_status_pb2.HttpStatus(code=answer.status),
            headers=_options(answer.headers()),
            body=answer.body().decode(),
        ),
    )


def _misleads(name: str) -> bool:
    """Whether a service could take a header of this name for one of ours, or for another request's line."""
    return name.startswith(PREFIX) or name in REROUTING


def _encoded(person: PersonClaims) -> str:
    """Issuer and subject as JSON in base64url: a header takes neither all characters, nor a bar between the two.

    With them the claims that the service may read, if its task type lets it read some.
    """
    whose = {"iss": person.issuer, "sub": person.subject} | ({"claims": person.listed()} if person.claims else {})
    said = json.dumps(whose, separators=(",", ":"), ensure_ascii=False)
    return urlsafe_b64encode(said.encode()).rstrip(b"=").decode()


def _allowed(token: TaskToken, ruling: Ruling, asked: HttpRequest) -> pb.CheckResponse:
    said = {
        "subject": str(token.spiffe_id),
        "actor": str(token.actor),
        "task": token.task_id,
        "task-type": token.task_type,
        "action": ruling.action,
        "params": json.dumps(dict(token.params), separators=(",", ":")),
        **({} if token.person is None else {"person": _encoded(token.person)}),
    }
    ours = {f"{PREFIX}{name}": value for name, value in said.items()}
    foreign = {name for name, _ in asked.headers if _misleads(_NO_LETTER.sub("-", name))} - set(ours)
    gone = foreign if ruling.keep_token else foreign | set(TOKEN_HEADERS)
    return pb.CheckResponse(
        status=status_pb2.Status(),
        ok_response=pb.OkHttpResponse(headers=_options(ours.items()), headers_to_remove=sorted(gone)),
    )


def _options(headers: Iterable[tuple[str, str]]) -> list[core.HeaderValueOption]:
    """The first of a name takes the place of whatever has that name; others of that name come behind."""
    seen: set[str] = set()
    options = []
    for name, value in headers:
        action = core.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
        if name in seen:
            action = core.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
        seen.add(name)
        options.append(core.HeaderValueOption(header=core.HeaderValue(key=name, value=value), append_action=action))
    return options
