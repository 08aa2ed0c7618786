"""Having an agent judge a token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict, Unpack

from google.protobuf import json_format

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.errors import InvalidToken
from sojourn.errors.oauth import ActionUsedUp
from sojourn.jose.jws import parse_unverified
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.person_claims import PERSON, PersonClaims
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.sender_constraint import JKT, X5T, Sender

if TYPE_CHECKING:
    from sojourn.sdk.client.connection import AgentConnection  # grpcio comes with it, which the agent does without

_KINDS: Final = {pb.TOKEN_KIND_JWT_SVID: "jwt_svid", pb.TOKEN_KIND_TASK: "task"}


@dataclass(frozen=True, slots=True)
class TokenVerdict:
    """The agent's word on a token. `code` (stable) and `reason` (one sentence) say why it is not valid.

    The subject, on whose behalf something is done, is the `person`, or the workload `spiffe_id`: one of them is None.
    `actors` do it, if it is a person's or the task was handed on.
    """

    valid: bool
    code: str
    reason: str
    kind: str  # jwt_svid | task | empty: could not be told
    spiffe_id: SpiffeId | None
    claims: Mapping[str, Any]
    actors: tuple[SpiffeId, ...] = ()  # who presents the token first, then those before it
    dpop_nonce: str = ""  # that the sender's next proof must have, if that is what was missing
    person: PersonClaims | None = None
    times: int = 0  # with `use`: so many uses were counted, if the action's are

    @property
    def actor(self) -> SpiffeId | None:
        """Whose task the token is of: the subject itself, unless that is a person or handed the task on."""
        return self.actors[0] if self.actors else self.spiffe_id


class ValidateOptions(TypedDict, total=False):
    """The options of `validate_token`."""

    sender: Sender | None  # None: nothing is known of it, and a token that is bound is refused
    params_digest: str  # of the request (tasks.bound): a token for one request is refused without
    use: bool  # the request is about to be served: a token that is good once is used up, and a limited action counted
    no_action: bool  # with `use`: it is served for no action of the task's
    served: Served  # with `use`: that request, for the record
    deadline_seconds: float | None


class Agent(Protocol):
    """An agent that tells which tasks live and judges tokens: this machine's (Client), or another's (RemoteAgent)."""

    @property
    def connection(self) -> "AgentConnection": ...

    async def validate_token(
        self, token: str, audience: str, action: str = "", **options: Unpack[ValidateOptions]
    ) -> TokenVerdict: ...


async def validate_token(
    connection: "AgentConnection", token: str, audience: str, action: str, **options: Unpack[ValidateOptions]
) -> TokenVerdict:
    """Ask the agent. Raise a SojournError; a token that is not good is a verdict."""
    request = pb.ValidateTokenRequest(
        token=token,
        audience=audience,
        action=action,
        sender=_sender(options.get("sender")),
        params_digest=options.get("params_digest", ""),
        use=options.get("use", False),
        served=served_message(options["served"]) if options.get("served", NOTHING_SAID) != NOTHING_SAID else None,
        no_action=options.get("no_action", False),
    )
    answer = await connection.unary(
        "/sojourn.v1.Validation/ValidateToken", request, pb.ValidateTokenResponse, options.get("deadline_seconds")
    )
    return TokenVerdict(
        answer.valid,
        answer.code,
        answer.reason,
        _KINDS.get(answer.kind, ""),
        SpiffeId.parse(answer.spiffe_id) if answer.spiffe_id else None,
        json_format.MessageToDict(answer.claims),
        tuple(SpiffeId.parse(each) for each in answer.actors),
        answer.dpop_nonce,
        _person(answer, token) if answer.HasField("person") else None,
        answer.times,
    )


def _person(answer: pb.ValidateTokenResponse, token: str) -> PersonClaims:
    person = answer.person
    prefix = str(answer.claims["sub"]).removesuffix(person.subject) if "sub" in answer.claims else ""
    login = (person.auth_time, person.acr, tuple(person.amr))
    told = PersonClaims(person.issuer, person.subject, *login, prefix=prefix)
    if PERSON not in answer.claims:
        return told
    # The token itself is read, which the agent has found good: numbers of its answer are doubles.
    read = PersonClaims.read(parse_unverified(token).unverified_claims)
    return told if read is None else told._replace(claims=read.claims)


async def describe_audience(
    connection: "AgentConnection", audience: str, deadline_seconds: float
) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """The task types in force that have tokens for an audience: type -> action -> the parameters that concern it.

    Raise a SojournError.
    """
    answer = await connection.unary(
        "/sojourn.v1.Validation/DescribeAudience",
        pb.DescribeAudienceRequest(audience=audience),
        pb.DescribeAudienceResponse,
        deadline_seconds,
    )
    return {kind.name: {each.name: tuple(each.params) for each in kind.actions} for kind in answer.types}


async def use_here(agent: Agent, token: str, resource: str, action: str, params_digest: str) -> None:
    """Have a use of a token counted, if the agent counts those of its action. Raise ActionUsedUp or InvalidToken."""
    claims = parse_unverified(token).unverified_claims  # the agent has just given it, and reads it itself
    if action not in claims["task"].get("asks", ()):
        return
    cnf = claims.get("cnf", {})
    sender = Sender(jkt=cnf.get(JKT, ""), x5t=cnf.get(X5T, ""))
    verdict = await agent.validate_token(token, resource, action, sender=sender, params_digest=params_digest, use=True)
    if verdict.code == ActionUsedUp.code:
        raise ActionUsedUp(verdict.reason)
    if not verdict.valid:
        raise InvalidToken(verdict.reason, reason_code=verdict.code or "invalid_token")


def _sender(sender: Sender | None) -> pb.Sender | None:
    if sender is None:
        return None
    return pb.Sender(
        dpop_proof=sender.dpop_proof,
        method=sender.method,
        url=sender.url,
        client_certificate=sender.client_certificate,
        jkt=sender.jkt,
        x5t=sender.x5t,
    )


def served_message(served: Served) -> pb.Served:
    return pb.Served(
        action=served.action,
        method=served.method,
        target=served.target,
        compared=served.compared,
        unchecked=served.unchecked,
        times=served.times if served.times > 1 else 0,
    )
