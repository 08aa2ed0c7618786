"""AWS: against a stand-in for STS that verifies as STS does, and against moto with boto3 as it is."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from fakes.outside import WORKLOAD, ended, steps, wanted
from harness.awsserver import AwsServer, Managed, Role
from harness.standin import Issuer, Reply, StandIn, guarded, verified
from sojourn.providers.aws import AwsProvider
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.runtime.clock import SystemClock

ROLE = "arn:aws:iam::123456789012:role/triage"
READ_ONLY = "arn:aws:iam::aws:policy/ReadOnly"
ASK = {
    "policy_actions": {"s3:read": ["s3:GetObject"], "s3:list": ["s3:ListBucket"]},
    "policy_resources": ["arn:aws:s3:::orders", "arn:aws:s3:::orders/*"],
}
ACTIONS = ("s3:list", "s3:read")
OBJECT = "arn:aws:s3:::orders/1"


class Ground:
    """An issuer, a stand-in for STS that trusts it, and a provider that asks there."""

    def __init__(self, **more):
        self.issuer = Issuer()
        self.server = AwsServer(self.issuer, Role(ROLE, str(WORKLOAD)), **more)
        self.mint = self.issuer.mint(str(WORKLOAD))

    def provider(self, http, **settings):
        table = {"kind": "aws", "endpoint": f"{self.server.url}/", "role_arn": ROLE, **settings}
        return AwsProvider("cloud", table, http)

    async def obtain(self, ask=ASK, actions=ACTIONS, asked=None, *, ends_in=600, mint=None, **settings):
        async with guarded() as http:
            made = self.provider(http, **settings)
            what = wanted(made, ask, actions, asked, clock=SystemClock(), ends_in=ends_in)
            return await made.exchange(what, mint or self.mint)


@pytest.fixture
def ground():
    made = Ground()
    with made.server:
        yield made


@pytest.fixture
def hook(ground):
    """An operator's endpoint that has AWS deny what it is told, for those that show an SVID for it."""

    def deny(request):
        verified(
            request.bearer,
            ground.issuer.jwks(),
            issuer=ground.issuer.issuer,
            audiences={f"{server.url}/deny"},
            algorithms={"ES256"},
        )
        told = request.fields
        ground.server.denied.add(("session", told["session_id"]) if told["session_id"] else ("task", told["task_id"]))
        return Reply(204)

    server = StandIn()
    server.instead["/deny"] = deny
    with server:
        yield server


class TestSession:
    async def test_allows_what_was_asked_for_and_ends_with_the_task(self, ground):
        """A session may do what was asked for until the task's end, and nothing from then on, though STS knows it."""
        obtained = await ground.obtain(asked=("s3:read",), ends_in=120)
        key = obtained.public["access_key_id"]
        end = obtained.expires_at
        assert ground.server.allows(key, "s3:GetObject", OBJECT)
        assert not ground.server.allows(key, "s3:ListBucket", "arn:aws:s3:::orders")
        assert not ground.server.allows(key, "s3:GetObject", "arn:aws:s3:::other/1")
        assert ground.server.allows(key, "s3:GetObject", OBJECT, at=end - timedelta(seconds=1))
        assert not ground.server.allows(key, "s3:GetObject", OBJECT, at=end)
        assert ground.server.sessions[key].expires > end + timedelta(minutes=10)

    async def test_neither_managed_policies_nor_resources_outlive_the_end(self, ground):
        """What a managed policy, or the resource's own, allows to the session is denied from the task's end on."""
        ground.server.managed[READ_ONLY] = Managed(["s3:Get*", "sts:*"])
        obtained = await ground.obtain({"policy_arns": {"s3:read": [READ_ONLY]}}, ("s3:read",))
        key, end = obtained.public["access_key_id"], obtained.expires_at
        assert ground.server.allows(key, "s3:GetObject", OBJECT)
        assert not ground.server.allows(key, "sts:AssumeRole", "arn:aws:iam::123456789012:role/admin")
        assert not ground.server.allows(key, "s3:GetObject", OBJECT, at=end)
        assert ground.server.allows(key, "s3:PutObject", OBJECT, named_by_resource=True)
        assert not ground.server.allows(key, "s3:PutObject", OBJECT, at=end, named_by_resource=True)

    async def test_carries_the_task(self, ground):
        """The session's name and its tag are the task's id."""
        obtained = await ground.obtain()
        session = ground.server.sessions[obtained.public["access_key_id"]]
        tags = {"task": "task_7Qm2xV9f", "session": obtained.public["session_id"]}
        assert ("task_7Qm2xV9f", tags, "") == (session.name, session.tags, session.source)

    async def test_carries_a_source_identity_where_the_role_allows_it(self, ground):
        """A source identity is set if the role's trust policy allows it, and refused else."""
        with pytest.raises(ProviderRefused, match="AccessDenied"):
            await ground.obtain(source_identity="task_type")
        ground.server.role.set_source_identity = True
        obtained = await ground.obtain(source_identity="task_type")
        assert "triage" == ground.server.sessions[obtained.public["access_key_id"]].source


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"sub": "spiffe://example.org/other"}, "AccessDenied"),
            ({"iss": "https://other.example.org"}, "InvalidIdentityToken"),
            ({"aud": "sts.example.org"}, "audience"),
            ({"aud": ["sts.amazonaws.com"]}, "audience"),
            ({"exp": 1_000_000}, "expired"),
        ],
    )
    async def test_sts_refuses_other_assertions(self, ground, changes, told):
        """An assertion of another workload, issuer, audience or time gets no session, and a sentence says why."""
        with pytest.raises(ProviderRefused, match=told):
            await ground.obtain(mint=ground.issuer.mint(str(WORKLOAD), **changes))
        assert {} == ground.server.sessions

    async def test_a_key_that_aws_has_not_is_told(self, ground):
        """An assertion by another key of the same name is refused, with where AWS gets the keys."""
        other = Issuer()
        with pytest.raises(ProviderRefused, match="could not get the key"):
            await ground.obtain(mint=other.mint(str(WORKLOAD)))

    @pytest.mark.parametrize(
        ("role", "settings", "told"),
        [
            ({"tag_session": False}, {}, "AccessDenied"),
            ({"max_session": 1_800}, {"max_session": "1h"}, "as long"),
        ],
    )
    async def test_what_the_role_does_not_allow_is_told(self, ground, role, settings, told):
        """Tags and a length that the role does not allow are refused, with what to set."""
        for key, value in role.items():
            setattr(ground.server.role, key, value)
        with pytest.raises(ProviderRefused, match=told) as caught:
            await ground.obtain(ends_in=3_600, **settings)
        assert "IAM, Roles" in caught.value.hint

    async def test_without_tags_the_role_need_not_allow_them(self, ground):
        """`tag = false` asks for a session without any tag."""
        ground.server.role.tag_session = False
        obtained = await ground.obtain(tag=False)
        assert {} == ground.server.sessions[obtained.public["access_key_id"]].tags

    async def test_a_policy_that_packs_too_large_is_told(self, ground):
        """What AWS packs is limited apart from the policy's own length."""
        ground.server.packed_max = 100
        with pytest.raises(ProviderRefused, match="PackedPolicyTooLarge"):
            await ground.obtain()

    async def test_a_clock_that_is_off_does_not_lengthen_anything(self, ground):
        """With AWS's clock 10 minutes ahead nothing is said to be good for longer than the task."""
        ground.server.skew = timedelta(minutes=10)
        obtained = await ground.obtain(ends_in=1_000)
        assert obtained.expires_at <= datetime.now(UTC) + timedelta(seconds=1_000)

    async def test_a_session_that_is_past_by_our_clock_is_refused(self, ground):
        """With AWS's clock hours behind what comes is expired already."""
        ground.server.skew = -timedelta(hours=2)
        with pytest.raises(ProviderUnavailable, match="expired already"):
            await ground.obtain()


class TestEnd:
    async def test_the_hook_denies_one_session(self, ground, hook):
        """The hook verifies who asks; what the session could do it can do no more, and another of the task still can."""
        async with guarded() as http:
            made = ground.provider(http, deny_hook=f"{hook.url}/deny")
            asked = wanted(made, ASK, ACTIONS, clock=SystemClock())
            obtained, other = [await made.exchange(asked, ground.mint) for _ in range(2)]
            key, kept = obtained.public["access_key_id"], other.public["access_key_id"]
            assert ground.server.allows(key, "s3:GetObject", OBJECT)
            for _ in range(2):
                await made.take_back(ended(asked, obtained), ground.mint)
        assert not ground.server.allows(key, "s3:GetObject", OBJECT)
        assert ground.server.allows(kept, "s3:GetObject", OBJECT)

    async def test_a_lost_session_is_denied_with_its_task(self, ground, hook):
        """When a task is over a session whose answer was lost is denied by the task's tag."""
        async with guarded() as http:
            made = ground.provider(http, deny_hook=f"{hook.url}/deny")
            asked = wanted(made, ASK, ACTIONS, clock=SystemClock())
            key = (await made.exchange(asked, ground.mint)).public["access_key_id"]
            await made.take_back(ended(asked), ground.mint)
        assert not ground.server.allows(key, "s3:GetObject", OBJECT)


class TestCheck:
    async def test_says_that_all_is_well(self, ground):
        """A check goes through to a session, which is of no use after the moment that the check has."""
        async with guarded() as http:
            made = ground.provider(http)
            told = await steps(made, wanted(made, ASK, ACTIONS, clock=SystemClock()), ground.mint)
        assert {"endpoint": "ok", "assume_role": "ok", "deny": "skipped"} == {k: v.outcome for k, v in told.items()}

    async def test_says_that_the_issuer_is_unknown(self, ground):
        """In an account that has no identity provider for the issuer, the check says where to add it."""
        ground.server.known = False
        async with guarded() as http:
            made = ground.provider(http)
            told = await steps(made, wanted(made, ASK, ACTIONS, clock=SystemClock()), ground.mint)
        assert "Add provider" in told["assume_role"].hint


class TestSdk:
    async def test_the_stand_in_speaks_what_boto3_speaks(self, ground):
        """boto3's own call gets a session from the stand-in, and its errors by their names."""
        boto3 = pytest.importorskip("boto3")
        sts = boto3.client("sts", endpoint_url=ground.server.url, region_name="us-east-1")
        asked = {
            "RoleArn": ROLE,
            "RoleSessionName": "by-boto3",
            "WebIdentityToken": await ground.mint("sts.amazonaws.com"),
            "DurationSeconds": 900,
            "Policy": '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}',
        }
        told = await asyncio.to_thread(sts.assume_role_with_web_identity, **asked)
        assert told["Credentials"]["AccessKeyId"] in ground.server.sessions
        with pytest.raises(sts.exceptions.InvalidIdentityTokenException):
            await asyncio.to_thread(
                sts.assume_role_with_web_identity, **{**asked, "WebIdentityToken": await ground.mint("other")}
            )

    async def test_moto_gives_a_session_and_boto3_works_with_it(self, moto):
        """moto's STS takes the request as it is, and boto3 reads and writes with what is handed out."""
        boto3 = pytest.importorskip("boto3")
        issuer = Issuer()
        async with guarded() as http:
            made = AwsProvider("cloud", {"kind": "aws", "endpoint": f"{moto}/", "role_arn": ROLE}, http)
            asked = wanted(made, ASK, ACTIONS, clock=SystemClock())
            obtained = await made.exchange(asked, issuer.mint(str(WORKLOAD)))
            told = await steps(made, asked, issuer.mint(str(WORKLOAD)))
        assert "ok" == told["assume_role"].outcome
        keys = json.loads(obtained.token)
        session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["Token"], region_name="us-east-1")

        bucket = f"orders-{uuid.uuid4()}"  # moto keeps its buckets for all tests of a process

        def use():
            who = session.client("sts", endpoint_url=moto).get_caller_identity()
            s3 = session.client("s3", endpoint_url=moto)
            s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=bucket, Key="1", Body=b"one")
            return who["Arn"], s3.get_object(Bucket=bucket, Key="1")["Body"].read()

        arn, body = await asyncio.to_thread(use)
        assert ("arn:aws:sts::123456789012:assumed-role/triage/task_7Qm2xV9f", b"one") == (arn, body)


@pytest.fixture
def moto():
    """The address of moto as a server of its own."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
