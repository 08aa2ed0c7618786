"""The session policy of an AWS role session: what a task asked for, and nothing after the task's end."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, model_validator

from sojourn.errors import InvalidInput
from sojourn.limits import ACTIONS_PER_GRANT
from sojourn.providers.ask_by_action import of_actions
from sojourn.settings.tables import Table

POLICY_MAX: Final = 2_048  # characters of an inline session policy (AssumeRoleWithWebIdentity, Policy)
POLICY_ARNS_MAX: Final = 10  # of managed session policies (the same, PolicyArns)
_LATEST: Final = datetime(9999, 12, 31, tzinfo=UTC)
_IAM_ACTION: Final = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9*?]+")
_ARN: Final = re.compile(r"arn:[!-~]{1,1500}")
_POLICY_ARN: Final = re.compile(r"arn:aws[a-z-]*:iam::(?:aws|[0-9]{12}):policy/[!-~]{1,512}")
_ROLE_ARN: Final = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[!-~]{1,576}")
_HANDS_ON: Final = "sts:assumerole"  # gives a session that has neither this policy nor its end


def role_arn(value: str) -> str:
    """A role's ARN. Raise ValueError."""
    if not _ROLE_ARN.fullmatch(value):
        raise ValueError("is not a role's ARN, such as arn:aws:iam::123456789012:role/NAME")
    return value


def _iam_action(value: str) -> str:
    if not _IAM_ACTION.fullmatch(value):
        raise ValueError("is not an action of IAM, such as s3:GetObject")
    if fnmatchcase(_HANDS_ON, value.lower()):
        raise ValueError("allows sts:AssumeRole, by which a task would get a session that outlives it")
    return value


def _resource(value: str) -> str:
    if value != "*" and not _ARN.fullmatch(value):
        raise ValueError("is neither an ARN nor *")
    return value


def _policy_arn(value: str) -> str:
    if not _POLICY_ARN.fullmatch(value):
        raise ValueError("is not the ARN of a managed policy")
    return value


RoleArn = Annotated[str, AfterValidator(role_arn)]
_Actions = Annotated[tuple[Annotated[str, AfterValidator(_iam_action)], ...], Field(min_length=1, max_length=64)]
_Resources = Annotated[tuple[Annotated[str, AfterValidator(_resource)], ...], Field(min_length=1, max_length=64)]
_Policies = Annotated[
    tuple[Annotated[str, AfterValidator(_policy_arn)], ...], Field(min_length=1, max_length=POLICY_ARNS_MAX)
]


class AwsAsk(Table):
    """What a task type asks of AWS for a resource.

    Each of its actions is under `policy_actions`, with what of IAM it takes, or under `policy_arns`, with managed
    policies that have it, or under both. `policy_resources`: of `policy_actions`, all or by action.
    """

    role_arn: RoleArn | None = None  # default: that of the settings
    policy_actions: Annotated[Mapping[str, _Actions], Field(max_length=ACTIONS_PER_GRANT)] = Field(default_factory=dict)
    policy_resources: _Resources | Mapping[str, _Resources] = ()
    policy_arns: Annotated[Mapping[str, _Policies], Field(max_length=ACTIONS_PER_GRANT)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _resources_for_actions(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("policy_actions") and not values.get("policy_resources"):
            raise ValueError('policy_resources: is missing: the ARNs that policy_actions are for, or ["*"]')
        return values

    def checked(self, actions: tuple[str, ...]) -> "AwsAsk":
        """Itself, if it is good for these actions. Raise InvalidInput."""
        of_actions({**self.policy_actions, **self.policy_arns}, actions, "policy_actions")
        if isinstance(self.policy_resources, Mapping):
            of_actions(self.policy_resources, tuple(self.policy_actions), "policy_resources")
        if len(policies_of(self, actions)) > POLICY_ARNS_MAX:
            raise InvalidInput(f"ask.policy_arns: all actions together have more than {POLICY_ARNS_MAX}, AWS's limit")
        size = len(session_policy(self, actions, _LATEST))
        if size > POLICY_MAX:
            raise InvalidInput(
                f"ask.policy_actions: the session policy has {size} characters, and AWS takes {POLICY_MAX}: "
                "use wildcards, or put it into a managed policy under policy_arns"
            )
        return self


def policies_of(ask: AwsAsk, actions: tuple[str, ...]) -> tuple[str, ...]:
    """The managed policies that these actions have, sorted."""
    return tuple(sorted({arn for action in actions for arn in ask.policy_arns.get(action, ())}))


def session_policy(ask: AwsAsk, actions: tuple[str, ...], until: datetime) -> str:
    """The inline session policy for these actions, as compact JSON. `until`: whole seconds, UTC.

    What it allows has an end of its own. It denies everything after that end too: the allowances of `policy_arns`, and
    of resources' policies that name the session, know of no end, and a denial overrides them all. It denies
    sts:AssumeRole, since the session that this gives has no such policy.
    """
    end = f"{until.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    allowed: dict[tuple[str, ...], set[str]] = {}
    for action in actions:
        if action in ask.policy_actions:
            resources = ask.policy_resources
            of_action = resources[action] if isinstance(resources, Mapping) else resources
            allowed.setdefault(of_action, set()).update(ask.policy_actions[action])
    statements: list[dict[str, Any]] = [
        {
            "Effect": "Allow",
            "Action": sorted(named),
            "Resource": list(resources),
            "Condition": {"DateLessThan": {"aws:CurrentTime": end}},
        }
        for resources, named in allowed.items()
    ]
    statements += [
        {
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": {"DateGreaterThanEquals": {"aws:CurrentTime": end}},
        },
        {"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": "*"},
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": statements}, separators=(",", ":"))
