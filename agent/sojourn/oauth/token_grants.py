"""The grants of the token endpoint: from a verified request to a token of a task.

Result ⊆ subject ∩ task ∩ policy ∩ request. What is derived ends no later than what it is derived from, and with it.
"""

from collections.abc import Sequence
from dataclasses import replace

from sojourn.attestation.process import Process
from sojourn.errors import TaskOver
from sojourn.errors.oauth import InvalidSubject
from sojourn.errors.people import PersonRefused
from sojourn.oauth import token_request
from sojourn.oauth.approval_answers import check_decided
from sojourn.oauth.client_auth import ClientCredentials, ClientSender
from sojourn.oauth.issued_tokens import IssuedToken, TokenSource
from sojourn.oauth.one_shot_holder import Runners, asker_of, bond_of
from sojourn.oauth.person_subjects import PersonSubjects
from sojourn.oauth.token_request import JWT_BEARER, TokenRequest
from sojourn.oauth.verified_request import RequestVerification, VerifiedRequest
from sojourn.policy.params import texts_of
from sojourn.policy.rules import check_within
from sojourn.runtime.clock import Clock
from sojourn.tasks.begin import BeginRequest, BeginService
from sojourn.tasks.delegation import DelegationService
from sojourn.tasks.engine import TaskEngine
from sojourn.tasks.reattachment import Reattachment
from sojourn.tasks.revoked_svids import remember
from sojourn.tasks.task import PENDING, REVOKED, Task
from sojourn.tasktoken.end_reasons import NO_TOKEN
from sojourn.tasktoken.sender_constraint import X5T
from sojourn.tasktoken.tokens import TaskToken


class TokenGrants:
    """Answers token requests."""

    def __init__(
        self,
        engine: TaskEngine,
        giving: TokenSource,
        beginning: BeginService,
        attaching: Reattachment,
        delegating: DelegationService,
        verification: RequestVerification,
        runners: Runners,
        persons: PersonSubjects,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._giving = giving
        self._beginning = beginning
        self._attaching = attaching
        self._delegating = delegating
        self._verification = verification
        self._runners = runners
        self._persons = persons
        self._clock = clock

    def provider_of(self, target: str, task_id: str = "") -> str:
        """The provider that gives what is for a target, or for the only resource of a task; '': the agent itself."""
        return self._giving.provider_of(target, task_id)

    async def grant(
        self,
        sender: ClientSender,
        credentials: ClientCredentials,
        request: TokenRequest,
    ) -> IssuedToken:
        """Give what is asked for, ours or a provider's.

        Raises errors of ours, with their OAuth codes; then nothing was signed, and no task is left that nobody knows.
        """
        try:
            return await self._grant(await self._verification.verify(sender, credentials, request))
        except PersonRefused as error:
            if request.grant_type == JWT_BEARER:
                error.tell_of_grant()
            raise

    async def _grant(self, asked: VerifiedRequest) -> IssuedToken:
        peer = None if asked.held or asked.of_held_task else asked.client.peer
        runner = await self._runners.of(peer, asked.client.identities[0]) if peer is not None else None
        try:
            asked = await self._verification.claim(asked)
            if asked.subject is not None:
                return await self._derive(asked, asked.subject, runner)
            if asked.of_held_task:
                return await self._of_task(asked)
            return await self._begin(asked, runner)
        finally:
            if runner is not None:
                runner.close()

    async def _of_task(self, asked: VerifiedRequest) -> IssuedToken:
        """A token of a task that the client holds."""
        request, client = asked.request, asked.client
        if client.peer is not None:
            task = await self._attaching.of_caller(client.peer, client.entries, request.task_id)
        else:
            task = self._verification.task(client, request.task_id)
        token_request.check_params(request, task.type.name, task.params)
        self._persons.check_use(task, asked.person)
        check_decided(task, self._engine.clock.boot())
        actions = asked.bounds.actions(token_request.actions_wanted(request), task.authority, request.target)
        await self._persons.renew(task, asked.person)
        return await self._token(task, asked, request.target, actions)

    async def _begin(self, asked: VerifiedRequest, runner: Process | None) -> IssuedToken:
        """A token of a one-shot task, which ends with it."""
        request, client = asked.request, asked.client
        self._engine.check_types()
        name, wanted = token_request.choose_type(request, self._engine.types, client.identities)
        wanted = asked.bounds.narrowed(wanted)
        kind = self._engine.type_named(name)
        check_within(kind, wanted)
        begin = BeginRequest(
            name,
            texts_of(request.params or {}),
            self._persons.let(asked.person, request, wanted),
            client.identities[0] if len(client.identities) == 1 else None,
            max_seconds=kind.token_ttl.total_seconds(),
            svids=asked.svids,
            person=None if asked.person is None else asked.person.person,
            person_token="" if asked.person is None else asked.person.digest,
        )
        waits = self._beginning.waits(client.entries, begin)
        task = await self._beginning.begin(
            asker_of(client), client.entries, begin, bond_of(client, runner, waits=waits)
        )
        if task.state == PENDING:
            check_decided(task, self._engine.clock.boot())
        named = token_request.actions_wanted(request) if request.scope or request.wanted is not None else ()
        return await self._first_token(task, asked, request.target, named)

    async def _derive(self, asked: VerifiedRequest, subject: TaskToken, runner: Process | None) -> IssuedToken:
        """A token that is derived from a task token."""
        request, client = asked.request, asked.client
        try:
            self._engine.check_token(subject)
        except TaskOver as error:
            raise InvalidSubject(f"subject_token: {error.public}") from error
        task = self._verification.held_by(client, subject)
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

    async def _first_token(
        self, task: Task, asked: VerifiedRequest, resource: str, actions: Sequence[str]
    ) -> IssuedToken:
        """The token that a task was begun for, without which it ends."""
        try:
            return await self._token(task, asked, resource, actions)
        except BaseException:
            if task.live:
                self._engine.end(task, REVOKED, NO_TOKEN)
            raise

    async def _token(self, task: Task, asked: VerifiedRequest, resource: str, actions: Sequence[str]) -> IssuedToken:
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
