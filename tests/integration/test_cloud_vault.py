"""Vault: a stand-in and a real OpenBao, which are held to the same promises, and hvac beside the agent."""

import asyncio
import json
from types import SimpleNamespace

import pytest
from fakes.outside import WORKLOAD, ended, steps, wanted
from harness.openbao import openbao
from harness.ports import free_port
from harness.standin import Issuer, Reply, guarded
from harness.vaultserver import Role, VaultServer
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.vault import VAULT_SECRET, VAULT_TOKEN, VaultProvider
from sojourn.runtime.clock import SystemClock

pytestmark = pytest.mark.full

SECRET = "secret/data/orders"
OTHER = "spiffe://example.org/other"
ACTIONS = ("db:read",)


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module")
def real():
    """One OpenBao for all tests here."""
    with openbao(free_port()) as running:
        yield running


@pytest.fixture(params=["stand-in", pytest.param("openbao", marks=pytest.mark.timeout(180))])
def vault(request, issuer):
    """A server with the same roles, whichever it is: `address`, and `alive(token)`."""
    if request.param == "openbao":
        real = request.getfixturevalue("real")
        real.trust(issuer)
        real.role("orders", str(WORKLOAD))
        real.role("other", OTHER)
        real.role("batch", str(WORKLOAD), token_type="batch")
        real.role("counted", str(WORKLOAD), token_num_uses=3)
        real.role("bare", str(WORKLOAD), token_no_default_policy=True)
        real.role("long", str(WORKLOAD), token_ttl="48h", token_max_ttl="48h")
        real.role("blind", str(WORKLOAD), token_policies=["nothing"])
        real.write(SECRET, {"data": {"user": "orders"}})
        yield SimpleNamespace(address=real.address, alive=lambda token: real.look_up(token) == 200)
        return
    with VaultServer(issuer) as server:
        told = {"audience": server.url, "reads": (SECRET, "database/creds/orders", "secret/data/none")}
        server.roles = {
            "orders": Role(str(WORKLOAD), **told),
            "other": Role(OTHER, **told),
            "batch": Role(str(WORKLOAD), batch=True, **told),
            "counted": Role(str(WORKLOAD), num_uses=3, **told),
            "bare": Role(str(WORKLOAD), default_policy=False, **told),
            "long": Role(str(WORKLOAD), ttl=172_800, **told),
            "blind": Role(str(WORKLOAD), audience=server.url),
        }
        server.secrets[SECRET] = {"data": {"user": "orders"}, "metadata": {"version": 1}}
        yield SimpleNamespace(address=server.url, alive=lambda token: token in server.tokens, server=server)


class Use:
    """A provider, and what a task wants of it."""

    def __init__(self, vault, http, ask, **settings):
        self.provider = VaultProvider("vault", {"kind": "vault", "address": vault.address, **settings}, http)
        self.wanted = wanted(self.provider, ask, ACTIONS, clock=SystemClock())


async def obtain(vault, mint, ask, **settings):
    async with guarded() as http:
        use = Use(vault, http, ask, **settings)
        return await use.provider.exchange(use.wanted, mint)


@pytest.fixture
def mint(issuer):
    return issuer.mint(str(WORKLOAD))


class TestToken:
    async def test_is_good_until_it_is_taken_back(self, vault, mint):
        """A token is of its role, is known to Vault until the task's end, and is not any more after it."""
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders"})
            obtained = await use.provider.exchange(use.wanted, mint)
            left = (obtained.expires_at - SystemClock().now()).total_seconds()
            assert (VAULT_TOKEN, "N_A") == (obtained.issued_type, obtained.token_type)
            assert 590 < left <= 600
            assert vault.alive(obtained.token)
            await use.provider.take_back(ended(use.wanted, obtained), mint)
            assert not vault.alive(obtained.token)

    async def test_taking_back_again_confirms_again(self, vault, mint):
        """What was taken back already is confirmed as such: a lost answer does not leave an end open."""
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders"})
            obtained = await use.provider.exchange(use.wanted, mint)
            for _ in range(3):
                await use.provider.take_back(ended(use.wanted, obtained), mint)

    async def test_nothing_secret_is_shown(self, vault, mint):
        """The record has the role and the accessor, and neither it nor the repr has the token."""
        obtained = await obtain(vault, mint, {"role": "orders"})
        assert {"role", "mount", "accessor"} == set(obtained.public)
        assert obtained.token not in repr(obtained) + json.dumps(dict(obtained.public))
        assert obtained.token == obtained.handle["token"]

    async def test_other_actions_are_other_roles(self, vault, mint):
        """The role is that of the actions asked for; for fewer than a role gives there is nothing."""
        async with guarded() as http:
            made = VaultProvider("vault", {"kind": "vault", "address": vault.address, "role": "orders"}, http)
            by_action = {"roles": {"db:read": "orders", "db:write": "other"}}
            asked = wanted(made, by_action, ("db:read", "db:write"), ("db:read",), clock=SystemClock())
            assert "orders" == (await made.exchange(asked, mint)).public["role"]
            asked = wanted(made, {}, ("db:read", "db:write"), ("db:read",), clock=SystemClock())
            with pytest.raises(ProviderRefused, match="together with others"):
                await made.exchange(asked, mint)

    async def test_what_was_made_by_it_goes_too(self, real, issuer, mint):
        """A token that the program made by its token is revoked with it, in OpenBao itself."""
        real.trust(issuer)
        real.write("sys/policies/acl/makes", {"policy": 'path "auth/token/create" { capabilities = ["update"] }'})
        real.role("makes", str(WORKLOAD), token_policies=["makes"])
        async with guarded() as http:
            use = Use(real, http, {"role": "makes"})
            obtained = await use.provider.exchange(use.wanted, mint)
            headers = {"X-Vault-Token": obtained.token}
            made = real.root.post("/v1/auth/token/create", json={"ttl": "1h"}, headers=headers).json()
            child = made["auth"]["client_token"]
            assert 200 == real.look_up(child)
            await use.provider.take_back(ended(use.wanted, obtained), mint)
        assert 403 == real.look_up(child)


class TestSecret:
    async def test_a_leased_secret_goes_with_the_token(self, issuer, mint):
        """A database user that Vault makes is handed out, and goes when the token is revoked."""
        with VaultServer(issuer) as server:
            path = "database/creds/orders"
            server.roles["orders"] = Role(str(WORKLOAD), server.url, reads=(path,))
            async with guarded() as http:
                use = Use(SimpleNamespace(address=server.url), http, {"role": "orders", "path": path})
                obtained = await use.provider.exchange(use.wanted, mint)
                assert VAULT_SECRET == obtained.issued_type
                assert {json.loads(obtained.token)["username"]} == server.users
                assert (obtained.expires_at - SystemClock().now()).total_seconds() <= 300
                await use.provider.take_back(ended(use.wanted, obtained), mint)
        assert set() == server.users

    async def test_a_standing_secret_must_be_wanted(self, vault, mint):
        """A secret without a lease is refused unless the ask says that it is one, and its end says that it stays."""
        with pytest.raises(ProviderRefused, match="not leased"):
            await obtain(vault, mint, {"role": "orders", "path": SECRET})
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders", "path": SECRET, "standing": True})
            obtained = await use.provider.exchange(use.wanted, mint)
            assert {"user": "orders"} == json.loads(obtained.token)["data"]
            assert "yes" == obtained.public["standing"]
            with pytest.raises(ProviderRefused, match="stays"):
                await use.provider.take_back(ended(use.wanted, obtained), mint)
            assert not vault.alive(obtained.handle["token"])

    @pytest.mark.parametrize(
        ("role", "path", "told"),
        [("blind", SECRET, "do not allow to read"), ("orders", "secret/data/none/x", "do not allow to read")],
    )
    async def test_what_cannot_be_read_is_told(self, vault, mint, role, path, told):
        """A secret that the role may not read is refused, with what to set."""
        with pytest.raises(ProviderRefused, match=told) as caught:
            await obtain(vault, mint, {"role": role, "path": path})
        assert ("secret", True) == (caught.value.step, bool(caught.value.hint))


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "ask", "told"),
        [
            ({}, {"role": "none"}, "no such role"),
            ({}, {"role": "other"}, "does not take this SPIFFE ID"),
            ({"aud": "https://vault.example.org"}, {"role": "orders"}, "audience"),
            ({"iss": "https://other.example.org"}, {"role": "orders"}, "issuer"),
            ({"exp": 1_000_000, "iat": 999_000}, {"role": "orders"}, "expired"),
        ],
    )
    async def test_each_says_what_to_set(self, vault, issuer, changes, ask, told):
        """What Vault refuses at the login is told by a sentence, with what to set where."""
        with pytest.raises(ProviderRefused, match=told) as caught:
            await obtain(vault, issuer.mint(str(WORKLOAD), **changes), ask)
        assert ("login", True) == (caught.value.step, bool(caught.value.hint))

    async def test_a_key_that_vault_has_not(self, vault):
        """An assertion by another key is refused, with where Vault's keys are set."""
        with pytest.raises(ProviderRefused, match="signature") as caught:
            await obtain(vault, Issuer().mint(str(WORKLOAD)), {"role": "orders"})
        assert "jwks_url" in caught.value.hint

    async def test_a_mount_that_is_not_there(self, vault, mint):
        """A mount that Vault has not is told as that."""
        with pytest.raises(ProviderRefused, match="log in there") as caught:
            await obtain(vault, mint, {"role": "orders"}, mount="nowhere")
        assert "mount" in caught.value.hint

    @pytest.mark.parametrize(
        ("role", "told"),
        [
            ("batch", "batch"),
            ("counted", "number of uses"),
            ("bare", "could not be taken back"),
            ("long", "longer than"),
        ],
    )
    async def test_tokens_that_could_not_be_taken_back_are_refused(self, vault, mint, role, told):
        """Tokens of a kind that has no sure end are not handed out, and the hint says what the role should have."""
        with pytest.raises(ProviderRefused, match=told) as caught:
            await obtain(vault, mint, {"role": role})
        assert caught.value.hint

    async def test_one_that_is_refused_is_revoked(self, issuer, mint):
        """A token that is not handed out does not stay behind."""
        with VaultServer(issuer) as server:
            server.roles["long"] = Role(str(WORKLOAD), server.url, ttl=172_800)
            with pytest.raises(ProviderRefused):
                await obtain(SimpleNamespace(address=server.url), mint, {"role": "long"})
            assert {} == server.tokens

    async def test_a_namespace_goes_with_every_call(self, issuer, mint):
        """With a namespace set, login and revocation are in it; a wrong one is told."""
        with VaultServer(issuer, namespace="team") as server:
            server.roles["orders"] = Role(str(WORKLOAD), server.url)
            async with guarded() as http:
                use = Use(SimpleNamespace(address=server.url), http, {"role": "orders"}, namespace="team")
                obtained = await use.provider.exchange(use.wanted, mint)
                await use.provider.take_back(ended(use.wanted, obtained), mint)
            assert {} == server.tokens
            with pytest.raises(ProviderRefused, match="namespace"):
                await obtain(SimpleNamespace(address=server.url), mint, {"role": "orders"})


class TestEnd:
    async def test_a_refusal_alone_is_no_confirmation(self, issuer, mint):
        """A token that may not revoke itself any more, and lives, is not said to be taken back."""
        with VaultServer(issuer) as server:
            server.roles["orders"] = Role(str(WORKLOAD), server.url)
            async with guarded() as http:
                use = Use(SimpleNamespace(address=server.url), http, {"role": "orders"})
                obtained = await use.provider.exchange(use.wanted, mint)
                server.instead["/v1/auth/token/revoke-self"] = Reply(403, {"errors": ["permission denied"]})
                with pytest.raises(ProviderUnavailable, match="may not revoke itself") as caught:
                    await use.provider.take_back(ended(use.wanted, obtained), mint)
                assert "capabilities" in caught.value.hint
                server.instead.clear()
                await use.provider.take_back(ended(use.wanted, obtained), mint)
            assert {} == server.tokens

    @pytest.mark.parametrize("status", [400, 404, 429, 472, 500, 502, 503])
    async def test_what_may_pass_is_tried_again(self, issuer, mint, status):
        """While Vault is sealed, in trouble or elsewhere, an end stays open, and comes later."""
        with VaultServer(issuer) as server:
            server.roles["orders"] = Role(str(WORKLOAD), server.url)
            async with guarded() as http:
                use = Use(SimpleNamespace(address=server.url), http, {"role": "orders"})
                obtained = await use.provider.exchange(use.wanted, mint)
                server.instead["/v1/auth/token/revoke-self"] = Reply(status, {"errors": ["later"]})
                with pytest.raises(ProviderUnavailable):
                    await use.provider.take_back(ended(use.wanted, obtained), mint)

    async def test_a_lost_token_cannot_be_revoked(self, vault, mint):
        """Without the token there is nothing to revoke by, and that is said."""
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders"})
            with pytest.raises(ProviderRefused, match="lost"):
                await use.provider.take_back(ended(use.wanted), mint)


class TestCheck:
    async def test_leaves_nothing_behind(self, vault, mint):
        """A check logs in and revokes what it got."""
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders"})
            told = await steps(use.provider, use.wanted, mint)
        assert {"health": "ok", "login": "ok", "revoke": "ok"} == {k: v.outcome for k, v in told.items()}
        assert {} == getattr(getattr(vault, "server", None), "tokens", {})

    async def test_warns_of_a_role_that_gives_more_than_is_needed(self, vault, mint):
        """A role whose tokens outlive the task by much is told with what to set."""
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders"})
            use.wanted = wanted(use.provider, {"role": "orders"}, ACTIONS, clock=SystemClock(), ends_in=60)
            told = await steps(use.provider, use.wanted, mint)
        assert "token_ttl" in told["login"].hint

    async def test_a_sealed_vault_is_told(self, issuer):
        """A check of a sealed Vault says so at its first step."""
        with VaultServer(issuer) as server:
            server.sealed = True
            async with guarded() as http:
                made = VaultProvider("vault", {"kind": "vault", "address": server.url}, http)
                told = await steps(made, None, issuer.mint(str(WORKLOAD)))
        assert ["health"] == list(told)
        assert "failed" == told["health"].outcome


class TestSdk:
    async def test_hvac_speaks_with_both(self, vault, mint):
        """hvac logs in by itself, works with a token that the agent obtained, and is out when it is taken back."""
        hvac = pytest.importorskip("hvac")
        own = hvac.Client(url=vault.address)
        told = await asyncio.to_thread(own.auth.jwt.jwt_login, role="orders", jwt=await mint(vault.address))
        assert vault.alive(told["auth"]["client_token"])
        async with guarded() as http:
            use = Use(vault, http, {"role": "orders"})
            obtained = await use.provider.exchange(use.wanted, mint)
            client = hvac.Client(url=vault.address, token=obtained.token)
            assert await asyncio.to_thread(client.is_authenticated)
            read = await asyncio.to_thread(
                client.secrets.kv.v2.read_secret_version, path="orders", raise_on_deleted_version=True
            )
            assert {"user": "orders"} == read["data"]["data"]
            await use.provider.take_back(ended(use.wanted, obtained), mint)
            assert not await asyncio.to_thread(client.is_authenticated)
