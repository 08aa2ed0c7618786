"""Tokens that are good once: which of them were used."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from sojourn.errors import InvalidToken, LimitExceeded
from sojourn.limits import SINGLE_USES_REMEMBERED, TOKEN_SKEW_SECONDS, TOKEN_TTL_HIGH_CLASS_SECONDS
from sojourn.tasktoken.tokens import TaskToken

_LIFE_SECONDS: Final = TOKEN_TTL_HIGH_CLASS_SECONDS + 2 * TOKEN_SKEW_SECONDS  # on the boot clock, of any of them


class SingleUses:
    """Claims tokens, each once. After a restart earlier tokens are dead by their task's version, so memory suffices.

    A use is forgotten only to make room: a wall clock that is set back makes a token that had expired good again, and
    it must not be good a second time.
    """

    def __init__(self, boot: Callable[[], float]) -> None:
        self._boot = boot
        self._used: OrderedDict[bytes, float] = OrderedDict()  # when, on the boot clock

    def __len__(self) -> int:
        return len(self._used)

    def has(self, token: TaskToken) -> bool:
        """Whether a token was used up."""
        return _name(token) in self._used

    def claim(self, token: TaskToken) -> None:
        """Use a token up. Raise InvalidToken if it was used, or LimitExceeded."""
        name = _name(token)
        if name in self._used:
            raise InvalidToken("token is good once, and was used", reason_code="used")
        if len(self._used) >= SINGLE_USES_REMEMBERED:
            if next(iter(self._used.values())) + _LIFE_SECONDS > self._boot():
                raise LimitExceeded("too many tokens that are good once are in use")
            self._used.popitem(last=False)
        self._used[name] = self._boot()


def _name(token: TaskToken) -> bytes:
    return hashlib.sha256(f"{token.task_id}\0{token.claims.get('jti')}".encode("utf-8", "surrogatepass")).digest()
