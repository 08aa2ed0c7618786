"""Persons' tokens in token requests: which subjects they are, who may bring them, what they say.

A subject token (RFC 8693, 2.1) is an ID token or access token; an assertion (RFC 7523, 2.1) is an ID-JAG.
"""

from dataclasses import dataclass, replace

from sojourn.errors import InvalidToken, SojournError
from sojourn.errors.oauth import InvalidGrant
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import parse_unverified
from sojourn.oauth import token_request
from sojourn.oauth.assertion_ids import Assertion
from sojourn.oauth.client_auth import OAuthClient
from sojourn.oauth.grant_bounds import UNBOUNDED, GrantBounds
from sojourn.oauth.token_request import JWT_BEARER, TOKEN_TYPE_ACCESS, TOKEN_TYPE_ID, TokenRequest
from sojourn.people.person import Person
from sojourn.people.token_kind import ID_JAG_HEADER
from sojourn.people.verification import parse_unverified_person
from sojourn.policy import rules
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.people import PeopleTokens, check_expected, digest_of
from sojourn.tasks.person_renewal import PersonRenewal, check_same
from sojourn.tasks.task import Task
from sojourn.tasktoken.grants import Authority, Grant
from sojourn.tasktoken.sender_constraint import JKT, Binding


@dataclass(frozen=True, slots=True)
class ShownPerson:
    """A person whose token was verified, the SHA-256 digest of that, and the identity that may bring it.

    `request` is what was asked, within the `bounds` that the token has. An assertion is good `once`.
    """

    person: Person
    digest: str
    presenter: SpiffeId
    request: TokenRequest
    bounds: GrantBounds = UNBOUNDED
    once: tuple[Assertion, ...] = ()


class PersonSubjects:
    """Reads subject tokens that are of people."""

    def __init__(self, engine: TaskEngine, tokens: PeopleTokens, renewal: PersonRenewal) -> None:
        self._engine = engine
        self._tokens = tokens
        self._renewal = renewal

    def are_subject(self, request: TokenRequest) -> bool:
        """Whether the subject is to be a person: as the client calls its token, or an access token by its `iss`, if it
        has one.

        What else came with it has no say. One that is neither of a person nor ours is refused as ours would be. An
        assertion is to be of a person if its header has the type of ID-JAGs, or by its `iss`: it says who the subject
        is then, and never who the client is.
        """
        if request.grant_type == JWT_BEARER:
            return self._is_of_a_person(request.unverified_subject)
        if request.subject_type != TOKEN_TYPE_ACCESS:
            return request.subject_type == TOKEN_TYPE_ID
        known = self._engine.issuing.signatures.came_back(request.unverified_subject)
        if known is not None and known.unverified_claims.get("iss") == self._engine.issuer:
            return False  # which reading it once more would say as well
        try:
            issuer = parse_unverified_person(request.unverified_subject).unverified_issuer
        except SojournError:
            return self._tokens.may_be_opaque(request.unverified_subject)
        return self._is_of_people(issuer)

    def _is_of_a_person(self, unverified_assertion: str) -> bool:
        try:
            unverified = parse_unverified(unverified_assertion, more_headers=True)
        except SojournError:  # whatever reads it next refuses it too, for the same reason
            return False
        return unverified.typ == ID_JAG_HEADER or self._is_of_people(unverified.unverified_claims.get("iss"))

    def _is_of_people(self, issuer: object) -> bool:
        return isinstance(issuer, str) and issuer != self._engine.issuer and self._tokens.is_issuer(issuer)

    async def read(
        self, client: OAuthClient, request: TokenRequest, task: Task | None, proof: Binding | None
    ) -> ShownPerson:
        """Verify the subject for the identity as which the client has `task`, or would begin one.

        `proof`: the key that the client has proved to hold. Raises PersonRefused, or what choosing the task's type and
        identity does.
        """
        if request.grant_type == JWT_BEARER:
            return await self._read_assertion(client, request, task, proof)
        presenter = task.spiffe_id if task is not None else self._presenter(client, request)
        text = request.unverified_subject
        person = await self._tokens.verify(text, request.subject_type, presenter)
        bounds = GrantBounds.of_person(person)
        return ShownPerson(person, digest_of(text), presenter, bounds.within(request), bounds)

    async def _read_assertion(
        self, client: OAuthClient, request: TokenRequest, task: Task | None, proof: Binding | None
    ) -> ShownPerson:
        text = request.unverified_subject
        try:
            jag = await self._tokens.verify_id_jag(text, client.identities if task is None else (task.spiffe_id,))
        except InvalidToken as error:  # RFC 7523, 3.1
            raise InvalidGrant(f"assertion: {error.public}", detail=error.detail) from error
        if jag.person.key and proof != Binding(JKT, jag.person.key):
            raise PersonRefused(
                "bound_elsewhere", "the assertion is bound to a key: show a DPoP proof by that key, and no other"
            )
        bounds = GrantBounds.of(jag)
        request = bounds.within(request)
        own = replace(client, entries=tuple(each for each in client.entries if each.spiffe_id in jag.presenters))
        presenter = task.spiffe_id if task is not None else self._presenter(own, request)
        once = (Assertion.of_id_jag(jag, self._engine.issuer),)
        return ShownPerson(jag.person, digest_of(text), presenter, request, bounds, once)

    def _presenter(self, client: OAuthClient, request: TokenRequest) -> SpiffeId:
        self._engine.check_types()
        name, _ = token_request.choose_type(request, self._engine.types, client.identities)
        return rules.entry_for(self._engine.type_named(name), client.entries, None).spiffe_id

    def let(self, shown: ShownPerson | None, request: TokenRequest, wanted: Authority) -> Authority:
        """What a client is to get that names no actions: those that the scope of the person's access token lets be
        done. If that is none, all that it would get else, which is refused where it is decided.
        """
        may = None if shown is None else shown.person.may
        if may is None or request.scope or request.wanted is not None:
            return wanted
        kept = ((each.resource, tuple(action for action in each.actions if action in may)) for each in wanted.grants)
        left = tuple(Grant(resource, actions) for resource, actions in kept if actions)
        return Authority(left) if left else wanted

    def check_use(self, task: Task, shown: ShownPerson | None) -> None:
        """Raise PersonRefused unless a client may use its task for the person whose token it has shown, if any."""
        if shown is None:
            check_expected(task, "")
        else:
            check_same(task, shown.person)

    async def renew(self, task: Task, shown: ShownPerson | None) -> None:
        """Have a task go on by the token, if that is newer than what it has, and bounds it no more."""
        if shown is not None and shown.bounds.covers(task):
            await self._renewal.renew_verified(task, shown.person, shown.digest)
