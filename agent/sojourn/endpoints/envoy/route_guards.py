"""May a request pass that an Envoy asks about? Judged as by a service's own guard, but with nobody to ask for it."""

from collections.abc import Awaitable, Callable
from functools import lru_cache

from sojourn.endpoints.envoy.check_request import Ruling
from sojourn.errors import InvalidToken, TaskOver
from sojourn.limits import ENVOY_ROUTES_KEPT
from sojourn.oauth.validation import TokenValidation
from sojourn.runtime.clock import Clock
from sojourn.sdk.guard.challenges import GuardAnswer
from sojourn.sdk.guard.guard import Guard, HttpRequest
from sojourn.sdk.guard.param_places import ParamPlace, parse_places
from sojourn.sdk.guard.refusals import RefusedRequest
from sojourn.sdk.guard.routes import Action, Actions
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.refusal_reports import RefusalCounts
from sojourn.tasktoken.checks import check_digest
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.sender_constraint import UNPROVEN, Proven
from sojourn.tasktoken.task_claim import APPROVED
from sojourn.tasktoken.tokens import TaskToken

BY_ENVOY = "envoy"  # who told of a refusal, in records


class RouteGuards:
    """Has a guard for each route that Envoys have named lately."""

    def __init__(self, judging: TokenValidation, engine: TaskEngine, clock: Clock, refusals: RefusalCounts) -> None:
        self._judging = judging
        self._refusals = refusals
        self._engine = engine
        self._clock = clock
        self._guard = lru_cache(ENVOY_ROUTES_KEPT)(self._make)

    async def judge(
        self, ruling: Ruling, request: HttpRequest, content: Callable[[], Awaitable[bytes]]
    ) -> TaskToken | GuardAnswer:
        """Return the token under which a request may pass, or what is answered in the service's place.

        Raise InvalidInput for a ruling that is none.
        """
        return await self._guard(ruling).check(request, content)

    def _make(self, ruling: Ruling) -> Guard:
        return Guard(
            _Verifier(self._judging, self._engine, self._refusals, ruling),
            _actions(ruling),
            base_url=ruling.base_url or None,
            now=self._clock.now,
            replays=self._judging.replays,  # one for all routes, and for all who ask: a proof is good once
            hint=_hint,
        )


def _actions(ruling: Ruling) -> Actions:
    acr = APPROVED if ruling.approved else ""
    action = Action(
        ruling.action,
        parse_places(ruling.params),
        acr,
        unchecked=ruling.unchecked,
        person=ruling.person,
        person_params=dict(ruling.person_params),
        acr_values=ruling.acr_values,
        max_age=ruling.max_age,
    )
    if ruling.route:
        return {ruling.route: action}
    return lambda _method, _path: action if ruling.action else None


def _hint(action: str, name: str, place: ParamPlace) -> str:
    del action
    said = f"sojourn.params: {name[:64]} = {place.of(name)}"
    return f"map it in the route's context extensions, as {said}, or say sojourn.unchecked: requests do not have it"


class _Verifier:
    """What a service's verifier learns by its feed, the agent knows."""

    def __init__(self, judging: TokenValidation, engine: TaskEngine, refusals: RefusalCounts, ruling: Ruling) -> None:
        self._refusals = refusals
        self.audience = ruling.audience
        self._judging = judging
        self._engine = engine

    @property
    def issuer(self) -> str:
        return self._engine.issuer

    async def examine(self, token: str, proven: Proven = UNPROVEN) -> TaskToken:
        """See TaskVerifier."""
        try:
            return self._judging.examine(token, self.audience, proven)
        except TaskOver as error:
            raise InvalidToken(error.public, reason_code="task_over") from error

    def check_digest(self, verified: TaskToken, params_digest: str) -> None:
        """See TaskVerifier."""
        check_digest(verified, params_digest)

    def refused(self, request: RefusedRequest) -> None:
        """See TaskVerifier. The Envoy is the service to whoever reads of it."""
        shown = request.token.token if request.token is not None else request.unverified_token
        task = self._judging.task_of(shown) if shown else None
        if task is None:
            self._refusals.count(BY_ENVOY, self.audience, request.code, 1)
        else:
            self._refusals.note(BY_ENVOY, self.audience, task, request.code, request.request, 1)

    async def use(
        self, verified: TaskToken, action: str | None, proven: Proven = UNPROVEN, served: Served = NOTHING_SAID
    ) -> None:
        """See TaskVerifier. A call that is one too many for the task ends it, and does not pass."""
        del proven  # examined just now
        task = self._engine.tasks.find(verified.task_id)
        if task is None:
            raise InvalidToken("the task is over", reason_code="task_over")
        try:
            await self._judging.use(verified, action, served)
            if action is not None:
                self._judging.uses.passed(task, self.audience, action)
        except TaskOver as error:
            raise InvalidToken(error.public, reason_code="task_over") from error
