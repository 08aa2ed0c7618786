"""HTTP to the outside, as providers and partners are asked: what they are given and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sojourn.jose import strict_json
from sojourn.providers.errors import ProviderUnavailable


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    def json(self, step: str) -> dict[str, Any]:
        """The body as a JSON object, strictly read. Raise ProviderUnavailable that names `step` if it is none."""
        try:
            value = strict_json.loads(self.body.decode())
        except ValueError as error:
            raise ProviderUnavailable("the answer is not JSON", step=step, sent=True) from error
        if not isinstance(value, dict):
            raise ProviderUnavailable("the answer is not a JSON object", step=step, sent=True)
        return value

    def told(self) -> dict[str, Any]:
        """As `json`, but empty of a body that is none: of an answer that says no, in whatever form."""
        try:
            return self.json("")
        except ProviderUnavailable:
            return {}


class Http(Protocol):
    """Requests to the outside. Each raises ProviderUnavailable if no answer came, or it was not to be had safely:

    an address that is not public and not allowed, a certificate that is not good, a redirect, an answer that is too
    large or too slow. What a status means is for the caller to say. `step` names the call in errors and checks.
    """

    async def get(self, url: str, *, step: str, headers: Mapping[str, str] | None = None) -> HttpResponse: ...

    async def post_form(
        self, url: str, form: Mapping[str, str], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse: ...

    async def post_json(
        self, url: str, body: Mapping[str, Any], *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse: ...

    async def close(self) -> None:
        """Let go of the connections that are kept. Its provider does that, when it is closed itself."""
