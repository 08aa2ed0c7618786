"""Azure: the managed identity endpoint of App Service (IDENTITY_ENDPOINT), which every Azure SDK knows."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

from sojourn.errors import InvalidInput, Refused, SojournError
from sojourn.sdk.cloud.protocol import CredentialRequest, EndpointPlace, Lent, check_method
from sojourn.sdk.task.values import Outside

REPLACED: Final = (
    *("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_CLIENT_CERTIFICATE_PATH", "AZURE_CLIENT_CERTIFICATE_PASSWORD"),
    *("AZURE_USERNAME", "AZURE_PASSWORD", "AZURE_FEDERATED_TOKEN_FILE", "AZURE_TOKEN_CREDENTIALS"),
    *("IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT"),
    *("MSI_ENDPOINT", "MSI_SECRET"),
)
ASSERTION: Final = "azure-assertion"
_HEADER: Final = "x-identity-header"
_SAID: Final = "sojourn"  # no secret: that is in the endpoint's path; a request that a page causes has no such header
_VERSION: Final = "2019-08-01"
_DEFAULT: Final = "/.default"


def environment(_outside: Sequence[Outside], place: EndpointPlace) -> dict[str, str]:
    """What an Azure SDK finds. DefaultAzureCredential goes there alone: else it would go on to another identity, such
    as that of the Azure CLI, when the task is over.
    """
    return {
        "IDENTITY_ENDPOINT": place.url,
        "IDENTITY_HEADER": _SAID,
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
    }


def file_environment(outside: Outside, place: EndpointPlace) -> dict[str, str]:
    """The same where the operator has the SDK exchange an assertion itself: a file of it is kept fresh."""
    details = outside.details
    authority = details.get("authority", "")
    return {
        "AZURE_FEDERATED_TOKEN_FILE": place.files[ASSERTION],
        "AZURE_CLIENT_ID": details.get("client_id", ""),
        "AZURE_TENANT_ID": details.get("tenant_id", ""),
        "AZURE_TOKEN_CREDENTIALS": "WorkloadIdentityCredential",
        **({"AZURE_AUTHORITY_HOST": authority} if authority else {}),
    }


def gives_assertion(outside: Outside) -> bool:
    """Whether what the agent gives is for Entra's token endpoint, and not for the resource."""
    return outside.details.get("gives", "") == "assertion"


def resource_of(outside: Outside) -> str:
    """What the SDKs call the resource of a scope."""
    return outside.details.get("scope", "").removesuffix(_DEFAULT).rstrip("/")


class AzureForm:
    """Where there are several outside resources, the scope that is asked for says which one is meant."""

    def __init__(self, lent: Sequence[tuple[Outside, Lent]]) -> None:
        self._lent = lent

    async def answer(self, asked: CredentialRequest) -> Mapping[str, Any]:
        check_method(asked, "GET")
        if asked.header(_HEADER) != _SAID:
            raise InvalidInput("a request has the header X-IDENTITY-HEADER, with what IDENTITY_HEADER has")
        query = parse_qs(asked.query)
        if query.get("api-version") != [_VERSION]:
            raise InvalidInput(f"api-version is {_VERSION}")
        named = query.get("resource", [])
        if len(named) != 1:
            raise InvalidInput("resource is there once")
        outside, lent = self._find(named[0])
        client_id = outside.details.get("client_id", "")
        self._check_identity(query, client_id)
        token, until = await lent.lend()
        return {
            "access_token": token.token,
            "expires_on": str(int(until.timestamp())),
            "resource": named[0],
            "token_type": "Bearer",
            **({"client_id": client_id} if client_id else {}),
        }

    def failure(self, status: int, error: SojournError) -> Mapping[str, Any]:
        return {"statusCode": status, "message": error.public}

    def _find(self, resource: str) -> tuple[Outside, Lent]:
        asked = resource.removesuffix(_DEFAULT).rstrip("/")
        for outside, lent in self._lent:
            if resource_of(outside) == asked:
                return outside, lent
        has = ", ".join(resource_of(outside) for outside, _ in self._lent)
        raise Refused(f"the task has nothing for {asked[:200]!r}: it has {has}")

    def _check_identity(self, query: Mapping[str, Sequence[str]], client_id: str) -> None:
        if {"mi_res_id", "object_id", "principal_id"} & set(query):
            raise InvalidInput("the task has one identity: leave out which one is meant, or name its client ID")
        if query.get("client_id", [client_id]) != [client_id]:
            raise InvalidInput(f"the task's identity has the client ID {client_id or '(none is told)'}")
