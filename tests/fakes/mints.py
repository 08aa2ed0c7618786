"""JWT-SVIDs as providers are shown them, of a key that nobody trusts."""

import base64
import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sojourn.providers.provider import Wanted
from sojourn.spiffe.ids import SpiffeId

SPIFFE_ID = SpiffeId.parse("spiffe://example.org/orders")


class FakeMint:
    """A Mint. `minted`: all of them."""

    def __init__(self, spiffe_id: SpiffeId = SPIFFE_ID) -> None:
        self.minted: list[str] = []
        self._spiffe_id = spiffe_id
        self._numbers = itertools.count(1)

    async def __call__(
        self, audience: str, *, algorithm: str = "ES256", claims: Mapping[str, Any] | None = None
    ) -> str:
        now = int(datetime.now(UTC).timestamp())
        said = {"iss": "https://sojourn.example.org", "sub": str(self._spiffe_id), "aud": audience, "iat": now}
        said |= {"exp": now + 60, "jti": f"svid-{next(self._numbers)}", **(claims or {})}
        parts = (part({"alg": algorithm, "kid": "k", "typ": "JWT"}), part(said), "c2lnbmF0dXJlLW9mLW5vYm9keQ")
        self.minted.append(".".join(parts))
        return self.minted[-1]


def wanted(ask: Any, *actions: str, resource: str = "https://orders.example.org", seconds: float = 60) -> Wanted:
    """What a task wants, that ends in so many seconds."""
    ends = datetime.now(UTC) + timedelta(seconds=seconds)
    return Wanted("task_1", "orders", SPIFFE_ID, resource, tuple(sorted(actions)) or ("orders:read",), ask, ends)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
