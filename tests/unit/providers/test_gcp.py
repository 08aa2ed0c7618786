"""Google Cloud: what is asked, and what is made of hostile answers. With a server: integration/test_cloud_gcp.py."""

import pytest
from fakes.clock import FakeClock
from fakes.outside import FakeHttp, FakeMint, answer, ended, steps, wanted
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.gcp import GcpProvider

AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/agents/providers/sojourn"
ACCOUNT = "triage@orders.iam.gserviceaccount.com"
ASK = {"scopes": {"read": ["https://www.googleapis.com/auth/devstorage.read_only"]}}
BUCKET = "//storage.googleapis.com/projects/_/buckets/orders"
RULE = {"resource": BUCKET, "permissions": ["inRole:roles/storage.objectViewer"]}
ACTIONS = ("read",)


def sts(**changes):
    told = {"access_token": "ya29.x", "token_type": "Bearer", "expires_in": 3_600, **changes}
    return answer({key: value for key, value in told.items() if value is not ...})


def account(**changes):
    told = {"accessToken": "ya29.c", "expireTime": "2030-01-01T00:10:00Z", **changes}
    return answer({key: value for key, value in told.items() if value is not ...})


def provider(*answers, **settings):
    http = FakeHttp(*answers)
    return GcpProvider("google", {"kind": "gcp", "audience": AUDIENCE, **settings}, http, FakeClock()), http


async def exchange(*answers, ask=ASK, mint=None, **settings):
    made, http = provider(*answers, **settings)
    return await made.exchange(wanted(made, ask, ACTIONS), mint or FakeMint()), http


class TestRequest:
    async def test_is_googles_form_of_an_exchange(self):
        """The exchange has the names that Google's STS takes, and an SVID for the provider."""
        mint = FakeMint()
        _, http = await exchange(sts(), mint=mint)
        assert [(f"https:{AUDIENCE}", "ES256", None)] == mint.asked
        assert (
            "POST",
            "https://sts.googleapis.com/v1/token",
            {
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "audience": AUDIENCE,
                "scope": "https://www.googleapis.com/auth/devstorage.read_only",
                "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
                "subject_token": "svid-1",
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            },
            {},
        ) == http.asked[0]

    async def test_the_federated_token_goes_to_iam_alone(self):
        """With an account the federated token has IAM's scope, and is not what is handed out."""
        obtained, http = await exchange(sts(), account(), service_account=ACCOUNT)
        assert "https://www.googleapis.com/auth/iam" == http.asked[0][2]["scope"]
        url = f"https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/{ACCOUNT}:generateAccessToken"
        assert ("POST", url, {"scope": ASK["scopes"]["read"], "lifetime": "600s"}) == http.asked[1][:3]
        assert {"Authorization": "Bearer ya29.x"} == http.asked[1][3]
        assert "ya29.c" == obtained.token

    async def test_another_universe_has_other_addresses(self):
        """In another universe of Google's the addresses are below its domain."""
        settings = {"universe_domain": "example-cloud.org", "service_account": ACCOUNT}
        _, http = await exchange(sts(), account(), **settings)
        hosts = [url.split("/")[2] for _, url, _, _ in http.asked]
        assert ["sts.example-cloud.org", "iamcredentials.example-cloud.org"] == hosts


class TestAnswer:
    @pytest.mark.parametrize(
        "reply",
        [
            answer(body=b"<html>"),
            answer({}),
            sts(access_token=...),
            sts(access_token=""),
            sts(access_token=["x"]),
            sts(access_token="a b"),
            sts(access_token="x" * 70_000),
            sts(expires_in=...),
            sts(expires_in=0),
            sts(expires_in=-5),
            sts(expires_in=True),
            sts(expires_in="soon"),
            sts(expires_in=86_400),
            sts(expires_in=10**30),
        ],
    )
    async def test_what_is_no_token_is_refused(self, reply):
        """A part that is missing, of another type, past or beyond what Google gives is no token."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(reply)
        assert (True, "exchange") == (caught.value.sent, caught.value.step)

    @pytest.mark.parametrize(
        "reply",
        [
            account(accessToken=...),
            account(expireTime=...),
            account(expireTime="tomorrow"),
            account(expireTime=1_893_456_600),
            account(expireTime="2029-12-31T23:59:59Z"),
            account(expireTime="2030-01-01T01:00:00Z"),
        ],
    )
    async def test_what_is_no_token_of_an_account_is_refused(self, reply):
        """An expiry that is none, is past, or is later than was asked for is no answer."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(sts(), reply, service_account=ACCOUNT)
        assert "impersonate" == caught.value.step

    async def test_a_boundary_that_changes_nothing_is_refused(self):
        """An answer that gives back the wide token is no narrowed one."""
        with pytest.raises(ProviderUnavailable, match="was to be narrowed"):
            await exchange(sts(), sts(), ask={**ASK, "boundary": {"read": [RULE]}})

    @pytest.mark.parametrize(
        ("reply", "kind"),
        [
            (
                answer(
                    {
                        "error": "invalid_grant",
                        "error_description": "Error connecting to the given credential's issuer.",
                    },
                    400,
                ),
                ProviderRefused,
            ),
            (answer({"error": "odd_code"}, 400), ProviderRefused),
            (answer({"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}, 403), ProviderRefused),
            (answer({"error": {"code": 503, "status": "UNAVAILABLE"}}, 503), ProviderUnavailable),
            (answer({"error": ["x"]}, 400), ProviderUnavailable),
            (answer({"error": "invalid_grant"}, 500), ProviderUnavailable),
            (answer(body=b"<html>", status=404), ProviderUnavailable),
            (answer({}, 429), ProviderUnavailable),
        ],
    )
    async def test_errors_are_told_apart(self, reply, kind):
        """What is for good and what may pass are told apart, however Google writes it."""
        with pytest.raises(kind):
            await exchange(reply)

    async def test_a_task_that_is_over_gets_nothing(self):
        """For a task that has ended Google is not asked."""
        made, http = provider()
        with pytest.raises(ProviderRefused, match="ends before"):
            await made.exchange(wanted(made, ASK, ACTIONS, ends_in=0), FakeMint())
        assert [] == http.asked


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"audience": "https://iam.googleapis.com/x"}, "audience: "),
            ({"service_account": "nobody"}, "service_account: "),
            ({"sts": "sts.googleapis.com"}, "sts: "),
            ({"universe_domain": "x"}, "universe_domain: "),
            ({"credentials_json": "{}"}, "credentials_json: unknown key"),
        ],
    )
    def test_faults_begin_with_the_key(self, settings, fault):
        """What is wrong with the table is told by its key."""
        with pytest.raises(InvalidConfig) as caught:
            provider(**settings)
        assert caught.value.faults[0].startswith(fault)

    @pytest.mark.parametrize(
        ("ask", "fault"),
        [
            ({}, "ask.scopes: "),
            ({"scopes": ["https://x"]}, "is a table by action"),
            ({"scopes": {"write": ["https://x"]}}, "says nothing of action 'read'"),
            ({"scopes": {"read": ["a b"]}}, "ask.scopes.read"),
            ({**ASK, "boundary": {"read": []}}, "ask.boundary.read"),
            ({**ASK, "boundary": {"read": [{**RULE, "resource": "//compute.googleapis.com/x"}]}}, "resource"),
            ({**ASK, "boundary": {"read": [{**RULE, "permissions": ["roles/storage.admin"]}]}}, "permissions"),
            ({**ASK, "boundary": {"write": [RULE]}}, "ask.boundary: says nothing of action 'read'"),
        ],
    )
    def test_faults_of_an_ask_are_told(self, ask, fault):
        """What is wrong with an ask is told by its key."""
        with pytest.raises(InvalidInput) as caught:
            provider()[0].read_ask(ask, ACTIONS)
        assert fault in caught.value.public

    def test_a_boundary_has_ten_rules(self):
        """All actions together have no more rules than Google takes."""
        rules = {action: [{**RULE, "resource": f"{BUCKET}-{action}{n}"} for n in range(6)] for action in "ab"}
        scopes = {action: ["https://x"] for action in "ab"}
        with pytest.raises(InvalidInput, match="more than 10 rules"):
            provider()[0].read_ask({"scopes": scopes, "boundary": rules}, ("a", "b"))

    def test_programs_are_told_where(self):
        """What programs need to know is the provider, and the account and project if there are such."""
        made, _ = provider(project_id="orders", service_account=ACCOUNT)
        assert {
            "kind": "gcp",
            "audience": AUDIENCE,
            "universe_domain": "googleapis.com",
            "service_account": ACCOUNT,
            "project_id": "orders",
        } == made.describe(made.read_ask(ASK, ACTIONS))
        assert {"kind", "audience", "universe_domain"} == set(provider()[0].describe(None))

    async def test_nothing_is_taken_back(self):
        """It says that it recalls nothing, keeps no handle, and refuses to be asked."""
        obtained, _ = await exchange(sts())
        made, _ = provider()
        assert ("none", {}) == (made.recall, obtained.handle)
        with pytest.raises(ProviderRefused):
            await made.take_back(ended(wanted(made, ASK, ACTIONS)), FakeMint())


class TestCheck:
    @pytest.mark.parametrize("reply", [answer(body=b"hello"), answer({}), answer({}, 400), ProviderUnavailable("no")])
    async def test_what_is_not_sts_is_found(self, reply):
        """Where something else answers, or nothing, the check stops."""
        made, _ = provider(reply)
        assert ["failed"] == [step.outcome for step in (await steps(made, None, FakeMint())).values()]

    async def test_without_a_workload_the_exchange_is_skipped(self):
        """With nobody to exchange for, only the endpoint is tried."""
        made, _ = provider(answer({"error": "invalid_request"}, 400))
        assert "skipped" == (await steps(made, None, FakeMint()))["exchange"].outcome
