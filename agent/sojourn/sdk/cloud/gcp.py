"""Google Cloud: a URL-sourced external account (GOOGLE_APPLICATION_CREDENTIALS) whose token service is the endpoint.

The library fetches a subject token and exchanges it: both here. The subject token means nothing and is good once; what
the exchange gives is what the agent has from Google.
"""

import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from sojourn.errors import InvalidInput, SojournError
from sojourn.limits import LOCAL_SUBJECT_TOKENS
from sojourn.quota.lru import Lru
from sojourn.sdk.cloud.protocol import CredentialRequest, EndpointPlace, Lent, check_method
from sojourn.sdk.task.values import Outside

CONFIGURATION: Final = "gcp.json"
REPLACED: Final = (
    *("GOOGLE_CREDENTIALS", "GOOGLE_CLOUD_KEYFILE_JSON", "GCLOUD_KEYFILE_JSON", "GOOGLE_OAUTH_ACCESS_TOKEN"),
    *("CLOUDSDK_AUTH_ACCESS_TOKEN", "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE", "CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE"),
    "GOOGLE_APPLICATION_CREDENTIALS",
)
_SUBJECT, _TOKEN = "/subject", "/token"  # paths
_FLAVOR: Final = ("metadata-flavor", "Google")
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS: Final = "urn:ietf:params:oauth:token-type:access_token"
# No pool of Google's: with one, libraries would ask Google about its project, which is no matter of the task.
_AUDIENCE: Final = "urn:sojourn:task"


def configuration(outside: Outside, url: str) -> str:
    """The external_account configuration, JSON."""
    universe = outside.details.get("universe_domain", "")
    return json.dumps(
        {
            "type": "external_account",
            "audience": _AUDIENCE,
            "subject_token_type": _JWT,
            "token_url": url + _TOKEN,
            "credential_source": {
                "url": url + _SUBJECT,
                "headers": {"Metadata-Flavor": _FLAVOR[1]},
                "format": {"type": "json", "subject_token_field_name": "subject_token"},
            },
            **({"universe_domain": universe} if universe else {}),
        }
    )


def environment(outside: Outside, place: EndpointPlace) -> dict[str, str]:
    project = outside.details.get("project_id", "")
    return {
        "GOOGLE_APPLICATION_CREDENTIALS": place.files[CONFIGURATION],
        **({"GOOGLE_CLOUD_PROJECT": project} if project else {}),
    }


class GcpForm:
    def __init__(self, lent: Lent) -> None:
        self._lent = lent
        self._subjects: Lru[str, bool] = Lru(LOCAL_SUBJECT_TOKENS, by_age=True)

    async def answer(self, asked: CredentialRequest) -> Mapping[str, Any]:
        if asked.path == _SUBJECT:
            check_method(asked, "GET")
            if asked.header(_FLAVOR[0]) != _FLAVOR[1]:
                raise InvalidInput("a request for the subject token has the header Metadata-Flavor: Google")
            await self._lent.lend()  # so that the library says why there is none
            return {"subject_token": self._subject()}
        if asked.path == _TOKEN:
            check_method(asked, "POST")
            return await self._exchange(asked.content)
        raise InvalidInput("the token service is at /token, and the subject token at /subject")

    def failure(self, status: int, error: SojournError) -> Mapping[str, Any]:
        code = {400: "invalid_request", 503: "temporarily_unavailable"}.get(status, "access_denied")
        return {"error": code, "error_description": error.public}

    def _subject(self) -> str:
        subject = secrets.token_urlsafe(32)
        self._subjects.put(subject, True)
        return subject

    async def _exchange(self, content: bytes) -> Mapping[str, Any]:
        try:
            form = dict(parse_qsl(content.decode("ascii"), strict_parsing=True))
        except ValueError as error:
            raise InvalidInput("a token exchange is a form") from error
        if form.get("grant_type") != _EXCHANGE or form.get("requested_token_type", _ACCESS) != _ACCESS:
            raise InvalidInput("this exchanges a subject token for an access token (RFC 8693), and nothing else")
        if not self._subjects.drop(form.get("subject_token", "")):
            raise InvalidInput("the subject token is none that was given here, or was used")
        token, until = await self._lent.lend()
        return {
            "access_token": token.token,
            "issued_token_type": _ACCESS,
            "token_type": "Bearer",
            "expires_in": max(0, int((until - datetime.now(UTC)).total_seconds())),
        }
