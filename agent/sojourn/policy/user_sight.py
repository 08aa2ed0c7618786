"""What the policies of a type can tell of a person.

People who are alike in all that policies name or read are one to them: an answer is kept for all of these, and Cedar is
shown no group that none asks for. A user has groups by the dozen, and each costs Cedar some microseconds to read.
"""

from collections.abc import Sequence
from typing import Final

from sojourn.policy.clauses import Clause
from sojourn.policy.user import Claims, User

Told = tuple[str, str, str, tuple[str, ...], tuple[str, ...], int, Claims]  # as the fields of User
_NONE: Final[tuple[str, ...]] = ()


class UserSight:
    """Made of all policies that are ever asked by one schema. What is not of its type is left to be found out."""

    def __init__(self, clauses: Sequence[Clause]) -> None:
        self._read = frozenset[str]().union(*(clause.attributes for clause in clauses))
        self._subject = "subject" in self._read or any(clause.named("User") for clause in clauses)
        self._acr, self._amr, self._age, self._all_groups = (
            name in self._read for name in ("acr", "amr", "auth_age", "groups")
        )
        self._groups = tuple(sorted({name for clause in clauses for name in clause.named("Group")}))

    def told(self, user: User) -> Told:
        """What can be told of a person."""
        return (
            user.issuer,
            user.subject if self._subject or type(user.subject) is not str else "",
            user.acr if self._acr or type(user.acr) is not str else "",
            user.amr if self._amr or type(user.amr) is not tuple else _NONE,
            user.groups if self._all_groups or type(user.groups) is not tuple else self._asked(user),
            user.auth_age if self._age or type(user.auth_age) is not int else 0,
            tuple([each for each in user.claims if each[0] in self._read]) if user.claims else (),
        )

    def seen(self, user: User) -> User:
        """The person as whoever can tell no more sees them."""
        return User(*self.told(user))

    def _asked(self, user: User) -> tuple[str, ...]:
        """Those of the person's groups that a policy names."""
        if not self._groups:
            return _NONE
        prefix, groups = f"{user.issuer}/", user.groups
        begins = len(prefix)
        return tuple([name[begins:] for name in self._groups if name.startswith(prefix) and name[begins:] in groups])
