"""AWS: a role session by AssumeRoleWithWebIdentity, that allows what a task asked for, and nothing after its end.

No key of AWS is needed: the request is not signed, and the workload's JWT-SVID is all that it shows. What is handed out
is the JSON that AWS's SDKs read from a container credential endpoint.

An issued session cannot be recalled. Its session policy ends with the task's deadline, to the second: after that AWS
refuses whatever IAM decides on, though the keys themselves are known to STS for longer. Only what IAM does not decide
on goes on until then: sts:GetCallerIdentity, and so a proof of identity made of it, as for EKS. For a task that ends
before its deadline there is the deny hook: an operator's endpoint that denies by the session's tags. It denies one
session and not the task, which may live on: with fewer actions, or over a restart of the agent.
"""

import json
import math
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from sojourn.errors import InvalidInput
from sojourn.providers.answers import expiring, odd, time_of, token_of, unanswered, unfailing
from sojourn.providers.aws_answers import fields_of, refusal_of
from sojourn.providers.aws_session_policy import AwsAsk, RoleArn, policies_of, session_policy
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.http import Http
from sojourn.providers.provider import NOT_OAUTH, Ended, Mint, Obtained, ProviderTable, Recall, Step, Wanted
from sojourn.providers.settings import Endpoint, read_ask
from sojourn.runtime.clock import Clock, SystemClock
from sojourn.settings.models import read_settings
from sojourn.settings.tables import Duration, between

AWS_CREDENTIALS: Final = "urn:sojourn:token-type:aws-credentials"
_VERSION: Final = "2011-06-15"  # of the STS API
_SHORTEST: Final = timedelta(seconds=900)  # AWS's limits of DurationSeconds
_LONGEST: Final = timedelta(hours=12)
_SESSION_NAME_MAX: Final = 64
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_+=,.@-]")
_RESULT: Final = "AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/"
_TAGS: Final = "https://aws.amazon.com/tags"
_AS_XML: Final = {"Accept": "application/xml"}  # as STS's reference has its answers; it has JSON as well
_SOURCE: Final = "https://aws.amazon.com/source_identity"


class AwsSettings(ProviderTable):
    """[providers.NAME] with `kind = "aws"`."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")] | None = None
    endpoint: Endpoint | None = None  # of STS; default: the region's, or the global one
    audience: Annotated[str, Field(min_length=1, max_length=255)] = "sts.amazonaws.com"  # as IAM's provider has it
    role_arn: RoleArn | None = None  # for asks that name none
    max_session: Annotated[Duration, between(_SHORTEST, _LONGEST)] = timedelta(hours=1)  # at most the role's own
    tag: Annotated[bool, Field(strict=True)] = (
        True  # sessions with `task` and `session`; the role has to allow sts:TagSession
    )
    source_identity: Literal["task", "task_type"] | None = None  # the role has to allow sts:SetSourceIdentity
    deny_hook: Endpoint | None = None  # an operator's: told to deny a session at its task's end

    @model_validator(mode="after")
    def _denied_by_its_tag(self) -> Self:
        if self.deny_hook is not None and not self.tag:
            raise ValueError("deny_hook: denies by a session's tags: set tag = true")
        return self

    @property
    def sts(self) -> str:
        if self.endpoint is not None:
            return self.endpoint
        if self.region is None:
            return "https://sts.amazonaws.com/"
        return f"https://sts.{self.region}.amazonaws.com{'.cn' if self.region.startswith('cn-') else ''}/"


class AwsProvider:
    """Settings: AwsSettings. Asks: AwsAsk."""

    kind = "aws"
    offline = False  # IAM is asked at each call, and the session policy is a part of the session

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        self.name = name
        self._settings = read_settings(AwsSettings, settings)
        self._http = http
        self._clock = clock or SystemClock()
        self.recall: Recall = "deny" if self._settings.deny_hook is not None else "none"
        self.longest = self._settings.max_session
        self.audiences = frozenset({self._settings.audience, self._settings.deny_hook or self._settings.audience})

    def read_ask(self, ask: Mapping[str, Any], actions: tuple[str, ...]) -> AwsAsk:
        """See AwsAsk. Raise InvalidInput."""
        read = read_ask(AwsAsk, ask).checked(actions)
        if read.role_arn is None and self._settings.role_arn is None:
            raise InvalidInput("ask.role_arn: is missing, and the provider has none")
        return read

    def describe(self, ask: Any) -> Mapping[str, str]:
        """`kind`, `role_arn`, and `region` if there is one."""
        told = {"kind": self.kind, "role_arn": self._role(ask)}
        return {**told, "region": self._settings.region} if self._settings.region is not None else told

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        """One role session. Its name is the task's id; its tags are that, and an ID of the session's own."""
        now, until = self._clock.now(), wanted.ends.astimezone(UTC).replace(microsecond=0)
        if until <= now:
            raise ProviderRefused("the task ends before a session could begin", step="assume_role")
        needed = timedelta(seconds=math.ceil((until - now).total_seconds()))
        session_id = secrets.token_hex(8)
        life = min(max(needed, _SHORTEST), self._settings.max_session)
        form = {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": _VERSION,
            "RoleArn": self._role(wanted.ask),
            "RoleSessionName": session_name(wanted.task_id),
            "WebIdentityToken": await mint(
                self._settings.audience, algorithm="ES256", claims=self._claims(wanted, session_id)
            ),
            "DurationSeconds": str(int(life.total_seconds())),
            "Policy": session_policy(wanted.ask, wanted.actions, until),
        }
        for number, arn in enumerate(policies_of(wanted.ask, wanted.actions), 1):
            form[f"PolicyArns.member.{number}.arn"] = arn
        answer = await self._http.post_form(self._settings.sts, form, step="assume_role", headers=_AS_XML)
        if answer.status != 200:
            raise refusal_of(answer, "assume_role")
        return self._obtained(fields_of(answer, "assume_role"), form, session_id, now + life, until)

    def _obtained(
        self, fields: Mapping[str, Any], form: Mapping[str, str], session_id: str, latest: datetime, until: datetime
    ) -> Obtained:
        key, secret, session = (
            token_of(fields, f"{_RESULT}Credentials/{name}", "assume_role")
            for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")
        )
        if not key.isalnum() or len(key) > 128:
            raise odd("the answer's AccessKeyId is none", "assume_role")
        now = self._clock.now()
        told = _expiration(fields.get(f"{_RESULT}Credentials/Expiration"))
        expires = min(expiring(told, now, self._settings.max_session, "assume_role"), latest, until)
        expires = expires.replace(microsecond=0)
        credentials = {
            "AccessKeyId": key,
            "SecretAccessKey": secret,
            "Token": session,
            "Expiration": f"{expires:%Y-%m-%dT%H:%M:%SZ}",
        }
        named = {"role_arn": form["RoleArn"], "session_name": form["RoleSessionName"], "access_key_id": key}
        if self._settings.tag:
            named["session_id"] = session_id
        return Obtained(
            token=json.dumps(credentials, separators=(",", ":")),
            expires_at=expires,
            token_type=NOT_OAUTH,
            issued_type=AWS_CREDENTIALS,
            handle=named if self._settings.deny_hook is not None else {},
            public={**named, "denied_from": f"{until:%Y-%m-%dT%H:%M:%SZ}"},
        )

    async def take_back(self, ended: Ended, mint: Mint) -> None:
        """Have the operator's hook deny the session, by its tag `session`.

        One whose answer was lost has no ID that is known: the hook is to deny all of the task then, which is over.
        """
        hook = self._settings.deny_hook
        if hook is None:
            raise ProviderRefused("AWS cannot recall a session, and no deny_hook is set", step="deny")
        body = {
            "task_id": ended.task_id,
            "role_arn": ended.handle.get("role_arn", ""),
            "session_name": ended.handle.get("session_name", session_name(ended.task_id)),
            "session_id": ended.handle.get("session_id", ""),
            "access_key_id": ended.handle.get("access_key_id", ""),
            "until": f"{ended.expires_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }
        if not body["role_arn"]:
            body["role_arn"] = ended.public.get("role_arn") or self._role(ended.ask)
        answer = await self._http.post_json(
            hook, body, step="deny", headers={"Authorization": f"Bearer {await mint(hook)}"}
        )
        if answer.status == 410:
            raise ProviderRefused("the deny hook says that it will never deny this session", step="deny")
        if answer.status not in {200, 204}:
            raise unanswered(answer, "deny")

    def check(self, wanted: Wanted | None, mint: Mint) -> AsyncIterator[Step]:
        """Ask STS who asks, which it has to refuse; then a session, which is dropped, and denied from the end on."""
        return unfailing(self._steps(wanted, mint), "assume_role")

    async def _steps(self, wanted: Wanted | None, mint: Mint) -> AsyncGenerator[Step, None]:
        form = {"Action": "GetCallerIdentity", "Version": _VERSION}
        fields_of(await self._http.post_form(self._settings.sts, form, step="endpoint", headers=_AS_XML), "endpoint")
        yield Step("endpoint", "ok", f"AWS STS answers at {self._settings.sts}")
        if wanted is None:
            yield Step("assume_role", "skipped", "there is no workload to assume a role for")
            return
        public = (await self.exchange(wanted, mint)).public
        yield Step(
            "assume_role", "ok", f"{public['role_arn']} was assumed; all is denied from {public['denied_from']} on"
        )
        if self._settings.deny_hook is None:
            hint = (
                "for an end before that, set deny_hook to an endpoint of yours that denies by aws:PrincipalTag/session"
            )
            yield Step("deny", "skipped", "a session that a task leaves behind is good until its deadline", hint)
        else:
            yield Step("deny", "skipped", "the deny hook is asked at a task's end alone")

    async def close(self) -> None:
        """Let go of the connections."""
        await self._http.close()

    def _role(self, ask: Any) -> str:
        named = ask.role_arn if isinstance(ask, AwsAsk) else None
        return named or self._settings.role_arn or ""

    def _claims(self, wanted: Wanted, session_id: str) -> dict[str, Any]:
        claims: dict[str, Any] = {}
        if self._settings.tag:
            tags = {"session": [session_id], "task": [wanted.task_id]}
            claims[_TAGS] = {"principal_tags": tags, "transitive_tag_keys": sorted(tags)}
        if self._settings.source_identity is not None:
            source = wanted.task_id if self._settings.source_identity == "task" else wanted.task_type
            claims[_SOURCE] = session_name(source)
        return claims


def session_name(task_id: str) -> str:
    """A task's id as RoleSessionName has it: 2 to 64 letters, digits, and _ + = , . @ -"""
    name = _NOT_IN_A_NAME.sub("-", task_id)[:_SESSION_NAME_MAX]
    return name if len(name) > 1 else f"{name}-task"


def _expiration(value: object) -> datetime:
    """RFC 3339 as in XML, or seconds since 1970 as in JSON. Raise ProviderUnavailable."""
    if isinstance(value, str):
        return time_of(value, "assume_role")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return datetime.fromtimestamp(value, UTC)
        except (ValueError, OverflowError, OSError):
            pass
    raise odd("the answer has no Expiration", "assume_role")
