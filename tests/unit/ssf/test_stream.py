"""stream.py, transmitter.py and the tables [[signals]]: what a transmitter says of itself, and the stream at it."""

import asyncio

import pytest
from fakes.clock import FakeClock
from fakes.polling import NODE, REVOKED, URL
from fakes.signed_events import AUDIENCE, CAEP, RISC, iss_sub, issuer_key, signed
from harness.authserver import huge, redirect, status
from harness.transmitter import Transmitter
from pydantic import ValidationError
from sojourn.errors import InvalidConfig
from sojourn.limits import SIGNAL_STREAM_LOOK_SECONDS
from sojourn.providers import published_keys
from sojourn.settings.signals import SignalsConfig
from sojourn.ssf.hearing import Hearing
from structlog.testing import capture_logs

OTHER = "https://other.example.net"


class TestKeys:
    async def test_by_its_metadata(self, polling):
        """The keys are those that the transmitter publishes, fetched once for many events, anew for a new key alone."""
        async with polling.running():
            for number in range(5):
                polling.say(f"p{number}")
            await polling.poller.turn()
            assert (5, 1) == (len(polling.done), len(polling.transmitter.calls("jwks")))
            polling.transmitter.outbox |= {
                f"bad-{number}": signed(
                    issuer_key(f"made-up-{number}"),
                    polling.clock.now().timestamp(),
                    iss=polling.transmitter.issuer,
                    jti=f"bad-{number}",
                )
                for number in range(50)
            }
            await polling.poller.turn()
            assert 2 >= len(polling.transmitter.calls("jwks"))

    async def test_that_has_come_since(self, polling, monkeypatch):
        """An event of a key that was made just now is not lost because somebody made up a key ID before: it comes
        again. What no key has signed is refused once the keys were fetched after it came, all of it at once.
        """
        async with polling.running():
            polling.transmitter.outbox |= self.made_up(polling, 3)
            rotated, now = issuer_key("s2"), polling.clock.now().timestamp()
            await polling.poller.turn()
            assert ["made-up-0"] == list(polling.poller._errors) + list(polling.transmitter.refused)
            polling.transmitter.jwks["keys"].append(rotated.public.jwk)
            said = {"iss": polling.transmitter.issuer, "aud": polling.transmitter.audience}
            subject = {"sub_id": iss_sub(URL, "alice"), "events": REVOKED}
            polling.transmitter.outbox["new"] = signed(rotated, now, jti="new", **said, **subject)
            await polling.poller.turn()
            assert ([], ["made-up-0"]) == (polling.done, list(polling.transmitter.refused))
            monkeypatch.setattr(published_keys, "PUBLISHED_KEYS_ANEW_SECONDS", 0)
            await polling.poller.turn()
            monkeypatch.undo()
            await polling.poller.turn()
            assert ["new"] == polling.transmitter.acked
            assert {"made-up-0", "made-up-1", "made-up-2"} == set(polling.transmitter.refused)

    def made_up(self, polling, number):
        said = {"iss": polling.transmitter.issuer, "aud": polling.transmitter.audience}
        now = polling.clock.now().timestamp()
        return {
            f"made-up-{each}": signed(issuer_key(f"x-{each}"), now, jti=f"made-up-{each}", **said)
            for each in range(number)
        }

    @pytest.mark.full
    async def test_that_cannot_be_had(self, polling):
        """Without keys an event is neither good nor bad: it comes again."""
        async with polling.running():
            jti = polling.say()
            polling.transmitter.script("jwks", status(500))
            await polling.poller.turn()
            assert ([], {}) == (polling.transmitter.acked, polling.transmitter.refused)
            await asyncio.sleep(2.1)
            await polling.poller.turn()
            assert [jti] == polling.transmitter.acked

    @pytest.mark.parametrize(
        "changes", [{"issuer": OTHER}, {"jwks_uri": None}, {"jwks_uri": "file:///etc/passwd"}, {"jwks_uri": 5}]
    )
    async def test_of_another(self, polling, changes):
        """Metadata of another issuer, or that name no keys, are none."""
        polling.transmitter.metadata_changes = changes
        async with polling.running(token_issuer=None):
            unverified = polling.poller._parsed("x", polling.transmitter.event("x"))
            with pytest.raises(Exception, match="keys cannot be had"):
                await polling.signals.take(unverified, {})


GOOD = {"issuer": "https://idp.example.net/", "poll": "https://idp.example.net/poll"}


class TestStream:
    @pytest.fixture(autouse=True)
    def created(self, polling):
        """The agent makes its stream itself."""
        running = polling.running
        polling.running = lambda **changes: running(**{"poll": None, "stream": "create", **changes})

    async def test_created_once(self, polling):
        """The agent's stream is created if there is none, found by the next run, and polled where it says."""
        for _ in range(2):
            async with polling.running():
                jti = polling.say()
                await polling.poller.turn()
                assert "" == polling.state.fault
                assert jti in polling.transmitter.acked
                assert () == polling.state.not_sent
        [stream] = polling.transmitter.streams
        assert (NODE, {"method": "urn:ietf:rfc:8936", "endpoint_url": polling.transmitter.poll_url}) == (
            stream["description"],
            stream["delivery"],
        )
        assert {f"{CAEP}session-revoked", f"{RISC}account-disabled"} <= set(stream["events_requested"])
        assert {"ssf.read ssf.manage"} == {each.form["scope"] for each in polling.transmitter.calls("token")}

    async def test_its_metadata_are_fetched_once(self, polling):
        """For the keys and for the stream alike; those of the authorization server are another document."""
        async with polling.running():
            polling.say()
            await polling.poller.turn()
            assert 1 == len(polling.done)
        assert 2 == len(polling.transmitter.calls("metadata"))

    async def test_others(self, polling):
        """Streams of others, pushed ones and what is no stream are left alone."""
        others = [
            {"stream_id": "a", "description": "another", "delivery": {"method": "urn:ietf:rfc:8936"}},
            {"stream_id": "b", "description": NODE, "delivery": {"method": "urn:ietf:rfc:8935"}},
            {"stream_id": "c", "description": NODE, "delivery": None},
            "d",
        ]
        polling.transmitter.streams += others
        async with polling.running():
            await polling.poller.turn()
            assert (others, 5, "") == (
                polling.transmitter.streams[:4],
                len(polling.transmitter.streams),
                polling.state.fault,
            )

    async def test_what_it_does_not_send(self, polling):
        """A transmitter that leaves out without a word what was asked for is told of aloud, and shown."""
        polling.transmitter.supported = [f"{CAEP}session-revoked"]
        async with polling.running():
            with capture_logs() as lines:
                await polling.poller.turn()
            assert f"{RISC}account-disabled" in polling.state.not_sent
            assert f"{CAEP}session-revoked" not in polling.state.not_sent
            [line] = [each for each in lines if each["event"] == "signal_stream_lacks"]
            assert ("warning", list(polling.state.not_sent)) == (line["log_level"], line["events"])
        polling.transmitter.streams.clear()
        polling.transmitter.supported = []
        async with polling.running():
            with capture_logs() as lines:
                await polling.poller.turn()
            assert "error" in {each["log_level"] for each in lines if each["event"] == "signal_stream_lacks"}

    async def test_its_audience(self, polling):
        """Events must be for what the stream says, where the configuration says nothing; else for that alone."""
        polling.transmitter.audience = "receiver/stream-0"
        async with polling.running():
            jti = polling.say()
            await polling.poller.turn()
            assert jti in polling.transmitter.acked
        async with polling.running(audience="https://another.example.org"):
            jti = polling.say()
            await polling.poller.turn()
            await polling.poller.turn()
            assert "invalid_audience" == polling.transmitter.refused[jti]["err"]

    async def test_that_is_gone(self, polling):
        """A stream that was taken away at the transmitter is made anew."""
        async with polling.running():
            await polling.poller.turn()
            polling.transmitter.streams.clear()
            polling.transmitter.script("poll", status(404))
            await polling.poller.turn()
            assert "404" in polling.state.fault
            await polling.poller.turn()
            assert ("", 1) == (polling.state.fault, len(polling.transmitter.streams))

    @pytest.mark.parametrize(
        "deed",
        [
            status(403),
            status(500),
            status(200, b"{"),
            status(200, [{"description": NODE, "delivery": {"method": "urn:ietf:rfc:8936"}}]),
            status(
                200,
                {
                    "stream_id": "x",
                    "events_delivered": [],
                    "description": NODE,
                    "delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": "file:///etc/passwd"},
                },
            ),
            redirect("https://elsewhere.example.net/"),
            huge(),
        ],
    )
    async def test_an_answer_that_is_none(self, polling, deed):
        """What is no description of a stream is a fault of this poll, and the next tries again."""
        async with polling.running():
            polling.transmitter.script("streams", deed)
            await polling.poller.turn()
            assert polling.state.fault
            assert [] == polling.transmitter.polls
            await polling.poller.turn()
            assert "" == polling.state.fault

    @pytest.mark.parametrize("place", ["metadata", "stream"])
    @pytest.mark.parametrize("where", ["other port", "other host", "https"])
    async def test_elsewhere(self, polling, place, where):
        """The token is shown at no other origin than the issuer's, whatever its metadata or its stream say: the poll
        is refused aloud.
        """
        with Transmitter(path="/realms/y") as another:
            url = {
                "other port": f"{another.issuer}/x",
                "other host": f"{polling.transmitter.issuer.replace('127.0.0.1', 'localhost')}/x",
                "https": f"{polling.transmitter.issuer.replace('http:', 'https:')}/x",
            }[where]
            if place == "metadata":
                polling.transmitter.metadata_changes = {"configuration_endpoint": url}
            else:
                polling.transmitter.streams.append(
                    {
                        "stream_id": "s",
                        "description": NODE,
                        "events_delivered": [],
                        "delivery": {"method": "urn:ietf:rfc:8936", "endpoint_url": url},
                    }
                )
            async with polling.running():
                await polling.poller.turn()
                assert "elsewhere than the issuer" in polling.state.fault
                assert ([], [], []) == (polling.transmitter.polls, another.calls("x"), polling.transmitter.calls("x"))

    @pytest.mark.parametrize("code", [401, 403])
    async def test_a_token_that_is_not_taken(self, polling, code):
        """A token that the configuration of streams does not take is thrown away, and the next poll has another."""
        async with polling.running():
            polling.transmitter.script("streams", status(code))
            await polling.poller.turn()
            await polling.poller.turn()
            assert ("", 2) == (polling.state.fault, len(polling.transmitter.calls("token")))

    @pytest.mark.parametrize("said", ["paused", "disabled", "pausing", "enabled", None])
    async def test_that_is_paused(self, polling, said):
        """A stream that its transmitter has paused or disabled is told of aloud, once, is shown, and is polled all the
        same.
        """
        polling.transmitter.status = said
        async with polling.running():
            with capture_logs() as lines:
                for _ in range(2):
                    await polling.poller.turn()
            found = [each for each in lines if each["event"] == "signal_stream_not_enabled"]
            told = [("error", said)] if said in {"paused", "disabled", "pausing"} else []
            assert told == [(each["log_level"], each["status"]) for each in found]
            shown = {"paused": "paused", "disabled": "disabled", "pausing": "other"}.get(said, "")
            assert (shown, 2) == (polling.state.stream_status, len(polling.transmitter.polls))

    async def test_that_is_paused_later(self, polling, monkeypatch):
        """That a stream was paused while it was polled is seen in minutes, and so is that it is enabled again; what
        cannot be told in between changes nothing.
        """
        polling.transmitter.status = "enabled"
        async with polling.running():
            looked = []
            with capture_logs() as lines:
                for said, deed in (("enabled", None), ("paused", None), ("enabled", status(500)), ("enabled", None)):
                    polling.transmitter.status = said
                    polling.transmitter.always = {} if deed is None else {"status": deed}
                    for _ in range(2):
                        await polling.poller.turn()
                    looked.append((polling.state.stream_status, len(polling.transmitter.calls("status"))))
                    polling.poller._where._look_at -= SIGNAL_STREAM_LOOK_SECONDS
            assert [("", 1), ("paused", 2), ("paused", 3), ("", 4)] == looked
            events = [each["event"] for each in lines if each["event"].startswith("signal_stream_")]
            assert ["signal_stream_created", "signal_stream_not_enabled", "signal_stream_enabled"] == events
            assert ("", 0) == (polling.state.fault, polling.state.failures)

    async def test_a_status_that_is_none(self, polling):
        """Where the stream's status is not to be had, or is elsewhere, the stream is polled without."""
        polling.transmitter.status = "paused"
        for change in ({"status_endpoint": "https://other.example.net/status"}, {}):
            polling.transmitter.metadata_changes = change
            polling.transmitter.always["status"] = status(500)
            async with polling.running():
                await polling.poller.turn()
                assert ("", "", 1) == (polling.state.stream_status, polling.state.fault, polling.state.polls)
                assert len(polling.transmitter.calls("status")) == (0 if change else 1)

    async def test_no_streams(self, polling):
        """A transmitter that has no configuration of streams is one to be polled where the configuration says."""
        polling.transmitter.metadata_changes = {"configuration_endpoint": None}
        async with polling.running():
            await polling.poller.turn()
            assert "set poll" in polling.state.fault


class TestConfiguration:
    def test_ages(self):
        """An event that is fetched may be older than one that is handed in."""
        assert 3_600 == SignalsConfig.model_validate(GOOD).oldest
        assert 600 == SignalsConfig.model_validate({"issuer": "https://idp.example.net/"}).oldest
        assert 5 == SignalsConfig.model_validate({**GOOD, "max_age": "5s"}).oldest

    @pytest.mark.parametrize(
        "changes",
        [
            {"issuer": "http://127.0.0.1/x"},
            {"poll": "http://127.0.0.1/x"},
            {"poll": "ftp://idp.example.net/"},
            {"poll": "https://user@idp.example.net/"},
            {"poll_every": "0.5s"},
            {"poll": None, "poll_every": "5s"},
            {"stream": "create"},
            {"poll": None, "stream": "delete"},
            {"poll": None, "client_id": "x"},
            {"poll": None, "jwks": "keys.json", "timeout": "5s"},
            {"client_auth": "none"},
            {"client_id": ""},
            {"resource": "idp.example.net"},
            {"resource": "https://idp.example.net/#x"},
            {"poll": None, "resource": "https://idp.example.net/"},
            {"token_issuer": "https://idp.example.net/?x"},
        ],
    )
    def test_mistakes(self, changes):
        """What cannot be meant is refused when the configuration is read."""
        with pytest.raises(ValidationError):
            SignalsConfig.model_validate({**GOOD, **changes})

    async def test_a_ca_that_is_none(self, tmp_path):
        """A file of authorities that is none keeps the agent from starting, and is named."""
        (tmp_path / "ca.pem").write_text("x")
        table = SignalsConfig.model_validate({**GOOD, "ca": str(tmp_path / "ca.pem")})
        with pytest.raises(InvalidConfig, match="ca"):
            Hearing([table], AUDIENCE, {}, FakeClock())
