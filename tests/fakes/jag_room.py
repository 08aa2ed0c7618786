"""The token endpoint with a real verifier of people's tokens behind it: ID-JAGs of two issuers, whose keys are in files."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fakes.granting_room import ISSUER, TRIAGE_ID, WEB_ID, Room
from fakes.people import PeopleIssuer
from fakes.persons import for_people
from fakes.task_types import PERMIT_ALL, TICKETS, WIKI, task_type
from sojourn.oauth.client_auth import ASSERTION_TYPES, ClientSender
from sojourn.oauth.token_request import JWT_BEARER
from sojourn.people.service import People
from sojourn.settings.people import PeopleConfig
from sojourn.tasks.engine import TaskEngine
from sojourn.tasktoken.tokens import TaskToken

TRIAGE_CLIENT, WEB_CLIENT = "triage-here", "web-here"
PRESENTERS = [
    {"workloads": [str(TRIAGE_ID)], "id_token_audiences": ["triage-app"], "id_jag_clients": [TRIAGE_CLIENT]},
    {"workloads": [str(WEB_ID)], "id_jag_clients": [WEB_CLIENT]},
]
CORP, PARTNER = "https://idp.example.net/realms/corp", "https://idp.partner.example"
TYPES = {
    "for-people": for_people(claims=None),
    "triage": task_type(params=None, ceiling=f'[{{resource = "{WIKI}/nobody", actions = ["page:read"]}}]'),
    "both": task_type(
        "both",
        params=None,
        allowed_workloads=f'["{TRIAGE_ID}", "{WEB_ID}"]',
        person='{need = "required"}',
        ceiling=f'[{{resource = "{WIKI}/both", actions = ["page:read"]}}]',
    ),
    "approved": task_type(
        "approved",
        params=None,
        person='{need = "required"}',
        approval='{within = "10m"}',
        ceiling=f'[{{resource = "{WIKI}/approved", actions = ["page:read"]}}]',
    ),
    "again": task_type(
        "again",
        PERMIT_ALL,
        params=None,
        person='{need = "required", acr = ["gold"], max_auth_age = "2m"}',
        ceiling=f'[{{resource = "{WIKI}/again", actions = ["page:read"]}}]',
    ),
}


class JagRoom(Room):
    """A client that is the triage agent, and two issuers: `idp` is `corp`, `partner` another, by keys of one name."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        super().__init__(folder / "keys", TYPES, people=self._people, **options)

    def _people(self, engine: TaskEngine) -> People:
        now = engine.clock.now().timestamp()
        self.idp, self.partner = PeopleIssuer(now, url=CORP), PeopleIssuer(now, url=PARTNER)
        tables = {}
        for name, each in (("corp", self.idp), ("partner", self.partner)):
            file = self.folder / f"{name}.json"
            file.write_text(json.dumps(each.jwks()))
            tables[name] = PeopleConfig.model_validate({"issuer": each.url, "jwks": file, "presenters": PRESENTERS})
        return People(tables, engine.clock, engine.standing.check, own_issuer=engine.issuer)

    @property
    def socket(self) -> ClientSender:
        return ClientSender(self.peer)

    def jag(self, idp: PeopleIssuer | None = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """One of now, for the triage agent."""
        idp = idp or self.idp
        idp.at = int(self.clock.now().timestamp())
        return idp.id_jag(header, **{"client_id": TRIAGE_CLIENT, "aud": ISSUER, **changes})

    async def bring(self, text: str, sender: ClientSender | None = None, **fields: Any) -> TaskToken:
        """Ask for a token by an assertion, at the socket if no other sender is named."""
        target = {} if {"resource", "authorization_details"} & fields.keys() else {"resource": TICKETS}
        return await self.ask(sender or self.socket, grant_type=JWT_BEARER, assertion=text, **target, **fields)

    def client_assertion(self, **options: Any) -> dict[str, str]:
        """Fields by which a client elsewhere authenticates."""
        return {"client_assertion": self.subject(**options), "client_assertion_type": ASSERTION_TYPES[0]}


@contextmanager
def jag_room(**options: Any) -> Iterator[JagRoom]:
    with tempfile.TemporaryDirectory() as folder:
        room = JagRoom(Path(folder), **options)
        try:
            yield room
        finally:
            room.close()
