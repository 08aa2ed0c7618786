"""issuer_keys.py: where the keys come from that people's tokens are signed with, and how often that is asked."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fakes.clock import FakeClock
from fakes.people import CHAT, CHAT_ALONE, PeopleIssuer
from harness.authserver import AuthServer, bomb, drop, huge, redirect, slow, status
from harness.looking import WAIT_SECONDS
from harness.tlsplace import TlsPlace
from sojourn.errors import InvalidConfig, InvalidToken
from sojourn.errors.people import PersonRefused
from sojourn.limits import PUBLISHED_KEYS_ANEW_SECONDS, PUBLISHED_KEYS_KEPT_SECONDS, PUBLISHED_KEYS_SECONDS
from sojourn.people.service import People
from sojourn.people.token_kind import ID_TOKEN
from sojourn.settings.people import PeopleConfig

CLOCK_START = FakeClock().now().timestamp()


def table(server: AuthServer, **more: Any) -> PeopleConfig:
    said = {"issuer": server.issuer, "presenters": CHAT_ALONE, "plain_http": True, "timeout": "5s", **more}
    return PeopleConfig.model_validate({name: value for name, value in said.items() if value is not None})


@pytest.fixture
async def people(server: AuthServer, clock: FakeClock) -> AsyncIterator[People]:
    made = People({"corp": table(server)}, clock, lambda _: None)
    yield made
    await made.close()


async def code(people: People, text: str) -> str:
    """With which code, or reason, a token is refused; empty: it is not."""
    try:
        await people.verify(text, ID_TOKEN, CHAT)
    except PersonRefused as error:
        return error.code
    except InvalidToken as error:
        return error.reason_code
    return ""


class TestFetched:
    async def test_by_discovery(self, people: People, server: AuthServer, idp: PeopleIssuer) -> None:
        """The keys are found by the issuer's own metadata, when the first token comes, and are kept for the next."""
        assert [] == server.calls("jwks")
        for _ in range(3):
            assert "" == await code(people, idp.id_token())
        assert (1, 1) == (len(server.calls("metadata")), len(server.calls("jwks")))

    async def test_once_for_all_who_wait(self, people: People, server: AuthServer, idp: PeopleIssuer) -> None:
        """Many who come at once wait for one fetch."""
        server.script("jwks", slow(0.2))
        assert [""] * 50 == await asyncio.gather(*(code(people, idp.id_token()) for _ in range(50)))
        assert 1 == len(server.calls("jwks"))

    async def test_new_key(self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock) -> None:
        """A key that came at the issuer is known with its first token, if the keys were not fetched just now."""
        assert "" == await code(people, idp.id_token())
        rotated = PeopleIssuer(CLOCK_START, url=server.issuer, kid="k2")
        server.jwks = rotated.jwks(idp)
        clock.advance(PUBLISHED_KEYS_ANEW_SECONDS)
        assert "" == await code(people, rotated.id_token())
        assert "" == await code(people, idp.id_token())

    async def test_made_up_key_ids(
        self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock
    ) -> None:
        """Key IDs that nobody has have the keys fetched once in half a minute, however many of them come; each is
        refused for good by a fetch that began after it came, and by none before.
        """
        assert "" == await code(people, idp.id_token())
        for number in range(200):
            assert "issuer_unavailable" == await code(people, idp.id_token({"kid": f"x{number}"}))
        assert 1 == len(server.calls("jwks"))
        clock.advance(PUBLISHED_KEYS_ANEW_SECONDS)
        found = [await code(people, idp.id_token({"kid": f"x{number}"})) for number in range(200)]
        assert ["unknown_key", *["issuer_unavailable"] * 199] == found
        assert 2 == len(server.calls("jwks"))

    async def test_new_key_after_a_made_up_one(
        self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock
    ) -> None:
        """Whoever makes up key IDs has nobody's token of a new key refused: it may come again, and is taken then."""
        rotated = PeopleIssuer(CLOCK_START, url=server.issuer, kid="k2")
        assert "unknown_key" == await code(people, idp.id_token({"kid": "x"}))
        server.jwks = rotated.jwks(idp)
        assert "issuer_unavailable" == await code(people, rotated.id_token())
        clock.advance(PUBLISHED_KEYS_ANEW_SECONDS)
        assert ["unknown_key", ""] == [
            await code(people, each) for each in (idp.id_token({"kid": "x"}), rotated.id_token())
        ]

    async def test_new_key_amid_a_fetch(self, people: People, server: AuthServer, idp: PeopleIssuer) -> None:
        """A fetch that had begun when a token came says nothing of a key that is not in it."""
        server.script("jwks", slow(0.3))
        first = asyncio.ensure_future(code(people, idp.id_token()))
        async with asyncio.timeout(WAIT_SECONDS):
            while not server.calls("jwks"):
                await asyncio.sleep(0.01)
        assert "issuer_unavailable" == await code(people, idp.id_token({"kid": "k2"}))
        assert "" == await first

    async def test_a_key_that_was_taken_away(
        self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock
    ) -> None:
        """A key that its issuer has taken away signs nothing any more once the keys were fetched anew, and what it has
        signed is refused for good when they were once more.
        """
        assert "" == await code(people, idp.id_token())
        server.jwks = PeopleIssuer(CLOCK_START, kid="k2").jwks()
        clock.advance(PUBLISHED_KEYS_SECONDS)
        idp.at = int(clock.now().timestamp())
        await code(people, idp.id_token())  # with this one they are fetched behind
        async with asyncio.timeout(WAIT_SECONDS):
            while not (found := await code(people, idp.id_token())):
                await asyncio.sleep(0.01)
        assert "issuer_unavailable" == found
        clock.advance(PUBLISHED_KEYS_ANEW_SECONDS)
        assert "unknown_key" == await code(people, idp.id_token())

    async def test_issuer_down(self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock) -> None:
        """While the issuer does not answer its keys are used for an hour at most, and then nobody is believed."""
        assert "" == await code(people, idp.id_token())
        server.always["jwks"] = status(503)
        clock.advance(PUBLISHED_KEYS_SECONDS)
        late = PeopleIssuer(clock.now().timestamp(), url=server.issuer, algorithm="RS256")
        late._key = idp._key
        assert "" == await code(people, late.id_token())
        clock.advance(PUBLISHED_KEYS_KEPT_SECONDS)
        late.at = int(clock.now().timestamp())
        assert "issuer_unavailable" == await code(people, late.id_token())

    async def test_unknown_key_while_it_is_down(
        self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock
    ) -> None:
        """While the keys cannot be fetched a key that is not known may be a new one: that is said, and not refused."""
        assert "" == await code(people, idp.id_token())
        server.always["jwks"] = status(500)
        clock.advance(PUBLISHED_KEYS_ANEW_SECONDS)
        assert "issuer_unavailable" == await code(people, idp.id_token({"kid": "k2"}))
        assert "" == await code(people, idp.id_token())

    @pytest.mark.parametrize("endpoint", ["metadata", "jwks"])
    @pytest.mark.parametrize(
        "deed",
        [
            status(500),
            status(404),
            status(200, b"nonsense"),
            status(200, {}),
            status(200, {"keys": []}),
            drop,
            huge(),
            bomb(),
            redirect("http://127.0.0.1:1/keys"),
        ],
        ids=["500", "404", "nonsense", "empty", "no-keys", "drop", "huge", "bomb", "redirect"],
    )
    async def test_odd_answers(
        self, people: People, server: AuthServer, idp: PeopleIssuer, endpoint: str, deed: Any
    ) -> None:
        """An answer that is none leaves nobody believed, and no redirect is followed."""
        server.always[endpoint] = deed
        assert "issuer_unavailable" == await code(people, idp.id_token())

    @pytest.mark.parametrize(
        "url", ["https://127.0.0.1:9/keys", "http://10.0.0.1/keys", "file:///etc/passwd", "", None]
    )
    async def test_where_the_keys_are_said_to_be(
        self, people: People, server: AuthServer, idp: PeopleIssuer, url: str | None
    ) -> None:
        """Keys are fetched from nowhere that the configuration does not allow, whatever the metadata say."""
        server.metadata_changes = {"jwks_uri": url}
        assert "issuer_unavailable" == await code(people, idp.id_token())

    async def test_metadata_of_another(self, people: People, server: AuthServer, idp: PeopleIssuer) -> None:
        """Metadata that name another issuer, by a slash even, are not used."""
        server.metadata_changes = {"issuer": server.issuer + "/"}
        assert "issuer_unavailable" == await code(people, idp.id_token())

    async def test_a_pause_after_a_failure(
        self, people: People, server: AuthServer, idp: PeopleIssuer, clock: FakeClock
    ) -> None:
        """An issuer that fails is not asked anew by each who comes, and soon after it is back people are believed."""
        server.always["jwks"] = status(500)
        for _ in range(20):
            assert "issuer_unavailable" == await code(people, idp.id_token())
        assert 1 == len(server.calls("jwks"))
        del server.always["jwks"]
        clock.advance(2)
        assert "" == await code(people, idp.id_token())

    async def test_over_tls(self, tmp_path: Path, clock: FakeClock) -> None:
        """An issuer over TLS is believed by the authority that is configured, in a network that is allowed."""
        place = TlsPlace(tmp_path)
        with AuthServer(tls=place, host="localhost") as server:
            idp = PeopleIssuer(CLOCK_START, url=server.issuer)
            server.jwks = idp.jwks()
            good = {"ca": str(place.ca), "private_networks": ["127.0.0.0/8", "::1/128"], "plain_http": None}
            for more, expected in (
                (good, ""),
                ({**good, "ca": None}, "issuer_unavailable"),
                ({**good, "private_networks": []}, "issuer_unavailable"),
            ):
                people = People({"corp": table(server, **more)}, clock, lambda _: None)
                assert expected == await code(people, idp.id_token())
                await people.close()


class TestFiled:
    async def test_is_read_anew(self, tmp_path: Path, clock: FakeClock) -> None:
        """Keys of a file are those that it has now; one that cannot be used takes them away."""
        path = tmp_path / "jwks.json"
        first, second = PeopleIssuer(CLOCK_START), PeopleIssuer(CLOCK_START, kid="k2")
        path.write_text(json.dumps(first.jwks()))
        said = {"issuer": first.url, "presenters": CHAT_ALONE, "jwks": str(path)}
        people = People({"corp": PeopleConfig.model_validate(said)}, clock, lambda _: None)
        assert ["", "unknown_key"] == [await code(people, each.id_token()) for each in (first, second)]
        path.write_text(json.dumps(second.jwks()))
        assert ["unknown_key", ""] == [await code(people, each.id_token()) for each in (first, second)]
        path.write_text("{")
        assert "issuer_unavailable" == await code(people, second.id_token())
        await people.close()


class TestPeople:
    async def test_nobody_configured(self, clock: FakeClock) -> None:
        """Without an issuer in the configuration every token is of an unknown one."""
        people = People({}, clock, lambda _: None)
        assert not people.is_issuer("https://idp.example.net/realms/corp")
        assert "unknown_issuer" == await code(people, PeopleIssuer(CLOCK_START).id_token())
        await people.close()

    async def test_two_issuers(self, clock: FakeClock, tmp_path: Path) -> None:
        """Each issuer's tokens are judged by its own rules and keys, also where two have the same key ID."""
        idps = [PeopleIssuer(CLOCK_START, url=f"https://{name}.example") for name in ("a", "b")]
        tables = {}
        for each, name in zip(idps, "ab", strict=True):
            (tmp_path / name).write_text(json.dumps(each.jwks()))
            said = {"issuer": each.url, "presenters": CHAT_ALONE, "jwks": str(tmp_path / name)}
            tables[name] = PeopleConfig.model_validate(said)
        people = People(tables, clock, lambda _: None)
        assert [True, True, False] == [people.is_issuer(url) for url in (idps[0].url, idps[1].url, idps[0].url + "/")]
        names = [(await people.verify(each.id_token(), ID_TOKEN, CHAT)).issuer for each in idps]
        assert ["a", "b"] == names
        assert "bad_signature" == await code(people, idps[0].id_token(iss=idps[1].url))
        await people.close()

    def test_bad_authorities(self, clock: FakeClock, tmp_path: Path) -> None:
        """A file of authorities that is none is told with its key."""
        said = {"issuer": "https://a.example", "presenters": CHAT_ALONE, "ca": str(tmp_path / "none.pem")}
        with pytest.raises(InvalidConfig) as caught:
            People({"corp": PeopleConfig.model_validate(said)}, clock, lambda _: None)
        assert caught.value.faults[0].startswith("people.corp.ca: ")
