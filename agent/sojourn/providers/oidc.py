"""Kind `oidc`: a token exchange (RFC 8693) of a JWT-SVID at any provider that does them."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from sojourn.providers.authorization_server import OAuthTable
from sojourn.providers.http import Http
from sojourn.providers.oauth import EXCHANGE, OAuthAsk, OAuthProvider
from sojourn.providers.provider import ACCESS_TOKEN, Mint, Obtained, Wanted
from sojourn.providers.tokens import TYPE_PREFIX, Expected
from sojourn.runtime.clock import Clock
from sojourn.settings.outside import Text

TOKEN_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105  # a name
Kind = Literal["access_token", "jwt", "id_token"]


def absolute(value: str) -> str:
    scheme, separator, rest = value.partition(":")
    if not (separator and rest and scheme.isascii() and scheme.isalnum()) or "#" in value or " " in value:
        raise ValueError("is not an absolute URI without fragment (RFC 8707, 2)")
    return value


class OidcTable(OAuthTable):
    """`subject_audience`: `aud` of the JWT-SVID that is exchanged, default `assertion_audience`, or the issuer."""

    subject_audience: Text | None = None
    subject_token_type: Kind = "jwt"  # noqa: S105  # a name


class OidcAsk(OAuthAsk):
    """`audience` and `resource` (RFC 8693, 2.1); with neither, `resource` is what the task names."""

    resource: Annotated[Text, AfterValidator(absolute)] | None = None
    requested_token_type: Kind | None = None


class OidcProvider(OAuthProvider[OidcTable, OidcAsk]):
    """Settings: OidcTable. `ask`: OidcAsk."""

    table_model = OidcTable
    ask_model = OidcAsk
    grant_type = TOKEN_EXCHANGE

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        super().__init__(name, settings, http, clock)
        if self.table.subject_audience is not None:
            self.audiences |= {self.table.subject_audience}

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        ask: OidcAsk = wanted.ask
        table = self.table
        subject = await mint(table.subject_audience or self.server.audience, algorithm=table.algorithm)
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "subject_token": subject,
            "subject_token_type": TYPE_PREFIX + table.subject_token_type,
        }
        optional = {
            "audience": ask.audience,
            "resource": ask.resource or (None if ask.audience else wanted.resource),
            "scope": ask.of(wanted.actions),
            "requested_token_type": ask.requested_token_type and TYPE_PREFIX + ask.requested_token_type,
        }
        form |= {name: value for name, value in optional.items() if value}
        granted = await self.server.token(form, mint, self.expected(wanted), step=EXCHANGE)
        return self.obtained(granted)

    def expected(self, wanted: Wanted) -> Expected:
        requested = wanted.ask.requested_token_type
        issued = TYPE_PREFIX + requested if requested else ""
        return Expected(
            wanted.ask.of(wanted.actions), wanted.ask.most(wanted.actions), issued, bearer=issued in {"", ACCESS_TOKEN}
        )
