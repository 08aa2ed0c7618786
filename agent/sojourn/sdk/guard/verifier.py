"""Is a task token good, at this service, now?"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Self

from sojourn.errors import InvalidToken
from sojourn.errors.oauth import ActionUsedUp, WrongParams
from sojourn.jose.jws import UnverifiedJws, VerifiedClaims, parse_unverified
from sojourn.jose.signatures import Signatures
from sojourn.limits import HEARTBEAT_SECONDS
from sojourn.sdk.client.validation import Agent, describe_audience
from sojourn.sdk.guard.person_check import REFUSED, Taking, check_person
from sojourn.sdk.guard.refusals import Refusals, RefusedRequest
from sojourn.sdk.guard.routes import Action
from sojourn.sdk.guard.task_feed import TaskFeed, TaskKnown
from sojourn.sdk.guard.use_reports import UseReporter
from sojourn.tasktoken import tokens
from sojourn.tasktoken.checks import check_action, check_concerning, check_digest, check_params
from sojourn.tasktoken.end_reasons import ASKER_ENDED, HOLDER_EXITED, with_explanation
from sojourn.tasktoken.request_record import NOTHING_SAID, Served, compared
from sojourn.tasktoken.sender_constraint import UNPROVEN, Proven, Sender
from sojourn.tasktoken.task_claim import NORMAL, class_of
from sojourn.tasktoken.tokens import TaskToken

ASK_SECONDS: Final = 2.0
ASKED_AT_ONCE: Final = 32  # anybody may send a token that we know nothing of
COME_BACK_SECONDS: Final = 1.0  # for a feed that is begun anew, as over TCP when the caller's SVID has ended


class TaskVerifier:
    """Verifies task tokens for one audience, for use as `async with TaskVerifier(client, audience) as verifier`.

    Most tokens are judged here, from keys and the feed of live tasks. What the feed does not settle (an unknown task,
    or a silent feed) is put to the agent once. Under a silent feed a token of class `high`, or of no class that is
    known, is refused instead. Whatever goes wrong is a refusal. A valid token's `actor` is who presents it, and
    `subject` on whose behalf that is: the `person`, or the workload `spiffe_id`.
    """

    def __init__(
        self,
        client: Agent,
        audience: str,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        feed: TaskFeed | None = None,
    ) -> None:
        self.audience = audience
        self.feed = feed or TaskFeed(client, [audience])
        self._owns_feed = feed is None
        self._client = client
        self._now = now
        self._asking = asyncio.Semaphore(ASKED_AT_ONCE)
        self._reports = UseReporter(client)
        self._refusals = Refusals(client, audience)
        self._unhook: Callable[[], None] = lambda: None
        self._signatures = Signatures()

    async def __aenter__(self) -> Self:
        if self._owns_feed:
            await self.feed.__aenter__()
        await self._reports.__aenter__()
        await self._refusals.__aenter__()
        self._unhook = self.feed.on_news(self._reports.heard)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unhook()
        await self._reports.__aexit__()
        await self._refusals.__aexit__()
        if self._owns_feed:
            await self.feed.close()

    @property
    def issuer(self) -> str:
        """Whose tokens they are; '' until the feed has said so."""
        return self.feed.issuer

    async def types_in_force(self) -> Mapping[str, Mapping[str, Sequence[str]]]:
        """The types whose tasks have tokens for this audience: type -> action -> the parameters that concern it.

        Raise a SojournError.
        """
        return await describe_audience(self._client.connection, self.audience, ASK_SECONDS)

    async def verify(
        self,
        token: str,
        action: str | None = None,
        *,
        proven: Proven = UNPROVEN,
        params: Mapping[str, object] | None = None,
        unchecked: Collection[str] = (),
        params_digest: str = "",
        person: Taking = REFUSED,
    ) -> TaskToken:
        """Return a token that is good now, for `action` and for what is asked.

        `proven` is what its sender has been found to hold, `params` the request's, and `params_digest` the request's
        digest (tasks.bound), without which a token for one request is refused. A token that is good once is used up.
        `unchecked` are parameters that such a request does not have. `person`: whether it may be for a person; whoever
        takes it then looks at `TaskToken.person`. Raise InvalidToken if it is not good, and if it is not for this
        PersonRefused, ActionNotAllowed, WrongParams, or ParamNotBound: for a parameter of its task that concerns the
        action, and that `params` do not have.
        """
        verified = await self.examine(token, proven)
        check_person(verified, Action(action or "", person=person), REFUSED, self._now().timestamp())
        if action is not None:
            check_action(verified, action)
            check_concerning(verified, action, params or {}, unchecked)
        elif verified.asks:
            raise WrongParams("token has an action whose uses are counted, and nobody says for which action it is used")
        else:
            check_params(verified, params or {})
        check_digest(verified, params_digest)
        served = Served.of(action or "", "", "", compared(verified, params or {}))
        await self.use(verified, action, proven, served)
        return verified

    async def examine(self, token: str, proven: Proven = UNPROVEN) -> TaskToken:
        """Return a token that is good now, for whatever and whomever it is; it is not used by that.

        Raise InvalidToken.
        """
        try:
            return await self._judge(token, proven)
        except InvalidToken:
            raise
        except Exception as error:
            raise InvalidToken("token cannot be verified now", reason_code="unavailable", detail=str(error)) from error

    def check_digest(self, verified: TaskToken, params_digest: str) -> None:
        """Raise WrongParams for a token that is for another request than that of the digest."""
        check_digest(verified, params_digest)

    async def use(
        self, verified: TaskToken, action: str | None, proven: Proven = UNPROVEN, served: Served = NOTHING_SAID
    ) -> None:
        """Let a request through with a token that was examined and fits. `action` None: it is for none of the task's.

        Raise InvalidToken if it was good once and was used, ActionUsedUp if the action is counted and was used up. What
        is `served` is recorded by the agent in both cases, before this returns.
        """
        if verified.task_class != NORMAL or action in verified.asks:
            try:
                await self._ask(verified.token, proven, action=action, use=True, served=served)
            except (InvalidToken, ActionUsedUp):
                raise
            except Exception as error:
                raise InvalidToken("token cannot be used now", reason_code="unavailable", detail=str(error)) from error
        if action is not None:
            self._reports.note(verified.token, action, verified.task_id)

    def refused(self, request: RefusedRequest) -> None:
        """A request was refused: the log says so at once, and the agent is told behind."""
        self._refusals.note(request)

    def over(self, token: TaskToken) -> str:
        """Why what began with a good token must end, by what is heard of its task; '' while it may go on.

        Where nothing is heard of a task, its token's own end is the end.
        """
        known = self.feed.lookup(token.task_id) if self.feed.fresh else None
        if known is None:
            over = tokens.has_expired(token, self._now(), self.feed.steady)
            return "nothing is heard of the task, and its token has expired" if over else ""
        if not known.live:
            return _not_live(known)
        return "" if token.task_version >= known.version else "the task has changed since its token was issued"

    async def wait_over(self, token: TaskToken) -> str:
        """Return why, when what began with a good token must end."""
        heard = False
        while not (why := self.over(token)):
            known = self.feed.fresh and self.feed.lookup(token.task_id) is not None
            if heard and self.feed.fresh and not known:  # an agent that was started anew does not know it any more
                return "the task is over: nothing is heard of it any more"
            heard = heard or known
            await self.feed.wait_news(token.task_id, HEARTBEAT_SECONDS)
        return why

    async def _judge(self, token: str, proven: Proven) -> TaskToken:
        if not self.feed.fresh:
            # Whoever writes another class into a token breaks its signature, and the agent finds that.
            if class_of(_task_token(token).unverified_claims) == NORMAL:
                return await self._ask(token, proven)
            if not await self.feed.comes_back(COME_BACK_SECONDS):
                raise InvalidToken(
                    "nothing was heard of live tasks for too long to accept a token of class high",
                    reason_code="stale_feed",
                ) from self.feed.error
        # A fresh feed has named every key of the agent: what another key signed is nobody's business but ours.
        verified = tokens.verify(
            token,
            keys=self.feed.keys,
            issuer=self.feed.issuer,
            audience=self.audience,
            now=self._now(),
            proven=proven,
            signatures=self._signatures,
            steady=self.feed.steady,
        )
        known = self.feed.lookup(verified.task_id)
        if known is None:  # perhaps newer than the last change that we heard of
            return await self._ask(token, proven)
        if not known.live:
            raise InvalidToken(_not_live(known), reason_code="task_over")
        if verified.task_version < known.version:
            raise InvalidToken("the task has changed since this token was issued", reason_code="superseded")
        return verified

    async def _ask(
        self,
        token: str,
        proven: Proven,
        *,
        action: str | None = None,
        use: bool = False,
        served: Served = NOTHING_SAID,
    ) -> TaskToken:
        unverified = _task_token(token)  # what is no token at all does not go out
        async with asyncio.timeout(ASK_SECONDS), self._asking:
            verdict = await self._client.validate_token(
                token,
                self.audience,
                action or "",
                sender=Sender(jkt=proven.jkt, x5t=proven.x5t),
                params_digest=_digest_named(unverified),
                use=use,
                served=served,
                no_action=use and action is None,
                deadline_seconds=ASK_SECONDS,
            )
        if verdict.code == ActionUsedUp.code:
            raise ActionUsedUp(verdict.reason)
        if not verdict.valid:
            raise InvalidToken(
                verdict.reason or "the agent says that the token is not good",
                reason_code=verdict.code or "invalid_token",
            )
        if verdict.kind != "task":
            raise InvalidToken("token is not a task token", reason_code="wrong_type")
        if served.times > 1 and verdict.times != served.times:
            said = f"the request does its action {served.times} times, and the agent has counted another number"
            raise InvalidToken(said, reason_code="unavailable")
        # What the agent vouches for is checked here all the same, as far as that goes.
        claims = VerifiedClaims(unverified.unverified_claims)
        return tokens.read_vouched(token, claims, self.audience, self._now(), proven)


def _not_live(known: TaskKnown) -> str:
    what = "the task is not active" if known.suspended else "the task is over"
    # The feed does not say how a task was held. Most that end so were never meant to: a token in a pipe.
    because = ASKER_ENDED if known.reason.endswith(f": {HOLDER_EXITED}") else ""
    return f"{what}: {with_explanation(known.reason, because) or 'no reason given'}"


def _task_token(token: str) -> UnverifiedJws:
    """Parse what should be a task token. Raise InvalidToken if it cannot be one."""
    unverified = parse_unverified(token)
    if unverified.typ != tokens.TYP:
        raise InvalidToken("token is not a task token", reason_code="wrong_type")
    return unverified


def _digest_named(unverified: UnverifiedJws) -> str:
    """The digest that a token names: the agent is to say whether the token is good, not whether the request fits."""
    details = unverified.unverified_claims.get("authorization_details")
    first = details[0] if isinstance(details, list) and details else None
    digest = first.get("params_digest") if isinstance(first, dict) else None
    return digest if isinstance(digest, str) else ""
