"""AWS: what is asked of STS, and what is made of its answers."""

import json

import pytest
from fakes.aws import ACTIONS, ASK, READ_ONLY, ROLE, UNTIL, exchange, good, provider
from fakes.outside import TASK, FakeHttp, FakeMint, wanted
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.providers.aws import session_name
from sojourn.providers.aws_session_policy import AwsAsk, session_policy
from sojourn.providers.errors import ProviderRefused


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
