"""When a task token begins and ends: by the wall clock, and by one of the agent's that only goes on.

Wall times stand in a token for everybody, and a wall clock that is set back would revive what has ended by it. So the
agent also writes into the token when it issued it by its steady clock. Who knows what that clock reads, as the agent
and those who follow its feed, judge by both.
"""

import hashlib

from sojourn.errors import InvalidToken
from sojourn.jose.jws import VerifiedClaims, numeric_date
from sojourn.limits import TOKEN_SKEW_SECONDS

AT = "at"  # of the claim `task`: when it was issued, in seconds of the steady clock
_ORIGINS = 2**31


def steady_origin(boot_id: str) -> int:
    """What the steady clock adds to the boot clock, in one boot of the machine.

    Tokens do not tell how long the machine has been up, and those of another boot are of another time.
    """
    return int.from_bytes(hashlib.sha256(f"steady clock\0{boot_id}".encode()).digest()[:8]) % _ORIGINS


def issued_at(steady: float, wall: float) -> float:
    """The claim `at` of a token that is issued now: what the steady clock read in the second of the claim `iat`."""
    return max(0.0, round(steady - wall % 1, 3))


def check_times(claims: VerifiedClaims, wall: float, steady: float | None, late_seconds: float = 0) -> None:
    """Raise InvalidToken for a token that has ended or is not valid yet.

    `wall` and `steady` are what these clocks of the agent read; `steady` None: nobody knows. `late_seconds`: so long
    ago it may have ended.
    """
    expires, issued = numeric_date(claims, "exp"), numeric_date(claims, "iat")
    not_before = numeric_date(claims, "nbf")
    if expires is None or issued is None:
        raise InvalidToken("token lacks exp or iat", reason_code="malformed")
    if expires + late_seconds <= wall or _is_over(claims, expires - issued + late_seconds, steady):
        raise InvalidToken("token has expired", reason_code="expired")
    if max(issued, not_before or 0) > wall + TOKEN_SKEW_SECONDS:
        raise InvalidToken("token is not valid yet", reason_code="not_yet_valid")


def _is_over(claims: VerifiedClaims, life: float, steady: float | None) -> bool:
    """Whether it has lived for `life` by the steady clock, or is of another boot of the machine than that."""
    task = claims.get("task")
    at = numeric_date(task, AT) if isinstance(task, dict) else None
    if steady is None or at is None:
        return False
    return not -TOKEN_SKEW_SECONDS < steady - at < life
