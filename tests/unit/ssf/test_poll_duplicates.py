"""poll.py: what says a thing twice says nothing, an event for itself and an answer for all that is in it."""

import json

from fakes.jws import encoded, joined
from fakes.polling import REVOKED, URL
from fakes.signed_events import claims, iss_sub
from harness.authserver import status
from structlog.testing import capture_logs


async def test_a_member_twice_in_one_event(polling):
    """An event that says a thing twice, in its claims, within one or in its header, is refused alone and by its own
    `jti`; the others of the answer are taken.
    """
    async with polling.running():
        first = polling.say()
        said = {"iss": polling.transmitter.issuer, "jti": "within", "sub_id": iss_sub(URL, "carol")}
        payload = json.dumps(claims(polling.clock.now().timestamp(), **said)).encode()
        header, key = {"alg": "ES256", "kid": "s1", "typ": "secevent+jwt"}, polling.transmitter.key
        good = joined(header, payload, key)
        odd = {
            "claims": joined(header, payload.replace(b"{", b'{"jti": "claims", ', 1), key),
            "within": joined(header, payload.replace(b'"sub_id": {', b'"sub_id": {"sub": "dave", '), key),
            "header": encoded(b'{"alg": "ES256", "alg": "ES256"}') + good[good.index(".") :],
        }
        polling.transmitter.outbox |= odd
        last = polling.say("bob")
        for _ in range(2):
            await polling.poller.turn()
        assert ["invalid_request"] * 3 == [polling.transmitter.refused[each]["err"] for each in odd]
        assert ([first, last], 0) == (polling.transmitter.acked, polling.state.failures)
        assert [("end", "alice"), ("end", "bob")] == polling.done


async def test_a_member_twice_in_the_place_of_an_event(polling):
    """An object where an event must be, in which a thing stands twice, is refused alone as any other object is."""
    async with polling.running():
        event = polling.transmitter.event("good", sub_id=iss_sub(URL, "alice"), events=REVOKED)
        for odd in ('{"a": 1, "a": 2}', '[{"a": 1, "a": 2}]', '{"a": {"b": 1, "b": 2}}'):
            answer = f'{{"sets": {{"odd": {odd}, "good": "{event}"}}}}'
            polling.transmitter.script("poll", status(200, answer.encode()))
            for _ in range(2):
                await polling.poller.turn()
            assert {"odd": "invalid_request"} == {jti: each["err"] for jti, each in polling.transmitter.refused.items()}
            polling.transmitter.refused.clear()
        assert ([("end", "alice")], 0) == (polling.done, polling.state.failures)


async def test_an_answer_that_says_two_things(polling):
    """Of an answer that says a thing twice nothing is taken, acknowledged or refused, and what was acknowledged to
    it is so again; it is in status and log, and asked for anew.
    """
    async with polling.running():
        jti = polling.say()
        event = polling.transmitter.outbox[jti]
        answer = f'{{"sets": {{"{jti}": "{event}", "{jti}": "{event}"}}}}'
        polling.transmitter.script("poll", status(200, answer.encode()))
        with capture_logs() as lines:
            await polling.poller.turn()
        assert ([], [], {}, 1) == (
            polling.done,
            polling.transmitter.acked,
            polling.transmitter.refused,
            polling.state.failures,
        )
        [line] = [each for each in lines if each["event"] == "signal_poll_failed"]
        assert polling.state.fault == line["reason"]
        assert "twice" in polling.state.fault
        await polling.poller.turn()
        assert ([("end", "alice")], [jti], "") == (polling.done, polling.transmitter.acked, polling.state.fault)
