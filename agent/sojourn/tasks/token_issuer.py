"""Issuing the tokens of tasks: what must be true of one, until when it is good, and what stands in it."""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from sojourn.errors import Bug, InvalidInput, TaskOver
from sojourn.errors.oauth import BindingNeeded, DigestNeeded
from sojourn.jose.jws import UnverifiedJws
from sojourn.jose.signatures import Signatures
from sojourn.limits import (
    PERSON_TOLD_MAX_BYTES,
    TASK_SIGNATURES_KEPT,
    TOKEN_TTL_HIGH_CLASS_SECONDS,
    TOKEN_TTL_MAX_SECONDS,
    TOKENS_READ_KEPT,
)
from sojourn.people.person import Person
from sojourn.policy.task_type_tables import NOTHING, PAIRWISE
from sojourn.runtime.clock import Clock
from sojourn.tasks.pairwise import PairwiseNames
from sojourn.tasks.signing_keys import TokenKeys
from sojourn.tasks.status_lists import StatusLists
from sojourn.tasks.task import Task
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import DIGEST, Grant
from sojourn.tasktoken.person_claims import GROUPS, PersonClaims, Told
from sojourn.tasktoken.sender_constraint import JKT, UNPROVEN, X5T, Binding, Proven
from sojourn.tasktoken.task_claim import HIGH, TaskClaim
from sojourn.tasktoken.times import steady_origin
from sojourn.tasktoken.tokens import TaskToken


class TokenIssuer:
    """Signs tokens of tasks that have been decided on."""

    def __init__(
        self,
        keys: TokenKeys,
        issuer: str,
        epoch: int,
        clock: Clock,
        boot_id: str = "",
        names: PairwiseNames | None = None,
    ) -> None:
        """`names`: of people, at resources that are told no others; None: there is no such resource."""
        self._names = names
        self.keys = keys
        self.issuer = issuer
        self.lists = StatusLists(keys, issuer, epoch, clock)
        # A token comes back often: its signature is checked once.
        self.signatures = Signatures(TASK_SIGNATURES_KEPT, read=TOKENS_READ_KEPT)
        self._clock = clock
        self._origin = steady_origin(boot_id)

    def steady(self) -> float:
        """What the clock reads by which tokens end however the wall clock is set."""
        return self._clock.boot() + self._origin

    def binding_of(
        self, task: Task, grant: Grant, binding: Binding | None, agent_key: bool, params_digest: str
    ) -> Binding | None:
        """To what a token of the task for this grant is bound.

        Raise BindingNeeded or DigestNeeded for a token that its type does not give so.
        """
        if agent_key and binding is not None:
            raise Bug("a token was to be bound twice")
        if binding is not None and binding.kind == X5T and binding.not_after is None:
            raise Bug("a token was to be bound to a certificate of unknown end")
        if params_digest and not DIGEST.fullmatch(params_digest):
            raise InvalidInput("params_digest is not a SHA-256 digest in base64url")
        high = task.type.class_of(grant.actions) == HIGH
        if (task.type.bound or high) and binding is None and not agent_key:
            raise BindingNeeded(
                f"tokens of task type {task.type.name!r} are bound to their sender: show a DPoP proof or a certificate,"
                " or have it bound to the task's key in the agent"
            )
        key = key_of_person(task)
        if key and binding != Binding(JKT, key):
            raise BindingNeeded("tokens of this task are bound to the key of the person's token: show its proof")
        if high and not params_digest:
            raise DigestNeeded(
                f"a token of task type {task.type.name!r} for {', '.join(grant.actions)[:200]} is for one request:"
                " name that by params_digest"
            )
        return Binding(JKT, task.own_key().public.thumbprint) if agent_key else binding

    async def told(self, task: Task, grant: Grant) -> PersonClaims | None:
        """The task's person as the resource is told of them, by the task's type: None if it is told of nobody.

        Raise StoreFailed if there is no key to name them with, InvalidInput for claims that are too long for a token.
        """
        tell = task.type.tell.get(grant.resource)
        if task.person is None or tell == NOTHING:
            return None
        person = task.person.told()
        if tell != PAIRWISE:
            return person._replace(claims=_told_claims(task.type.tell_claims.get(grant.resource, ()), task.person))
        if self._names is None:
            raise Bug("a person was to be named by a key, and there is none")
        await self._names.prepare()
        return self._names.name(grant.resource, person, self.issuer)

    def sign(
        self,
        task: Task,
        grant: Grant,
        not_after: datetime | None,
        binding: Binding | None,
        params_digest: str,
        *,
        also: tuple[str, ...] = (),
        person: PersonClaims | None = None,
    ) -> TaskToken:
        """Sign a token for one grant. It ends with what ends first: its type's life for tokens, the task, `not_after`,
        or the certificate that it is bound to. `also`: what the task may do there by another token. `person`: whom it
        is for, as `told` says. Raise TaskOver if the end is less than a second away.
        """
        now = self._clock.now()
        left = timedelta(seconds=max(0.0, task.deadline - self._clock.boot()))
        task_class = task.type.class_of(grant.actions)
        ends = min(
            now + task.type.token_ttl,
            now + timedelta(seconds=TOKEN_TTL_HIGH_CLASS_SECONDS if task_class == HIGH else TOKEN_TTL_MAX_SECONDS),
            now + left,
            *(each for each in (not_after, binding.not_after if binding else None) if each is not None),
        )
        if int(ends.timestamp()) <= now.timestamp():
            raise TaskOver("less than a second is left for a token")
        key = self.keys.active
        token = tokens.issue(
            key,
            issuer=self.issuer,
            spiffe_id=task.subject,
            actors=task.actors,
            grant=grant,
            task=_claim(task, grant, task_class, also),
            issued_at=now,
            expires_at=ends,
            steady=self.steady(),
            binding=binding,
            params=task.type.params_in_tokens(task.params),
            params_digest=params_digest,
            status=self.lists.claim(task),
            person=person,
        )
        self.signatures.made(token.token, key.public)
        return token

    def verify(
        self,
        token: str | UnverifiedJws,
        *,
        audience: str | None = None,
        proven: Proven | None = UNPROVEN,
        late_seconds: float = 0,
    ) -> TaskToken:
        """A token of this agent that came back: see `tokens.verify`."""
        return tokens.verify(
            token,
            keys=self.keys.published,
            issuer=self.issuer,
            audience=audience,
            now=self._clock.now(),
            proven=proven,
            late_seconds=late_seconds,
            signatures=self.signatures,
            steady=self.steady(),
        )

    def read(self, token: str | UnverifiedJws) -> TaskToken:
        """A token of this agent, whatever has become of it, for the agent alone: see `tokens.read_issued`."""
        return tokens.read_issued(
            token,
            keys=self.keys.published,
            issuer=self.issuer,
            now=self._clock.now(),
            signatures=self.signatures,
        )

    def has_expired(self, token: TaskToken) -> bool:
        """Whether the time of a token is up, or has not come."""
        return tokens.has_expired(token, self._clock.now(), self.steady())


def key_of_person(task: Task) -> str:
    """The thumbprint of the key to which the person's token has bound all that is got by it; '': there is none. What
    was handed on is for another workload, which does not have that key.
    """
    return "" if task.person is None or task.parent_id else task.person.key


def _claim(task: Task, grant: Grant, task_class: str, also: tuple[str, ...]) -> TaskClaim:
    """What a token for this grant says of the task."""
    kind = task.type
    return TaskClaim(
        task.id,
        kind.name,
        task.version,
        task_class,
        {action: names for action, names in kind.bind.items() if action in grant.actions},
        tuple(action for action in grant.actions if action in kind.limits),
        task.approved,
        also,
    )


def _told_claims(names: Iterable[str], person: Person) -> dict[str, Told]:
    """What a service may read of a person: of these claims those that their issuer says. Raise InvalidInput."""
    told: dict[str, Told] = {name: person.claims[name] for name in names if name in person.claims}
    if GROUPS in names:
        told[GROUPS] = tuple(person.group_names)
    if told and len(json.dumps(told, ensure_ascii=False).encode("utf-8", "surrogatepass")) > PERSON_TOLD_MAX_BYTES:
        raise InvalidInput(
            f"what the service is told of the person (tell_claims) is longer than {PERSON_TOLD_MAX_BYTES} bytes: have"
            " the task type name fewer claims, or the issuer put fewer groups into their token"
        )
    return told
