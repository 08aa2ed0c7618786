"""openbao.py: what OpenBao answers, and what is made of it; a real one is in tests/integration/test_upstream_openbao.py."""

import json
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from fakes.registrations import TRUST_DOMAIN
from fakes.upstreams import DAY, HOUR, FakeUpstream, below, root_at
from sojourn.authority.intermediate_lint import check_signed
from sojourn.authority.root_signer import IntermediateRequest
from sojourn.errors import Unavailable, UpstreamNotGood, UpstreamUnavailable
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.settings.upstream import UpstreamAuthorityConfig
from sojourn.upstream.openbao import OpenBaoUpstream

ADDRESS = "https://bao.example.org:8200"
TOKEN = "s.secret-of-a-test"


def pem(certificate):
    return certificate.public_bytes(Encoding.PEM).decode()


def answered(status, body):
    return HttpResponse(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())


class Bao:
    """An OpenBao by its answers. `answers` replace those by step; an exception is raised."""

    def __init__(self, clock, *line):
        self.ca = FakeUpstream(clock, *line)
        self.answers = {}
        self.asked = []
        self.minted = []
        self.closed = False

    def upstream(self, **settings):
        if "token_file" not in settings:
            settings = {"auth_role": "sojourn", **settings}
        config = UpstreamAuthorityConfig(kind="openbao", address=ADDRESS, **settings)
        return OpenBaoUpstream(config, self.mint, self)

    async def mint(self, audience, **options):
        self.minted.append((audience, options))
        return "a-jwt-svid"

    async def get(self, url, *, step, headers=None):
        return await self._answer(url, None, step, headers)

    async def post_json(self, url, body, *, step, headers=None):
        return await self._answer(url, body, step, headers)

    async def post_form(self, url, form, *, step, headers=None):
        raise NotImplementedError

    async def close(self):
        self.closed = True

    async def _answer(self, url, body, step, headers):
        self.asked.append((step, url.removeprefix(f"{ADDRESS}/v1/"), body, headers))
        given = self.answers.get(step)
        if isinstance(given, Exception):
            raise given
        if given is not None:
            return given
        return await getattr(self, f"_{step}")(body)

    async def _login(self, body):
        assert {"role": "sojourn", "jwt": "a-jwt-svid"} == body
        return answered(200, {"auth": {"client_token": TOKEN, "lease_duration": 300}})

    async def _sign(self, body):
        csr = x509.load_pem_x509_csr(body["csr"].encode())
        signed = await self.ca.sign(csr, timedelta(seconds=int(body["ttl"].removesuffix("s"))))
        return answered(200, {"data": {"certificate": pem(signed.chain[0]), "ca_chain": [*map(pem, signed.chain[1:])]}})

    async def _look(self, _body):
        chain = [pem(each.certificate) for each in reversed(self.ca.line)]
        return answered(200, {"data": {"certificate": chain[0], "ca_chain": chain}})

    async def _revoke(self, _body):
        return answered(204, b"")


@pytest.fixture
def bao(clock):
    return Bao(clock)


async def signed(bao, clock, **settings):
    asked = IntermediateRequest(TRUST_DOMAIN, ec.generate_private_key(ec.SECP256R1()), DAY)
    return check_signed(asked, await bao.upstream(**settings).sign(asked.csr, asked.ttl), clock.now(), HOUR)


class TestSign:
    async def test_steps(self, bao, clock):
        """It logs in by the agent's JWT-SVID for this address, asks for all values of the request, and revokes its token."""
        await signed(bao, clock)
        assert ["login", "sign", "revoke"] == [step for step, *_ in bao.asked]
        assert [(ADDRESS, {"algorithm": "ES256"})] == bao.minted
        _, path, body, headers = bao.asked[1]
        assert ("pki/issuer/default/sign-intermediate", True, 0, "86400s") == (
            *(path, body["use_csr_values"]),
            *(body["max_path_length"], body["ttl"]),
        )
        assert (TOKEN, None) == (headers["X-Vault-Token"], headers.get("X-Vault-Namespace"))
        assert TOKEN == bao.asked[2][3]["X-Vault-Token"]

    async def test_settings(self, bao, clock):
        """Mounts, issuer, namespace and audience are those of the configuration."""
        names = {
            "mount": "team/pki",
            "issuer": "company-1",
            "namespace": "ns",
            "auth_mount": "agents",
            "audience": "bao",
        }
        await signed(bao, clock, **names)
        assert ["auth/agents/login", "team/pki/issuer/company-1/sign-intermediate"] == [
            each[1] for each in bao.asked[:2]
        ]
        assert {"ns"} == {each[3]["X-Vault-Namespace"] for each in bao.asked}
        assert "bao" == bao.minted[0][0]

    async def test_below_intermediates(self, clock):
        """What is between OpenBao's issuer and the root is in the chain; the root is the one at its end."""
        root = root_at(clock)
        good = await signed(Bao(clock, root, middle := below(clock, root), below(clock, middle, "2")), clock)
        assert (3, (root.certificate,)) == (len(good.chain), good.roots)

    async def test_not_revoked(self, bao, clock):
        """That the token cannot be revoked costs nothing: it ends by itself."""
        for answer in (answered(403, {"errors": ["no"]}), ProviderUnavailable("it broke off")):
            bao.answers["revoke"] = answer
            assert await signed(bao, clock)

    async def test_revoked_after_a_refusal(self, bao, clock):
        """A token is revoked also if it could sign nothing."""
        bao.answers["sign"] = answered(403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]})
        with pytest.raises(UpstreamUnavailable):
            await signed(bao, clock)
        assert "revoke" == bao.asked[-1][0]

    async def test_a_token_of_another(self, bao, clock, tmp_path):
        """A token in a file is read each time, shown, and not revoked; nobody logs in."""
        path = tmp_path / "token"
        for token in ("s.one", "s.two"):
            path.write_text(token + "\n")
            path.chmod(0o600)
            await signed(bao, clock, token_file=path)
        assert [("sign", "s.one"), ("sign", "s.two")] == [(each[0], each[3]["X-Vault-Token"]) for each in bao.asked]

    @pytest.mark.parametrize("content", [None, "", "\n", "a b", "a\nb", "\u00fc"])
    async def test_no_token(self, bao, clock, tmp_path, content):
        """A file without a token, or with more than one, is told by its path and not by what is in it."""
        path = tmp_path / "token"
        if content is not None:
            path.write_text(content)
            path.chmod(0o600)
        with pytest.raises(UpstreamUnavailable, match="token_file") as caught:
            await signed(bao, clock, token_file=path)
        assert [] == bao.asked
        assert content is None or not content.strip() or content not in caught.value.public


class TestRefused:
    @pytest.mark.parametrize(
        ("step", "answer", "told"),
        [
            ("login", answered(400, {"errors": ['role "sojourn" could not be found']}), "no such role"),
            ("login", answered(403, {"errors": ["permission denied"]}), "compare `mount`"),
            ("login", answered(200, {"auth": {}}), "client_token"),
            ("login", answered(200, b"<html>"), "not JSON"),
            (
                "sign",
                answered(403, {"errors": ["permission denied"]}),
                "allow update of pki/issuer/default/sign-interm",
            ),
            ("sign", answered(404, {"errors": []}), "bao list pki/issuers"),
            ("sign", answered(503, {"errors": ["Vault is sealed"]}), "sealed"),
            ("sign", answered(500, {"errors": ["1 error occurred"]}), "500"),
            ("sign", answered(200, b"{"), "not JSON"),
            ("sign", answered(200, {"data": None}), "data"),
            ("sign", ProviderUnavailable("bao.example.org did not answer in time"), "did not answer in time"),
            ("login", ProviderUnavailable("bao.example.org did not answer in time"), "did not answer in time"),
        ],
    )
    async def test_no_answer(self, bao, clock, step, answer, told):
        """Each refusal and each answer that is none is told, with what to set where that is known."""
        bao.answers[step] = answer
        with pytest.raises(UpstreamUnavailable, match=told):
            await signed(bao, clock)

    async def test_no_jwt_svid(self, bao, clock):
        """If the agent cannot sign its own JWT-SVID, that is the reason which is told."""

        async def mint(_audience, **_options):
            raise Unavailable("there is no key")

        bao.mint = mint
        with pytest.raises(UpstreamUnavailable, match="there is no key"):
            await signed(bao, clock)

    @pytest.mark.parametrize(
        "data",
        [
            {},
            {"certificate": "nothing"},
            {"certificate": 7},
            {"certificate": None, "ca_chain": []},
            {"ca_chain": "nothing"},
            {"ca_chain": ["nothing"]},
        ],
    )
    async def test_no_certificates(self, bao, clock, data):
        """An answer whose certificates are none is not good."""
        for step in ("sign", "look"):
            bao.answers = {step: answered(200, {"data": data})}
            with pytest.raises(UpstreamNotGood):
                await (signed(bao, clock) if step == "sign" else bao.upstream().look())

    async def test_no_root(self, clock):
        """An issuer whose chain does not end at a root is told, with how to give it one."""
        root = root_at(clock)
        bao = Bao(clock, root, middle := below(clock, root))
        lone = pem(middle.certificate)
        bao.answers["look"] = answered(200, {"data": {"certificate": lone, "ca_chain": [lone]}})
        with pytest.raises(UpstreamNotGood, match="import the root's certificate"):
            await bao.upstream().look()


class TestLook:
    async def test_shows_no_token(self, bao):
        """Looking needs neither login nor token."""
        standing = await bao.upstream().look()
        assert (bao.ca.line[0].certificate, bao.ca.roots) == (standing.signs, standing.roots)
        [(_, path, _, headers)] = bao.asked
        assert ("pki/issuer/default/json", False) == (path, "X-Vault-Token" in headers)

    async def test_away(self, bao):
        """That nobody answers is told as it is."""
        bao.answers["look"] = ProviderUnavailable("bao.example.org does not accept connections at port 8200")
        with pytest.raises(UpstreamUnavailable, match="does not accept connections"):
            await bao.upstream().look()

    async def test_closes(self, bao):
        """When the agent stops its connections go."""
        await bao.upstream().close()
        assert bao.closed

    async def test_describes(self, bao, tmp_path):
        """What is told of it has no secret."""
        told = bao.upstream(namespace="ns").describe()
        assert (ADDRESS, "ns", "JWT-SVID") == (told["address"], told["namespace"], told["login"])
        assert str(tmp_path) in bao.upstream(token_file=tmp_path / "token").describe()["login"]
