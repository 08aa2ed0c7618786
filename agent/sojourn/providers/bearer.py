"""Kind `bearer`: a JWT-SVID as a grant, or as client authentication, for a token at once (RFC 7523)."""

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, model_validator

from sojourn.providers.authorization_server import OAuthTable
from sojourn.providers.oauth import EXCHANGE, OAuthAsk, OAuthProvider
from sojourn.providers.oidc import absolute
from sojourn.providers.provider import Mint, Obtained, Wanted
from sojourn.settings.outside import Text

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
CLIENT_CREDENTIALS: Final = "client_credentials"


class BearerTable(OAuthTable):
    """`grant`: whether the JWT-SVID is the grant (RFC 7523, 2.1), or says who the client is (2.2)."""

    grant: Literal["jwt-bearer", "client_credentials"] = "jwt-bearer"

    @model_validator(mode="after")
    def _shown_somehow(self) -> Self:
        if self.grant == CLIENT_CREDENTIALS and self.client_auth == "none":
            raise ValueError('client_auth is to be "jwt-bearer" or "jwt-spiffe" for the grant client_credentials')
        return self


class BearerAsk(OAuthAsk):
    """`audience` and `resource` are sent if they are set (RFC 8707 for the latter)."""

    resource: Annotated[Text, AfterValidator(absolute)] | None = None


class BearerProvider(OAuthProvider[BearerTable, BearerAsk]):
    """Settings: BearerTable. `ask`: BearerAsk."""

    table_model = BearerTable
    ask_model = BearerAsk

    @property
    def grant_type(self) -> str:
        return JWT_BEARER if self.table.grant == "jwt-bearer" else CLIENT_CREDENTIALS

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        ask: BearerAsk = wanted.ask
        form = {"grant_type": self.grant_type}
        if self.grant_type == JWT_BEARER:
            form["assertion"] = await self.server.assertion(mint)
        optional = {"audience": ask.audience, "resource": ask.resource, "scope": ask.of(wanted.actions)}
        form |= {name: value for name, value in optional.items() if value}
        return self.obtained(await self.server.token(form, mint, self.expected(wanted), step=EXCHANGE))
