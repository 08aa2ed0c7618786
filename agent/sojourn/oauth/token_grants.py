"""The grants of the token endpoint: from who asks, by what, and for what, to a token of a task.

Result ⊆ subject ∩ task ∩ policy ∩ request. What is derived ends no later than what it is derived from, and with it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sojourn.attestation.process import Process
from sojourn.errors import (
    ApprovalDenied,
    ApprovalExpired,
    InvalidInput,
    InvalidToken,
    NotFound,
    TaskOver,
)
from sojourn.errors.oauth import AuthorizationPending, InvalidClient, InvalidGrant, InvalidSubject
from sojourn.identity.identities import Identities
from sojourn.oauth import token_request
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
from sojourn.oauth.issued_tokens import IssuedToken, TokenSource
from sojourn.oauth.one_shot_holder import Runners, asker_of, bond_of
from sojourn.oauth.resource_servers import Audiences
from sojourn.oauth.token_binding import TokenBindings
from sojourn.oauth.token_request import GRANT_TYPE, JWT_BEARER, TOKEN_TYPE_ACCESS, TokenRequest
from sojourn.policy.params import texts_of
from sojourn.policy.rules import check_within
from sojourn.runtime.clock import Clock
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid
from sojourn.tasks.begin import BeginRequest, BeginService
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.kept_fields import ONE_SHOT
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.revoked_svids import remember
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import APPROVAL_DENIED, APPROVAL_EXPIRED, NO_TOKEN
from sojourn.tasktoken.sender_constraint import JKT, X5T, Binding, Proven
from sojourn.tasktoken.task_claim import HIGH
from sojourn.tasktoken.tokens import TaskToken


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, who made it, and by what: all that `shown` says has been verified, and `once` is not yet used up."""

    client: OAuthClient
    request: TokenRequest
    binding: Binding | None
    shown: tuple[ShownSvid, ...]
    once: tuple[Assertion, ...]
    subject: TaskToken | None = None
    held: bool = False  # whether the subject is a token of the client's own task: then none begins either

    @property
    def ends(self) -> datetime | None:
        """When the first of what was shown ends: no token may be good for longer."""
        ends = [each.expires_at for each in self.shown]
        return min([*ends, self.subject.expires_at] if self.subject is not None else ends, default=None)

    @property
    def of_held_task(self) -> bool:
        """Whether it is for a token of a task that the client has: then no other begins."""
        return self.subject is None and bool(self.request.task_id)

    @property
    def svids(self) -> Mapping[tuple[str, str], float]:
        return ends_of(self.shown)


class TokenGrants:
    """Answers token requests."""

    def __init__(
        self,
        engine: TaskEngine,
        giving: TokenSource,
        beginning: BeginService,
        attaching: Reattachment,
        delegating: DelegationService,
        identities: Identities,
        clients: Clients,
        runners: Runners,
        audiences: Audiences,
        proving: TokenBindings,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._giving = giving
        self._beginning = beginning
        self._attaching = attaching
        self._delegating = delegating
        self._identities = identities
        self._clients = clients
        self._runners = runners
        self._audiences = audiences
        self._proving = proving
        self._clock = clock

    def provider_of(self, target: str, task_id: str = "") -> str:
        """The provider that gives what is for a target, or for the only resource of a task; '': the agent itself."""
        return self._giving.provider_of(target, task_id)

    @property
    def own_names(self) -> tuple[str, ...]:
        """A subject token must be for one of them and for nobody else; any other assertion for the first."""
        return own_names(self._engine.issuer, self._identities.bundle.trust_domain)

    async def grant(
        self,
        sender: ClientSender,
        credentials: ClientCredentials,
        request: TokenRequest,
    ) -> IssuedToken:
        """Give what is asked for, ours or a provider's.

        Raises errors of ours, with their OAuth codes; then nothing was signed, and no task is left that nobody knows.
        """
        unknown = sender.peer is None and sender.certificate is None and not credentials.unverified_assertion
        if unknown and request.grant_type == JWT_BEARER:  # RFC 7523, 2.1: the assertion says who the client is as well
            credentials = replace(credentials, unverified_assertion=request.unverified_subject)
        client = await self._clients.authenticate(sender, credentials, claim=False)
        # Its client is known: nobody else fills what is remembered of proofs. From here on the proof is used up.
        proof = self._proof(client, credentials.unverified_proof)
        if request.subject_type == TOKEN_TYPE_ACCESS:
            asked = self._by_task_token(client, request, proof)
        else:
            asked = self._by_identity(client, request, proof)
        peer = None if asked.held or asked.of_held_task else asked.client.peer
        runner = await self._runners.of(peer, asked.client.identities[0]) if peer is not None else None
        try:
            await self._claim(asked)
            # Nothing that was verified may have been taken away while others had a turn.
            client = self._clients.check_still(asked.client, asked.shown)
            if client is not asked.client:
                asked = replace(asked, client=client)
            if asked.subject is not None:
                return await self._derive(asked, asked.subject, runner)
            if asked.of_held_task:
                return await self._of_task(asked)
            return await self._begin(asked, runner)
        finally:
            if runner is not None:
                runner.close()

    def _proof(self, client: OAuthClient, unverified_proof: str | None) -> Binding | None:
        """The key of a DPoP proof (RFC 9449, 5); None: there is no proof."""
        if unverified_proof is None:
            return None
        return self._proving.by_proof(unverified_proof, client.who, at_socket=client.peer is not None)

    # --- who, and by what -------------------------------------------------------------------------------------------

    def _by_identity(self, client: OAuthClient, request: TokenRequest, proof: Binding | None) -> _Asked:
        """A client that asks for itself: as it has authenticated, or by a JWT-SVID of its own."""
        once = [client.assertion] if client.assertion is not None else []
        seen = [client.svid] if client.svid is not None else []
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
        return _Asked(client, request, bound_to(client, proof), tuple(seen), tuple(once))

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

    def _by_task_token(self, client: OAuthClient, request: TokenRequest, proof: Binding | None) -> _Asked:
        """A client that has a task token: the task's holder, or the service that it was given to."""
        subject = self._task_token(client, request, proof)
        once = [client.assertion] if client.assertion is not None else []
        seen = [client.svid] if client.svid is not None else []
        held = self._held_by(client, subject) is not None
        if not held:
            serving = tuple(each for each in client.entries if self._audiences.serves([each], subject.resource))
            if not serving and client.has(subject.actor):
                raise InvalidSubject("subject_token: its task is over, or another process of this workload holds it")
            if not serving:
                raise InvalidSubject("subject_token is not the client's: it is neither its holder nor its audience")
            client = replace(client, entries=serving).as_only(serving[0].spiffe_id)
        else:
            client = client.as_only(subject.actor)
        if request.unverified_actor:
            actor = self._actor(client, request, once)
            if not client.has(actor.spiffe_id):
                raise InvalidInput("actor_token: it is not the client's as which it has subject_token")
            seen.append(shown(actor))
        if subject.params_digest and (subject.task_class == HIGH or not held):
            raise InvalidSubject("subject_token is for one request: no other token is derived from it")
        binding = bound_to(client, proof)
        if binding is None and subject.binding is not None and client.certificate is not None:
            binding = to_certificate(client)
        return _Asked(client, request, binding, tuple(seen), tuple(once), subject, held)

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

    def _held_by(self, client: OAuthClient, subject: TaskToken) -> Task | None:
        """The token's task, if the client is who holds it, or a helper that the holder of a one-shot task runs."""
        try:
            return self._task(client, subject.task_id)
        except NotFound:
            task = self._engine.tasks.find(subject.task_id)
        if task is None or task.binding != ONE_SHOT or client.peer is None or not client.has(task.spiffe_id):
            return None
        holder = task.holder.process
        runs = not isinstance(holder, NoProcess) and client.peer.process.descends_from(holder)
        return task if runs else None

    def _task(self, client: OAuthClient, task_id: str) -> Task:
        """A task that the client holds. Raise NotFound for any other, whether it exists or not."""
        if client.peer is not None:
            return self._engine.tasks.of_caller(client.peer, client.entries, task_id)
        task = self._engine.tasks.find(task_id)
        if task is None or not isinstance(task.holder.process, NoProcess) or not client.has(task.spiffe_id):
            raise NotFound("there is no such task")
        return task

    async def _claim(self, asked: _Asked) -> None:
        try:
            await self._clients.claim(asked.once)
        except InvalidGrant as error:
            if asked.once == (asked.client.assertion,):
                raise InvalidClient(f"client_assertion: {error.public}") from error
            if asked.request.grant_type == GRANT_TYPE:
                raise InvalidSubject(error.public) from error
            raise

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def _of_task(self, asked: _Asked) -> IssuedToken:
        """A token of a task that the client holds."""
        request, client = asked.request, asked.client
        if client.peer is not None:
            task = await self._attaching.of_caller(client.peer, client.entries, request.task_id)
        else:
            task = self._task(client, request.task_id)
        token_request.check_params(request, task.type.name, task.params)
        self._check_decided(task)
        return await self._token(task, asked, request.target, token_request.actions_wanted(request))

    async def _begin(self, asked: _Asked, runner: Process | None) -> IssuedToken:
        """A token of a one-shot task, which ends with it."""
        request, client = asked.request, asked.client
        self._engine.check_types()
        name, wanted = token_request.choose_type(request, self._engine.types, client.identities)
        kind = self._engine.type_named(name)
        check_within(kind, wanted)
        begin = BeginRequest(
            name,
            texts_of(request.params or {}),
            wanted,
            client.identities[0] if len(client.identities) == 1 else None,
            max_seconds=kind.token_ttl.total_seconds(),
            svids=asked.svids,
        )
        waits = self._beginning.waits(client.entries, begin)
        task = await self._beginning.begin(
            asker_of(client), client.entries, begin, bond_of(client, runner, waits=waits)
        )
        if task.state == PENDING:
            self._check_decided(task)
        named = token_request.actions_wanted(request) if request.scope or request.wanted is not None else ()
        return await self._first_token(task, asked, request.target, named)

    async def _derive(self, asked: _Asked, subject: TaskToken, runner: Process | None) -> IssuedToken:
        """A token that is derived from a task token."""
        request, client = asked.request, asked.client
        try:
            self._engine.check_token(subject)
        except TaskOver as error:
            raise InvalidSubject(f"subject_token: {error.public}") from error
        task = self._held_by(client, subject)
        if task is not None:
            grant = token_request.narrowed(request, subject, task.authority)
            if subject.params_digest and not request.params_digest:
                asked = replace(asked, request=replace(request, params_digest=subject.params_digest))
            return await self._token(task, asked, grant.resource, grant.actions)
        if asked.held:  # nobody has looked whether the token is for the client
            raise InvalidSubject("subject_token: its task has passed to another process")
        parent = self._engine.tasks.find(subject.task_id)
        if parent is None:
            raise InvalidSubject("subject_token: the task is over")
        grant = token_request.handed_on(request, subject, parent.authority)
        left = (subject.expires_at - self._clock.now()).total_seconds()
        if left < 1:
            raise InvalidSubject("less than a second is left of subject_token")
        child = await self._delegating.exchange(
            parent,
            asker_of(client),
            client.entries[0],
            grant,
            BeginRequest(parent.type.name, {}, max_seconds=left, svids=asked.svids),
            bond_of(client, runner, waits=False),
            jti=str(subject.claims.get("jti", "")),
        )
        return await self._first_token(child, asked, grant.resource, grant.actions)

    async def _first_token(self, task: Task, asked: _Asked, resource: str, actions: Sequence[str]) -> IssuedToken:
        """The token that a task was begun for, without which it ends."""
        try:
            return await self._token(task, asked, resource, actions)
        except BaseException:
            if task.live:
                self._engine.end(task, REVOKED, NO_TOKEN)
            raise

    async def _token(self, task: Task, asked: _Asked, resource: str, actions: Sequence[str]) -> IssuedToken:
        remember(task, asked.svids, self._clock.now())
        binding, request = asked.binding, asked.request
        outside = self._giving.is_outside(task, resource)
        if outside and binding is not None and binding.kind == X5T:
            binding = None  # nobody asked for it: it follows from how the client authenticated
        if not outside:
            token_request.check_issued_type(request, token_request.OWN_TYPES)
        given = await self._giving.give(
            task,
            resource,
            actions,
            not_after=asked.ends,
            binding=binding,
            params_digest=request.params_digest,
            fits=lambda issued_type: token_request.check_issued_type(request, {issued_type}),
        )
        return replace(given, issued_type=request.issued_type) if request.issued_type else given

    def _check_decided(self, task: Task) -> None:
        """Raise what a task that waits for approval is answered with, or one that did not get it."""
        if task.reason == APPROVAL_DENIED:
            raise ApprovalDenied("whoever was asked to agree to the task said no")
        if task.reason == APPROVAL_EXPIRED:
            raise ApprovalExpired("nobody agreed to the task in time")
        if task.state != PENDING or task.approval is None:
            return
        wanted = task.approval.request
        raise AuthorizationPending(
            f"the task waits for approval by {', '.join(wanted.approvers)}: `sojourn approval approve {wanted.id}`;"
            " send the same request again with task_id",
            task_id=task.id,
            approval_id=wanted.id,
            approvers=wanted.approvers,
            seconds=max(0, int(task.deadline - self._engine.clock.boot())),
        )
