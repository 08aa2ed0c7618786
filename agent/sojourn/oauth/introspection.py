"""Introspection (RFC 7662): what clients may know of a token."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.errors import SojournError, TaskOver
from sojourn.identity.entries import Entry
from sojourn.identity.identities import Identities
from sojourn.jose.jws import UnverifiedJws, audiences
from sojourn.oauth.client_auth import OAuthClient
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.token_query import TokenQuery
from sojourn.runtime.clock import Clock
from sojourn.tasks.engine import TaskEngine
from sojourn.tasktoken import tokens
from sojourn.tasktoken.tokens import TaskToken

INTROSPECTION_TYP: Final = "token-introspection+jwt"  # RFC 9701, 5
INACTIVE: Final[Mapping[str, Any]] = {"active": False}
_OF_TOKEN = (
    "iss",
    "sub",
    "sub_id",
    "person",
    "client_id",
    "aud",
    "iat",
    "nbf",
    "exp",
    "jti",
    "authorization_details",
    "task",
    "cnf",
    "act",
    "auth_time",
    "acr",
    "amr",
)
_OF_SVID = ("iss", "sub", "aud", "iat", "nbf", "exp", "jti")


class Introspection:
    """Tells of tokens to clients that have authenticated."""

    def __init__(
        self,
        engine: TaskEngine,
        audiences_: Audiences,
        identities: Identities,
        was_used: Callable[[TaskToken], bool],
        clock: Clock,
    ) -> None:
        """`was_used`: of a token that is good once."""
        self._was_used = was_used
        self._engine = engine
        self._audiences = audiences_
        self._identities = identities
        self._clock = clock

    def introspect(self, client: OAuthClient, query: TokenQuery) -> Mapping[str, Any]:
        """The answer of RFC 7662, 2.2: INACTIVE for whoever is neither holder nor audience. Never raises."""
        try:
            unverified = self._engine.issuing.signatures.parse_unverified(query.unverified_token)
            if unverified.typ != tokens.TYP:
                return self._of_jwt_svid(client, unverified)
            token = self._engine.issuing.read(unverified)
        except SojournError:
            return INACTIVE
        is_audience = self._audiences.serves(client.entries, token.resource)
        if not is_audience and not client.has(token.actor):
            return INACTIVE
        try:
            if self._engine.issuing.has_expired(token):
                raise TaskOver("the token has expired")
            if self._was_used(token):
                raise TaskOver("the token was good once, and was used")
            self._engine.check_token(token)
        except SojournError:
            return {**INACTIVE, "task_state": self._state(token)} if is_audience else INACTIVE
        actions = [action for action in token.actions if action not in token.asks]
        if not actions:  # nobody may act on this answer: of each use the agent itself must be asked
            return {**INACTIVE, "task_state": self._state(token)} if is_audience else INACTIVE
        claims = {name: token.claims[name] for name in _OF_TOKEN if name in token.claims}
        if token.asks:
            claims["authorization_details"] = [{**claims["authorization_details"][0], "actions": actions}]
        return {"active": True, "scope": " ".join(actions), "token_type": token.token_type, **claims}

    def signed(self, client: OAuthClient, answer: Mapping[str, Any]) -> str:
        """The answer as a JWT for this client alone (RFC 9701, 5)."""
        claims = {
            "iss": self._engine.issuer,
            "aud": str(client.identities[0]),
            "iat": int(self._clock.now().timestamp()),
            "token_introspection": dict(answer),
        }
        return self._engine.keys.active.sign(claims, typ=INTROSPECTION_TYP)

    def _of_jwt_svid(self, client: OAuthClient, unverified: UnverifiedJws) -> Mapping[str, Any]:
        """What a JWT-SVID says, to its own subject and to its audience. Raises InvalidToken."""
        named = audiences(unverified.unverified_claims)
        ours = [each for each in named if self._is_audience(client.entries, each)]
        svid = self._identities.verify_jwt_svid(unverified.text, ours or named, client.entries)
        if not ours and not client.has(svid.spiffe_id):
            return INACTIVE
        if svid.expires_at <= self._clock.now():
            return INACTIVE
        claims = {name: svid.claims[name] for name in _OF_SVID if name in svid.claims}
        return {"active": True, "token_type": "N_A", "client_id": str(svid.spiffe_id), **claims}

    def _is_audience(self, entries: tuple[Entry, ...], audience: str) -> bool:
        """A workload is the audience of what names it, or a resource that it serves."""
        return any(str(entry.spiffe_id) == audience for entry in entries) or self._audiences.serves(entries, audience)

    def _state(self, token: TaskToken) -> str:
        """What has become of the task of a token that its audience was given."""
        task = self._engine.tasks.find(token.task_id)
        return task.state if task is not None else "ended"
