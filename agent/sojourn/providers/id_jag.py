"""Kind `id-jag`: an identity assertion from one's own provider, taken to the provider of a resource.

draft-ietf-oauth-identity-assertion-authz-grant: the JWT-SVID is exchanged at the identity provider for an assertion for
the resource's authorization server (RFC 8693), which gives a token for it (RFC 7523). The assertion is the identity
provider's: JWT-SVIDs have the type JWT, so an agent cannot make one itself. Where a resource's server trusts the agent
directly, the kind is `bearer`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator

from sojourn.providers.authorization_server import AuthorizationServer, ClientAuth, OAuthTable
from sojourn.providers.bearer import JWT_BEARER
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.http import Http
from sojourn.providers.oauth import EXCHANGE, OAuthAsk, OAuthProvider
from sojourn.providers.oidc import TOKEN_EXCHANGE, absolute
from sojourn.providers.provider import Mint, Obtained, Wanted
from sojourn.providers.settings import Endpoint
from sojourn.providers.tokens import TYPE_PREFIX, Expected, Granted, unverified_claims
from sojourn.runtime.clock import Clock
from sojourn.settings.outside import Issuer, Text

ID_JAG: Final = f"{TYPE_PREFIX}id-jag"
ASSERT: Final = "identity_assertion"
_TYPE: Final = "oauth-id-jag+jwt"


class IdJagTable(OAuthTable):
    """The table's own keys are of the resource's authorization server; those with `idp_` of the identity provider."""

    idp_issuer: Issuer
    idp_token_endpoint: Endpoint | None = None
    idp_client_auth: ClientAuth = "none"
    idp_client_id: Text | None = None
    idp_assertion_audience: Text | None = None
    subject_token_type: Literal["jwt", "id_token"] = "jwt"  # noqa: S105  # a name


class IdJagAsk(OAuthAsk):
    """`audience` is not asked for: the assertion is for the resource's authorization server."""

    audience: None = None
    resource: Annotated[Text, AfterValidator(absolute)] | None = None  # default: what the task names


class IdJagProvider(OAuthProvider[IdJagTable, IdJagAsk]):
    """Settings: IdJagTable. `ask`: IdJagAsk."""

    table_model = IdJagTable
    ask_model = IdJagAsk
    grant_type = JWT_BEARER

    def __init__(self, name: str, settings: Mapping[str, Any], http: Http, clock: Clock | None = None) -> None:
        super().__init__(name, settings, http, clock)
        table = self.table
        own = {
            "issuer": table.idp_issuer,
            "token_endpoint": table.idp_token_endpoint,
            "client_auth": table.idp_client_auth,
            "client_id": table.idp_client_id,
            "assertion_audience": table.idp_assertion_audience,
        }
        self._idp = AuthorizationServer(table.model_copy(update=own), http, self.clock, self.hint)
        self.audiences |= self._idp.audiences

    async def exchange(self, wanted: Wanted, mint: Mint) -> Obtained:
        ask: IdJagAsk = wanted.ask
        scope = ask.of(wanted.actions)
        asked = {"scope": scope} if scope else {}
        form = {
            "grant_type": TOKEN_EXCHANGE,
            "requested_token_type": ID_JAG,
            "subject_token": await self._idp.assertion(mint),
            "subject_token_type": TYPE_PREFIX + self.table.subject_token_type,
            "audience": self.table.issuer,
            "resource": ask.resource or wanted.resource,
            **asked,
        }
        expected = Expected(scope, ask.most(wanted.actions), ID_JAG, bearer=False)
        assertion = await self._idp.token(form, mint, expected, step=ASSERT)
        self._check(assertion)
        form = {"grant_type": JWT_BEARER, "assertion": assertion.token, **asked}
        return self.obtained(await self.server.token(form, mint, self.expected(wanted), step=EXCHANGE))

    def _check(self, assertion: Granted) -> None:
        """An assertion goes to the server that it is for, and to no other. Raise ProviderRefused."""
        if unverified_claims(assertion.token, part=0).get("typ") != _TYPE:
            raise ProviderRefused(f"the identity provider's assertion is not of type {_TYPE}", step=ASSERT)
        audience = assertion.unverified_claims.get("aud")
        if audience not in (self.table.issuer, [self.table.issuer]):
            raise ProviderRefused("the identity provider's assertion is for another server", step=ASSERT)

    async def close(self) -> None:
        await self._idp.close()
        await super().close()
