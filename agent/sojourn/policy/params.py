"""Parameters of tasks: what a task type says of each, and reading them by that."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr, model_validator

from sojourn.errors import InvalidInput
from sojourn.limits import CHOICES_PER_PARAM, LONG_MAX, PARAM_MAX_BYTES, PATTERN_CHOICES_MAX, PATTERN_TEXT_MAX
from sojourn.policy.cedar_schema import Param

_Long = Annotated[StrictInt, Field(ge=-LONG_MAX, le=LONG_MAX)]
LONG = re.compile(r"-?[0-9]{1,18}")  # up to LONG_MAX
Kind = Literal["string", "long", "boolean"]
_ATOM = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)  # an escaped character, or a class
_BEYOND = re.compile(r"\(\?|\)[*+?{]|\\[0-9AbBZ]")
_REPEAT = re.compile(r"([*+?]|\{([0-9]*),?([0-9]*)\})|\|")


class ParamRule(BaseModel):
    """What a task type says of one parameter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Kind
    required: Annotated[bool, Field(strict=True)] = False
    min: _Long | None = None
    max: _Long | None = None
    one_of: Annotated[tuple[StrictStr | _Long, ...], Field(min_length=1, max_length=CHOICES_PER_PARAM)] | None = None
    pattern: Annotated[str, Field(max_length=PARAM_MAX_BYTES)] | None = None
    max_length: Annotated[StrictInt, Field(ge=1, le=PARAM_MAX_BYTES)] | None = None
    in_tokens: Annotated[bool, Field(strict=True)] = True  # services compare it with what a request names
    in_journal: Annotated[bool, Field(strict=True)] = True  # else records have a keyed digest of it

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        of_long, of_string = (self.min, self.max), (self.pattern, self.max_length)
        if self.type != "long" and of_long != (None, None):
            raise ValueError("min and max are for long")
        if self.type != "string" and of_string != (None, None):
            raise ValueError("pattern and max_length are for string")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is more than max")
        if self.one_of is not None:
            if self.type == "boolean" or any(isinstance(each, int) != (self.type == "long") for each in self.one_of):
                raise ValueError(f"one_of does not list values of type {self.type}")
            if of_long != (None, None) or of_string != (None, None):
                raise ValueError("one_of says all: leave out min, max, pattern and max_length")
        if self.pattern is not None:
            _check_pattern(self.pattern, self.longest)
        return self

    @property
    def longest(self) -> int:
        """How many characters a string may have."""
        return self.max_length or (PARAM_MAX_BYTES if self.pattern is None else PATTERN_TEXT_MAX)

    def read(self, name: str, text: str) -> Param:
        """Give a parameter its type and check it. Raise InvalidInput naming it and the rule that it breaks."""
        value = self._typed(name, text)
        if self.one_of is not None and value not in self.one_of:
            shown = ", ".join(str(each) for each in self.one_of[:20])
            raise InvalidInput(f"parameter {name!r} breaks one_of: it may be {shown}")
        if isinstance(value, str):
            # Guards compare by code points, and many a service takes two ways to write an accent for the same text.
            if not unicodedata.is_normalized("NFC", value):
                raise InvalidInput(f"parameter {name!r} is not in Unicode's composed form: send it in NFC")
            if len(value) > self.longest:
                raise InvalidInput(f"parameter {name!r} breaks max_length: at most {self.longest} characters")
            if self.pattern is not None and not re.fullmatch(self.pattern, value, re.ASCII):
                raise InvalidInput(f"parameter {name!r} breaks pattern: it must match {self.pattern}")
        elif self.min is not None and value < self.min:
            raise InvalidInput(f"parameter {name!r} breaks min: it must be at least {self.min}")
        elif self.max is not None and value > self.max:
            raise InvalidInput(f"parameter {name!r} breaks max: it must be at most {self.max}")
        return value

    def _typed(self, name: str, text: str) -> Param:
        if len(text.encode("utf-8", "surrogatepass")) > PARAM_MAX_BYTES:
            raise InvalidInput(f"parameter {name!r} is longer than {PARAM_MAX_BYTES} bytes")
        return typed(self.type, text, f"parameter {name!r}")


def _by_type(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


BY_TYPE = BeforeValidator(_by_type)  # a table, or the name of its type alone


def typed(kind: Kind, text: str, what: str) -> Param:
    """Give the text of a value its type. Raise InvalidInput, which says `what` it is."""
    if kind == "string":
        return text
    if kind == "boolean":
        if text not in {"true", "false"}:
            raise InvalidInput(f"{what} is not true or false")
        return text == "true"
    if not LONG.fullmatch(text):
        raise InvalidInput(f"{what} is not a whole number of at most 18 digits")
    return int(text)


def text_of(value: Param) -> str:
    """A value as `ParamRule.read` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def texts_of(values: Mapping[str, Param]) -> dict[str, str]:
    """The same of each of several."""
    return {name: text_of(value) for name, value in values.items()}


def _check_pattern(pattern: str, longest: int) -> None:
    """Raise ValueError unless a pattern is sound and cheap to match against any text of `longest` characters.

    Groups are never repeated, so the ways through a pattern are no more than the product of its choices.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"pattern is not a regular expression: {error}") from None
    if any(_BEYOND.match(atom) for atom in _ATOM.findall(pattern)) or _BEYOND.search(_ATOM.sub("x", pattern)):
        raise ValueError("pattern may have classes, groups, alternatives and repeated characters, nothing else")
    ways = 1
    for repeat, low, high in _REPEAT.findall(_ATOM.sub("x", pattern)):
        exact = repeat.startswith("{") and "," not in repeat
        most = longest if repeat in {"*", "+"} or (repeat.startswith("{") and not high) else int(high or 1)
        ways *= 1 if exact else max(2, min(most, longest) - int(low or 0) + 1)
    if ways > PATTERN_CHOICES_MAX:
        raise ValueError("pattern has too many variable repeats for texts of this length: give a smaller max_length")
