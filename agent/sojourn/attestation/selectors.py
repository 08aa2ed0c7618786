"""Selectors: one proved property of a process, such as `unix:uid:1000`."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Self

from sojourn.errors import InvalidSelector
from sojourn.limits import SELECTOR_TYPE_MAX_BYTES, SELECTOR_VALUE_MAX_BYTES


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """The type is the attestor's name; the value is the attestor's own, such as `uid:1000`. Compared byte for byte."""

    type: str
    value: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `TYPE:VALUE`; the type ends at the first colon. Raise InvalidSelector."""
        kind, colon, value = text.partition(":")
        if not colon:
            raise InvalidSelector(f"selector {text[:100]!r} is not TYPE:VALUE, such as unix:uid:1000")
        return cls.from_parts(kind, value)

    @classmethod
    def from_parts(cls, kind: str, value: str) -> Self:
        """Check both parts as SPIRE does, and their lengths, and make a selector. Raise InvalidSelector."""
        if not kind:
            raise InvalidSelector("missing selector type")
        if ":" in kind:
            raise InvalidSelector("selector type contains ':'")
        if not value:
            raise InvalidSelector("missing selector value")
        if "\0" in kind or "\0" in value:
            raise InvalidSelector("selector contains a NUL byte")
        if len(kind.encode(errors="surrogateescape")) > SELECTOR_TYPE_MAX_BYTES:
            raise InvalidSelector(f"selector type is longer than {SELECTOR_TYPE_MAX_BYTES} bytes")
        if len(value.encode(errors="surrogateescape")) > SELECTOR_VALUE_MAX_BYTES:
            raise InvalidSelector(f"selector value is longer than {SELECTOR_VALUE_MAX_BYTES} bytes")
        return cls(kind, value)

    def within(self, kinds: Collection[str]) -> bool:
        """Whether it is of one of these types, or kinds of a type, such as `unix` or `unix:path`."""
        return self.type in kinds or f"{self.type}:{self.value.partition(':')[0]}" in kinds

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


def text_of(selectors: Iterable[Selector]) -> list[str]:
    """The selectors as sorted `TYPE:VALUE` strings."""
    return sorted(str(selector) for selector in selectors)
