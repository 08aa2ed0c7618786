"""Trying a person's token for a workload, step by step, up to the one that fails. No task begins, nothing is kept."""

from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sojourn.errors import InvalidToken, SojournError, quoted
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey, audiences
from sojourn.people.id_jag import IdJag, check_audience, check_life, verify_id_jag
from sojourn.people.issuer_keys import FetchedKeys, FiledKeys
from sojourn.people.issuer_rules import PARTIES
from sojourn.people.opaque import as_jws, check_token_type, is_opaque, verify_answer
from sojourn.people.person import Person
from sojourn.people.service import Issuer, People
from sojourn.people.token_kind import ACCESS_TOKEN, ID_JAG, ID_TOKEN, NAMES, check_id_jag, check_kind, possible_kinds
from sojourn.people.verification import (
    UnverifiedPerson,
    check_bearer,
    check_no_actor,
    check_presenter,
    check_signature,
    check_times,
    misfit,
    parse_unverified_person,
    verify,
)
from sojourn.providers.answers import failed, own_clock
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.provider import Step
from sojourn.runtime.clock import Clock
from sojourn.spiffe.ids import SpiffeId

if TYPE_CHECKING:
    from sojourn.people.introspection import Introspection

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class PersonCheck:
    """What is to be tried: the issuer by its name in the configuration. `token_type` empty: what the token says."""

    issuer: str
    token: str
    token_type: str
    presenter: SpiffeId


class _Failed(Exception):
    def __init__(self, step: Step) -> None:
        super().__init__(step.name)
        self.step = step


class PersonDryRun:
    """Checks tokens for operators."""

    def __init__(self, people: People, registered: Callable[[SpiffeId], bool], clock: Clock) -> None:
        """`registered`: whether an entry gives a SPIFFE ID."""
        self._people = people
        self._registered = registered
        self._clock = clock

    async def steps(self, asked: PersonCheck) -> AsyncGenerator[Step, None]:
        """Each step as it is done, up to one that fails. The token's text is in none of them."""
        issuer = self._people.issuers.get(asked.issuer)
        if issuer is None:
            there = ", ".join(sorted(self._people.issuers)) or "none"
            hint = f"add [people.NAME] to the agent's configuration; there are: {there}"
            yield Step("configured", "failed", "the configuration has no such issuer", hint)
            return
        yield Step("configured", "ok", f"{issuer.rules.name} is {issuer.rules.url}")
        yield own_clock(self._clock)
        since = self._clock.boot()
        try:
            for step in await self._issuer(issuer):
                yield step
            if issuer.introspection is not None and issuer.rules.opaque and is_opaque(asked.token):
                async for step in self._opaque(issuer, issuer.introspection, asked):
                    yield step
                return
            unverified, token_type, step = _kind(asked, issuer)
            yield step
            key = await self._key(unverified, issuer, since)
            yield Step("signature", "ok", f"it was made by the issuer's key {quoted(unverified.jws.kid or '')}")
            claims = unverified.jws.unverified_claims
            yield self._audience(claims, issuer, token_type, asked.presenter)
            yield self._presenter(claims, issuer, token_type, asked.presenter)
            yield self._freshness(claims, issuer, token_type)
            person, step = self._claims(unverified, issuer, key, token_type, asked.presenter)
            yield step
            if issuer.introspection is not None and person.rechecked:
                yield await _recheck(issuer.introspection, asked.token, person)
        except _Failed as error:
            yield error.step

    async def _issuer(self, issuer: Issuer) -> list[Step]:
        """Whether the issuer's metadata and keys are to be had, and good."""
        keys = issuer.keys
        if isinstance(keys, FiledKeys):
            if fault := await keys.file.look():
                raise _Failed(Step("keys", "failed", f"{keys.file.path}: {fault}", "mend the file that jwks names"))
            skipped = Step("metadata", "skipped", "jwks is set, so they are not asked for")
            return [skipped, Step("keys", "ok", f"{keys.file.path} has keys that may have signed")]
        assert isinstance(keys, FetchedKeys)
        try:
            metadata = await keys.discovery.anew()
            note = keys.discovery.clock_note
            told = Step("metadata", "ok", f"they are of this issuer, and name {quoted(metadata.jwks_uri)}{note}")
            found = await keys.anew()
        except ProviderUnavailable as error:
            raise _Failed(failed(error.step or "metadata", error)) from error
        return [told, Step("keys", "ok", f"{len(found)} of the issuer's keys may sign by what is configured")]

    async def _opaque(
        self, issuer: Issuer, introspection: "Introspection", asked: PersonCheck
    ) -> AsyncGenerator[Step, None]:
        """The steps of a token that says nothing itself: its issuer is asked, and its answer is judged."""
        if asked.token_type not in {"", ACCESS_TOKEN}:
            raise _Failed(Step("kind", "failed", "it is no JWT, and so none but an access token may be"))
        try:
            said = await introspection.read(asked.token)
        except PersonRefused as error:
            raise _Failed(_not_told(error)) from error
        claims = {**said, "iss": issuer.rules.url}
        try:
            check_token_type(said)
            check_kind(as_jws(claims), ACCESS_TOKEN)
        except PersonRefused as error:
            raise _Failed(Step("kind", "failed", error.public, "bring the access token of a login")) from error
        yield Step("kind", "ok", "it is an opaque access token, of which the issuer says that it is active")
        yield _audience(claims, issuer, ACCESS_TOKEN, asked.presenter)
        yield self._presenter(claims, issuer, ACCESS_TOKEN, asked.presenter)
        yield self._freshness(claims, issuer, ACCESS_TOKEN)
        try:
            person = verify_answer(said, issuer.rules, asked.presenter, self._clock.now())
        except SojournError as error:
            raise _Failed(Step("claims", "failed", error.public, _WRITTEN)) from error
        yield Step("claims", "ok", _told(person), _may_hint(person))

    async def _key(self, unverified: UnverifiedPerson, issuer: Issuer, since: float) -> PublicKey | None:
        try:
            key = await issuer.keys.find(unverified.jws.kid or "", since)
            check_signature(unverified.jws, issuer.rules, key)
        except SojournError as error:
            raise _Failed(Step("signature", "failed", error.public, _SIGNED)) from error
        return key

    def _presenter(self, claims: Mapping[str, Any], issuer: Issuer, token_type: str, presenter: SpiffeId) -> Step:
        try:
            check_presenter(claims, issuer.rules, token_type, presenter)
            (check_no_actor if token_type == ID_JAG else check_bearer)(claims)
        except PersonRefused as error:
            hint = "bring the token that the login itself gave"
            if error.code == "wrong_presenter":
                hint = f"name {presenter} in a [[people.{issuer.rules.name}.presenters]], with what is its own alone"
            raise _Failed(Step("presenter", "failed", error.public, hint)) from error
        hint = "" if self._registered(presenter) else f"no entry gives {presenter}: sojourn entry create"
        return Step("presenter", "ok", f"{presenter} may bring it", hint)

    def _audience(self, claims: Mapping[str, Any], issuer: Issuer, token_type: str, presenter: SpiffeId) -> Step:
        """Whether the token is for anybody who is configured, or if it is an ID-JAG, for us."""
        if token_type != ID_JAG:
            return _audience(claims, issuer, token_type, presenter)
        try:
            check_audience(claims, self._people.own_issuer)
        except InvalidToken as error:
            hint = "have it issued for this agent's issuer, which `issuer` of the configuration says, and for no other"
            raise _Failed(Step("audience", "failed", error.public, hint)) from error
        return Step("audience", "ok", f"it is for {self._people.own_issuer}, which is this agent")

    def _freshness(self, claims: Mapping[str, Any], issuer: Issuer, token_type: str) -> Step:
        try:
            (check_life if token_type == ID_JAG else check_times)(claims, issuer.rules, self._clock.now())
        except (InvalidToken, PersonRefused) as error:
            hint = "bring a token of just now; longest and fresh say how long it may live, and how old it may be"
            raise _Failed(Step("freshness", "failed", error.public, hint)) from error
        left = claims["exp"] - self._clock.now().timestamp()
        return Step("freshness", "ok", f"it is good for {left:.0f} s more")

    def _claims(
        self, unverified: UnverifiedPerson, issuer: Issuer, key: PublicKey | None, token_type: str, presenter: SpiffeId
    ) -> tuple[Person, Step]:
        """The verdict as a workload would have it, and what is read of the person."""
        try:
            if token_type == ID_JAG:
                own, now = self._people.own_issuer, self._clock.now()
                jag = verify_id_jag(unverified, issuer.rules, key, own, [presenter], now)
                return jag.person, Step("claims", "ok", _bounds(jag))
            person = verify(unverified, issuer.rules, key, token_type, presenter, self._clock.now())
        except SojournError as error:
            raise _Failed(Step("claims", "failed", error.public, _WRITTEN)) from error
        return person, Step("claims", "ok", _told(person), _may_hint(person))


_WRITTEN = "have the issuer write the claim as it must be"
_SIGNED = "is it a token of this issuer, whole, and are its key and algorithm among those that are configured?"


async def _recheck(introspection: "Introspection", text: str, person: Person) -> Step:
    """Whether the issuer says that the token is active."""
    try:
        await introspection.check(text, person)
    except PersonRefused as error:
        raise _Failed(_not_told(error)) from error
    return Step("recheck", "ok", "the issuer says that the token is active")


def _not_told(error: PersonRefused) -> Step:
    """The issuer does not say that a token is active, or says nothing."""
    if error.code == "not_active":
        hint = (
            "if it has not been ended, the issuer tells the agent nothing of tokens for others: docs/people.md#recheck"
        )
        return Step("recheck", "failed", "the issuer does not say that the token is active", hint)
    hint = "the agent must be a client there: register its SPIFFE ID, and let it know this agent's keys"
    return Step("recheck", "failed", error.detail or error.public, hint)


def _may_hint(person: Person) -> str:
    return "name a scope that it has in scopes, or ask the issuer for another" if person.may == () else ""


def _kind(asked: PersonCheck, issuer: Issuer) -> tuple[UnverifiedPerson, str, Step]:
    """The token as it was parsed, the type that it is taken as, and the step that told."""
    try:
        unverified = parse_unverified_person(asked.token)
        kinds = possible_kinds(unverified.jws)
        token_type = asked.token_type or (next(iter(kinds)) if len(kinds) == 1 else ID_TOKEN)
        if token_type == ID_JAG:
            check_id_jag(unverified.jws)
        else:
            check_kind(unverified.jws, token_type)
    except (InvalidToken, PersonRefused) as error:
        hint = "bring the ID token or the access token of a login, or an ID-JAG"
        raise _Failed(Step("kind", "failed", error.public, hint)) from error
    if unverified.unverified_issuer != issuer.rules.url:
        told = f"its iss is {quoted(unverified.unverified_issuer)}, not {issuer.rules.url}"
        raise _Failed(Step("kind", "failed", told, "issuer is compared byte for byte"))
    open_ = " (it may be either; --token-type says which)" if len(kinds) > 1 and not asked.token_type else ""
    return unverified, token_type, Step("kind", "ok", f"it is {NAMES[token_type]}{open_}")


def _audience(claims: Mapping[str, Any], issuer: Issuer, token_type: str, presenter: SpiffeId) -> Step:
    """Whether the token was given to anybody who is configured."""
    name = issuer.rules.name
    try:
        said = ", ".join(map(quoted, audiences(claims)[:_SHOWN])) or "nobody"
        said += "".join(f", {each} {quoted(str(claims[each]))}" for each in PARTIES if each in claims)
        fits = [not misfit(each, claims, token_type, presenter) for each in issuer.rules.presenters]
    except InvalidToken as error:
        raise _Failed(Step("audience", "failed", error.public)) from error
    if not any(fits):
        key = "id_token_audiences" if token_type == ID_TOKEN else "access_token_audiences, authorized_parties"
        hint = f"name what it is for in {key} of the [[people.{name}.presenters]] whose own it is"
        raise _Failed(Step("audience", "failed", f"it is for {said}, which no table has", hint))
    number = fits.index(True) + 1
    return Step("audience", "ok", f"it is for {said}: number {number} of [[people.{name}.presenters]]")


def _bounds(jag: IdJag) -> str:
    """What is known of an ID-JAG's person, and what may be asked by it at the most."""
    said = {
        "resource": None if jag.resources is None else ", ".join(map(quoted, jag.resources[:_SHOWN])),
        "scope": None if jag.scope is None else ", ".join(map(quoted, sorted(jag.scope)[:_SHOWN])),
        "authorization_details": None if jag.details is None else f"of type {quoted(jag.details.type_name)}",
        "key": "a proof by it goes with the request" if jag.person.key else None,
    }
    bounds = "; ".join(f"{name}: {told or 'none'}" for name, told in said.items() if told is not None)
    return f"{_told(jag.person)}; {bounds or 'bounds nothing'}"


def _told(person: Person) -> str:
    """What is known of a person, but not who it is."""
    known = {
        "session": "known" if person.session else "not said",
        "acr": quoted(person.acr) if person.acr else "not said",
        "auth_time": "known" if person.auth_time else "not said",
        "groups": str(len(person.groups)),
        **({} if person.may is None else {"scope": f"lets {len(person.may)} actions be done"}),
        **({} if person.details is None else {"authorization_details": f"of type {quoted(person.details.type_name)}"}),
        **{f"claim {name}": "there" for name in person.claims},
    }
    return "; ".join(f"{name}: {told}" for name, told in known.items())
