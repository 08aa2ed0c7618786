"""A token request whose sender is known: who asks, and by what.

All that was shown is verified here, and nothing of it is used up yet. What comes of it is in `token_grants`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sojourn.errors import InvalidInput, InvalidToken, NotFound
from sojourn.errors.oauth import InvalidClient, InvalidGrant, InvalidSubject
from sojourn.identity.identities import Identities
from sojourn.oauth.assertion_ids import Assertion
from sojourn.oauth.client_auth import (
    ClientCredentials,
    Clients,
    ClientSender,
    OAuthClient,
    ShownSvid,
    bound_to,
    ends_of,
    own_names,
    shown,
    to_certificate,
)
from sojourn.oauth.grant_bounds import UNBOUNDED, GrantBounds
from sojourn.oauth.person_subjects import PersonSubjects, ShownPerson
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.token_binding import TokenBindings
from sojourn.oauth.token_request import GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_ACCESS, TokenRequest
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.task import Task
from sojourn.tasktoken.sender_constraint import JKT, Binding, Proven
from sojourn.tasktoken.task_claim import HIGH
from sojourn.tasktoken.tokens import TaskToken


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request, who made it, and by what: all that `shown` says has been verified, and `once` is not yet used up."""

    client: OAuthClient
    request: TokenRequest
    binding: Binding | None
    shown: tuple[ShownSvid, ...]
    once: tuple[Assertion, ...]
    subject: TaskToken | None = None
    held: bool = False  # whether the subject is a token of the client's own task: then none begins either
    person: ShownPerson | None = None  # whose token the subject is

    @property
    def ends(self) -> datetime | None:
        """When the first of what was shown ends: no token may be good for longer."""
        ends = [each.expires_at for each in self.shown]
        if self.person is not None and self.person.once:  # an assertion does not last for as long as a task of before
            ends.append(datetime.fromtimestamp(self.person.person.expires_at, UTC))
        return min([*ends, self.subject.expires_at] if self.subject is not None else ends, default=None)

    @property
    def of_held_task(self) -> bool:
        """Whether it is for a token of a task that the client has: then no other begins."""
        return self.subject is None and bool(self.request.task_id)

    @property
    def bounds(self) -> GrantBounds:
        """What the person's token lets ask for at the most."""
        return UNBOUNDED if self.person is None else self.person.bounds

    @property
    def svids(self) -> Mapping[tuple[str, str], float]:
        return ends_of(self.shown)


class RequestVerification:
    """Says who asks for a token, and verifies what was shown for it."""

    def __init__(
        self,
        engine: TaskEngine,
        identities: Identities,
        clients: Clients,
        audiences: Audiences,
        proving: TokenBindings,
        persons: PersonSubjects,
    ) -> None:
        self._engine = engine
        self._identities = identities
        self._clients = clients
        self._audiences = audiences
        self._proving = proving
        self._persons = persons

    @property
    def own_names(self) -> tuple[str, ...]:
        """A subject token must be for one of them and for nobody else; any other assertion for the first."""
        return own_names(self._engine.issuer, self._identities.bundle.trust_domain)

    async def verify(
        self, sender: ClientSender, credentials: ClientCredentials, request: TokenRequest
    ) -> VerifiedRequest:
        """Verify all that came with a request. Raises errors of ours, with their OAuth codes."""
        unknown = sender.peer is None and sender.certificate is None and not credentials.unverified_assertion
        of_person = self._persons.are_subject(request)
        # RFC 7523, 2.1: the assertion says who the client is as well, but for one that says who a person is.
        if unknown and request.grant_type == JWT_BEARER and not of_person:
            credentials = replace(credentials, unverified_assertion=request.unverified_subject)
        client = await self._clients.authenticate(sender, credentials, claim=False)
        # Its client is known: nobody else fills what is remembered of proofs. From here on the proof is used up.
        proof = self._proof(client, credentials.unverified_proof)
        if of_person:
            return await self._by_person(client, request, proof)
        if request.subject_type == TOKEN_TYPE_ACCESS:
            return self._by_task_token(client, request, proof)
        return self._by_identity(client, request, proof)

    async def claim(self, asked: VerifiedRequest) -> VerifiedRequest:
        """Use up what is good once, and look again at what was verified: others had a turn meanwhile.

        Return the request of a client with those of its registrations that are still what they were.
        """
        try:
            await self._clients.claim(asked.once)
        except InvalidGrant as error:
            if asked.once == (asked.client.assertion,):
                raise InvalidClient(f"client_assertion: {error.public}") from error
            if asked.request.grant_type == GRANT_TYPE:
                raise InvalidSubject(error.public) from error
            raise
        client = self._clients.check_still(asked.client, asked.shown)
        return asked if client is asked.client else replace(asked, client=client)

    def held_by(self, client: OAuthClient, subject: TaskToken) -> Task | None:
        """The token's task, if the client is who holds it, or a helper that the holder of a one-shot task runs."""
        try:
            return self.task(client, subject.task_id)
        except NotFound:
            task = self._engine.tasks.find(subject.task_id)
        if task is None or task.binding != ONE_SHOT or client.peer is None or not client.has(task.spiffe_id):
            return None
        holder = task.holder.process
        runs = not isinstance(holder, NoProcess) and client.peer.process.descends_from(holder)
        return task if runs else None

    def task(self, client: OAuthClient, task_id: str) -> Task:
        """A task that the client holds. Raise NotFound for any other, whether it exists or not."""
        if client.peer is not None:
            return self._engine.tasks.of_caller(client.peer, client.entries, task_id)
        task = self._engine.tasks.find(task_id)
        if task is None or not isinstance(task.holder.process, NoProcess) or not client.has(task.spiffe_id):
            raise NotFound("there is no such task")
        return task

    def _proof(self, client: OAuthClient, unverified_proof: str | None) -> Binding | None:
        """The key of a DPoP proof (RFC 9449, 5); None: there is no proof."""
        if unverified_proof is None:
            return None
        return self._proving.by_proof(unverified_proof, client.who, at_socket=client.peer is not None)

    def _by_identity(self, client: OAuthClient, request: TokenRequest, proof: Binding | None) -> VerifiedRequest:
        """A client that asks for itself: as it has authenticated, or by a JWT-SVID of its own."""
        once, seen = _authenticated_by(client)
        if request.unverified_subject:
            svid = self._own_svid(client, request)
            client = client.as_only(svid.spiffe_id)
            seen.append(shown(svid))
            # At the socket the kernel says whose it is, and a subject token proves nothing that it could prove twice.
            if request.grant_type == JWT_BEARER or client.peer is None:
                once.append(Assertion.of(svid))
        if request.unverified_actor:
            actor = self._actor(client, request, once)
            if len(client.identities) > 1 or not client.has(actor.spiffe_id):
                raise InvalidInput(
                    "actor_token: it is another identity than the subject's: to act for another workload is to be"
                    " handed its task"
                )
            seen.append(shown(actor))
        return VerifiedRequest(client, request, bound_to(client, proof), tuple(seen), tuple(once))

    def _own_svid(self, client: OAuthClient, request: TokenRequest) -> VerifiedJwtSvid:
        bearer = request.grant_type == JWT_BEARER
        what, names = ("assertion", self.own_names[:1]) if bearer else ("subject_token", self.own_names)
        try:
            svid = self._clients.read_assertion(request.unverified_subject, what, names)
        except InvalidToken as error:
            if bearer:  # RFC 7523, 3.1
                raise InvalidGrant(error.public, detail=error.detail) from error
            raise
        if not client.has(svid.spiffe_id):
            refused = InvalidGrant if bearer else InvalidSubject
            raise refused(f"{what}: it is not the client's: the client has no such identity")
        return svid

    def _actor(self, client: OAuthClient, request: TokenRequest, once: list[Assertion]) -> VerifiedJwtSvid:
        actor = self._clients.read_assertion(request.unverified_actor, "actor_token", self.own_names)
        if client.peer is None:
            once.append(Assertion.of(actor))
        return actor

    def _check_same_actor(
        self, client: OAuthClient, request: TokenRequest, once: list[Assertion], seen: list[ShownSvid]
    ) -> None:
        """Verify the actor token, if there is one: it must be of the identity as which the client has the subject."""
        if request.unverified_actor:
            actor = self._actor(client, request, once)
            if not client.has(actor.spiffe_id):
                raise InvalidInput("actor_token: it is not the client's as which it has subject_token")
            seen.append(shown(actor))

    async def _by_person(self, client: OAuthClient, request: TokenRequest, proof: Binding | None) -> VerifiedRequest:
        """A client that asks for a person, whose token it was given: as it has authenticated, for one identity."""
        once, seen = _authenticated_by(client)
        task = self.task(client, request.task_id) if request.task_id else None
        person = await self._persons.read(client, request, task, proof)
        client, request = client.as_only(person.presenter), person.request
        once += person.once
        self._check_same_actor(client, request, once, seen)
        return VerifiedRequest(client, request, bound_to(client, proof), tuple(seen), tuple(once), person=person)

    def _by_task_token(self, client: OAuthClient, request: TokenRequest, proof: Binding | None) -> VerifiedRequest:
        """A client that has a task token: the task's holder, or the service that it was given to."""
        subject = self._task_token(client, request, proof)
        once, seen = _authenticated_by(client)
        held = self.held_by(client, subject) is not None
        if not held:
            serving = tuple(each for each in client.entries if self._audiences.serves([each], subject.resource))
            if not serving and client.has(subject.actor):
                raise InvalidSubject("subject_token: its task is over, or another process of this workload holds it")
            if not serving:
                raise InvalidSubject("subject_token is not the client's: it is neither its holder nor its audience")
            client = replace(client, entries=serving).as_only(serving[0].spiffe_id)
        else:
            client = client.as_only(subject.actor)
        self._check_same_actor(client, request, once, seen)
        if subject.params_digest and (subject.task_class == HIGH or not held):
            raise InvalidSubject("subject_token is for one request: no other token is derived from it")
        binding = bound_to(client, proof)
        if binding is None and subject.binding is not None and client.certificate is not None:
            binding = to_certificate(client)
        return VerifiedRequest(client, request, binding, tuple(seen), tuple(once), subject, held)

    def _task_token(self, client: OAuthClient, request: TokenRequest, proof: Binding | None) -> TaskToken:
        """Verify a task token of ours whose sender must hold what it is bound to (for DPoP: the key of `proof`)."""
        try:
            unverified = self._engine.issuing.signatures.parse_unverified(request.unverified_subject)
            cnf = unverified.unverified_claims.get("cnf")
            jkt = proof.thumbprint if proof is not None and isinstance(cnf, dict) and JKT in cnf else ""
            x5t = client.certificate.thumbprint if client.certificate is not None else ""
            return self._engine.issuing.verify(unverified, proven=Proven(jkt=jkt, x5t=x5t))
        except InvalidToken as error:
            raise InvalidToken(
                f"subject_token: {error.public}", reason_code=error.reason_code, detail=error.detail
            ) from error


def _authenticated_by(client: OAuthClient) -> tuple[list[Assertion], list[ShownSvid]]:
    """What a client has authenticated with: what of it is to be used up, and what it has shown by it."""
    once = [client.assertion] if client.assertion is not None else []
    return once, [client.svid] if client.svid is not None else []
