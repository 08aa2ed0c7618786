"""Asking an issuer whether a person's token is still active (RFC 7662), as the agent itself, by its own JWT-SVID."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from sojourn.errors.people import PersonRefused
from sojourn.limits import PERSON_RECHECKS_AT_ONCE
from sojourn.people.issuer_rules import IssuerRules
from sojourn.people.person import Person
from sojourn.providers.authorization_server import AuthorizationServer, ClientAuth, OAuthTable
from sojourn.providers.discovery import Discovery
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.providers.provider import Mint
from sojourn.runtime.clock import Clock
from sojourn.settings.people import PeopleConfig

log = structlog.get_logger()
_HINTS: Final = {
    "invalid_client": "register the agent's SPIFFE ID as a client there, and let it know this agent's keys",
}


class Introspection:
    """Asks one issuer. Nothing of a token is kept, and none is in a log."""

    def __init__(
        self, rules: IssuerRules, table: PeopleConfig, http: Http, discovery: Discovery, clock: Clock, mint: Mint
    ) -> None:
        """`discovery`: by which the issuer's keys are found, too."""
        self.rules = rules
        self._mint = mint
        self._turns = asyncio.Semaphore(PERSON_RECHECKS_AT_ONCE)
        how: ClientAuth = "jwt-spiffe" if table.client_auth == "jwt-spiffe" else "jwt-bearer"
        asked = OAuthTable(kind="people", issuer=table.issuer, client_id=table.client_id, client_auth=how)
        self._server = AuthorizationServer(asked, http, clock, lambda error, _told: _HINTS.get(error, ""), discovery)

    async def is_active(self, text: str, person: Person) -> bool:
        """Whether a token that was verified as this person's is still active.

        Raise PersonRefused (`issuer_unavailable`) if the issuer does not say. An answer of another person or session is
        none about this token.
        """
        said = await self._asked(text)
        if not said["active"]:
            return False
        wrong = _differs(said, person)
        if wrong:
            log.warning("person_not_rechecked", issuer=self.rules.name, reason=f"the answer has another {wrong}")
            raise _unavailable(f"the answer has another {wrong}")
        return True

    async def check(self, text: str, person: Person) -> None:
        """Raise PersonRefused unless a token that somebody brings is active."""
        if not await self.is_active(text, person):
            raise _not_active()

    async def read(self, text: str) -> Mapping[str, Any]:
        """What the issuer says of an active token that says nothing itself. Raise PersonRefused."""
        async with self._turns:
            said = await self._asked(text)
        if not said["active"]:
            raise _not_active()
        return said

    async def _asked(self, text: str) -> Mapping[str, Any]:
        try:
            return await self._server.introspect(text, self._mint)
        except (ProviderRefused, ProviderUnavailable) as error:
            log.warning("person_not_rechecked", issuer=self.rules.name, reason=error.public, hint=error.hint or None)
            raise _unavailable(error.public) from error

    async def close(self) -> None:
        await self._server.close()


def _differs(said: Mapping[str, Any], person: Person) -> str:
    """What an answer says of somebody else, or does not say; '': it is of this person. Its `aud` is not that of the
    token, and is not compared.
    """
    if said.get("sub") != person.subject:  # what names nobody is compared with nobody
        return "sub, or none"
    told = {"iss": person.url, **({"sid": person.session} if person.session else {})}
    return next((name for name, value in told.items() if name in said and said[name] != value), "")


def _not_active() -> PersonRefused:
    return PersonRefused(
        "not_active",
        "the issuer does not say that the token is active: it has been ended, or the issuer tells this agent nothing of"
        " tokens that are for others",
    )


def _unavailable(why: str) -> PersonRefused:
    public = "the issuer does not say now whether the token is active; the agent's log has why"
    return PersonRefused("issuer_unavailable", public, detail=why)
