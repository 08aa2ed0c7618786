"""Google Cloud: against a stand-in for STS and IAM Credentials that verifies as those do, and google-auth beside it."""

import asyncio

import pytest
from fakes.outside import WORKLOAD, steps, wanted
from harness.gcpserver import PROVIDER, GcpServer
from harness.standin import Issuer, guarded
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.gcp import GcpProvider
from sojourn.runtime.clock import SystemClock
from sojourn.spiffe.ids import SpiffeId

ACCOUNT = "triage@orders.iam.gserviceaccount.com"
READ, WRITE = (
    "https://www.googleapis.com/auth/devstorage.read_only",
    "https://www.googleapis.com/auth/devstorage.read_write",
)
ASK = {"scopes": {"objects:read": [READ], "objects:write": [WRITE]}}
ACTIONS = ("objects:read", "objects:write")
POOL = PROVIDER.partition("/providers/")[0]
PRINCIPAL = f"principal:{POOL}/subject/{WORKLOAD}"
LONG = SpiffeId.parse("spiffe://example.org/agent/" + "x" * 110)


@pytest.fixture
def google():
    with GcpServer(Issuer()) as server:
        server.impersonators[ACCOUNT] = {PRINCIPAL}
        yield server


def provider(google, http, **settings):
    table = {"kind": "gcp", "audience": PROVIDER, "sts": google.sts, "iam_credentials": google.url, **settings}
    return GcpProvider("google", table, http)


async def obtain(google, ask=ASK, asked=None, *, mint=None, ends_in=600, spiffe_id=WORKLOAD, **settings):
    async with guarded() as http:
        made = provider(google, http, **settings)
        what = wanted(made, ask, ACTIONS, asked, clock=SystemClock(), ends_in=ends_in, spiffe_id=spiffe_id)
        return await made.exchange(what, mint or google.issuer.mint(str(spiffe_id)))


class TestToken:
    async def test_of_a_service_account_lives_as_long_as_the_task(self, google):
        """An impersonated account's token has the scopes asked for, and expires when the task ends."""
        obtained = await obtain(google, asked=("objects:read",), service_account=ACCOUNT, ends_in=90)
        access = google.tokens[obtained.token]
        assert (ACCOUNT, (READ,)) == (access.who, access.scopes)
        assert 85 < access.expires - SystemClock().now().timestamp() <= 91
        assert abs(obtained.expires_at.timestamp() - access.expires) < 2
        assert "90s" == google.asked[-1].fields["lifetime"]

    async def test_of_a_long_task_is_for_an_hour(self, google):
        """Google gives no more than an hour: that is asked for, and refreshed ahead."""
        await obtain(google, service_account=ACCOUNT, ends_in=86_400)
        assert "3600s" == google.asked[-1].fields["lifetime"]

    async def test_federated_has_the_scopes_and_googles_life(self, google):
        """Without a service account the federated token itself is what is obtained, for as long as Google says."""
        obtained = await obtain(google, asked=("objects:read",), ends_in=60)
        access = google.tokens[obtained.token]
        assert (PRINCIPAL, (READ,)) == (access.who, access.scopes)
        assert abs(obtained.expires_at.timestamp() - access.expires) < 2
        assert {"audience", "scopes"} == set(obtained.public)

    @pytest.mark.parametrize("account", [None, ACCOUNT])
    async def test_is_narrowed_by_a_boundary(self, google, account):
        """With a boundary the token is for the objects of the actions asked for, and no others."""
        bucket = "//storage.googleapis.com/projects/_/buckets/orders"
        rule = {"resource": bucket, "permissions": ["inRole:roles/storage.objectViewer"], "condition": "true"}
        other = {"resource": bucket, "permissions": ["inRole:roles/storage.objectAdmin"]}
        ask = {**ASK, "boundary": {"objects:read": [rule], "objects:write": [other]}}
        obtained = await obtain(google, ask, ("objects:read",), **({"service_account": account} if account else {}))
        told = {"availableResource": bucket, "availablePermissions": rule["permissions"]}
        assert [{**told, "availabilityCondition": {"expression": "true"}}] == google.tokens[obtained.token].rules


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "told", "hint"),
        [
            ({"iss": "https://other.example.org"}, "issuer", "Issuer"),
            ({"aud": "https://other.example.org"}, "audience", "Allowed audiences"),
            ({"exp": 1_000_000}, "too old", "clock"),
            ({"sub": "spiffe://example.org/other"}, "may not impersonate", "workloadIdentityUser"),
        ],
    )
    async def test_each_says_what_to_set(self, google, changes, told, hint):
        """An assertion that is not good gets no token, and a sentence says what to set where."""
        mint = google.issuer.mint(str(WORKLOAD), **changes)
        with pytest.raises(ProviderRefused, match=told) as caught:
            await obtain(google, mint=mint, service_account=ACCOUNT)
        assert hint in caught.value.hint

    async def test_the_grant_that_is_missing_is_named(self, google):
        """For an account that the workload may not impersonate, the hint has the principal as IAM names it."""
        google.impersonators.clear()
        with pytest.raises(ProviderRefused) as caught:
            await obtain(google, service_account=ACCOUNT)
        assert (PRINCIPAL in caught.value.hint, "impersonate") == (True, caught.value.step)

    async def test_a_key_that_google_has_not(self, google):
        """An assertion by another key is refused."""
        with pytest.raises(ProviderRefused, match="does not take the JWT-SVID"):
            await obtain(google, mint=Issuer().mint(str(WORKLOAD)))

    async def test_a_long_id_is_refused_before_google_is_asked(self, google):
        """A SPIFFE ID beyond google.subject's 127 bytes is told with the mapping that cures it, and works with that."""
        assert len(str(LONG)) > 127
        with pytest.raises(ProviderRefused, match="and google") as caught:
            await obtain(google, spiffe_id=LONG)
        assert ("Attribute mapping" in caught.value.hint, []) == (True, google.asked)
        with pytest.raises(ProviderRefused, match="longer than 127 bytes"):
            await obtain(google, spiffe_id=LONG, subject_mapped=True)
        google.subject = lambda claims: claims["sub"].rpartition("/")[2]
        assert (await obtain(google, spiffe_id=LONG, subject_mapped=True)).token in google.tokens

    async def test_an_attribute_condition_is_told(self, google):
        """A provider's condition that keeps the workload out is told as that."""
        google.condition = lambda claims: claims["sub"].startswith("spiffe://other/")
        with pytest.raises(ProviderRefused, match="attribute condition"):
            await obtain(google)

    async def test_a_pool_that_is_not_there(self, google):
        """Another provider's name is told as one that Google does not know."""
        google.provider = PROVIDER + "-other"
        with pytest.raises(ProviderRefused, match="no such pool"):
            await obtain(google)

    async def test_an_api_that_is_off(self, google):
        """In a project whose IAM Credentials API is off, the hint names it."""
        google.api_enabled = False
        with pytest.raises(ProviderRefused, match="not enabled") as caught:
            await obtain(google, service_account=ACCOUNT)
        assert "iamcredentials.googleapis.com" in caught.value.hint


class TestCheck:
    @pytest.mark.parametrize(("settings", "hinted"), [({"service_account": ACCOUNT}, False), ({}, True)])
    async def test_says_that_all_is_well(self, google, settings, hinted):
        """A check goes through to a token, and advises an account where there is none."""
        async with guarded() as http:
            made = provider(google, http, **settings)
            what = wanted(made, ASK, ACTIONS, clock=SystemClock())
            told = await steps(made, what, google.issuer.mint(str(WORKLOAD)))
        assert {"endpoint": "ok", "exchange": "ok"} == {k: v.outcome for k, v in told.items()}
        assert hinted == bool(told["exchange"].hint)

    async def test_names_the_step_that_fails(self, google):
        """Where impersonation fails, that is the step."""
        google.impersonators.clear()
        async with guarded() as http:
            made = provider(google, http, service_account=ACCOUNT)
            what = wanted(made, ASK, ACTIONS, clock=SystemClock())
            told = await steps(made, what, google.issuer.mint(str(WORKLOAD)))
        assert ["endpoint", "impersonate"] == list(told)


class TestSdk:
    async def test_the_stand_in_speaks_what_google_auth_speaks(self, google):
        """google-auth's own external account gets an impersonated token from the stand-in, and its errors."""
        identity_pool = pytest.importorskip("google.auth.identity_pool")
        requests = pytest.importorskip("google.auth.transport.requests")
        mint = google.issuer.mint(str(WORKLOAD))

        class Supplier(identity_pool.SubjectTokenSupplier):
            audience = f"https:{PROVIDER}"

            def get_subject_token(self, context, request):
                return asyncio.run(mint(self.audience))

        def refresh(supplier):
            made = identity_pool.Credentials(
                audience=PROVIDER,
                subject_token_type="urn:ietf:params:oauth:token-type:jwt",
                token_url=google.sts,
                service_account_impersonation_url=google.generate(ACCOUNT),
                subject_token_supplier=supplier,
                scopes=[READ],
            )
            with requests.requests.Session() as session:
                made.refresh(requests.Request(session))
            return made.token

        token = await asyncio.to_thread(refresh, Supplier())
        assert (ACCOUNT, (READ,)) == (google.tokens[token].who, google.tokens[token].scopes)
        Supplier.audience = "https://other.example.org"
        exceptions = pytest.importorskip("google.auth.exceptions")
        with pytest.raises(exceptions.OAuthError, match="invalid_grant"):
            await asyncio.to_thread(refresh, Supplier())

    async def test_google_auth_narrows_as_the_agent_does(self, google):
        """A boundary that google-auth sends, packed in its own way, is taken as the agent's is."""
        sts = pytest.importorskip("google.oauth2.sts")
        requests = pytest.importorskip("google.auth.transport.requests")
        obtained = await obtain(google, service_account=ACCOUNT)
        bucket = "//storage.googleapis.com/projects/_/buckets/orders"
        rules = [{"availableResource": bucket, "availablePermissions": ["inRole:roles/storage.objectViewer"]}]

        def narrow():
            with requests.requests.Session() as session:
                return sts.Client(google.sts).exchange_token(
                    request=requests.Request(session),
                    grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
                    subject_token=obtained.token,
                    subject_token_type="urn:ietf:params:oauth:token-type:access_token",
                    requested_token_type="urn:ietf:params:oauth:token-type:access_token",
                    additional_options={"accessBoundary": {"accessBoundaryRules": rules}},
                )

        told = await asyncio.to_thread(narrow)
        assert rules == google.tokens[told["access_token"]].rules
