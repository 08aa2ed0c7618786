"""http_sender.py: what is posted, what is shown, and what each answer means, against a real server on loopback."""

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.ca import FakeCa
from fakes.sinks import items
from harness.sinkplace import Answer, SinkPlace
from sojourn.errors import InvalidConfig, Unavailable
from sojourn.settings.audit import SinkConfig
from sojourn.sinks.http_sender import NDJSON
from sojourn.sinks.items import lines
from sojourn.sinks.make import about, sender_of
from sojourn.sinks.sender import ItemsRefused, Sender, SinkDown
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid
from sojourn.spiffetls.context import load_svid


@pytest.fixture
def place() -> Iterator[SinkPlace]:
    with SinkPlace() as running:
        yield running


NODE = SpiffeId.parse("spiffe://example.org/spire/agent/sojourn/here")


def sender(url: str, own: Callable[[], X509Svid] | None = None, **more: object) -> Sender:
    return sender_of(SinkConfig.model_validate({"name": "siem", "kind": "https", "url": url, **more}), NODE, own)


def pem(ca: FakeCa) -> str:
    return ca.root.public_bytes(Encoding.PEM).decode()


def server_context(ca: FakeCa) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_svid(context, ca.svid("/receiver", dns="localhost"))
    return context


class TestPosting:
    async def test_lines(self, place: SinkPlace) -> None:
        """A batch is one post of NDJSON; the connection is kept for the next one; the URL's secret is shown nowhere."""
        to = sender(place.url)
        await to.send(items(1, 3))
        await to.send(items(4))
        assert [lines(items(1, 3)), lines(items(4))] == [body for _, body in place.posts]
        assert {NDJSON} == {headers["content-type"] for headers, _ in place.posts}
        assert not any("authorization" in headers for headers, _ in place.posts)
        told = about(SinkConfig(name="siem", kind="https", url=place.url))
        assert f"localhost:{place.port}" == told.to
        await to.close()

    async def test_token(self, place: SinkPlace, tmp_path: Path) -> None:
        """The bearer token is what stands in its file now; without one nothing is posted."""
        file = tmp_path / "token"
        file.write_text("one\n")
        to = sender(place.url, token_file=file)
        await to.send(items(1))
        file.write_text("two\n")
        await to.send(items(2))
        for text in ("", "a b\n"):
            file.write_text(text)
            with pytest.raises(SinkDown, match="token_file"):
                await to.send(items(3))
        file.write_text("two")
        file.chmod(0o666)
        with pytest.raises(SinkDown, match="token_file"):
            await to.send(items(3))
        assert ["Bearer one", "Bearer two"] == [headers["authorization"] for headers, _ in place.posts]
        await to.close()


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    async def test_taken(self, place: SinkPlace, status: int) -> None:
        """Whatever 2xx says that all is taken."""
        place.answer = lambda _body: status
        to = sender(place.url)
        assert 0 == (await to.send(items(1))).refused
        await to.close()

    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_of_the_content(self, place: SinkPlace, status: int) -> None:
        """These are about what was posted."""
        place.answer = lambda _body: status
        to = sender(place.url)
        with pytest.raises(ItemsRefused, match=str(status)):
            await to.send(items(1, 2))
        await to.close()

    @pytest.mark.parametrize(
        ("answer", "after"),
        [
            *((status, 0.0) for status in (301, 401, 403, 404, 405, 408, 429, 500, 502, 503, 504)),
            ((429, {"retry-after": "7"}), 7.0),
            ((503, {"retry-after": "86400"}), 60.0),
            ((503, {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), 0.0),
        ],
    )
    async def test_not_now(self, place: SinkPlace, answer: Answer, after: float) -> None:
        """All else is about the receiver, or how it is asked: no record is given up for it."""
        place.answer = lambda _body: answer
        to = sender(place.url)
        with pytest.raises(SinkDown) as caught:
            await to.send(items(1))
        assert after == caught.value.after
        await to.close()

    async def test_too_late(self, place: SinkPlace) -> None:
        """A receiver that does not answer is given up after the deadline, and one that nobody is at is told."""
        place.answer = lambda _body: (time.sleep(2), 204)[1]
        to = sender(place.url, timeout=timedelta(seconds=0.3))
        with pytest.raises(SinkDown, match="did not answer in time"):
            await to.send(items(1))
        await to.close()
        gone = sender("http://127.0.0.1:1025/")
        with pytest.raises(SinkDown, match="does not accept connections"):
            await gone.send(items(1))
        await gone.close()


class TestTls:
    async def test_own_svid(self, ca: FakeCa, tmp_path: Path) -> None:
        """The agent's SVID is shown as it is now: a new one on the next post, and none where none can be issued."""
        context = server_context(ca)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=pem(ca))
        (tmp_path / "ca.pem").write_text(pem(ca))
        shown = [ca.svid("/spire/agent/one")]
        with SinkPlace(context) as place:
            to = sender(
                place.url, lambda: shown[-1], svid=True, ca=tmp_path / "ca.pem", private_networks=["127.0.0.0/8"]
            )
            await to.send(items(1))
            await to.send(items(2))
            shown.append(ca.svid("/spire/agent/two"))
            await to.send(items(3))
            names = [dict([each["subjectAltName"][0]])["URI"].rpartition("/")[2] for each in place.peers]
            assert ["one", "one", "two"] == names

            def none() -> X509Svid:
                raise Unavailable("the authority signs nothing now")

            without = sender(place.url, none, svid=True, ca=tmp_path / "ca.pem", private_networks=["127.0.0.0/8"])
            with pytest.raises(SinkDown, match="signs nothing"):
                await without.send(items(4))
            await without.close()
            await to.close()

    async def test_who_it_is_posted_to(self, ca: FakeCa, other_ca: FakeCa, tmp_path: Path) -> None:
        """Nothing is posted to an address that is not public and not allowed, or under a certificate that is not good."""
        (tmp_path / "ca.pem").write_text(pem(ca))
        with SinkPlace(server_context(other_ca)) as place:
            for more, match in (
                ({"ca": tmp_path / "ca.pem"}, "not public"),
                ({"ca": tmp_path / "ca.pem", "private_networks": ["127.0.0.0/8"]}, "certificate"),
            ):
                to = sender(place.url, **more)
                with pytest.raises(SinkDown, match=match):
                    await to.send(items(1))
                await to.close()
            assert [] == place.posts
        (tmp_path / "ca.pem").write_text("nothing")
        with pytest.raises(InvalidConfig, match="siem"):
            sender("https://siem.example.org/", ca=tmp_path / "ca.pem")
