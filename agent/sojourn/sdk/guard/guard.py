"""Guards a service, whatever its framework: no request without a live task whose token is its sender's and for it."""

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol
from urllib.parse import urlsplit

from sojourn.errors import InvalidInput, InvalidToken, LimitExceeded, Refused, TooLarge
from sojourn.errors.oauth import ActionNotAllowed, InvalidProof, NonceNeeded, NotApproved
from sojourn.errors.people import PersonRefused
from sojourn.sdk.guard.attempts import Attempt, code_of
from sojourn.sdk.guard.challenges import Challenge, GuardAnswer, Refusal, ResourceMetadata
from sojourn.sdk.guard.http_params import read_stated
from sojourn.sdk.guard.param_check import Hint, Nothing, Source, Stated, compare, in_python, stated_names, times_of
from sojourn.sdk.guard.person_check import REFUSED, Taking, check_person
from sojourn.sdk.guard.refusals import RefusedRequest
from sojourn.sdk.guard.request_credentials import BEARER, DPOP, Presented, presented
from sojourn.sdk.guard.routes import ANY_ACTION, Action, Actions, action_finder
from sojourn.sdk.guard.service_routes import Destination
from sojourn.sdk.guard.task_feed import boot_seconds
from sojourn.sdk.request.single_request import check_content
from sojourn.tasktoken import dpop, request_digest
from sojourn.tasktoken.checks import check_action
from sojourn.tasktoken.dpop_replays import Replays
from sojourn.tasktoken.request_record import NOTHING_SAID, Served
from sojourn.tasktoken.sender_constraint import JKT, UNPROVEN, Proven, thumbprint_of
from sojourn.tasktoken.task_claim import APPROVED, NORMAL
from sojourn.tasktoken.tokens import TaskToken

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
log = logging.getLogger("sojourn.guard")
NO_ACTION: Final = "no action is defined for this method and path"
# Reason codes of tokens that may be good, which nobody can tell or record now.
_NOT_NOW: Final = frozenset({"unavailable", "stale_feed", "store_failed", "store_full", "database_damaged"})
_OTHER_PERSON: Final = frozenset({"wrong_person", "person_not_taken"})  # which no other login would mend
Digest = Callable[[], Awaitable[str]]
Content = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it came. `certificate` is the client's, of this very TLS connection, DER: never one of a header.

    `destination` is where the service's framework takes it, if that can be asked.
    """

    method: str
    path: str  # as it was sent, not decoded
    query: str = ""  # as it was sent, without its question mark
    headers: Iterable[tuple[str, str]] = attribute(default=(), repr=False)
    certificate: bytes | None = attribute(default=None, repr=False)
    destination: Destination | None = attribute(default=None, repr=False)

    @property
    def target(self) -> str:
        """Path and query as they were sent."""
        return f"{self.path}?{self.query}" if self.query else self.path


class Verifier(Protocol):
    """What a guard asks of its verifier. TaskVerifier says what each does."""

    audience: str

    @property
    def issuer(self) -> str: ...

    async def examine(self, token: str, proven: Proven = UNPROVEN) -> TaskToken: ...

    def check_digest(self, verified: TaskToken, params_digest: str) -> None: ...

    async def use(
        self, verified: TaskToken, action: str | None, proven: Proven = UNPROVEN, served: Served = NOTHING_SAID
    ) -> None: ...

    def refused(self, request: RefusedRequest) -> None: ...


class Guard:
    """Judges requests for one service, by a running `verifier`. What passes is reported as use of its task."""

    def __init__(
        self,
        verifier: Verifier,
        actions: Actions,
        *,
        base_url: str | None = None,
        metadata: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        boot: Callable[[], float] = boot_seconds,
        replays: Replays | None = None,
        hint: Hint = in_python,
        person: Taking = REFUSED,
    ) -> None:
        """`actions` say which action a request is (see `action_finder`).

        `base_url` is where clients find the service, if that is not at its audience's origin: DPoP proofs are for it
        with the path behind it. With `metadata` the guard answers what RFC 9728 asks a protected resource for.
        `replays` are those of several guards, among which each proof is good once. `hint` says in refusals how a
        parameter is mapped to its place. `person` is whether tokens are taken that are for a person, where an action
        does not say.
        """
        self.verifier = verifier
        self.base_url = _base(base_url, verifier.audience)
        self._action_of = action_finder(actions)
        self._named = _names(actions)
        self._now = now
        self._hint = hint
        self._person = person
        self._replays = replays or Replays(now, boot)
        self._metadata_path, url = _metadata_at(verifier.audience) if metadata else ("", "")
        self._challenge = Challenge(verifier.audience, url)

    async def check(self, request: HttpRequest, content: Content) -> TaskToken | GuardAnswer:
        """Return the token of a request that may go on to the application, or what is answered in its place.

        `content` returns the request's whole content, or raises TooLarge. It is called once at most, for a token that
        is for one request alone, and where a parameter of the task must be looked for in it.
        """
        if self._metadata_path and request.path == self._metadata_path and request.method == "GET":
            return ResourceMetadata(self.verifier.audience, [*filter(None, [self.verifier.issuer])], self._named)

        whole = _once(content)

        async def digest() -> str:
            found = await whole()
            check_content(request.headers, found)
            return request_digest.of_http(request.method, request.target, found)

        async def stated(wanted: Action, names: Collection[str]) -> Source:
            return await read_stated(request.query, request.headers, wanted, names, whole)

        action = partial(self._action_of, request.method, request.path, request.destination)
        return await self.check_request(request, action, digest, stated)

    async def check_request(
        self,
        request: HttpRequest,
        action: Callable[[], Action | None],
        digest: Digest,
        stated: Stated | None = None,
        attempt: Attempt | None = None,
    ) -> TaskToken | GuardAnswer:
        """The same for a request whose `action` and `digest` are not read from method, path and content alone.

        All three are called only when they are needed: the action of a good token, the digest of one for one request,
        and `stated` for an action that parameters concern: it returns what the request states of those, or None if
        whoever calls this compares them later. Without it the action itself has their values. `attempt` has how records
        are to name the request, if that is not by its method and target.
        """
        tried = attempt or Attempt(request.method, request.target)
        try:
            tried.shown = shown = presented(request.headers)
            if shown is None:
                return self.tell(tried, self._refusal(401, "", "a task token is required"), "no_token")
            proof = self._read_proof(request, shown)
            x5t = thumbprint_of(request.certificate) if request.certificate else ""
            proven = Proven(jkt=proof.jkt if proof else "", x5t=x5t)
            tried.verified = verified = await self.verifier.examine(shown.unverified_token, proven)
            tried.wanted = wanted = action()
            if wanted is None:
                return self.tell(
                    tried, self._refusal(403, "insufficient_scope", _no_action(request), shown), "no_action"
                )
            check_person(verified, wanted, self._person, self._now().timestamp())
            if wanted is not ANY_ACTION:
                verified = await self._compare(tried, verified, wanted, proven, stated)
            if proof is not None:  # only now: who has no good token cannot fill what is remembered of proofs
                self._replays.claim(proof, str(verified.actor))
            return await self._finish(tried, verified, proven, digest)
        except Exception as error:  # noqa: BLE001  whatever goes wrong while deciding is a refusal
            refusal = self._refused(error, tried.shown, tried.wanted)
            if isinstance(error, NonceNeeded):  # a step of the protocol: what comes with a nonce is judged then
                return refusal
            return self.tell(tried, refusal, code_of(error))

    async def check_call(
        self,
        token: str,
        action: Action | str,
        params: Mapping[str, object] | None = None,
        digest: str | Callable[[], str] = "",
        proven: Proven = UNPROVEN,
    ) -> TaskToken | Refusal:
        """The same for a call that is no HTTP request, as that of a tool. `digest` is its digest (tasks.bound).

        `proven` is what its sender has been found to hold.
        """
        wanted = Action(action) if isinstance(action, str) else action
        whole = replace(wanted, params={**wanted.params, **(params or {})})
        tried = Attempt(shown=Presented("", token, ""), wanted=whole)

        async def known() -> str:
            return digest if isinstance(digest, str) else digest()

        try:
            tried.verified = verified = await self.verifier.examine(token, proven)
            check_person(verified, wanted, self._person, self._now().timestamp())
            verified = await self._compare(tried, verified, whole, proven, None)
            return await self._finish(tried, verified, proven, known)
        except Exception as error:  # noqa: BLE001  whatever goes wrong while deciding is a refusal
            return self.tell(tried, self._refused(error, None, wanted), code_of(error))

    def tell(self, tried: Attempt, refusal: Refusal, code: str) -> Refusal:
        """Have a refusal logged and told to the agent, and return it: never is it kept back. `code`: why, stably."""
        try:
            self.verifier.refused(tried.refused(code, refusal.description))
        except Exception:
            log.exception("a refusal cannot be told")
        return refusal

    async def _compare(
        self, tried: Attempt, verified: TaskToken, wanted: Action, proven: Proven, stated: Stated | None
    ) -> TaskToken:
        check_action(verified, wanted.name)
        names = stated_names(verified, wanted)
        if not names:
            return verified
        source = Nothing() if stated is None else await stated(wanted, names)
        if source is None:
            return verified
        compare(verified, wanted, source, self._hint)
        tried.times = times_of(verified, wanted, source)
        if source.has_content:  # it may have been long in coming
            verified = await self.verifier.examine(verified.token, proven)
        return verified

    async def _finish(self, tried: Attempt, verified: TaskToken, proven: Proven, digest: Digest) -> TaskToken:
        if verified.params_digest:
            self.verifier.check_digest(verified, await digest())
            verified = await self.verifier.examine(verified.token, proven)  # the content may have been long in coming
        action = None if tried.wanted is None or tried.wanted is ANY_ACTION else tried.wanted.name
        recorded = verified.task_class != NORMAL or action in verified.asks  # the others are counted alone
        served = tried.served if recorded else NOTHING_SAID
        await self.verifier.use(verified, action, proven, served)
        return verified

    def _read_proof(self, request: HttpRequest, shown: Presented) -> dpop.Proof | None:
        if shown.scheme != DPOP:
            return None
        if not self.base_url:
            raise InvalidProof("this service takes no DPoP: it has no base_url", reason_code="wrong_url")
        return dpop.read(
            shown.unverified_proof,
            method=request.method,
            url=self.base_url + request.path,
            now=self._now(),
            token=shown.unverified_token,
        )

    def _refused(self, error: Exception, shown: Presented | None, wanted: Action | None) -> Refusal:
        if isinstance(error, NonceNeeded):
            return self._refusal(401, error.oauth_error, error.public, shown, nonce=error.nonce)
        if isinstance(error, InvalidProof):
            return self._refusal(401, error.oauth_error, error.public, shown)
        if isinstance(error, InvalidToken) and error.reason_code in _NOT_NOW:
            return self._refusal(503, "temporarily_unavailable", error.public, shown)
        if isinstance(error, InvalidToken):
            by_key = error.reason_code == "unproved_binding" and error.detail == JKT
            return self._refusal(401, "invalid_token", error.public, shown, by_key=by_key)
        if isinstance(error, TooLarge):
            return self._refusal(413, "invalid_request", error.public, shown)
        if isinstance(error, LimitExceeded):
            return self._refusal(503, "temporarily_unavailable", error.public, shown)
        if isinstance(error, InvalidInput):
            return self._refusal(400, "invalid_request", error.public, shown)
        if isinstance(error, NotApproved):
            return self._refusal(401, error.oauth_error, error.public, shown, acr=APPROVED)
        if isinstance(error, PersonRefused) and error.code in _OTHER_PERSON:
            return self._refusal(403, error.code, error.public, shown)
        if isinstance(error, PersonRefused):
            acr = " ".join(error.acr_values)
            said = "insufficient_user_authentication"
            return self._refusal(401, said, error.public, shown, acr=acr, max_age=error.max_age)
        if isinstance(error, Refused):
            lacks = wanted.name if wanted is not None and isinstance(error, ActionNotAllowed) else ""
            return self._refusal(403, error.oauth_error, error.public, shown, scope=lacks)
        return self._refusal(503, "temporarily_unavailable", "token cannot be verified now", shown)

    def _refusal(
        self,
        status: int,
        error: str,
        said: str,
        shown: Presented | None = None,
        *,
        acr: str = "",
        scope: str = "",
        nonce: str = "",
        by_key: bool = False,
        max_age: int | None = None,
    ) -> Refusal:
        schemes: tuple[str, ...] = (BEARER, DPOP) if self.base_url else (BEARER,)
        if self.base_url and (by_key or error in {"invalid_dpop_proof", "use_dpop_nonce"}):
            schemes = (DPOP,)  # nothing else will do (RFC 9449, 7.1)
        elif shown is not None and shown.scheme == DPOP:
            schemes = (DPOP, BEARER)
        return Refusal(status, error, said, self._challenge, schemes, acr, scope, nonce, max_age)


def _no_action(request: HttpRequest) -> str:
    service = request.destination.path if request.destination is not None else None
    return NO_ACTION if service is None else f"{NO_ACTION}: this service takes them to its route {service[:200]!r}"


def _once(content: Content) -> Content:
    """The content, asked for once however often it is called, one call after the other."""
    held: list[bytes] = []

    async def whole() -> bytes:
        if not held:
            held.append(await content())
        return held[0]

    return whole


def _base(base_url: str | None, audience: str) -> str:
    """What stands before the path in the URL of a request; '' if nothing says so. Raise InvalidInput."""
    if base_url is None:
        parts = urlsplit(audience)
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} else ""
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.query or parts.fragment:
        raise InvalidInput(f"base_url {base_url[:200]!r} is not an http or https URL without query and fragment")
    return base_url.rstrip("/")


def _metadata_at(audience: str) -> tuple[str, str]:
    """Path and URL of the metadata of a resource (RFC 9728, 3.1); both '' if it is none that may have any."""
    parts = urlsplit(audience)
    if parts.scheme not in {"http", "https"} or parts.query:
        return "", ""
    path = _WELL_KNOWN + parts.path.rstrip("/")
    return path, f"{parts.scheme}://{parts.netloc}{path}"


def _names(actions: Actions) -> list[str]:
    if not isinstance(actions, Mapping):
        return list(getattr(actions, "names", ()))
    return [each if isinstance(each, str) else each.name for each in actions.values()]
