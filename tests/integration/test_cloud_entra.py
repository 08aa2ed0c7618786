"""Entra ID: against a stand-in, over TLS, that verifies as its token endpoint does, and azure-identity beside it."""

import asyncio

import pytest
from fakes.outside import WORKLOAD, steps, wanted
from harness.entraserver import AUDIENCE, TENANT, Application, EntraServer
from harness.standin import ISSUER, Issuer, guarded
from harness.tlsplace import TlsPlace
from sojourn.providers.entra import EntraProvider
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.runtime.clock import SystemClock

READER, WRITER = "aaaaaaaa-0000-0000-0000-000000000001", "aaaaaaaa-0000-0000-0000-000000000002"
GRAPH = "https://graph.microsoft.com"
ASK = {"scope": f"{GRAPH}/.default"}
ACTIONS = ("mail:read",)


@pytest.fixture(scope="module")
def issuer():
    made = Issuer()
    made.key("RS256")
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return TlsPlace(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def entra(issuer, place):
    with EntraServer(issuer, (place.chain, place.key)) as server:
        server.ca = place.ca
        for client in (READER, WRITER):
            server.applications[client] = Application([(ISSUER, str(WORKLOAD))], {GRAPH})
        yield server


def reaching(entra):
    return guarded(ca=entra.ca, private_networks=("127.0.0.0/8", "::1/128"))


def provider(entra, http, **settings):
    table = {"kind": "entra", "tenant_id": TENANT, "client_id": READER, "authority": entra.url, **settings}
    return EntraProvider("azure", table, http)


async def obtain(entra, ask=ASK, actions=ACTIONS, asked=None, *, mint=None, **settings):
    async with reaching(entra) as http:
        made = provider(entra, http, **settings)
        what = wanted(made, ask, actions, asked, clock=SystemClock())
        return await made.exchange(what, mint or entra.issuer.mint(str(WORKLOAD)))


class TestToken:
    async def test_is_the_applications(self, entra):
        """A workload whose SPIFFE ID is a federated credential of the application gets its token, by an RS256 SVID."""
        obtained = await obtain(entra)
        left = (obtained.expires_at - SystemClock().now()).total_seconds()
        assert ("Bearer", True) == (obtained.token_type, 3_590 < left <= 3_600)
        assert {"tenant_id": TENANT, "client_id": READER, "scope": ASK["scope"]} == obtained.public
        assert obtained.token not in repr(obtained)

    async def test_other_actions_are_other_applications(self, entra):
        """The application is that of the actions asked for; several of different ones at once are refused."""
        ask = {**ASK, "clients": {"mail:read": READER, "mail:send": WRITER}}
        actions = ("mail:read", "mail:send")
        assert WRITER == (await obtain(entra, ask, actions, ("mail:send",))).public["client_id"]
        with pytest.raises(ProviderRefused, match="one by one"):
            await obtain(entra, ask, actions)

    async def test_less_than_an_application_gives_is_not_to_be_had(self, entra):
        """A token cannot be narrowed: who asks for some of an application's actions gets none, and is told so."""
        with pytest.raises(ProviderRefused, match="together with others") as caught:
            await obtain(entra, actions=("mail:read", "mail:send"), asked=("mail:read",))
        assert "mail:read, mail:send at once" in caught.value.hint


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "code", "hint"),
        [
            ({"iss": "https://other.example.org"}, "AADSTS700211", "Issuer"),
            ({"aud": "api://other"}, "AADSTS700212", "Audience"),
            ({"sub": "spiffe://example.org/other"}, "AADSTS700213", "Subject identifier"),
            ({"sub": str(WORKLOAD).upper()}, "AADSTS700213", "Subject identifier"),
            ({"exp": 1_000_000}, "AADSTS700024", "clock"),
        ],
    )
    async def test_each_says_what_to_set(self, entra, changes, code, hint):
        """An assertion that no federated credential fits gets no token, and the part that does not fit is named."""
        mint = entra.issuer.mint(str(WORKLOAD), **changes)
        with pytest.raises(ProviderRefused, match=code) as caught:
            await obtain(entra, mint=mint)
        assert hint in caught.value.hint

    async def test_an_es256_assertion_would_not_do(self, entra):
        """The stand-in refuses ES256, as Entra does: the provider asks for RS256."""
        mint = entra.issuer.mint(str(WORKLOAD))
        with pytest.raises(ProviderRefused, match="AADSTS50013"):
            await obtain(entra, mint=lambda audience, **_: mint(audience, algorithm="ES256"))

    async def test_a_key_that_entra_has_not(self, entra):
        """An assertion by another key is refused, with where Entra gets the keys."""
        with pytest.raises(ProviderRefused, match="AADSTS700027") as caught:
            await obtain(entra, mint=Issuer().mint(str(WORKLOAD)))
        assert "JWKS" in caught.value.hint

    @pytest.mark.parametrize(
        ("ask", "settings", "code"),
        [
            (ASK, {"tenant_id": "other.example.org"}, "AADSTS90002"),
            (ASK, {"client_id": READER[:-1] + "9"}, "AADSTS700016"),
            ({"scope": "https://vault.azure.net/.default"}, {}, "AADSTS500011"),
        ],
    )
    async def test_what_is_not_there_is_told(self, entra, ask, settings, code):
        """A tenant, an application or a resource that is not there is told as that."""
        with pytest.raises(ProviderRefused, match=code) as caught:
            await obtain(entra, ask, **settings)
        assert caught.value.hint

    async def test_an_application_that_is_disabled(self, entra):
        """A disabled application gets nothing, and the hint says where to enable it."""
        entra.applications[READER].enabled = False
        with pytest.raises(ProviderRefused, match="AADSTS7000112"):
            await obtain(entra)

    async def test_tokens_beyond_what_is_expected_are_refused(self, entra):
        """A token for longer than the settings expect is not handed out."""
        entra.life = 90_000
        with pytest.raises(ProviderUnavailable, match="longer"):
            await obtain(entra)

    async def test_another_certificate_is_refused(self, entra):
        """A server whose certificate is not of a known authority is not asked for a token."""
        async with guarded(private_networks=("127.0.0.0/8", "::1/128")) as http:
            made = provider(entra, http)
            with pytest.raises(ProviderUnavailable):
                await made.exchange(wanted(made, ASK, ACTIONS, clock=SystemClock()), entra.issuer.mint(str(WORKLOAD)))
        assert [] == entra.asked


class TestCheck:
    async def test_says_that_all_is_well(self, entra):
        """A check reads the tenant and gets a token, and says that it cannot be recalled."""
        async with reaching(entra) as http:
            made = provider(entra, http)
            what = wanted(made, ASK, ACTIONS, clock=SystemClock())
            told = await steps(made, what, entra.issuer.mint(str(WORKLOAD)))
        assert {"tenant": "ok", "token": "ok"} == {k: v.outcome for k, v in told.items()}
        assert "recalled" in told["token"].hint

    async def test_names_a_tenant_that_is_not_there(self, entra):
        """In another tenant the check stops at its first step, with what to compare."""
        async with reaching(entra) as http:
            told = await steps(provider(entra, http, tenant_id="other.example.org"), None, entra.issuer.mint("x"))
        assert ["tenant"] == list(told)
        assert "tenant_id" in told["tenant"].hint


class TestSdk:
    async def test_the_stand_in_speaks_what_azure_identity_speaks(self, entra):
        """azure-identity's own credential gets a token from the stand-in by an SVID, and its refusals with their codes."""
        identity = pytest.importorskip("azure.identity")
        exceptions = pytest.importorskip("azure.core.exceptions")
        mint = entra.issuer.mint(str(WORKLOAD))

        def get(audience):
            with identity.ClientAssertionCredential(
                TENANT,
                READER,
                lambda: asyncio.run(mint(audience, algorithm="RS256")),
                authority=entra.url,
                disable_instance_discovery=True,
                connection_verify=str(entra.ca),
            ) as credential:
                return credential.get_token(ASK["scope"])

        told = await asyncio.to_thread(get, AUDIENCE)
        assert 3 == len(told.token.split("."))
        with pytest.raises(exceptions.ClientAuthenticationError, match="AADSTS700212"):
            await asyncio.to_thread(get, "api://other")
