"""Having an agent judge a token."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf import json_format

from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.sdk.connection import Connection
from sojourn.spiffe.ids import SpiffeId

_KINDS: Final = {pb.TOKEN_KIND_JWT_SVID: "jwt_svid", pb.TOKEN_KIND_TASK: "task"}


@dataclass(frozen=True, slots=True)
class TokenVerdict:
    """The agent's word on a token. `code` (stable) and `reason` (one sentence) say why it is not valid.

    `spiffe_id` is the subject, on whose behalf something is done; `actors` do it, if the task was handed on.
    """

    valid: bool
    code: str
    reason: str
    kind: str  # jwt_svid | task | empty: could not be told
    spiffe_id: SpiffeId | None
    claims: Mapping[str, Any]
    actors: tuple[SpiffeId, ...] = ()  # who presents the token first, then those before it

    @property
    def actor(self) -> SpiffeId | None:
        """Whose task the token is of: the subject itself, unless it handed the task on."""
        return self.actors[0] if self.actors else self.spiffe_id


class Agent(Protocol):
    """An agent that tells which tasks live and judges tokens: this machine's (Client), or another's (RemoteAgent)."""

    @property
    def connection(self) -> Connection: ...

    async def validate_token(
        self, token: str, audience: str, action: str = "", *, deadline_seconds: float | None = None
    ) -> TokenVerdict: ...


async def validate_token(
    connection: Connection, token: str, audience: str, action: str, deadline_seconds: float | None
) -> TokenVerdict:
    """Ask the agent. Raise a SojournError; a token that is not good is a verdict."""
    request = pb.ValidateTokenRequest(token=token, audience=audience, action=action)
    answer = await connection.unary(
        "/sojourn.v1.Validation/ValidateToken", request, pb.ValidateTokenResponse, deadline_seconds
    )
    return TokenVerdict(
        answer.valid,
        answer.code,
        answer.reason,
        _KINDS.get(answer.kind, ""),
        SpiffeId.parse(answer.spiffe_id) if answer.spiffe_id else None,
        json_format.MessageToDict(answer.claims),
        tuple(SpiffeId.parse(each) for each in answer.actors),
    )
