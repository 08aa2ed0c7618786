"""service.py: whose tokens outlive themselves."""

import json
from pathlib import Path

from fakes.clock import FakeClock
from fakes.people import CHAT, PeopleIssuer, table
from sojourn.people.service import People
from sojourn.people.token_kind import ID_TOKEN


async def test_of_before_the_agent(tmp_path: Path, clock: FakeClock) -> None:
    """Where tasks go on until a logout is heard, those by a token of before the agent started end with it: its logout may
    have been missed.
    """
    start = clock.now().timestamp()
    idp = PeopleIssuer(start)
    file = tmp_path / "keys.json"
    file.write_text(json.dumps(idp.jwks()))
    people = People({"corp": table(jwks=str(file), ends="session")}, clock, lambda _: None)
    ends = []
    for seconds in (0, 1):
        clock.advance(seconds)
        idp.at = int(start) + seconds
        person = await people.verify(idp.id_token(), ID_TOKEN, CHAT)
        ends.append(person.ends_at - person.expires_at)
    assert 0 == ends[0] < ends[1]
    await people.close()
