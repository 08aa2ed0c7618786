"""What a question says of the person whom its task is for.

Cases say them in a table, with the claims that the type declares beside the attributes; the API and the command say
each by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from sojourn.errors import InvalidInput
from sojourn.limits import LONG_MAX
from sojourn.people.person import Claim
from sojourn.policy.params import typed
from sojourn.policy.task_type_tables import PersonRule
from sojourn.policy.task_types import TaskType
from sojourn.policy.user import User, claims_of

_Text = Annotated[str, Field(min_length=1, strict=True)]


class UserTable(BaseModel):
    """A person of a case. Whatever else it says are claims."""

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, StrictBool | StrictInt | StrictStr]

    issuer: _Text
    subject: _Text
    acr: StrictStr = ""
    amr: tuple[_Text, ...] = ()
    groups: tuple[_Text, ...] = ()
    auth_age: Annotated[StrictInt, Field(ge=0, le=LONG_MAX)] = 0

    def user(self) -> User:
        """As policies see them."""
        claims = self.__pydantic_extra__
        return _user(self.issuer, self.subject, self.acr, self.amr, self.groups, self.auth_age, claims)


def read_user(
    kind: TaskType,
    name: str,
    groups: Sequence[str] = (),
    acr: str = "",
    amr: Sequence[str] = (),
    auth_age: int = 0,
    claims: Mapping[str, str] | None = None,
) -> User:
    """A person of a question about a type, whose `name` is ISSUER/SUBJECT. Raise InvalidInput, which says why."""
    issuer, _, subject = name.partition("/")
    if not issuer or not subject:
        raise InvalidInput(f"{name[:100]!r} does not name a person: write ISSUER/SUBJECT")
    if not 0 <= auth_age <= LONG_MAX:
        raise InvalidInput("auth_age is a number of seconds")
    declared = kind.person.claims if kind.person is not None else {}
    typed_claims: dict[str, Claim] = {}
    for claim, text in (claims or {}).items():
        if claim not in declared:
            raise InvalidInput(f"task type {kind.name!r} declares no claim {claim[:64]!r}")
        typed_claims[claim] = typed(declared[claim], text, f"claim {claim!r}")
    return _user(issuer, subject, acr, amr, groups, auth_age, typed_claims)


def some_user(rule: PersonRule | None) -> User | None:
    """Somebody, for a question that is about no person, whose task must be for one all the same; None: it need not."""
    if rule is None or rule.need == "optional":
        return None
    return _user(rule.issuers[0] if rule.issuers else "any", "any", "", (), (), 0, {})


def _user(
    issuer: str,
    subject: str,
    acr: str,
    amr: Sequence[str],
    groups: Sequence[str],
    auth_age: int,
    claims: Mapping[str, Claim],
) -> User:
    return User(issuer, subject, acr, tuple(amr), tuple(sorted(set(groups))), auth_age, claims_of(claims))
