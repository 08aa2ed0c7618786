"""What a client says of a token that it asks about.

A token's holder is the workload that it was issued to; its audience is the service that it is for. Nobody else learns
anything of it, not even whether it ever was one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sojourn.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """A token that a client asks about, and what it says of its type."""

    unverified_token: str = field(repr=False)
    hint: str = ""

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "TokenQuery":
        """Read a form's fields that have a value. Raise InvalidInput."""
        if not fields.get("token"):
            raise InvalidInput("token is missing")
        return cls(fields["token"], fields.get("token_type_hint", ""))
