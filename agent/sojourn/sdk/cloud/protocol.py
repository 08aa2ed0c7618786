"""What is at a secret of the endpoints: how the SDKs of one cloud ask there, and what they are answered."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from sojourn.errors import InvalidInput, LimitExceeded, SojournError, Unavailable, Unreachable
from sojourn.limits import LOCAL_CONTENT_MAX_BYTES, LOCAL_CREDENTIAL_SECONDS
from sojourn.sdk.cloud.credentials import CloudCredentials
from sojourn.sdk.egress.http1 import Malformed, Wire
from sojourn.sdk.task.values import AccessToken

_NOT_NOW: Final = (Unavailable, Unreachable, LimitExceeded)


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """A request of someone who knows the secret. `path` and `query` are what the target has behind the secret."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]  # names in lower case
    content: bytes

    def header(self, name: str) -> str:
        """The only header of this name; '' if there is none, or if there are several."""
        found = [value for each, value in self.headers if each == name]
        return found[0] if len(found) == 1 else ""


@dataclass(frozen=True, slots=True)
class EndpointPlace:
    """Where a form is: the URL with its secret, and files that it has in a private folder, by name."""

    url: str
    files: Mapping[str, str]


class Leg(Protocol):
    """Serves the requests at one secret."""

    async def serve(self, wire: Wire, request: Any, rest: str) -> bool:
        """Answer one. `rest` is its target behind the secret. Say whether the connection may be used again."""


class Form(Protocol):
    """One kind of SDK whose requests are answered with documents."""

    async def answer(self, asked: CredentialRequest) -> Mapping[str, Any]:
        """What is answered with 200. Raise what the agent raised, InvalidInput or Refused."""

    def failure(self, status: int, error: SojournError) -> Mapping[str, Any]:
        """The document of an error, as these SDKs read it."""


class CredentialLeg:
    """The leg of a form."""

    def __init__(self, form: Form) -> None:
        self._form = form

    async def serve(self, wire: Wire, request: Any, rest: str) -> bool:
        try:
            document = await self._form.answer(await _read(wire, request, rest))
        except SojournError as error:
            status = status_of(error)
            await wire.say(status, self._form.failure(status, error))
            return False
        except Malformed as error:
            await wire.say(error.status, self._form.failure(error.status, InvalidInput(str(error))))
            return False
        return await wire.give(document)


async def _read(wire: Wire, request: Any, rest: str) -> CredentialRequest:
    content = b""
    async for part in wire.content():
        content += part
        if len(content) > LOCAL_CONTENT_MAX_BYTES:
            raise Malformed(413, f"more than {LOCAL_CONTENT_MAX_BYTES} bytes are none of these requests")
    path, _, query = rest.partition("?")
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
    return CredentialRequest(request.method.decode("latin-1"), path, query, headers, content)


def status_of(error: SojournError) -> int:
    """503 for what may be tried again, 400 for what is no good request; else the task is over, or has no such right."""
    if isinstance(error, _NOT_NOW):
        return 503
    return 400 if isinstance(error, InvalidInput) else 403


def check_method(asked: CredentialRequest, method: str) -> None:
    if asked.method != method:
        raise InvalidInput(f"this is asked for by {method}")


class Lent:
    """Credentials, and for how long an SDK may keep them before it asks again."""

    def __init__(self, credentials: CloudCredentials) -> None:
        self._credentials = credentials
        self.resource = credentials.resource

    async def lend(self) -> tuple[AccessToken, datetime]:
        """What the agent gives now, and until when an SDK is to believe in it.

        That is sooner than its end: an SDK that comes back often learns at its next request that the task is over.
        """
        token = await self._credentials.get()
        soon = datetime.now(UTC) + timedelta(seconds=LOCAL_CREDENTIAL_SECONDS)
        return token, min(token.expires_at, soon)
