"""Counting what is used of a task, against the budgets that it shares with its family."""

from collections.abc import Mapping
from dataclasses import dataclass

from sojourn.tasks.seldom import HasSeldom, Seldom
from sojourn.tasks.spent import NOT_USED, Purse, Spent, Use, Used, one_token
from sojourn.tasktoken.grants import Grant


@dataclass(slots=True, eq=False, kw_only=True)
class Spending(HasSeldom):
    """What is used up: a task. `used`: what was made of it alone."""

    used: Used = NOT_USED

    purse = Seldom[Purse | None](None)  # of its family; None: it has none, and nothing with a limit was used

    @property
    def tokens_issued(self) -> int:
        return self.used.total.tokens

    @property
    def calls(self) -> int:
        """Those that services accepted."""
        return self.used.total.calls

    @property
    def uses(self) -> Mapping[tuple[str, str], Use]:
        """What was made of each action: by (resource, action)."""
        return self.used.of_actions

    @property
    def spent(self) -> Spent:
        """What its whole family has used: budgets are for all together."""
        purse = self.purse
        return self.used.total if purse is None else purse.spent

    def own_purse(self) -> Purse:
        """What it spends from, with its family: made when there is something to count that `used` does not say."""
        if self.purse is None:
            self.purse = Purse(self.spent)
        return self.purse

    def count_token(self, grant: Grant, number: int = 1) -> None:
        """Count a token; -1 takes one back that was not given after all."""
        first = number == 1 and self.used is NOT_USED
        self.used = one_token(grant) if first else self.used.with_tokens(grant, number)
        if self.purse is not None:
            self.purse.count(tokens=number)

    def count_calls(self, resource: str, action: str, number: int) -> None:
        """Count calls that a service accepted."""
        self.used = self.used.with_calls(resource, action, number)
        if self.purse is not None:
            self.purse.count(calls=number)

    def count_use(self, action: str, number: int = 1) -> None:
        """Count a use of an action with a limit; -1 takes one back that was not allowed after all."""
        self.own_purse().count_use(action, number)
