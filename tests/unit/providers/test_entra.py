"""Entra ID: what is asked, and what is made of hostile answers. With a server: integration/test_cloud_entra.py."""

import pytest
from fakes.clock import FakeClock
from fakes.outside import FakeHttp, FakeMint, answer, ended, steps, wanted
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.providers.entra import EntraProvider
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable

TENANT = "contoso.onmicrosoft.com"
CLIENT, OTHER = "aaaaaaaa-0000-0000-0000-000000000001", "aaaaaaaa-0000-0000-0000-000000000002"
ASK = {"scope": "https://graph.microsoft.com/.default"}
ACTIONS = ("mail:read",)


def token(**changes):
    told = {"token_type": "Bearer", "expires_in": 3_599, "access_token": "eyJ.x.y", **changes}
    return answer({key: value for key, value in told.items() if value is not ...})


def refusal(*codes, error="invalid_client", status=401, **more):
    told = {"error": error, "error_description": "AADSTS: words", "error_codes": list(codes), **more}
    return answer(told, status)


def provider(*answers, **settings):
    http = FakeHttp(*answers)
    table = {"kind": "entra", "tenant_id": TENANT, "client_id": CLIENT, **settings}
    return EntraProvider("azure", table, http, FakeClock()), http


async def exchange(*answers, mint=None, **settings):
    made, http = provider(*answers, **settings)
    return await made.exchange(wanted(made, ASK, ACTIONS), mint or FakeMint()), http


class TestRequest:
    async def test_is_client_credentials_with_an_assertion(self):
        """The request has the names that Entra takes, and an RS256 SVID for its token exchange."""
        mint = FakeMint()
        _, http = await exchange(token(), mint=mint)
        assert [("api://AzureADTokenExchange", "RS256", None)] == mint.asked
        assert (
            "POST",
            f"https://login.microsoftonline.com/{TENANT}/oauth2/v2.0/token",
            {
                "grant_type": "client_credentials",
                "client_id": CLIENT,
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": "svid-1",
                "scope": ASK["scope"],
            },
            {},
        ) == http.asked[0]

    async def test_an_assertion_is_not_exchanged_here(self):
        """Where the program's SDK makes the exchange it is given the RS256 SVID, for a minute, and Entra is not asked."""
        mint = FakeMint()
        made, http = provider()
        asked = wanted(made, {**ASK, "gives": "assertion"}, ACTIONS)
        got = await made.exchange(asked, mint)
        assert ("svid-1", "N_A", "urn:ietf:params:oauth:token-type:jwt") == (got.token, got.token_type, got.issued_type)
        assert 60 == (got.expires_at - FakeClock().now()).total_seconds()
        assert [("api://AzureADTokenExchange", "RS256", None)] == mint.asked
        assert [] == http.asked
        assert "assertion" == got.public["gives"] == made.describe(asked.ask)["gives"]

    async def test_sovereign_clouds_have_their_own(self):
        """Another cloud's authority and audience are the settings'."""
        mint = FakeMint()
        settings = {"authority": "https://login.microsoftonline.us", "audience": "api://AzureADTokenExchangeUSGov"}
        _, http = await exchange(token(), mint=mint, **settings)
        assert http.asked[0][1].startswith("https://login.microsoftonline.us/")
        assert "api://AzureADTokenExchangeUSGov" == mint.asked[0][0]


class TestAnswer:
    @pytest.mark.parametrize(
        "reply",
        [
            answer(body=b"<html>"),
            answer(body=b"null"),
            answer({}),
            token(access_token=...),
            token(access_token=None),
            token(access_token="a b"),
            token(access_token="a\nb"),
            token(access_token="x" * 70_000),
            token(token_type="pop"),
            token(token_type=...),
            token(expires_in=...),
            token(expires_in=0),
            token(expires_in="-1"),
            token(expires_in=10**12),
            token(expires_in=[3_599]),
        ],
    )
    async def test_what_is_no_token_is_refused(self, reply):
        """A part that is missing, of another type, past or too large is no token."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(reply)
        assert (True, "token") == (caught.value.sent, caught.value.step)

    async def test_seconds_may_be_text(self):
        """Older endpoints tell the seconds as text."""
        obtained, _ = await exchange(token(expires_in="3599"))
        assert 3_599 == (obtained.expires_at - FakeClock().now()).total_seconds()

    @pytest.mark.parametrize(
        ("reply", "kind", "told"),
        [
            (refusal(700213), ProviderRefused, "AADSTS700213"),
            (refusal(50027, 700016), ProviderRefused, "AADSTS50027"),
            (refusal(1234567), ProviderRefused, "AADSTS1234567"),
            (refusal(error="invalid_client"), ProviderRefused, "invalid_client"),
            (refusal("700213", None, {}), ProviderRefused, "invalid_client"),
            (refusal(10**40), ProviderRefused, "invalid_client"),
            (refusal(90033, status=503), ProviderUnavailable, "503"),
            (refusal(90033, status=400), ProviderUnavailable, "400"),
            (refusal(error="temporarily_unavailable", status=400), ProviderUnavailable, "cannot now"),
            (refusal(error="", status=400), ProviderUnavailable, "400"),
            (answer(body=b"<html>", status=400), ProviderUnavailable, "400"),
            (answer({}, 429, **{"retry-after": "7"}), ProviderUnavailable, "too many"),
        ],
    )
    async def test_errors_are_told_apart(self, reply, kind, told):
        """What is for good and what may pass are told apart, and a known code is named."""
        with pytest.raises(kind, match=told):
            await exchange(reply)

    async def test_the_first_known_code_counts(self):
        """Among several codes the known one says what to set."""
        with pytest.raises(ProviderRefused) as caught:
            await exchange(refusal(1, 700213))
        assert "Subject identifier" in caught.value.hint


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"tenant_id": "a/b"}, "tenant_id: "),
            ({"client_id": "me"}, "client_id: "),
            ({"authority": "login"}, "authority: "),
            ({"longest_token": "30h"}, "longest_token: "),
            ({"client_secret": "x"}, "client_secret: unknown key"),
        ],
    )
    def test_faults_begin_with_the_key(self, settings, fault):
        """What is wrong with the table is told by its key; there is no place for a secret."""
        with pytest.raises(InvalidConfig) as caught:
            provider(**settings)
        assert caught.value.faults[0].startswith(fault)

    @pytest.mark.parametrize(
        ("ask", "fault"),
        [
            ({}, "ask.scope: "),
            ({"scope": "User.Read"}, "ask.scope: "),
            ({**ASK, "client_id": CLIENT, "clients": {"mail:read": OTHER}}, "one of them"),
            ({**ASK, "clients": {"mail:send": OTHER}}, "says nothing of action 'mail:read'"),
        ],
    )
    def test_faults_of_an_ask_are_told(self, ask, fault):
        """What is wrong with an ask is told by its key."""
        with pytest.raises(InvalidInput) as caught:
            provider()[0].read_ask(ask, ACTIONS)
        assert fault in caught.value.public

    def test_an_application_must_be_somewhere(self):
        """Without an application in the ask or the table there is none to ask as."""
        with pytest.raises(InvalidInput, match=r"ask\.client_id: is missing"):
            provider(client_id=None)[0].read_ask(ASK, ACTIONS)

    def test_programs_are_told_where(self):
        """What programs need to know is the tenant, the scope, and the application if it is one."""
        made, _ = provider()
        told = made.describe(made.read_ask(ASK, ACTIONS))
        assert {"kind": "entra", "tenant_id": TENANT, "authority": "https://login.microsoftonline.com"} == {
            key: told[key] for key in ("kind", "tenant_id", "authority")
        }
        assert (CLIENT, ASK["scope"]) == (told["client_id"], told["scope"])
        several = made.read_ask({**ASK, "clients": {"a": CLIENT, "b": OTHER}}, ("a", "b"))
        assert "client_id" not in made.describe(several)

    async def test_nothing_is_taken_back(self):
        """It says that it recalls nothing, and that services accept its tokens without asking."""
        obtained, _ = await exchange(token())
        made, _ = provider()
        assert ("none", True, {}) == (made.recall, made.offline, obtained.handle)
        with pytest.raises(ProviderRefused):
            await made.take_back(ended(wanted(made, ASK, ACTIONS)), FakeMint())


class TestCheck:
    @pytest.mark.parametrize("reply", [answer(body=b"hello"), answer({}), ProviderUnavailable("nobody answers")])
    async def test_what_is_not_entra_is_found(self, reply):
        """Where something else answers, or nothing, the check stops."""
        made, _ = provider(reply)
        assert ["failed"] == [step.outcome for step in (await steps(made, None, FakeMint())).values()]

    async def test_without_a_workload_the_exchange_is_skipped(self):
        """With nobody to exchange for, only the tenant is tried."""
        made, _ = provider(answer({"token_endpoint": "https://x"}))
        assert "skipped" == (await steps(made, None, FakeMint()))["token"].outcome
