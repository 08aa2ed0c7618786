"""Custom claims of JWT-SVIDs, with placeholders for what is attested in their texts (identity/templates.py)."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sojourn.errors import Bug, InvalidEntry, InvalidInput, quoted
from sojourn.identity.templates import Placeholder, Template, Unfilled, Values
from sojourn.limits import (
    JWT_CLAIM_NAME_MAX_BYTES,
    JWT_CLAIMS_MAX_BYTES,
    JWT_CLAIMS_NESTED_MAX,
    JWT_CLAIMS_PER_ENTRY,
    TEMPLATE_PLACEHOLDERS,
)
from sojourn.spiffe.jwtsvid import OWN_CLAIMS

# What other standards, or Sojourn's own tokens, have a meaning for that an entry must not claim: who acts for whom,
# what a key is bound to, what is authorised.
RESERVED = OWN_CLAIMS | {
    "act",
    "amr",
    "acr",
    "at_hash",
    "auth_time",
    "authorization_details",
    "azp",
    "c_hash",
    "client_id",
    "cnf",
    "events",
    "may_act",
    "nonce",
    "s_hash",
    "scope",
    "sid",
    "status",
    "sub_id",
    "task",
    "toe",
    "txn",
    "vct",
}
_WHOLE_MAX = 2**53  # that JSON readers agree about


@dataclass(frozen=True, slots=True)
class JwtClaims:
    """Claims by name, any JSON but null; compared by their canonical text, which is '' if there are none."""

    text: str = ""
    placeholders: tuple[Placeholder, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def parse(cls, claims: Mapping[str, Any]) -> Self:
        """Check claims, and the templates in their texts. Raise InvalidEntry with the rule that is broken."""
        if not isinstance(claims, Mapping):
            raise InvalidEntry("jwt_claims: not claims by name")
        if len(claims) > JWT_CLAIMS_PER_ENTRY:
            raise InvalidEntry(f"jwt_claims: more than {JWT_CLAIMS_PER_ENTRY} claims")
        placeholders: list[Placeholder] = []
        for name, value in claims.items():
            try:
                _check_name(name)
                if name in RESERVED:
                    raise InvalidInput("is not an entry's to set")
                for text in _texts(value, JWT_CLAIMS_NESTED_MAX):
                    placeholders += Template.parse(text).placeholders
            except InvalidInput as error:
                raise InvalidEntry(f"jwt_claims: claim {quoted(str(name))} {error.public}") from error
        if len(placeholders) > TEMPLATE_PLACEHOLDERS:
            raise InvalidEntry(f"jwt_claims: more than {TEMPLATE_PLACEHOLDERS} placeholders")
        text = json.dumps(_mapped(dict(claims), str), sort_keys=True, separators=(",", ":")) if claims else ""
        if len(text) > JWT_CLAIMS_MAX_BYTES:
            raise InvalidEntry(f"jwt_claims: longer than {JWT_CLAIMS_MAX_BYTES} bytes as JSON")
        return cls(text, tuple(placeholders))

    def __bool__(self) -> bool:
        return bool(self.text)

    @property
    def declared(self) -> dict[str, Any]:
        """As they were given, placeholders and all."""
        claims: dict[str, Any] = json.loads(self.text or "{}")
        return claims

    @property
    def signable(self) -> dict[str, Any]:
        """What may stand in a token. Raise Bug if a placeholder is left."""
        if not self.text and not self.placeholders:
            return {}
        if self.placeholders or "{" in "".join(_texts(self.declared, JWT_CLAIMS_NESTED_MAX + 1)):
            raise Bug("a claim of a JWT-SVID would have been signed with its placeholder")
        return self.declared

    def fill(self, values: Values) -> "JwtClaims | Unfilled":
        """The claims with a value for each placeholder, or why there are none."""
        if not self.placeholders:
            return self
        filled = _mapped(self.declared, lambda text: Template.parse(text).fill(values))
        made = json.dumps(filled, sort_keys=True, separators=(",", ":"))
        if len(made) > JWT_CLAIMS_MAX_BYTES:
            return Unfilled(f"jwt_claims would be longer than {JWT_CLAIMS_MAX_BYTES} bytes as JSON")
        return JwtClaims(made)


NO_CLAIMS = JwtClaims()


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not name or not name.isprintable() or "{" in name or "}" in name:
        raise InvalidInput("is not named by printable characters without braces")
    if len(name.encode()) > JWT_CLAIM_NAME_MAX_BYTES:
        raise InvalidInput(f"has a name of more than {JWT_CLAIM_NAME_MAX_BYTES} bytes")


def _texts(value: object, depth: int) -> Iterator[str]:
    """Every text in a JSON value. Raise InvalidInput for what a claim cannot be."""
    match value:
        case bool():
            return
        case int() | float():
            if abs(value) > _WHOLE_MAX or not math.isfinite(value):
                raise InvalidInput("has a number that not every reader of JSON has")
        case str():
            if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
                raise InvalidInput("has a text that is not Unicode, or with a NUL")
            yield value
        case dict() | list() if not depth:
            raise InvalidInput(f"is nested deeper than {JWT_CLAIMS_NESTED_MAX}")
        case dict():
            for name, each in value.items():
                _check_name(name)
                yield from _texts(each, depth - 1)
        case list():
            for each in value:
                yield from _texts(each, depth - 1)
        case _:
            raise InvalidInput("is neither text, number, boolean, list nor object")


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with each text changed, but for the names in objects."""
    match value:
        case str():
            return change(value)
        case float():
            return int(value) if value.is_integer() else value  # as they come over the wire, and as they were written
        case dict():
            return {name: _mapped(each, change) for name, each in value.items()}
        case list():
            return [_mapped(each, change) for each in value]
        case _:
            return value
