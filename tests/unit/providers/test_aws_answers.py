"""aws.py: what AWS answers, when a credential ends, and whether AWS is there."""

import json
from datetime import timedelta

import pytest
from fakes.aws import ACTIONS, ASK, ROLE, XML, error, exchange, good, provider
from fakes.clock import FakeClock
from fakes.outside import TASK, FakeHttp, FakeMint, answer, ended, steps, wanted
from sojourn.providers.aws import AWS_CREDENTIALS
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable


class TestAnswer:
    async def test_is_what_the_sdks_read(self):
        """What is handed out is the JSON of a container credential endpoint."""
        obtained, _, _ = await exchange(good())
        assert {
            "AccessKeyId": "ASIAEXAMPLE",
            "SecretAccessKey": "secret",
            "Token": "session",
            "Expiration": "2030-01-01T00:10:00Z",
        } == json.loads(obtained.token)
        assert ("N_A", AWS_CREDENTIALS) == (obtained.token_type, obtained.issued_type)

    @pytest.mark.parametrize(
        ("told", "ends_in", "expires"),
        [
            ("2030-01-01T00:15:00Z", 600, 600),
            ("2030-01-01T00:08:00Z", 600, 480),
            ("2030-01-01T00:15:00.123Z", 900, 900),
            ("2031-01-01T00:00:00Z", 36_000, 3_600),  # AWS's clock, or a lie: no longer than was asked for
        ],
    )
    async def test_expires_when_the_first_of_all_does(self, told, ends_in, expires):
        """It is good until the session expires, or the task ends, since all is denied then."""
        obtained, _, _ = await exchange(good(told), ends_in=ends_in)
        assert FakeClock().now() + timedelta(seconds=expires) == obtained.expires_at

    async def test_json_is_read_as_well(self):
        """An answer in JSON, with the expiry in seconds, says the same."""
        told = {"AccessKeyId": "ASIA1", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": 1_893_456_900.0}
        result = {"AssumeRoleWithWebIdentityResult": {"Credentials": told}}
        obtained, _, _ = await exchange(answer({"AssumeRoleWithWebIdentityResponse": result}))
        assert "ASIA1" == obtained.public["access_key_id"]

    async def test_nothing_secret_is_shown(self):
        """Neither the record about it nor its repr has the keys."""
        obtained, _, _ = await exchange(good())
        assert not {"secret", "session"} & set(obtained.public.values())
        assert "secret" not in repr(obtained)
        assert "2030-01-01T00:10:00Z" == obtained.public["denied_from"]

    @pytest.mark.parametrize(
        "reply",
        [
            answer(body=b""),
            answer(body=b"<html>"),
            answer(body=b"\xff\xfe<"),
            answer(body=b"[]"),
            answer({"AssumeRoleWithWebIdentityResponse": None}),
            good("yesterday"),
            good("2030-01-01T00:00:00Z"),
            good("2030-01-01T00:15:00+01:00"),
            good("2030-13-01T00:15:00Z"),
            good(text=XML.replace("<SessionToken>session</SessionToken>", "")),
            good(text=XML.replace(">secret<", "><")),
            good(text=XML.replace(">secret<", ">se cret<")),
            good(text=XML.replace("ASIAEXAMPLE", "ASIA&#10;X")),
            good(text=XML.replace("ASIAEXAMPLE", "A" * 200)),
            good(text=XML.replace(">session<", f">{'s' * 70_000}<")),
            good(text=XML.replace("</SessionToken>", "</SessionToken><SessionToken>other</SessionToken>")),
            good(
                text=XML.replace("<Credentials>", "<Credentials>" + "<x>" * 20).replace(
                    "</Credentials>", "</x>" * 20 + "</Credentials>"
                )
            ),
            good(text=XML.replace("<Credentials>", "<Credentials>" + "<x/>" * 300)),
            answer(body=b'{"a":' * 5_000 + b"1" + b"}" * 5_000),
        ],
    )
    async def test_what_is_no_answer_is_refused(self, reply):
        """A part that is missing, of another type, past or too large is no credential, and may have had its effect."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(reply)
        assert (True, "assume_role") == (caught.value.sent, caught.value.step)

    @pytest.mark.parametrize(
        "doctype",
        [
            '<!DOCTYPE a [<!ENTITY e "ASIA">]>',
            '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
            '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
            '<?xml-stylesheet href="x"?>',
        ],
    )
    async def test_xml_has_no_entities(self, doctype):
        """A document type, and so any entity, is refused before it is looked at."""
        text = XML.replace('<?xml version="1.0"?>', f'<?xml version="1.0"?>{doctype}').replace(
            "ASIAEXAMPLE", "&e;" if "ENTITY" in doctype else "A"
        )
        with pytest.raises(ProviderUnavailable, match="neither XML nor JSON"):
            await exchange(good(text=text))


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "message", "told", "hint"),
        [
            (
                "InvalidIdentityToken",
                "No OpenIDConnect provider found in your account for https://a",
                "no identity provider",
                "Add provider",
            ),
            ("InvalidIdentityToken", "Incorrect token audience", "audience", "Audiences"),
            (
                "InvalidIdentityToken",
                "Couldn't retrieve verification key from your identity provider",
                "could not get the key",
                "openid-configuration",
            ),
            ("InvalidIdentityToken", "The ID Token provided is not a valid JWT", "does not take the JWT-SVID", "JWKS"),
            ("ExpiredTokenException", "Token expired", "expired", "clock"),
            ("ExpiredToken", "Token expired", "expired", "clock"),
            ("IDPRejectedClaim", "claim invalid", "claim", "Trust relationships"),
            ("PackedPolicyTooLarge", "Packed size", "too large", "policy_arns"),
            ("MalformedPolicyDocument", "Syntax", "session policy", "policy_actions"),
            ("RegionDisabledException", "not activated", "not active", "Account settings"),
            (
                "AccessDenied",
                "Not authorized to perform sts:AssumeRoleWithWebIdentity",
                "does not let",
                "sts:TagSession",
            ),
            (
                "ValidationError",
                "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
                "as long",
                "max_session",
            ),
            ("ValidationError", "1 validation error detected", "does not take the request", "role_arn"),
            ("SomethingNew", "who knows", "AWS refused", ""),
        ],
    )
    async def test_each_says_what_to_set(self, code, message, told, hint):
        """An error of AWS's becomes a sentence, and says where to set what."""
        with pytest.raises(ProviderRefused) as caught:
            await exchange(error(code, message, 403 if code == "AccessDenied" else 400))
        assert told in caught.value.public
        assert hint in caught.value.hint
        assert "assume_role" == caught.value.step

    @pytest.mark.parametrize(
        ("reply", "sent"),
        [
            (error("Throttling", "Rate exceeded"), False),
            (error("IDPCommunicationError", "timed out"), False),
            (error("ServiceUnavailable", "", 503), False),
            (error("Whatever", "", 500), True),
            (answer(status=502, body=b"<html>bad gateway"), True),
            (answer(status=404, body=b""), True),
        ],
    )
    async def test_what_may_pass_is_tried_again(self, reply, sent):
        """What is for now alone is told apart, with whether a session may have come of it."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(reply)
        assert sent == caught.value.sent

    async def test_retry_after_is_heard(self):
        """How long AWS wants to be left alone is passed on, and not at any length."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(answer(status=429, body=b"", **{"retry-after": "999999"}))
        assert 3_600 == caught.value.retry_after

    async def test_what_aws_says_is_logged_without_tokens(self):
        """A message that shows the assertion back is logged without it."""
        token = "eyJhbGciOiJFUzI1NiJ9." + "x" * 80
        with pytest.raises(ProviderRefused) as caught:
            await exchange(error("SomethingNew", f"token {token} is bad"))
        assert token not in caught.value.detail + caught.value.public
        assert "is bad" in caught.value.detail


class TestEnd:
    HOOK = "https://ops.example.org/deny"

    async def test_the_hook_is_told_to_deny_the_task(self):
        """At the end the hook gets the task, the role and the session, and a JWT-SVID for itself alone."""
        http, mint = FakeHttp(good(), answer({}), answer(status=204, body=b"")), FakeMint()
        made = provider(http, deny_hook=self.HOOK)
        asked = wanted(made, ASK, ACTIONS)
        obtained = await made.exchange(asked, mint)
        await made.take_back(ended(asked, obtained), mint)
        assert "deny" == made.recall
        assert (
            "POST",
            self.HOOK,
            {
                "task_id": TASK,
                "role_arn": ROLE,
                "session_name": TASK,
                "session_id": obtained.public["session_id"],
                "access_key_id": "ASIAEXAMPLE",
                "until": "2030-01-01T00:10:00Z",
            },
            {"Authorization": "Bearer svid-2"},
        ) == http.asked[1]
        assert self.HOOK == mint.asked[1][0]

    async def test_a_lost_session_is_denied_too(self):
        """For a session whose answer was lost the hook is told the task, and no session's ID."""
        http = FakeHttp(answer(status=200, body=b""))
        made = provider(http, deny_hook=self.HOOK, role_arn=ROLE)
        await made.take_back(ended(wanted(made, ASK, ACTIONS), ask=None), FakeMint())
        told = http.asked[0][2]
        assert (TASK, ROLE, "", "") == tuple(
            told[key] for key in ("task_id", "role_arn", "session_id", "access_key_id")
        )

    @pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500, 503])
    async def test_only_a_good_answer_confirms(self, status):
        """Whatever else the hook answers is tried again."""
        made = provider(FakeHttp(answer(status=status, body=b"")), deny_hook=self.HOOK)
        with pytest.raises(ProviderUnavailable):
            await made.take_back(ended(wanted(made, ASK, ACTIONS)), FakeMint())

    async def test_the_hook_may_say_never(self):
        """410 says that it is no use to ask again."""
        made = provider(FakeHttp(answer(status=410, body=b"")), deny_hook=self.HOOK)
        with pytest.raises(ProviderRefused):
            await made.take_back(ended(wanted(made, ASK, ACTIONS)), FakeMint())

    async def test_without_a_hook_nothing_is_promised(self):
        """Without a hook it says that it recalls nothing, and keeps no handle."""
        obtained, _, _ = await exchange(good())
        assert {} == obtained.handle
        assert "none" == provider().recall
        with pytest.raises(ProviderRefused):
            await provider().take_back(ended(wanted(provider(), ASK, ACTIONS)), FakeMint())


class TestCheck:
    async def test_goes_up_to_the_session(self):
        """A check says that STS answers, that the role was assumed, and what an end cannot do."""
        made = provider(FakeHttp(error("MissingAuthenticationToken", status=403), good()))
        told = await steps(made, wanted(made, ASK, ACTIONS), FakeMint())
        assert {"endpoint": "ok", "assume_role": "ok", "deny": "skipped"} == {k: v.outcome for k, v in told.items()}
        assert "deny_hook" in told["deny"].hint

    async def test_stops_where_it_fails(self):
        """The step that fails is the last, with what to set."""
        made = provider(FakeHttp(error("MissingAuthenticationToken", status=403), error("AccessDenied", status=403)))
        told = await steps(made, wanted(made, ASK, ACTIONS), FakeMint())
        assert ["endpoint", "assume_role"] == list(told)
        assert ("failed", True) == (told["assume_role"].outcome, "Trust relationships" in told["assume_role"].hint)

    @pytest.mark.parametrize("reply", [answer(body=b"<html>hello"), ProviderUnavailable("nobody answers")])
    async def test_what_is_not_sts_is_found(self, reply):
        """Where STS does not answer nothing more is tried."""
        made = provider(FakeHttp(reply))
        assert ["failed"] == [step.outcome for step in (await steps(made, None, FakeMint())).values()]

    async def test_without_a_workload_the_exchange_is_skipped(self):
        """With nobody to exchange for, only the endpoint is tried."""
        made = provider(FakeHttp(error("MissingAuthenticationToken", status=403)))
        assert "skipped" == (await steps(made, None, FakeMint()))["assume_role"].outcome

    async def test_no_key_is_a_step_that_fails(self):
        """A check never raises, without a key to sign by either."""
        made = provider(FakeHttp(error("MissingAuthenticationToken", status=403)))
        told = await steps(made, wanted(made, ASK, ACTIONS), FakeMint(works=False))
        assert "failed" == told["assume_role"].outcome


async def test_it_lets_go_of_its_connections():
    """Closing a provider closes the HTTP that it was given."""
    http = FakeHttp()
    await provider(http).close()
    assert http.closed
