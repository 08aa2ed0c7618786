"""aws_pca.py and cert_manager.py beside what their contract has: waiting, refusals with what helps, roots; and the door."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from fakes.upstream_outsides import AUTHORITY, ROLE, CertManager, Pca
from sojourn.authority.intermediate_lint import check_signed
from sojourn.authority.root_signer import IntermediateRequest
from sojourn.errors import InvalidConfig, UpstreamNotGood, UpstreamUnavailable
from sojourn.settings import plugin_loader
from sojourn.settings.upstream import PluginUpstreamConfig, upstream_table
from sojourn.spiffe.ids import TrustDomain
from sojourn.testing import SigningAuthority
from sojourn.testing.outside import ScriptedHttp, ScriptedMint
from sojourn.testing.signing_authority import pem
from sojourn.testing.upstreams import UpstreamScript
from sojourn.upstream import aws_pca, cert_manager, making
from sojourn.upstream.aws_pca import AwsPcaUpstream
from sojourn.upstream.cert_manager import CertManagerUpstream

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    for module in (aws_pca, cert_manager):
        monkeypatch.setattr(module, "_PAUSE_SECONDS", 0)


class Tried:
    """A plugin with an outside of a test's."""

    def __init__(self, plugin, outside, **settings):
        self.outside = outside
        self.http = ScriptedHttp(outside)
        self.mint = ScriptedMint()
        self.upstream = plugin(settings, lambda _table: UpstreamScript(self.http), self.mint)
        self.asked = IntermediateRequest(TrustDomain("example.org"), ec.generate_private_key(ec.SECP256R1()), DAY)

    async def sign(self):
        signed = await self.upstream.sign(self.asked.csr, DAY)
        return check_signed(self.asked, signed, datetime.now(UTC), HOUR)

    async def refused(self, ask=None):
        with pytest.raises(UpstreamUnavailable) as caught:
            await (ask or self.upstream.sign)(*(() if ask else (self.asked.csr, DAY)))
        return caught.value.public


def pca(outside=None, **settings):
    given = {"kind": "aws-pca", "authority": AUTHORITY, "role_arn": ROLE, **settings}
    return Tried(
        AwsPcaUpstream,
        outside or Pca(SigningAuthority("issuing", SigningAuthority("root"))),
        **{k: v for k, v in given.items() if v},
    )


@pytest.fixture
def cluster(tmp_path):
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("a-token-of-a-pod\n")

    def made(outside=None, **settings):
        given = {"kind": "cert-manager", "issuer_name": "company", "namespace": "sojourn", "token_file": str(token)}
        authority = SigningAuthority("issuing", SigningAuthority("root"))
        return Tried(CertManagerUpstream, outside or CertManager(authority), **{**given, **settings})

    return made


class TestAwsPca:
    async def test_waits_until_it_is_issued(self):
        """It asks until the certificate is there, which AWS takes some seconds for; the template lets nobody stand below it."""
        tried = pca(Pca(SigningAuthority(), pending=3))
        await tried.sign()
        actions = [each["action"] for each in tried.outside.asked]
        assert ["GetCertificateAuthorityCertificate", "IssueCertificate", *["GetCertificate"] * 4] == actions
        issue = tried.outside.asked[1]
        assert "arn:aws:acm-pca:::template/SubordinateCACertificate_PathLen0/V1" == issue["TemplateArn"]
        assert ("SHA256WITHECDSA", "ABSOLUTE") == (issue["SigningAlgorithm"], issue["Validity"]["Type"])

    async def test_one_session_for_all(self):
        """The role is assumed once while its session lives, by a JWT-SVID of the agent's own for AWS alone."""
        tried = pca()
        await tried.sign()
        await tried.upstream.look()
        assert ["sts.amazonaws.com"] == [each["aud"] for each in tried.mint.made]

    async def test_by_a_token_in_a_file(self, tmp_path):
        """A token in a file is shown instead, as a pod of EKS has one."""
        token = tmp_path / "token"
        token.touch(0o600)
        token.write_text("of-a-service-account\n")
        tried = pca(token_file=str(token))
        await tried.sign()
        assert [] == tried.mint.made
        assert b"WebIdentityToken=of-a-service-account&" in tried.http.sent[0].content

    async def test_no_longer_than_the_authority(self):
        """What is asked for ends with the authority, since AWS refuses what would outlive it."""
        tried = pca()
        await tried.upstream.sign(tried.asked.csr, timedelta(days=4_000))
        issue = next(each for each in tried.outside.asked if each["action"] == "IssueCertificate")
        assert issue["Validity"]["Value"] <= tried.outside.authority.certificate.not_valid_after_utc.timestamp()

    async def test_the_same_for_the_same(self):
        """What is asked again at once has the same token and the same end; another request has another."""
        tried = pca()
        for _ in range(2):
            await tried.sign()
        first, again = (each for each in tried.outside.asked if each["action"] == "IssueCertificate")
        assert first == again
        assert 1 == len(tried.outside.issued)

    @pytest.mark.parametrize(
        ("status", "code", "told"),
        [
            (400, "com.amazonaws.acmpca#AccessDeniedException", "allow acm-pca:IssueCertificate"),
            (400, "ResourceNotFoundException", "aws acm-pca list-certificate-authorities"),
            (400, "InvalidStateException", "has to be ACTIVE"),
            (400, "RequestInProgressException", "RequestInProgressException"),
            (400, "", "HTTP 400"),
            (500, "InternalFailure", "InternalFailure"),
        ],
    )
    async def test_refused(self, status, code, told):
        """What AWS refuses is told with what to set there."""
        tried = pca()
        tried.outside.refusing = status, code, "no"
        assert told in await tried.refused()

    @pytest.mark.parametrize("text", ["", "[other]\nx = 1\n", "no table"])
    async def test_a_file_without_keys(self, tmp_path, text):
        """A credentials file that has none of a profile is told, and nothing of its text."""
        file = tmp_path / "credentials"
        file.touch(0o600)
        file.write_text(text + "\naws_secret_access_key = hidden\n")
        said = await pca(role_arn=None, credentials_file=str(file)).refused()
        assert "has no profile 'default'" in said
        assert "hidden" not in said

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"role_arn": None}, "role_arn: it needs that, or credentials_file"),
            ({"credentials_file": "/c"}, "role_arn: it needs that, or credentials_file"),
            ({"authority": "arn:aws:acm-pca:x"}, "authority"),
            ({"endpoint": "https://a/path"}, "has a path"),
            ({"role_arn": None, "credentials_file": "/c", "token_file": "/t"}, "token_file: is for role_arn"),
        ],
    )
    def test_settings(self, settings, told):
        """What cannot be meant is refused with its key."""
        with pytest.raises(InvalidConfig) as caught:
            pca(**settings)
        assert told in "; ".join(caught.value.faults)

    def test_other_partitions(self):
        """In China and GovCloud the addresses and templates are those of there."""
        cn = pca(authority=AUTHORITY.replace(":aws:", ":aws-cn:").replace("eu-central-1", "cn-north-1"))
        assert "https://acm-pca.cn-north-1.amazonaws.com.cn/" == cn.upstream._url
        assert cn.upstream._template.startswith("arn:aws-cn:acm-pca:::template/")


class TestCertManager:
    async def test_waits_until_it_is_issued(self, cluster):
        """It looks until the request is ready, asks for an authority, and leaves nothing behind."""
        tried = cluster(CertManager(SigningAuthority(), pending=3))
        await tried.sign()
        assert {} == tried.outside.kept
        assert ["POST", "GET", "GET", "GET", "GET", "DELETE"] == [each.method for each in tried.http.sent]
        assert b'"isCA": true' in tried.http.sent[0].content

    @pytest.mark.parametrize(
        "condition",
        [
            {"type": "Ready", "status": "False", "reason": "Failed", "message": "no"},
            {"type": "Denied", "status": "True", "reason": "policy"},
            {"type": "InvalidRequest", "status": "True"},
        ],
        ids=lambda each: each["type"],
    )
    async def test_is_refused(self, cluster, condition):
        """A request that fails or is denied is told, and removed, so that the next one is another."""
        tried = cluster()
        tried.outside.condition = condition
        assert "kubectl describe certificaterequest" in await tried.refused()
        assert {} == tried.outside.kept

    async def test_an_issuer_that_is_not_ready(self, cluster):
        """An issuer that is not ready is told by a look."""
        tried = cluster()
        assert (None, None) == ((found := await tried.upstream.look()).signs, found.roots)
        tried.outside.ready = False
        assert "the issuer company is not ready" in await tried.refused(tried.upstream.look)

    async def test_roots_in_a_file(self, cluster, tmp_path):
        """Where the issuer does not tell its root a file has it, which is followed."""
        tried = cluster()
        tried.outside.tells_root = False
        with pytest.raises(UpstreamNotGood, match="name a file with them"):
            await tried.sign()
        file = tmp_path / "roots.pem"
        file.write_text(pem(tried.outside.authority.root))
        tried = cluster(tried.outside, roots=str(file))
        assert (tried.outside.authority.root,) == (await tried.sign()).roots
        assert (tried.outside.authority.root,) == (await tried.upstream.look()).roots
        file.write_text("nothing")
        with pytest.raises(UpstreamNotGood, match="no certificates in PEM"):
            await tried.upstream.look()

    async def test_no_token(self, cluster, tmp_path):
        """Without a token in its file nothing is asked, and which file it is is told."""
        assert "token_file /nowhere" in await cluster(token_file="/nowhere").refused()

    async def test_another_issuers_kind(self, cluster):
        """An issuer of somebody else's group cannot be looked at, and is asked to sign all the same."""
        tried = cluster(issuer_kind="Own", issuer_group="example.org")
        await tried.upstream.look()
        assert [] == tried.http.sent
        await tried.sign()


class TestDoor:
    def table(self, **more):
        made = upstream_table({"kind": "desk", "lead": "1m", "size": 3, **more})
        assert isinstance(made, PluginUpstreamConfig)
        return made

    def test_reads_what_all_have(self):
        """The keys that all kinds have are read, and the plugin is given the table as it stands."""
        made = self.table()
        assert (timedelta(minutes=1), timedelta(seconds=30)) == (made.lead, made.look_every)
        assert {"kind": "desk", "lead": timedelta(minutes=1), "size": 3} == made.settings

    def test_is_none_that_is_installed(self):
        """A kind that nobody has is refused, with those that there are."""
        with pytest.raises(InvalidConfig) as caught:
            making._plugin(self.table(), ScriptedMint())
        [told] = caught.value.faults
        assert told.startswith(
            "authority.upstream.kind: is none that is installed; there are: aws-pca, cert-manager, disk,"
        )

    def test_a_plugin_of_somebodys(self, monkeypatch):
        """One of another package is made with its table, and what is wrong with that has the key."""

        def desk(settings, _reach, _mint):
            if settings["size"] > 3:
                raise InvalidConfig(["size: is too large"])
            return SimpleNamespace(kind="desk")

        point = SimpleNamespace(name="desk", dist=None, load=lambda: desk)
        monkeypatch.setattr(
            plugin_loader, "entry_points", lambda group: [point] if group == "sojourn.upstreams" else []
        )
        assert "desk" == making._plugin(self.table(), ScriptedMint()).kind
        with pytest.raises(InvalidConfig) as caught:
            making._plugin(self.table(size=4), ScriptedMint())
        assert ["authority.upstream.size: is too large"] == caught.value.faults
        with pytest.raises(InvalidConfig) as caught:
            making._plugin(self.table(size="x"), ScriptedMint())
        assert ["authority.upstream: cannot be made: TypeError"] == caught.value.faults

    def test_ours_are_found_as_anybodys_are(self):
        """Both that come with Sojourn are registered for the door."""
        assert AwsPcaUpstream is plugin_loader.plugin_named("upstreams", "aws-pca")
        assert CertManagerUpstream is plugin_loader.plugin_named("upstreams", "cert-manager")
