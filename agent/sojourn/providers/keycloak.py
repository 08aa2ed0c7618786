"""Kind `keycloak`: a Keycloak realm that knows workloads by their SPIFFE IDs (its feature `spiffe`, 26.4 and newer).

Keycloak takes a JWT-SVID as client authentication alone. So there are two calls: one for a token of the workload's
client (client_credentials), and one that exchanges it for a token for the audience (standard token exchange). Neither
ends with the other: both tokens are revoked at the end.
"""

from typing import Annotated, Final

from pydantic import AfterValidator

from sojourn.providers.authorization_server import ClientAuth, OAuthTable
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.oauth import EXCHANGE, OAuthAsk, OAuthProvider
from sojourn.providers.oidc import TOKEN_EXCHANGE
from sojourn.providers.provider import ACCESS_TOKEN, Mint, Obtained, Wanted
from sojourn.providers.tokens import Expected
from sojourn.settings.outside import Issuer

FIRST: Final = "client_credentials"


def _realm(value: str) -> str:
    if not value.rpartition("/")[0].endswith("/realms"):
        raise ValueError("is not the URL of a realm, such as https://kc.example.org/realms/x")
    return value


class KeycloakTable(OAuthTable):
    """`issuer` is the realm's URL, and the `aud` of what it is shown: Keycloak takes nothing else."""

    issuer: Annotated[Issuer, AfterValidator(_realm)]
    client_auth: ClientAuth = "jwt-spiffe"


class KeycloakProvider(OAuthProvider[KeycloakTable, OAuthAsk]):
    """Settings: KeycloakTable. `ask`: OAuthAsk; its audience is the client of the service."""

    table_model = KeycloakTable
    ask_model = OAuthAsk
    grant_type = FIRST

    def hint(self, error: str, told: str) -> str:
        return next((hint for part, hint in _HINTS if part in told), "") or super().hint(error, told)

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        ask: OAuthAsk = wanted.ask
        scope = ask.of(wanted.actions)
        asked = {"scope": scope} if scope else {}
        if ask.audience is None:
            only = {"grant_type": FIRST, **asked}
            return self.obtained(await self.server.token(only, mint, self.expected(wanted), step=FIRST))
        first = await self.server.token({"grant_type": FIRST}, mint, Expected(), step=FIRST)
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": first.token,
            "subject_token_type": ACCESS_TOKEN,
            "audience": ask.audience,
            **asked,
        }
        try:
            granted = await self.server.token(form, mint, self.expected(wanted), step=EXCHANGE)
        except BaseException as error:  # given up, too
            self.server.discard((first.token,), mint)
            if isinstance(error, ProviderRefused) and any(each in error.public for each in _NO_TARGET):
                error.said = "invalid_target"  # RFC 8693, 2.2.2; Keycloak says invalid_client and invalid_request
            raise
        return self.obtained(granted, first)


_NO_TARGET: Final = ("Audience not found", "Requested audience not available")
_HINTS: Final = (
    ("Client disabled", "enable the client of the service, which is ask.audience"),
    (
        "Invalid client or Invalid client credentials",
        (
            "the realm needs an identity provider of type SPIFFE with this trust domain and the agent's bundle "
            "endpoint, which Keycloak can reach and whose certificate it trusts (--truststore-paths; if not, `sojourn "
            "status` has a failed TLS connection), and an enabled client with the authenticator "
            '"Signed JWT - Federated" whose issuer is that provider\'s alias and whose subject is the SPIFFE ID'
        ),
    ),
    ("Audience not found", "ask.audience must be the client id of a client of the realm: there is none with this name"),
    (
        "Requested audience not available",
        "give the workload's client an audience mapper for the service's client (Client scopes, dedicated scope)",
    ),
    ("not enabled to retrieve service account", 'switch on "Service account roles" at the workload\'s client'),
    ("token exchange is not enabled", 'switch on "Standard Token Exchange" at the workload\'s client'),
    ("Invalid scopes", "add these as optional client scopes to the workload's client"),
    ("not within the token audience", "give the workload's client an audience mapper for itself"),
)
