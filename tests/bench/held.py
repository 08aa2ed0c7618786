"""For how long each rate is held, and why that is long enough.

A rate that is measured for seconds says nothing of hours where each call leaves something behind for as long as its
token lives: then what is left is to be there in full, and to go as fast as it comes. Such calls are held for three lives
or more by a line of their own, with the memory beside it.
"""

from collections.abc import Iterable
from typing import Final

from figures import Figure, Growth

RATE: Final = "/s"
_NOTHING: Final = "a burst of seconds: nothing of a call outlives its answer, so that an hour is like a second"
_JWT: Final = (
    "bursts of seconds: FetchX509SVID and ValidateJWTSVID leave nothing behind; JWT-SVIDs of a new audience are"
    " remembered until they end, and held for three lives in line 56"
)
_TASK: Final = "a burst of seconds: a task lives as long as its token, 60 s; the same is held for five lives in line 55"
HELD: Final = {
    2: _NOTHING,
    3: _NOTHING,
    6: _TASK,
    8: _NOTHING,
    16: _NOTHING,
    17: _NOTHING,
    18: _NOTHING,
    20: "a burst of seconds: what is answered from the cache begins nothing",
    22: _NOTHING,
    23: _JWT,
    30: _JWT,
    31: _JWT,
    32: _JWT,
    33: "a burst of eighteen seconds: the JWT-SVIDs are held for three lives in line 56",
    34: "each flood lasts for seconds: what it leaves behind is what lines 55 and 56 hold for lives",
    50: _TASK,
    51: _NOTHING,
    52: _NOTHING,
    53: _NOTHING,
    54: "bursts of seconds beside tasks that are there already",
    55: "held for 300 s: each exchange begins a task that lives as long as its token, 60 s: five lives of it",
    56: "held for 60 s, three lives of the JWT-SVIDs, which are of 20 s here: 300 s by default, and remembered as long",
    62: _NOTHING,
    73: "until a backlog of 200,000 records is taken: what a sink has had leaves a cursor and nothing else",
    64: "bursts of seconds, for the ratio of the two: what an exchange leaves behind, line 55 holds for five lives of it",
    65: _NOTHING,
    80: "bursts of seconds, for the ratio of the two: a root's signature leaves a record and nothing else",
}


def held(number: int, found: Iterable[Figure | Growth | str]) -> str:
    """What is to be said of a line's rates; '': it has none. Raise ValueError if it has and nobody has said it."""
    if not any(isinstance(each, Figure | Growth) and each.unit == RATE for each in found):
        return ""
    if number not in HELD:
        raise ValueError(f"line {number} measures a rate: say in held.py for how long it is held, and why that will do")
    return HELD[number]
