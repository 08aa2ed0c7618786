"""trust_bundle.py, trust_documents.py: what outside parties fetch, who may and how much. The clock is fake."""

import json
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes.authorities import authority_in
from fakes.clock import FakeClock
from sojourn.authority.embedded_ca import JWT, RS256
from sojourn.endpoints.api.trust_documents import BUNDLE, DISCOVERY, KEYS, TrustDocuments
from sojourn.endpoints.http1.protocol import HttpProtocols
from sojourn.endpoints.http1.scope import SENDER
from sojourn.endpoints.listener import trust_bundle
from sojourn.endpoints.listener.trust_bundle import TrustApp, TrustDoor
from sojourn.jose.jws import PublicKey
from sojourn.oauth.client_auth import ClientSender
from sojourn.runtime.clock import Alarms
from sojourn.spiffe import bundle

ISSUER = "https://sojourn.example.org"


class Place:
    """An authority, its documents, and somebody who asks for them."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.clock = FakeClock()
        self.authority = authority_in(folder, self.clock, **changes)
        self.documents = TrustDocuments(self.authority, ISSUER)
        self.app = TrustApp(self.documents)

    async def ask(
        self, path: str, method: str = "GET", address: str = "192.0.2.1", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        sent: list[Any] = []
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http",
            "method": method,
            "raw_path": path.encode(),
            "path": path,
            "headers": raw,
            SENDER: ClientSender(address=address),
        }

        async def send(message: Any) -> None:
            sent.append(message)

        async def receive() -> Any:
            raise AssertionError("nobody reads a request's content here")

        await self.app(scope, receive, send)
        start, body = sent
        told = {name.decode(): value.decode() for name, value in start["headers"]}
        return start["status"], told, body["body"]

    def json(self, path: str) -> dict[str, Any]:
        return json.loads(self.documents.all()[path].body)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "keys")


class TestDocuments:
    def test_discovery(self, place: Place) -> None:
        """The issuer is the one in the tokens, and its keys are below it."""
        assert {
            "issuer": ISSUER,
            "jwks_uri": f"{ISSUER}/keys",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        } == place.json(DISCOVERY)

    def test_keys_elsewhere(self, place: Place) -> None:
        """With a URL of its own the listener is where the keys are; the issuer stays."""
        made = json.loads(TrustDocuments(place.authority, ISSUER, "https://keys.example").all()[DISCOVERY].body)
        assert (ISSUER, "https://keys.example/keys") == (made["issuer"], made["jwks_uri"])

    def test_keys(self, tmp_path: Path) -> None:
        """Each key says by which algorithm it signs, and can be parsed for that."""
        place = Place(tmp_path / "keys", rs256=True)
        keys = place.json(KEYS)["keys"]
        expected = {place.authority.slots(JWT).active.id: "ES256", place.authority.slots(RS256).active.id: "RS256"}
        assert expected == {each["kid"]: each["alg"] for each in keys}
        assert all(PublicKey.from_jwk(each).fits(each["alg"]) for each in keys)
        assert {"sig"} == {each["use"] for each in keys}
        assert ["ES256", "RS256"] == place.json(DISCOVERY)["id_token_signing_alg_values_supported"]

    def test_bundle(self, tmp_path: Path) -> None:
        """The bundle is a SPIFFE bundle of all authorities, with sequence number and refresh hint."""
        place = Place(tmp_path / "keys", rs256=True)
        own, read = place.authority.bundle, bundle.parse(place.authority.trust_domain, place.json(BUNDLE))
        assert (own.x509_der, set(own.jwt_authorities), own.sequence, own.refresh_hint_seconds) == (
            read.x509_der,
            set(read.jwt_authorities),
            read.sequence,
            read.refresh_hint_seconds,
        )
        assert {"RSA", "EC"} == {key.jwk["kty"] for key in read.jwt_authorities.values()}

    def test_made_once(self, place: Place) -> None:
        """While no key changes the bytes are the same ones, and with a change they are others at once."""
        first = place.documents.all()
        assert first is place.documents.all()
        made = place.authority.prepare(JWT).id
        assert made in {each["kid"] for each in place.json(KEYS)["keys"]}
        assert first[KEYS].etag != place.documents.all()[KEYS].etag

    def test_age_fits_the_overlap(self, tmp_path: Path) -> None:
        """Whoever keeps the keys for as long as is allowed has the next one before it signs."""
        for number, changes in enumerate(({}, {"jwt_key_overlap": timedelta(minutes=10)})):
            place = Place(tmp_path / str(number), **changes)
            age = place.documents.all()[KEYS].max_age_seconds
            assert 0 < age <= place.authority.jwt_key_overlap.total_seconds() / 2


class TestApp:
    @pytest.mark.parametrize("path", [DISCOVERY, KEYS, BUNDLE])
    async def test_documents(self, place: Place, path: str) -> None:
        """Each document is JSON that may be kept."""
        status, headers, body = await place.ask(path)
        document = place.documents.all()[path]
        assert (200, document.body) == (status, body)
        assert ("application/json", document.etag, f"public, max-age={document.max_age_seconds}") == (
            headers["content-type"],
            headers["etag"],
            headers["cache-control"],
        )

    @pytest.mark.parametrize(("tags", "status"), [("{}", 304), ('W/{}, "x"', 304), ("*", 304), ('"x"', 200), ("", 200)])
    async def test_known_already(self, place: Place, tags: str, status: int) -> None:
        """Who has a document is told so, without it."""
        told, headers, body = await place.ask(KEYS, if_none_match=tags.format(place.documents.all()[KEYS].etag))
        assert (status, status == 304) == (told, not body)
        assert ("etag" in headers, "content-length" in headers) == (True, status == 200)

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get"])
    async def test_methods(self, place: Place, method: str) -> None:
        """Documents are read, and nothing else is done with them."""
        status, headers, _ = await place.ask(KEYS, method)
        assert (405, "GET, HEAD") == (status, headers["allow"])

    @pytest.mark.parametrize(
        "path",
        ["/", "/token", "/introspect", "/revoke", "/keys/", "//keys", "/KEYS", "/%6beys", "/keys%00", "/./keys",
         "/x/../keys", "/.well-known/oauth-authorization-server", "/.well-known%2Fopenid-configuration", "/bundle.json",
         "keys", "", "/bundle;x", "/status/1"],
    )  # fmt: skip
    @pytest.mark.parametrize("method", ["GET", "POST"])
    async def test_nothing_else(self, place: Place, path: str, method: str) -> None:
        """There is nothing at any other path, however much it resembles one."""
        assert (404, b"") == (await place.ask(path, method))[::2]

    async def test_one_address_has_its_share(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """Who asks too often is told when to come again; others, also of the next network, are answered."""
        monkeypatch.setattr("time.monotonic", lambda: 1.0)
        for _ in range(trust_bundle.TRUST_REQUESTS_PER_SECOND):
            assert 200 == (await place.ask(KEYS, address="2001:db8::1"))[0]
        status, headers, body = await place.ask(KEYS, address="2001:db8::2")
        assert (429, "1", b"") == (status, headers["retry-after"], body)
        assert 200 == (await place.ask(KEYS, address="2001:db8:0:1::1"))[0]


def test_new_connections_of_one_address(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects too often is turned away before any TLS; others, also of the next network, are not."""
    monkeypatch.setattr("time.monotonic", lambda: 1.0)
    denied: Any = SimpleNamespace(on_change=lambda _: None)
    door = TrustDoor(HttpProtocols(place.app), place.authority, denied, place.clock, Alarms(place.clock))
    assert {""} == {door.no_room("192.0.2.1") for _ in range(trust_bundle.TRUST_CONNECTIONS_PER_SECOND)}
    assert ("too often" in door.no_room("192.0.2.1"), door.no_room("192.0.2.2")) == (True, "")
    monkeypatch.setattr("time.monotonic", lambda: 2.0)
    assert "" == door.no_room("192.0.2.1")
