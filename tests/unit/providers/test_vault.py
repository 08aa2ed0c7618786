"""Vault: what is asked of it, and what is made of its answers. With real servers: integration/test_cloud_vault.py."""

import asyncio

import pytest
from fakes.clock import FakeClock
from fakes.outside import FakeHttp, FakeMint, answer, ended, steps, wanted
from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.vault import VaultProvider

ADDRESS = "https://vault.example.org:8200"
ACTIONS = ("db:read", "db:write")
AUTH = {
    "client_token": "s.token",
    "accessor": "accessor1",
    "token_policies": ["default", "orders"],
    "lease_duration": 600,
    "token_type": "service",
    "num_uses": 0,
}
RIGHTS = {"auth/token/revoke-self": ["update"], "auth/token/lookup-self": ["read"]}


def login(**changes):
    auth = {key: value for key, value in {**AUTH, **changes}.items() if value is not ...}
    return answer({"auth": auth})


def rights(**changes):
    return answer({"data": {**RIGHTS, **changes}})


def provider(*answers, **settings):
    http = FakeHttp(*answers)
    return VaultProvider(
        "v", {"kind": "vault", "address": ADDRESS, "role": "orders", **settings}, http, FakeClock()
    ), http


async def exchange(*answers, ask=None, mint=None, **settings):
    made, http = provider(*answers, **settings)
    return await made.exchange(wanted(made, ask or {}, ACTIONS), mint or FakeMint()), http


class TestRequest:
    async def test_is_a_login_by_the_svid(self):
        """The login names the role and shows a JWT-SVID for Vault's address."""
        mint = FakeMint()
        _, http = await exchange(login(), rights(), mint=mint)
        method, url, sent, headers = http.asked[0]
        assert ("POST", f"{ADDRESS}/v1/auth/jwt/login") == (method, url)
        assert {"role": "orders", "jwt": "svid-1"} == sent
        assert {"X-Vault-Request": "true"} == headers
        assert [(ADDRESS, "ES256", None)] == mint.asked

    async def test_mount_namespace_and_audience_are_as_set(self):
        """Where it logs in, and for whom the SVID is, are the settings'."""
        mint = FakeMint()
        settings = {"mount": "teams/jwt", "namespace": "eu/prod", "audience": "vault"}
        _, http = await exchange(login(), rights(), mint=mint, **settings)
        assert f"{ADDRESS}/v1/auth/teams/jwt/login" == http.asked[0][1]
        assert ["eu/prod", "eu/prod"] == [each[3]["X-Vault-Namespace"] for each in http.asked]
        assert "vault" == mint.asked[0][0]

    async def test_rights_are_looked_at_once(self):
        """Whether a role's tokens can revoke themselves is asked once for each set of policies."""
        made, http = provider(login(), rights(), login(), login(token_policies=["other"]), rights())
        for _ in range(3):
            await made.exchange(wanted(made, {}, ACTIONS), FakeMint())
        assert 2 == sum("capabilities" in url for _, url, _, _ in http.asked)


class TestAnswer:
    @pytest.mark.parametrize(
        "reply",
        [
            answer(body=b"<html>"),
            answer(body=b"[]"),
            answer({}),
            answer({"auth": None}),
            answer({"auth": "token"}),
            login(client_token=...),
            login(client_token=""),
            login(client_token=5),
            login(client_token="s.to ken"),
            login(client_token="s.\r\nX-Other: 1"),
            login(client_token="s" * 70_000),
        ],
    )
    async def test_what_is_no_answer_is_refused(self, reply):
        """A part that is missing, of another type, or too large is no token."""
        with pytest.raises(ProviderUnavailable) as caught:
            await exchange(reply, answer(status=204, body=b""))
        assert (True, "login") == (caught.value.sent, caught.value.step)

    @pytest.mark.parametrize("life", [..., None, -1, True, "soon", 1e300, 86_400_000_000_000])
    async def test_a_token_of_no_sensible_life_is_revoked(self, life):
        """A token whose life is no number of seconds, none, or beyond all dates is not handed out, and is revoked."""
        made, http = provider(login(lease_duration=life), answer(status=204, body=b""))
        with pytest.raises(ProviderUnavailable) as caught:
            await made.exchange(wanted(made, {}, ACTIONS), FakeMint())
        assert (False, "login") == (caught.value.sent, caught.value.step)
        method, url, _, headers = http.asked[-1]
        assert ("POST", f"{ADDRESS}/v1/auth/token/revoke-self") == (method, url)
        assert "s.token" == headers["X-Vault-Token"]

    async def test_a_token_that_never_expires_is_revoked(self):
        """Nothing would ever end a token without an expiry that nobody was given: it is revoked, or told as one that
        is left."""
        never, gone, failed = login(lease_duration=0), answer(status=204, body=b""), answer({"errors": ["boom"]}, 500)
        for reply, left in ((gone, False), (failed, True)):
            made, http = provider(never, reply)
            with pytest.raises(ProviderRefused, match="never expire") as caught:
                await made.exchange(wanted(made, {}, ACTIONS), FakeMint())
            assert left == caught.value.left
            assert f"{ADDRESS}/v1/auth/token/revoke-self" == http.asked[-1][1]

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"token_type": "batch"}, "batch"),
            ({"client_token": "hvb.AAAA"}, "batch"),
            ({"num_uses": 1}, "number of uses"),
            ({"lease_duration": 0}, "never expire"),
            ({"lease_duration": 90_000}, "longer than longest_token"),
            ({"mfa_requirement": {"mfa_request_id": "x"}}, "second factor"),
        ],
    )
    async def test_tokens_without_a_sure_end_are_refused(self, changes, told):
        """A token that could not be taken back, or lives too long, is not handed out."""
        with pytest.raises(ProviderRefused, match=told):
            await exchange(login(**changes), answer(status=204, body=b""))

    @pytest.mark.parametrize(
        "reply",
        [
            rights(**{"auth/token/revoke-self": ["deny"]}),
            rights(**{"auth/token/lookup-self": ["deny"]}),
            rights(**{"auth/token/revoke-self": "update"}),
            answer({"errors": ["1 error occurred:\n\t* permission denied\n\n"]}, 403),
        ],
    )
    async def test_a_token_that_may_not_revoke_itself_is_refused(self, reply):
        """Without the right to revoke and to look up itself a token is not handed out, and is revoked if that can be."""
        made, http = provider(login(), reply, answer(status=204, body=b""))
        with pytest.raises(ProviderRefused, match="could not be taken back"):
            await made.exchange(wanted(made, {}, ACTIONS), FakeMint())
        assert f"{ADDRESS}/v1/auth/token/revoke-self" == http.asked[-1][1]

    async def test_a_secret_that_fails_leaves_no_token(self):
        """When the secret is not to be had the token is revoked."""
        made, http = provider(login(), rights(), answer({"errors": ["boom"]}, 500), answer(status=204, body=b""))
        with pytest.raises(ProviderUnavailable):
            await made.exchange(wanted(made, {"path": "database/creds/x"}, ACTIONS), FakeMint())
        assert f"{ADDRESS}/v1/auth/token/revoke-self" == http.asked[-1][1]

    @pytest.mark.parametrize(
        "reply",
        [
            answer({}),
            answer({"data": None}),
            answer({"data": [], "lease_id": "x"}),
            answer({"data": {}, "lease_id": "x"}),
            answer({"data": {}, "lease_id": "x", "lease_duration": 8e13}),
            answer({"data": {}, "lease_id": "x", "lease_duration": 86_400_000_000_000}),
        ],
    )
    async def test_a_secret_that_is_none_is_refused(self, reply):
        """An answer without data, or with a lease of no length or one beyond all dates, is no secret."""
        with pytest.raises(ProviderUnavailable):
            await exchange(login(), rights(), reply, answer(status=204, body=b""), ask={"path": "database/creds/x"})

    async def test_a_sealed_vault_is_for_now(self):
        """A sealed Vault may be unsealed: it is tried again, and the hint says what it takes."""
        with pytest.raises(ProviderUnavailable, match="sealed") as caught:
            await exchange(answer({"errors": ["Vault is sealed"]}, 503))
        assert (False, "unseal it") == (caught.value.sent, caught.value.hint)


class TestEnd:
    async def test_gone_is_confirmed_by_a_look_up(self):
        """A refusal to revoke counts as gone only if the look-up is refused as well."""
        made, http = provider(
            answer({"errors": ["permission denied"]}, 403), answer({"errors": ["permission denied"]}, 403)
        )
        await made.take_back(ended(wanted(made, {}, ACTIONS), handle={"token": "s.token"}), FakeMint())
        assert [("POST", "s.token"), ("GET", "s.token")] == [(m, h["X-Vault-Token"]) for m, _, _, h in http.asked]

    async def test_of_another_vault(self):
        """A token of another Vault, which the provider was before, is not shown to this one, nor said to be gone."""
        made, http = provider()
        handle = {"token": "s.token", "address": "https://before.example.org"}
        with pytest.raises(ProviderRefused, match="is another by now"):
            await made.take_back(ended(wanted(made, {}, ACTIONS), handle=handle), FakeMint())
        assert [] == http.asked

    async def test_a_look_up_that_fails_confirms_nothing(self):
        """When the look-up is not answered the end stays open."""
        made, _ = provider(answer({"errors": ["permission denied"]}, 403), answer(status=502, body=b""))
        with pytest.raises(ProviderUnavailable):
            await made.take_back(ended(wanted(made, {}, ACTIONS), handle={"token": "s.token"}), FakeMint())

    async def test_a_token_that_a_deadline_cut_off_is_revoked(self):
        """What was obtained when a deadline came, and handed to nobody, is revoked at the end without a handle."""
        hanging = asyncio.Event()
        made, http = provider(login(), hanging, answer(status=204, body=b""))
        asked = wanted(made, {}, ACTIONS)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await made.exchange(asked, FakeMint())
        await made.take_back(ended(asked), FakeMint())
        assert ("POST", f"{ADDRESS}/v1/auth/token/revoke-self") == http.asked[-1][:2]
        with pytest.raises(ProviderRefused, match="lost"):
            await made.take_back(ended(asked), FakeMint())

    async def test_what_was_revoked_at_once_is_not_said_to_be_lost(self):
        """After a failure whose token was revoked nothing is left: the answer does not count as lost."""
        made, _ = provider(login(), answer(status=500, body=b""), answer(status=204, body=b""))
        with pytest.raises(ProviderUnavailable) as caught:
            await made.exchange(wanted(made, {}, ACTIONS), FakeMint())
        assert not caught.value.sent

    async def test_what_could_not_be_revoked_at_once_is_revoked_at_the_end(self):
        """A token of a failed exchange whose revocation failed too is revoked at the task's end."""
        made, http = provider(login(), *[answer(status=500, body=b"")] * 2, answer(status=204, body=b""))
        asked = wanted(made, {}, ACTIONS)
        with pytest.raises(ProviderUnavailable) as caught:
            await made.exchange(asked, FakeMint())
        assert caught.value.sent
        await made.take_back(ended(asked), FakeMint())
        assert "s.token" == http.asked[-1][3]["X-Vault-Token"]

    async def test_a_refused_token_that_could_not_be_revoked_is_left(self):
        """A token that is of no use, and could not be revoked at once, is said to be there, and is revoked at the end."""
        batch = login(num_uses=3)
        made, http = provider(batch, answer(status=500, body=b""), answer(status=204, body=b""))
        asked = wanted(made, {}, ACTIONS)
        with pytest.raises(ProviderRefused) as caught:
            await made.exchange(asked, FakeMint())
        assert caught.value.left
        await made.take_back(ended(asked), FakeMint())
        assert "s.token" == http.asked[-1][3]["X-Vault-Token"]

    async def test_a_type_that_is_gone_does_not_matter(self):
        """A token is taken back without the task type's ask."""
        made, _ = provider(answer(status=204, body=b""))
        await made.take_back(ended(wanted(made, {}, ACTIONS), handle={"token": "s.token"}, ask=None), FakeMint())


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "fault"),
        [
            ({"address": "vault.example.org"}, "address: "),
            ({"mount": "/jwt"}, "mount: "),
            ({"mount": "a/../b"}, "mount: "),
            ({"role": "a/b"}, "role: "),
            ({"longest_token": "40d"}, "longest_token: "),
            ({"token": "s.x"}, "token: unknown key"),
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
            ({"roles": {"db:read": "a"}}, "ask.roles: says nothing of action 'db:write'"),
            ({"roles": {"db:read": "a", "db:write": "b"}, "role": "c"}, "one of them"),
            ({"path": "sys/raw/x"}, "ask.path: is not the path of a secret"),
            ({"path": "auth/token/create"}, "ask.path: is not the path of a secret"),
            ({"path": "secret/../sys/x"}, "ask.path: is not a path"),
            ({"path": "secret/x?list=true"}, "ask.path: is not a path"),
            ({"standing": True}, "there is no path"),
            ({"standing": "yes", "path": "kv/x"}, "ask.standing: "),
        ],
    )
    def test_faults_of_an_ask_are_told(self, ask, fault):
        """What is wrong with an ask is told by its key."""
        with pytest.raises(InvalidInput) as caught:
            provider()[0].read_ask(ask, ACTIONS)
        assert fault in caught.value.public

    def test_a_role_must_be_somewhere(self):
        """Without a role in the ask or the table there is none to log in with."""
        made = VaultProvider("v", {"kind": "vault", "address": ADDRESS}, FakeHttp())
        with pytest.raises(InvalidInput, match=r"ask\.role: is missing"):
            made.read_ask({}, ACTIONS)

    def test_programs_are_told_where(self):
        """What programs need to know is the address, and what is handed out."""
        made, _ = provider(namespace="team")
        told = made.describe(made.read_ask({"path": "database/creds/x"}, ACTIONS))
        assert {
            "kind": "vault",
            "address": ADDRESS,
            "mount": "jwt",
            "gives": "secret",
            "namespace": "team",
            "path": "database/creds/x",
        } == told


class TestCheck:
    async def test_a_revocation_that_fails_is_told(self):
        """When the token of a check cannot be revoked, the check fails at that step."""
        made, _ = provider(answer({"initialized": True}), login(), rights(), answer(status=500, body=b""))
        told = await steps(made, wanted(made, {}, ACTIONS), FakeMint())
        assert {"health": "ok", "login": "ok", "revoke": "failed"} == {k: v.outcome for k, v in told.items()}

    @pytest.mark.parametrize("reply", [answer({}), answer(body=b"hello"), ProviderUnavailable("nobody answers")])
    async def test_what_is_not_vault_is_found(self, reply):
        """Where something else answers, or nothing, the check stops."""
        made, _ = provider(reply)
        assert ["failed"] == [step.outcome for step in (await steps(made, None, FakeMint())).values()]

    async def test_the_unforeseen_is_a_step(self):
        """A check never raises: what nobody foresaw is a step that failed."""
        made, _ = provider(answer({"initialized": True}), ZeroDivisionError())
        told = await steps(made, wanted(made, {}, ACTIONS), FakeMint())
        assert "failed" == told["check"].outcome
