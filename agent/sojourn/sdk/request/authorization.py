"""How a request gets its token and its proof, whatever library sends it.

`attach` is a generator of steps: whoever drives it asks the agent, reads content and sends, and hands it the outcome.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self

from sojourn.errors import InvalidToken, Refused, SojournError, TaskOver, TooLarge
from sojourn.errors.oauth import DigestNeeded, OutsideTask, SendAgain
from sojourn.limits import NONCES_KEPT, ONE_REQUEST_MAX_BYTES, TOKEN_RENEWED_SECONDS, TOKENS_KEPT
from sojourn.quota.lru import Lru
from sojourn.sdk.request import grant_match
from sojourn.sdk.request.flow import Flow
from sojourn.sdk.task.values import AccessToken, Outside, TaskPerson
from sojourn.tasktoken import dpop, request_digest
from sojourn.tasktoken.grants import Grant

AUTHORIZATION: Final = "Authorization"
DPOP: Final = "DPoP"
DPOP_NONCE: Final = "DPoP-Nonce"
CHALLENGE: Final = "WWW-Authenticate"
_UNAUTHORIZED: Final = 401
_FORBIDDEN: Final = 403
# By these a request comes back as it was sent (RFC 9110, 9.3.8), or goes on to somewhere else.
_TELLING: Final = frozenset({"TRACE", "TRACK", "CONNECT"})
_ERROR = re.compile(r'\berror="?([a-z_]+)"?')
_SCOPE = re.compile(r'\bscope="([^"\\]{1,1024})"')
_NONCE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,256}")  # RFC 9449, 8.1


class Holding(Protocol):
    """A task, as far as it concerns a request."""

    @property
    def type(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def ended(self) -> bool: ...
    @property
    def grants(self) -> tuple[Grant, ...]: ...
    @property
    def id(self) -> str: ...
    @property
    def status(self) -> "Versioned": ...


class Versioned(Protocol):
    """The status of a task, as far as it concerns its tokens."""

    @property
    def version(self) -> int: ...
    @property
    def outside(self) -> Sequence[Outside]: ...
    @property
    def person(self) -> TaskPerson | None: ...


@dataclass(frozen=True, slots=True)
class WantedRequest:
    """One request, as it will be sent. `actions`: what its token is for; none: all that the task may do there.

    `calls`: what it does, where method and path do not tell one request from another, as of MCP: the tool.
    """

    grant: Grant
    method: str
    url: str
    actions: tuple[str, ...] = ()
    bound: bool = True
    repeatable: bool = True
    calls: str = ""

    @property
    def target(self) -> str:
        place = grant_match.UrlPlace.parse(self.url)
        return place.target if place is not None and place.target.startswith("/") else "/"


# --- the steps, and what each is answered with ---


@dataclass(frozen=True, slots=True)
class AskToken:
    """Answer: an AccessToken. A `digest`: for this request alone."""

    resource: str
    actions: tuple[str, ...]
    bound: bool
    digest: str = ""


@dataclass(frozen=True, slots=True)
class AskProof:
    """Answer: the proof, a string."""

    method: str
    url: str
    token: str = field(repr=False)
    nonce: str | None


@dataclass(frozen=True, slots=True)
class ReadContent:
    """Answer: the whole content of the request, bytes."""


@dataclass(frozen=True, slots=True)
class Send:
    """Answer: an Answer. The request must be sent with these headers, and with none of their names beside them."""

    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What of a response decides whether the request is sent again."""

    status: int
    challenges: tuple[str, ...]  # each WWW-Authenticate header
    nonce: str | None  # the DPoP-Nonce header

    @classmethod
    def of(cls, status: int, challenges: Iterable[str], nonces: Sequence[str]) -> Self:
        """A nonce that came several times is none."""
        return cls(status, tuple(challenges), nonces[0] if len(nonces) == 1 else None)


Step = AskToken | AskProof | ReadContent | Send


class Shelf:
    """The tokens of a task that may be used again, and the nonces of its services. May be shared by threads."""

    def __init__(self, boot: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)) -> None:
        self._boot = boot
        self._kept: Lru[AskToken, tuple[AccessToken, int, float]] = Lru(TOKENS_KEPT, by_age=True)
        self._nonces: Lru[str, str] = Lru(NONCES_KEPT, by_age=True)
        self._for_one: set[tuple[str, tuple[str, ...]]] = set()
        self._lacking: Lru[tuple[str, str, str, str], tuple[str, ...]] = Lru(TOKENS_KEPT, by_age=True)
        self._lock = threading.Lock()

    def token(self, ask: AskToken, version: int) -> AccessToken | None:
        """One that was issued under this version of the task and is good for a while."""
        with self._lock:
            kept = self._kept.get(ask)
            if kept is None:
                return None
            token, issued_under, until = kept
            return token if issued_under == version and self._boot() < until else None

    def keep(self, ask: AskToken, token: AccessToken, version: int) -> None:
        """Keep a token that was issued just now; what is for one request alone is not kept."""
        if ask.digest:
            return
        left = (token.expires_at - datetime.now(UTC)).total_seconds()
        with self._lock:
            until = self._boot() + left - min(TOKEN_RENEWED_SECONDS, left / 4)
            self._kept.put(ask, (token, version, until))

    def drop(self, refused: AccessToken) -> None:
        """Forget a token that a service does not take any more."""
        with self._lock:
            self._kept.drop_if(lambda kept: kept[0] is refused)

    def nonce(self, resource: str) -> str | None:
        """What the service last asked for."""
        with self._lock:
            return self._nonces.get(resource)

    def keep_nonce(self, resource: str, nonce: str) -> None:
        with self._lock:
            self._nonces.put(resource, nonce)

    def for_one_request(self, resource: str, actions: tuple[str, ...]) -> bool:
        """Whether the agent gives tokens for these actions for single requests alone."""
        return (resource, actions) in self._for_one

    def note_one_request(self, resource: str, actions: tuple[str, ...]) -> None:
        self._for_one.add((resource, actions))

    def actions(self, wanted: WantedRequest) -> tuple[str, ...]:
        """What a request is for: what the service said of one like it, if its sender does not say."""
        with self._lock:
            return wanted.actions or self._lacking.get(_like(wanted)) or ()

    def forget_actions(self, wanted: WantedRequest) -> bool:
        """What the service said of one like it is of no use now. Return whether it had said anything."""
        with self._lock:
            return not wanted.actions and self._lacking.drop(_like(wanted)) is not None

    def note_actions(self, wanted: WantedRequest, actions: tuple[str, ...]) -> None:
        """The service said what requests like this one need."""
        with self._lock:
            self._lacking.put(_like(wanted), actions)


def want(
    task: Holding, method: str, url: str, actions: Iterable[str] = (), *, bound: bool = True, repeatable: bool = True
) -> WantedRequest:
    """What a request needs. Raise TaskOver, or OutsideTask if the task may not do this there."""
    check_live(task)
    named = tuple(sorted(set(actions)))
    grant = grant_match.find(task.grants, url)
    if grant is None:
        place = grant_match.UrlPlace.parse(url)
        raise OutsideTask(
            f"{place.origin if place else 'what this URL names'} is not within the task: it has no grant for this URL",
            resource=place.origin if place else "",
            actions=named or (method,),
        )
    check_actions(grant, named)
    return WantedRequest(grant, method, url, named, bound and is_ours(task, grant), repeatable)


def want_at(
    task: Holding,
    resource: str,
    method: str,
    url: str,
    actions: tuple[str, ...],
    *,
    bound: bool,
    repeatable: bool = True,
) -> WantedRequest:
    """The same for a request that says its resource itself. Raise TaskOver or OutsideTask."""
    check_live(task)
    grant = next((each for each in task.grants if each.resource == resource), None)
    if grant is None:
        raise OutsideTask(f"the task has no grant at {resource[:200]}", resource=resource)
    check_actions(grant, actions)
    return WantedRequest(grant, method, url, actions, bound and is_ours(task, grant), repeatable)


def is_ours(task: Holding, grant: Grant) -> bool:
    """Whether the agent itself gives the tokens for a grant: those of a provider outside are bound to nothing."""
    return all(each.resource != grant.resource for each in task.status.outside)


def check_live(task: Holding) -> None:
    if task.ended:
        raise TaskOver(f"task is {task.state}: {task.why or 'no reason given'}")


def check_actions(grant: Grant, actions: tuple[str, ...]) -> None:
    """Raise OutsideTask if one of the actions is none of the grant's."""
    for action in actions:
        if action not in grant.actions:
            raise OutsideTask(
                f"the task does not have the action {action[:128]!r} at {grant.resource}",
                resource=grant.resource,
                actions=actions,
            )


RequestFlow = Flow[Step, None]


def go_on(flow: RequestFlow, answer: Any = None) -> Step | None:
    """The next step, after this answer to the last one; None when the last answer of the service is the caller's."""
    try:
        return flow.send(answer)
    except StopIteration:
        return None


def go_on_without(flow: RequestFlow, error: SojournError) -> Step | None:
    """The next step, when the last one failed so. Raise the error if there is none."""
    try:
        return flow.throw(error)
    except StopIteration:
        return None


def attach(wanted: WantedRequest, shelf: Shelf, digest_of: Callable[[bytes], str] | None = None) -> RequestFlow:
    """Send a request with a token and its proof: again, once, with the nonce that the service asks for, once with a
    new token if the service takes the first one no more, and once with one for the action that the service says it
    needs, which is one of those that the agent gives no token for unless they are named. Ends when the last answer is
    the caller's. Raise SendAgain if the content cannot be had again, and OutsideTask for methods by which services tell
    what they were sent.

    `digest_of` is for calls that are judged by their meaning: the digest of a content, in the place of the request's.
    """
    resource = wanted.grant.resource
    if wanted.method.upper() in _TELLING:
        raise OutsideTask(
            f"a request by {wanted.method[:16]} has no token: it would be told to others",
            resource=resource,
            actions=(wanted.method,),
        )
    given_nonce = renewed = named = False
    while True:
        digest, actions = "", shelf.actions(wanted)
        for_one = shelf.for_one_request(resource, actions)
        if for_one:
            content = yield ReadContent()
            if len(content) > ONE_REQUEST_MAX_BYTES:
                raise TooLarge(f"a token is for this request alone, and it has more than {ONE_REQUEST_MAX_BYTES} bytes")
            digest = digest_of(content) if digest_of else request_digest.of_http(wanted.method, wanted.target, content)
        try:
            token: AccessToken = yield AskToken(resource, actions, wanted.bound, digest)
        except SojournError as error:
            if not for_one and DigestNeeded.code in {error.code, error.remote_code}:
                shelf.note_one_request(resource, actions)
                continue
            # What the service said of another request by this method and path need not hold for this one.
            if isinstance(error, Refused) and not named and shelf.forget_actions(wanted):
                continue
            raise
        headers = {AUTHORIZATION: token.header}
        if wanted.bound:
            url = dpop.without_query(wanted.url)
            try:
                headers[DPOP] = yield AskProof(wanted.method, url, token.token, shelf.nonce(resource))
            except InvalidToken:  # the task has changed since
                shelf.drop(token)
                if renewed:
                    raise
                renewed = True
                continue
        answer: HttpAnswer = yield Send(headers)
        nonce = answer.nonce if answer.nonce and _NONCE.fullmatch(answer.nonce) else None
        if nonce is not None:
            shelf.keep_nonce(resource, nonce)
        errors = _errors(answer)
        if "use_dpop_nonce" in errors and nonce is not None and not given_nonce:
            given_nonce = True
        elif "invalid_token" in errors and not renewed:
            shelf.drop(token)
            renewed = True
        elif not (wanted.actions or named) and (lacking := _lacking(answer, wanted.grant, token)):
            shelf.note_actions(wanted, lacking)
            named = True
        else:
            return
        if not (wanted.repeatable or digest):
            if "invalid_token" in errors:
                yield AskToken(resource, actions, wanted.bound, digest)  # raises what has become of the task, if it has
            raise SendAgain("the service wants another token or nonce, and the content is gone: send the request again")


def _like(wanted: WantedRequest) -> tuple[str, str, str, str]:
    return wanted.grant.resource, wanted.method, wanted.target.partition("?")[0], wanted.calls


def _lacking(answer: HttpAnswer, grant: Grant, token: AccessToken) -> tuple[str, ...]:
    """The action of the task that a service lacks in a token (RFC 6750, 3.1); () if it is another matter."""
    if answer.status != _FORBIDDEN:
        return ()
    said = [found[1] for each in answer.challenges if "insufficient_scope" in each and (found := _SCOPE.search(each))]
    needed = tuple(sorted({action for scope in said for action in scope.split()}))
    return needed if set(needed) <= set(grant.actions) and set(needed) - set(token.actions) else ()


def _errors(answer: HttpAnswer) -> set[str]:
    if answer.status != _UNAUTHORIZED:
        return set()
    return {name for challenge in answer.challenges for name in _ERROR.findall(challenge)}
