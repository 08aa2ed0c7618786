"""AWS: the container credential provider that every AWS SDK has (AWS_CONTAINER_CREDENTIALS_FULL_URI)."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sojourn.errors import SojournError, Unavailable
from sojourn.sdk.cloud.protocol import CredentialRequest, EndpointPlace, Lent, check_method
from sojourn.sdk.task.values import AWS_CREDENTIALS, AccessToken, Outside

EMPTY: Final = "aws-empty"  # in the place of files whose profiles would come first
# What the SDKs would take before they come here.
REPLACED: Final = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"),
    *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    *("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CREDENTIAL_EXPIRATION", "AWS_CREDENTIAL_FILE"),
    *("AWS_BEARER_TOKEN_BEDROCK", "AWS_ACCOUNT_ID"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"),
)
_MEMBERS: Final = ("AccessKeyId", "SecretAccessKey", "Token")


def environment(outside: Outside, place: EndpointPlace) -> dict[str, str]:
    """What an AWS SDK finds. Its files are empty: a profile there would be taken before the task's credentials."""
    region = outside.details.get("region", "")
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": place.url,
        "AWS_SHARED_CREDENTIALS_FILE": place.files[EMPTY],
        "AWS_CONFIG_FILE": place.files[EMPTY],
        "BOTO_CONFIG": place.files[EMPTY],
        "AWS_EC2_METADATA_DISABLED": "true",
        **({"AWS_REGION": region, "AWS_DEFAULT_REGION": region} if region else {}),
    }


class AwsForm:
    def __init__(self, lent: Lent) -> None:
        self._lent = lent

    async def answer(self, asked: CredentialRequest) -> Mapping[str, Any]:
        check_method(asked, "GET")
        token, until = await self._lent.lend()
        return _document(token, until)

    def failure(self, status: int, error: SojournError) -> Mapping[str, Any]:
        return {"code": "ServiceUnavailable" if status == 503 else "AccessDenied", "message": error.public}


def _document(token: AccessToken, until: datetime) -> dict[str, str]:
    try:
        given = json.loads(token.token) if token.issued_type == AWS_CREDENTIALS else {}
        members = {name: str(given[name]) for name in _MEMBERS}
    except (ValueError, KeyError, TypeError) as error:
        raise Unavailable(f"provider {token.provider!r} gave no credentials of AWS") from error
    return {**members, "Expiration": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
