"""people_logout.py: what an issuer says of a logout is done when it is answered, and the answer tells nothing else."""

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from fakes.ended_sessions import KEY, FakeEndedStore
from fakes.families import FamilyRoom
from fakes.logouts import logout_token
from fakes.people import CHAT, CHAT_ALONE, ISSUER, PeopleIssuer, table
from fakes.persons import for_people, person, refused
from harness.authserver import AuthServer
from harness.looking import WAIT_SECONDS
from sojourn.endpoints.http1.scope import HELD, SENDER
from sojourn.endpoints.oauth.people_logout import LogoutApp
from sojourn.errors import StoreFailed
from sojourn.errors.people import PersonRefused
from sojourn.jose.jws import PublicKey
from sojourn.limits import (
    LOGOUT_REQUESTS_PER_SECOND,
    PENDING_DELIVERIES_OF_ISSUER,
    PENDING_DELIVERY_PAUSE_SECONDS,
    PUBLISHED_KEYS_ANEW_SECONDS,
)
from sojourn.oauth.client_auth import ClientSender
from sojourn.people.ended_sessions import EndedSessions
from sojourn.people.service import Issuer, People
from sojourn.people.token_kind import ID_TOKEN
from sojourn.policy.task_types import TypeSet
from sojourn.quota.rate import Rate
from sojourn.quota.usage import Held
from sojourn.settings.people import PeopleConfig
from sojourn.tasks.end_people import EndPeople
from structlog.testing import capture_logs

FORM = "application/x-www-form-urlencoded"
PATH = "/people/corp/logout"


class Keys:
    """The issuer's, at hand."""

    def __init__(self, idp: PeopleIssuer) -> None:
        self.failure: PersonRefused | None = None
        self.asked = 0
        self.since: list[float | None] = []
        self.keys = {idp.kid: PublicKey.from_jwk(idp.jwk())}

    async def find(self, kid: str, since: float | None = None) -> PublicKey | None:
        self.asked += 1
        self.since.append(since)
        if self.failure is not None:
            raise self.failure
        return self.keys.get(kid)

    async def close(self) -> None:
        pass


class Place(FamilyRoom):
    """Tasks for people, and who hears of their logouts."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock, types=TypeSet({"shared": for_people("shared", several="true")}))
        self.idp = PeopleIssuer(clock.now().timestamp())
        self.ended_store = FakeEndedStore()
        sessions = self.engine.standing.sessions = EndedSessions(KEY, self.ended_store, clock, self.alarms)
        self.people = People({"corp": table()}, clock, self.engine.standing.check)
        issuer = self.people.issuers["corp"]
        made = Issuer(issuer.rules, Keys(self.idp))
        self.people.issuers = {"corp": made}
        self.people._by_url = {ISSUER: made}
        ending = EndPeople(self.engine, sessions, {"corp": made.rules})
        self.app = LogoutApp(self.people, ending, self.audit, clock, self.alarms)

    async def for_session(self, session: str, **changes: Any) -> Any:
        whom = person(url=ISSUER, session=session, **changes)
        return await self.begin("shared", person=whom)

    async def later(self) -> None:
        """After the pause between two looks whether keys are to be had."""
        self.clock.advance(PENDING_DELIVERY_PAUSE_SECONDS)
        self.alarms.ring_due()
        async with asyncio.timeout(WAIT_SECONDS):
            while self.app.pending._tries:
                await asyncio.sleep(0)

    async def say(
        self,
        text: str | bytes,
        *,
        path: str = PATH,
        method: str = "POST",
        kind: str = FORM,
        address: str = "192.0.2.1",
        seconds: float = 0,
    ) -> tuple[int, dict[str, str], bytes]:
        body = text if isinstance(text, bytes) else urlencode({"logout_token": text}).encode()
        sent: list[Any] = []
        scope = {
            "type": "http",
            "method": method,
            "raw_path": path.encode(),
            "path": path,
            "query_string": b"",
            "headers": [(b"content-type", kind.encode())],
            SENDER: ClientSender(address=address),
            HELD: Held(100_000),
        }

        async def receive() -> Any:
            self.clock.advance(seconds)
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start, content = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], headers, content["body"]


@pytest.fixture
async def place(clock, stack):
    made = await stack.enter_async_context(Place(clock).running())
    stack.push_async_callback(made.app.close)
    return made


async def test_a_logout(place):
    """A logout of a session ends its tasks and no others, is on disk then, and is answered 200 to be kept nowhere; no
    token of that session is taken after.
    """
    mine, other = await place.for_session("s1"), await place.for_session("s2")
    text = place.idp.id_token()
    await place.people.verify(text, ID_TOKEN, CHAT)
    status, headers, body = await place.say(logout_token(place.idp, sub="alice"))
    assert (200, "no-store", b"") == (status, headers["cache-control"], body)
    assert ("revoked", "session_ended", True) == (mine.state, mine.reason, other.live)
    assert place.ended_store.rows
    with refused("session_ended"):
        await place.people.verify(text, ID_TOKEN, CHAT)


async def test_no_oracle(place):
    """Sessions that nobody here has heard of, and those that have ended, are answered byte for byte as any other, and
    end as well: a token of one may be shown later.
    """
    await place.for_session("s1")
    answers = [
        await place.say(logout_token(place.idp, jti=f"j{number}", sid=sid, sub=sub))
        for number, (sid, sub) in enumerate([("s1", "alice"), ("s1", "alice"), ("unknown", None), ("s9", "nobody")])
    ]
    assert [answers[0]] * 4 == answers
    with refused("session_ended"):
        await place.people.verify(place.idp.id_token(sid="unknown"), ID_TOKEN, CHAT)


async def test_of_two_people(place):
    """A token that names the session of one person and the subject of another ends nothing of either, and is answered
    byte for byte as one that was used before: it tells of no session whose it is.
    """
    alices, bobs = await place.for_session("s1"), await place.for_session("s2", subject="bob")
    used = logout_token(place.idp, jti="used", sid="elsewhere", sub=None)
    assert [200, 400] == [(await place.say(used))[0] for _ in range(2)]
    crossed = await place.say(logout_token(place.idp, jti="crossed", sid="s1", sub="bob"))
    assert await place.say(used) == crossed
    assert (True, True) == (alices.live, bobs.live)
    assert 200 == (await place.say(logout_token(place.idp, jti="own", sid="s1", sub="alice")))[0]
    assert (False, True) == (alices.live, bobs.live)


async def test_once(place):
    """A token is good once; where its logout failed it may come again."""
    text = logout_token(place.idp)
    place.ended_store.failure = StoreFailed("no room")
    status, headers, body = await place.say(text)
    assert (400, "no-store") == (status, headers["cache-control"])
    assert b"temporarily_unavailable" in body or b"server_error" in body
    place.ended_store.failure = None
    assert [200, 400] == [(await place.say(text))[0] for _ in range(2)]


async def test_while_nobody_can_tell(place):
    """A logout whose key is not to be had yet is not refused: it is told to come again, and is taken then."""
    task, text = await place.for_session("s1"), logout_token(place.idp, sub="alice")
    keys = place.people.issuers["corp"].keys
    keys.failure = PersonRefused("issuer_unavailable", "not now")
    status, headers, body = await place.say(text)
    assert (503, "30", "no-store") == (status, headers["retry-after"], headers["cache-control"])
    assert b"temporarily_unavailable" in body
    keys.failure = None
    assert (200, False) == ((await place.say(text))[0], task.live)
    assert 0 == len(place.app.pending)


async def test_by_itself(place):
    """A logout that came before its key is done when the key is there, though its issuer says it once; what was begun
    by a newer login goes on, and the token was used then.
    """
    task, text = await place.for_session("s1"), logout_token(place.idp, sid=None, sub="alice")
    keys = place.people.issuers["corp"].keys
    keys.failure = PersonRefused("issuer_unavailable", "not now")
    assert 503 == (await place.say(text))[0]
    await place.later()
    assert (True, 1) == (task.live, len(place.app.pending))
    newer = await place.for_session("s2", issued_at=place.idp.at + 2)
    keys.failure = None
    with capture_logs() as lines:
        await place.later()
    assert (False, True, 0) == (task.live, newer.live, len(place.app.pending))
    [line] = [each for each in lines if each["event"] == "person_logged_out"]
    assert ("corp", 1, 4.0) == (line["issuer"], line["ended"], line["pending_seconds"])
    assert text not in str(lines)
    assert 400 == (await place.say(text))[0]


async def test_one_that_is_slow_to_come(place):
    """When a token was here is told by when all of it was: its key may be newer than its request."""
    began = place.clock.boot()
    assert 200 == (await place.say(logout_token(place.idp), seconds=5))[0]
    assert [began + 5] == place.people.issuers["corp"].keys.since


async def test_by_itself_once_it_is_on_disk(place):
    """A logout that came before its key, and is not on disk when it was done, is done again."""
    task, text = await place.for_session("s1"), logout_token(place.idp, sub="alice")
    keys = place.people.issuers["corp"].keys
    keys.failure = PersonRefused("issuer_unavailable", "not now")
    assert 503 == (await place.say(text))[0]
    keys.failure, place.ended_store.failure = None, StoreFailed("no room")
    await place.later()
    assert (False, 1) == (task.live, len(place.app.pending))
    place.ended_store.failure = None
    await place.later()
    assert (0, True) == (len(place.app.pending), bool(place.ended_store.rows))


async def test_nothing_by_itself_without_its_signature(place):
    """What came before its key ends nobody's session unless that key is the issuer's and has signed it; it is refused
    on record, and not tried again.
    """
    mine = await place.for_session("s1")
    thief = PeopleIssuer(place.idp.at)
    keys = place.people.issuers["corp"].keys
    keys.failure = PersonRefused("issuer_unavailable", "not now")
    for number, forged in enumerate(
        (
            logout_token(thief, sub="alice"),
            logout_token(thief, {"kid": "made-up"}, sub="alice"),
            logout_token(place.idp, jti="late", exp=place.idp.at + 1),
        ),
        start=1,
    ):
        assert (503, number) == ((await place.say(forged))[0], len(place.app.pending))
    keys.failure = None
    await place.later()
    assert (True, {}, 0) == (mine.live, place.ended_store.rows, len(place.app.pending))
    await place.audit.flush()
    codes = [each["code"] for each in place.store.fields("person_logout_refused")]
    assert ["issuer_unavailable"] * 3 == codes[:3]
    assert 3 == len(codes[3:])
    asked = keys.asked
    await place.later()
    assert asked == keys.asked


async def test_made_up_keys_and_a_rotation(place, clock):
    """A flood of made-up key IDs has the keys fetched no more often than ever, by itself or not; a logout of a key that
    was made just now is done with the next fetch, and the made-up ones are over with it.
    """
    task = await place.for_session("s1")
    with AuthServer(path="/realms/x") as server:
        idp, rotated = (PeopleIssuer(place.idp.at, url=server.issuer, kid=kid) for kid in ("k1", "k2"))
        server.jwks = idp.jwks()
        said = {"issuer": server.issuer, "presenters": CHAT_ALONE, "plain_http": True, "timeout": "5s"}
        people = People({"corp": PeopleConfig.model_validate(said)}, clock, place.engine.standing.check)
        place.app._people = people
        try:
            assert 400 == (await place.say(logout_token(idp, {"kid": "x"})))[0]
            clock.advance(0.001)
            server.jwks = rotated.jwks(idp)
            for number in range(PENDING_DELIVERIES_OF_ISSUER + 20):
                assert 503 == (await place.say(logout_token(idp, {"kid": f"x{number}"}, jti=f"j{number}")))[0]
            text = logout_token(rotated, sub="alice")
            assert 503 == (await place.say(text, address="198.51.100.7"))[0]
            for _ in range(int(PUBLISHED_KEYS_ANEW_SECONDS / PENDING_DELIVERY_PAUSE_SECONDS) - 1):
                await place.later()
            assert (1, True, PENDING_DELIVERIES_OF_ISSUER) == (
                len(server.calls("jwks")),
                task.live,
                len(place.app.pending),
            )
            await place.later()
            assert (2, False, 0) == (len(server.calls("jwks")), task.live, len(place.app.pending))
        finally:
            await place.app.close()
            await people.close()


async def test_what_no_key_would_make_good(place):
    """A token that is none by what it says has no keys fetched, and is not kept."""
    keys = place.people.issuers["corp"].keys
    keys.failure = PersonRefused("issuer_unavailable", "not now")
    for changes in (
        {"aud": "another-app"},
        {"iss": "https://other.example.net"},
        {"iat": place.idp.at - 601},
        {"iat": place.idp.at + 120},
        {"exp": place.idp.at},
        {"nonce": "n"},
        {"jti": None},
    ):
        assert 400 == (await place.say(logout_token(place.idp, {"kid": "x"}, **changes)))[0]
    assert 400 == (await place.say(place.idp.id_token()))[0]
    assert (0, 0) == (keys.asked, len(place.app.pending))


async def test_again_after_a_new_login(place):
    """A logout of all sessions that comes once more, in the next run even, does not end what was begun since."""
    text = logout_token(place.idp, sid=None, sub="alice")
    assert 200 == (await place.say(text))[0]
    later = await place.for_session("new", issued_at=place.idp.at + 5)
    place.app._used._kept.clear()  # as after a restart
    assert 200 == (await place.say(text))[0]
    assert later.live


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/people/other/logout", "POST", 404),
        ("/people/corp/logout/", "POST", 404),
        ("/people/corp", "POST", 404),
        ("/people/corp/logout%0a", "POST", 404),
        ("/token", "POST", 404),
        ("/", "GET", 404),
        (PATH, "GET", 405),
        (PATH, "PUT", 405),
    ],
)
async def test_nothing_else(place, path, method, status):
    """Nothing but logouts of issuers that are configured is served here."""
    assert status == (await place.say(logout_token(place.idp), path=path, method=method))[0]
    assert {} == place.ended_store.rows


async def test_what_is_no_logout(place):
    """What is no form, has no token or two, or a token that is not good, is answered 400 with an error, and ends
    nothing; it is in the audit without the token.
    """
    mine = await place.for_session("s1")
    thief = PeopleIssuer(place.idp.at)
    good = urlencode({"logout_token": logout_token(place.idp, sub="alice")}).encode()
    for text, kind in (
        (b"", FORM),
        (b"logout_token=", FORM),
        (good + b"&" + good, FORM),
        (good, "application/json"),
        (b"{}", "application/json"),
        (b"\xff\xfe=1", FORM),
        (b"logout_token=" + b"x" * 20_000, FORM),
        (logout_token(thief), FORM),
        (logout_token(place.idp, nonce="n"), FORM),
        (logout_token(place.idp, aud="another-app"), FORM),
        (place.idp.id_token(), FORM),
    ):
        status, headers, body = await place.say(text, kind=kind)
        assert (400, "no-store") == (status, headers["cache-control"])
        assert b'"error":"invalid_request"' in body
    assert (True, {}) == (mine.live, place.ended_store.rows)
    assert 200 == (await place.say(good + b"&state=x"))[0]


async def test_a_flood(place):
    """An address may say so much a second; forged logouts of unknown sessions take no room, and the audit has some
    records of them and a count.
    """
    place.app._allowance = Rate(LOGOUT_REQUESTS_PER_SECOND, lambda: 1.0)  # all of it is in one second
    thief = PeopleIssuer(place.idp.at)
    forged = [logout_token(thief, sid=f"s{number}", jti=f"{number}") for number in range(20)]
    statuses = [(await place.say(forged[number % 20]))[0] for number in range(LOGOUT_REQUESTS_PER_SECOND + 200)]
    assert {400, 429} == set(statuses)
    assert LOGOUT_REQUESTS_PER_SECOND == statuses.count(400)
    assert {} == place.ended_store.rows
    await place.audit.flush()
    assert len(place.store.fields("person_logout_refused")) < LOGOUT_REQUESTS_PER_SECOND
    assert 200 == (await place.say(logout_token(place.idp), address="198.51.100.7"))[0]


async def test_one_clock(place):
    """What was begun with a token that the issuer made after its logout of everything goes on, in the same run too."""
    begun = await place.for_session("s3", subject="alice")
    later = await place.for_session("s4", subject="alice", issued_at=place.idp.at + 1)
    assert 200 == (await place.say(logout_token(place.idp, sid=None, sub="alice")))[0]
    assert [False, True] == [begun.live, later.live]
    assert replace(later.person, session="") != later.person
