"""AWS: what is asked of STS, and what is made of its answers."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from fakes.clock import FakeClock
from fakes.outside import TASK, FakeHttp, FakeMint, answer, ended, steps, wanted
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.providers.aws import AWS_CREDENTIALS, AwsProvider, session_name
from sojourn.providers.awspolicy import AwsAsk, session_policy
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable

ROLE = "arn:aws:iam::123456789012:role/triage"
ASK = {
    "role_arn": ROLE,
    "policy_actions": {"s3:read": ["s3:GetObject"], "s3:list": ["s3:ListBucket"]},
    "policy_resources": ["arn:aws:s3:::orders", "arn:aws:s3:::orders/*"],
}
ACTIONS = ("s3:list", "s3:read")
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
UNTIL = datetime(2030, 1, 1, 0, 10, tzinfo=UTC)
XML = """<?xml version="1.0"?>
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult><Credentials>
    <SessionToken>session</SessionToken><SecretAccessKey>secret</SecretAccessKey>
    <Expiration>{expires}</Expiration><AccessKeyId>ASIAEXAMPLE</AccessKeyId>
  </Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


def good(expires="2030-01-01T00:15:00Z", text=XML):
    return answer(body=text.format(expires=expires).encode())


def error(code, message="", status=400):
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return answer(status=status, body=body.encode())


def provider(http=None, clock=None, **settings):
    return AwsProvider("cloud", {"kind": "aws", **settings}, http or FakeHttp(), clock or FakeClock())


async def exchange(reply, ask=ASK, actions=ACTIONS, asked=None, ends_in=600, mint=None, **settings):
    http, mint = FakeHttp(reply), mint or FakeMint()
    made = provider(http, **settings)
    obtained = await made.exchange(wanted(made, ask, actions, asked, ends_in=ends_in), mint)
    return obtained, http.asked[0], mint


class TestRequest:
    async def test_is_what_sts_takes(self):
        """The request names the role, the task as the session, the SVID, a duration and a policy, and is not signed."""
        _, (method, url, form, headers), mint = await exchange(good())
        assert ("POST", "https://sts.amazonaws.com/", {"Accept": "application/xml"}) == (method, url, headers)
        assert {
            "Action": "AssumeRoleWithWebIdentity",
            "Version": "2011-06-15",
            "RoleArn": ROLE,
            "RoleSessionName": TASK,
            "WebIdentityToken": "svid-1",
            "DurationSeconds": "900",
        } == {key: value for key, value in form.items() if key != "Policy"}
        ((audience, algorithm, claims),) = mint.asked
        assert ("sts.amazonaws.com", "ES256", ["https://aws.amazon.com/tags"]) == (audience, algorithm, list(claims))
        tags = claims["https://aws.amazon.com/tags"]
        assert ["session", "task"] == tags["transitive_tag_keys"] == sorted(tags["principal_tags"])
        assert [TASK] == tags["principal_tags"]["task"]

    async def test_each_session_has_an_id_of_its_own(self):
        """Two sessions of one task are told apart by a tag that no other has."""
        ids = [(await exchange(good()))[0].public["session_id"] for _ in range(2)]
        assert 2 == len({*ids})

    @pytest.mark.parametrize(("ends_in", "asked"), [(1, "900"), (900, "900"), (901, "901"), (7_200, "3600")])
    async def test_the_duration_is_as_near_to_the_end_as_aws_allows(self, ends_in, asked):
        """A session is asked for up to the task's end, for 900 s at least, and for `max_session` at most."""
        _, (_, _, form, _), _ = await exchange(good(), ends_in=ends_in)
        assert asked == form["DurationSeconds"]

    @pytest.mark.parametrize(
        ("settings", "url"),
        [
            ({"region": "eu-central-1"}, "https://sts.eu-central-1.amazonaws.com/"),
            ({"region": "cn-north-1"}, "https://sts.cn-north-1.amazonaws.com.cn/"),
            ({"endpoint": "https://sts.internal.example.org/"}, "https://sts.internal.example.org/"),
        ],
    )
    async def test_the_endpoint_is_the_regions_or_the_one_that_is_set(self, settings, url):
        """STS is asked in the region, or where the settings say."""
        _, (_, asked, _, _), _ = await exchange(good(), **settings)
        assert url == asked

    async def test_managed_policies_are_those_of_the_actions_asked_for(self):
        """Only the managed policies of the actions that are asked for are named."""
        ask = {"role_arn": ROLE, "policy_arns": {"s3:read": [READ_ONLY], "s3:list": [READ_ONLY + "Other"]}}
        _, (_, _, form, _), _ = await exchange(good(), ask, asked=("s3:read",))
        assert {"PolicyArns.member.1.arn": READ_ONLY} == {k: v for k, v in form.items() if k.startswith("PolicyArns")}

    async def test_a_source_identity_is_claimed_if_set(self):
        """`source_identity = "task"` puts the task's id into the claim that AWS reads."""
        _, _, mint = await exchange(good(), source_identity="task", tag=False)
        assert [("sts.amazonaws.com", "ES256", {"https://aws.amazon.com/source_identity": TASK})] == mint.asked

    async def test_a_task_that_is_over_gets_nothing(self):
        """For a task that ends within this second STS is not asked."""
        http = FakeHttp()
        made = provider(http)
        with pytest.raises(ProviderRefused, match="ends before"):
            await made.exchange(wanted(made, ASK, ACTIONS, ends_in=0.5), FakeMint())
        assert [] == http.asked

    @pytest.mark.parametrize(
        ("task_id", "name"),
        [("task_a", "task_a"), ("a b/c:d", "a-b-c-d"), ("ü", "--task"), ("x" * 80, "x" * 64), ("a\n", "a-")],
    )
    def test_a_session_is_named_by_awss_grammar(self, task_id, name):
        """A task's id becomes 2 to 64 characters that AWS takes."""
        assert name == session_name(task_id)


class TestPolicy:
    def test_allows_what_is_asked_for_until_the_end(self):
        """The actions asked for are allowed, at the resources, before the end; others are not there at all."""
        ask = AwsAsk.model_validate(ASK)
        policy = json.loads(session_policy(ask, ("s3:read",), UNTIL))
        assert {
            "Effect": "Allow",
            "Action": ["s3:GetObject"],
            "Resource": ASK["policy_resources"],
            "Condition": {"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:10:00Z"}},
        } == policy["Statement"][0]
        assert "ListBucket" not in json.dumps(policy)

    def test_denies_everything_after_the_end(self):
        """A denial, which no other policy overrides, begins where the allowance ends."""
        denied = json.loads(session_policy(AwsAsk.model_validate(ASK), ACTIONS, UNTIL))["Statement"][1]
        assert ("Deny", "*", "*") == (denied["Effect"], denied["Action"], denied["Resource"])
        assert {"DateGreaterThanEquals": {"aws:CurrentTime": "2030-01-01T00:10:00Z"}} == denied["Condition"]

    def test_a_session_cannot_make_another(self):
        """sts:AssumeRole is denied at any time: what it gives has no end."""
        statements = json.loads(session_policy(AwsAsk.model_validate(ASK), ACTIONS, UNTIL))["Statement"]
        assert {"Effect": "Deny", "Action": "sts:AssumeRole", "Resource": "*"} in statements

    def test_resources_may_be_by_action(self):
        """Each action is allowed at its own resources only."""
        ask = {**ASK, "policy_resources": {"s3:read": ["arn:aws:s3:::a/*"], "s3:list": ["arn:aws:s3:::a"]}}
        statements = json.loads(session_policy(AwsAsk.model_validate(ask), ACTIONS, UNTIL))["Statement"]
        allowed = {tuple(each["Action"]): each["Resource"] for each in statements if each["Effect"] == "Allow"}
        assert {("s3:GetObject",): ["arn:aws:s3:::a/*"], ("s3:ListBucket",): ["arn:aws:s3:::a"]} == allowed

    def test_the_end_is_in_utc(self):
        """An end of another time zone is told in UTC."""
        policy = session_policy(AwsAsk.model_validate(ASK), ACTIONS, UNTIL.astimezone(tz=None))
        assert "2030-01-01T00:10:00Z" in policy


class TestAsk:
    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"role_arn": "arn:aws:iam::1:user/x"}, "ask.role_arn: is not a role's ARN"),
            ({"role_arn": None}, "ask.role_arn: is missing"),
            ({"policy_actions": {"s3:read": ["s3:GetObject"]}}, "says nothing of action 's3:list'"),
            ({"policy_actions": {**ASK["policy_actions"], "s3:rm": ["s3:DeleteObject"]}}, '"s3:rm" is not an action'),
            ({"policy_actions": {"s3:read": ["GetObject"]}}, "is not an action of IAM"),
            ({"policy_actions": {"s3:read": ["sts:*"]}}, "allows sts:AssumeRole"),
            ({"policy_actions": {"s3:read": ["STS:Assume*"]}}, "allows sts:AssumeRole"),
            ({"policy_actions": {"s3:read": ["*"]}}, "is not an action of IAM"),
            ({"policy_resources": []}, "policy_resources: is missing"),
            ({"policy_resources": ["orders"]}, "is neither an ARN nor *"),
            ({"policy_resources": {"s3:read": ["*"]}}, "ask.policy_resources: says nothing of action 's3:list'"),
            ({"policy_arns": {"s3:read": ["arn:aws:iam::aws:role/x"]}}, "is not the ARN of a managed policy"),
            ({"polcy_actions": {}}, "ask.polcy_actions: unknown key; there are role_arn, policy_actions"),
            ({"policy_resources": [f"arn:aws:s3:::{n:0>60}" for n in range(40)]}, "and AWS takes 2048"),
            (
                {
                    "policy_arns": {
                        "s3:read": [f"{READ_ONLY}{n}" for n in range(6)],
                        "s3:list": [f"{READ_ONLY}x{n}" for n in range(6)],
                    }
                },
                "more than 10",
            ),
        ],
    )
    def test_faults_are_told(self, changes, fault):
        """What is wrong with an ask is told by its key."""
        with pytest.raises(InvalidInput) as caught:
            provider().read_ask({**ASK, **changes}, ACTIONS)
        assert fault in caught.value.public

    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"region": "mars"}, "region: "),
            ({"endpoint": "ftp://sts"}, "endpoint: "),
            ({"max_session": "5m"}, "max_session: is 5m: the least is 15m"),
            ({"max_session": "13h"}, "max_session: is 13h: the most is 12h"),
            ({"deny_hook": "https://ops.example.org/deny", "tag": False}, "deny_hook: denies by a session's tags"),
            ({"secret_key": "x"}, "secret_key: unknown key"),
            ({"source_identity": "me"}, "source_identity: "),
        ],
    )
    def test_faults_of_settings_begin_with_the_key(self, settings, fault):
        """What is wrong with the table is told by its key."""
        with pytest.raises(InvalidConfig) as caught:
            provider(**settings)
        assert any(each.startswith(fault) for each in caught.value.faults), caught.value.faults

    def test_programs_are_told_role_and_region(self):
        """What programs need to know is the role, and the region if one is set."""
        made = provider(region="eu-west-1")
        assert {"kind": "aws", "role_arn": ROLE, "region": "eu-west-1"} == made.describe(made.read_ask(ASK, ACTIONS))
        assert {"kind": "aws", "role_arn": ROLE} == provider(role_arn=ROLE).describe(None)


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
