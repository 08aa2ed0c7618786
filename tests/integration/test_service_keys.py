"""Roots whose keys a service holds: a real agent with OpenBao's transit engine, and with a stand-in of AWS KMS."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from harness.agent import AgentProcess
from harness.localkms import CREDENTIALS_FILE, REGION, LocalKms, local_kms
from harness.looking import until
from harness.openbao import ROOT_TOKEN, OpenBao, openbao
from harness.ports import free_port
from harness.raw import Wire
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import verify_chain

pytestmark = [pytest.mark.full, pytest.mark.forked]
DOMAIN, WEB = TrustDomain("example.org"), SpiffeId.parse("spiffe://example.org/web")
CONFIG = 'trust_domain = "example.org"\nnode_name = "n1"\n'
NODE = "spiffe://example.org/spire/agent/sojourn/n1"
ISSUER = "https://sojourn.example.org"
PREFIX = "sojourn_sexample.org_sn1_sroot_s"
ALIAS = "alias/sojourn/example_dorg/n1/root/"
RIGHTS = f"""
path "transit/keys" {{ capabilities = ["list"] }}
path "transit/keys/{PREFIX}*" {{ capabilities = ["create", "update", "read"] }}
path "transit/sign/{PREFIX}*" {{ capabilities = ["update"] }}
"""


@dataclass
class Service:
    """One that holds keys. `keys`: the names of those of this node. `away`: it is not there within."""

    config: str
    keys: Callable[[], list[str]]
    away: Callable[[], AbstractContextManager[None]]


def enable(bao: OpenBao) -> None:
    bao.write("sys/mounts/transit", {"type": "transit"})
    bao.write("sys/policies/acl/sojourn", {"policy": RIGHTS})


def transit_config(bao: OpenBao, login: str) -> str:
    return f'[keys]\nmanager = "openbao"\n[keys.openbao]\naddress = "{bao.address}"\nplain_http = true\n{login}\n'


def transit_keys(bao: OpenBao) -> list[str]:
    answer = bao.root.get("/v1/transit/keys?list=true")
    return [] if answer.status_code == 404 else sorted(answer.json()["data"]["keys"])


@contextmanager
def sealed(bao: OpenBao) -> Iterator[None]:
    bao.write("sys/seal", {})
    yield
    bao.unseal()


@contextmanager
def stopped(kms: LocalKms) -> Iterator[None]:
    kms.stop()
    yield
    kms.start()


def kms_config(kms: LocalKms, folder: Path) -> str:
    credentials = folder / "credentials"
    credentials.write_text(CREDENTIALS_FILE)
    credentials.chmod(0o600)
    return (
        f'[keys]\nmanager = "aws_kms"\nenvironment = {{ AWS_SHARED_CREDENTIALS_FILE = "{credentials}" }}\n'
        f'[keys.aws_kms]\nregion = "{REGION}"\nendpoint = "{kms.endpoint}"\n'
    )


@pytest.fixture(params=["openbao", "aws_kms"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    with ExitStack() as stack:
        if request.param == "openbao":
            bao = stack.enter_context(openbao(free_port()))
            enable(bao)
            token = tmp_path / "token"
            token.write_text(ROOT_TOKEN)
            token.chmod(0o600)
            config = transit_config(bao, f'token_file = "{token}"')
            yield Service(config, lambda: transit_keys(bao), lambda: sealed(bao))
        else:
            kms = stack.enter_context(local_kms(free_port()))
            yield Service(kms_config(kms, tmp_path), kms.aliases, lambda: stopped(kms))


@pytest.fixture
def agent(service: Service) -> Iterator[AgentProcess]:
    with AgentProcess(config=CONFIG + service.config) as made:
        made.register("/web", f"unix:uid:{os.getuid()}")
        yield made


def root_file(agent: AgentProcess) -> str:
    return (agent.data_dir / "keys" / "root.pem").read_text()


def fetched(agent: AgentProcess) -> list[x509.Certificate]:
    """The chain that a workload gets, which verifies by the bundle that comes with it."""
    with Wire(agent.socket) as wire:
        [svid] = wire.x509().svids
    chain, roots = certificates(svid.x509_svid), certificates(svid.bundle)
    assert WEB == verify_chain(tuple(chain), roots, DOMAIN, chain[0].not_valid_before_utc)
    return chain


def certificates(der: bytes) -> list[x509.Certificate]:
    found = []
    while der:
        size = 4 + int.from_bytes(der[2:4], "big")
        found.append(x509.load_der_x509_certificate(der[:size]))
        der = der[size:]
    return found


def condition(agent: AgentProcess) -> str:
    return next((each["found"] for each in agent.json("status")["faults"] if each["name"] == "root-key"), "")


def test_made_once(agent: AgentProcess, service: Service) -> None:
    """The first start makes one key, which stays there; what a workload gets verifies, and after a restart by the same
    root. It is told where the key is.
    """
    assert 1 == len(service.keys())
    fetched(agent)
    before = root_file(agent)
    assert "PRIVATE KEY" not in before
    [uri] = [each["key_uri"] for each in agent.json("authority", "show")["keys"] if each["kind"] == "x509"]
    assert "object=sojourn%2Fexample.org%2Fn1%2Froot%2F1;" in uri
    assert f"\n{uri}\n" in before
    agent.stop()
    agent.start()
    fetched(agent)
    assert (before, 1) == (root_file(agent), len(service.keys()))


def test_rotation(agent: AgentProcess, service: Service) -> None:
    """Prepare, activate, taint and revoke work as for a root that is a file; keys are never deleted."""
    [first] = [each["authority_id"] for each in agent.json("authority", "show")["keys"] if each["kind"] == "x509"]
    agent.run("authority", "rotate", "x509", "--overlap", "1s")
    agent.run("authority", "taint", first)
    agent.run("authority", "revoke", first)
    fetched(agent)
    assert 2 == len(service.keys())
    assert 1 == root_file(agent).count("BEGIN CERTIFICATE")


def test_away(agent: AgentProcess, service: Service) -> None:
    """While the service is away workloads get what they got, what needs the root fails with the reason, and status tells
    it; when it is back, all goes on by itself. So it is over a restart too.
    """
    with service.away():
        until(lambda: condition(agent), "its absence is told", 60)
        fetched(agent)
        refused = agent.run("authority", "prepare", "x509", check=False)
        assert (1, True) == (refused.returncode, "[keys_unavailable]" in refused.stderr)
        agent.stop()
        agent.start()
        assert "unready" == agent.json("status")["state"]
        with Wire(agent.socket) as wire:
            assert wire.jwt("audience").svids
    until(lambda: agent.json("status")["state"] == "ready", "it is ready", 120)
    fetched(agent)
    assert "" == condition(agent)
    assert 1 == len(service.keys())


class TestOpenBao:
    """What only OpenBao has: the agent logs in by its own JWT-SVID, with the rights that it needs."""

    @pytest.fixture
    def bao(self) -> Iterator[OpenBao]:
        with openbao(free_port()) as running:
            enable(running)
            yield running

    @pytest.fixture
    def waiting(self, bao: OpenBao) -> Iterator[AgentProcess]:
        """An agent of which OpenBao knows nothing yet."""
        with AgentProcess(config=CONFIG + transit_config(bao, 'auth_role = "sojourn"')) as made:
            made.register("/web", f"unix:uid:{os.getuid()}")
            yield made

    def trust(self, bao: OpenBao, agent: AgentProcess) -> None:
        """Have it take the agent's JWT-SVIDs, by its keys of now."""
        keys = [each for each in agent.json("bundle", "show")["bundle"]["keys"] if each["use"] == "jwt-svid"]
        bao.trust_keys([{name: each[name] for name in ("kty", "crv", "x", "y", "kid")} for each in keys], ISSUER)
        bao.role("sojourn", NODE, token_policies=["sojourn"])

    def test_without_a_secret(self, bao: OpenBao, waiting: AgentProcess) -> None:
        """A first start waits until OpenBao takes its JWT-SVIDs, and says so; then its root is made there, and no token
        that it was given is left.
        """
        until(lambda: condition(waiting), "why there is no root is told", 60)
        assert "unready" == waiting.json("status")["state"]
        assert "refuse" in condition(waiting) or "does not" in condition(waiting)
        self.trust(bao, waiting)
        until(lambda: waiting.json("status")["state"] == "ready", "it is ready", 120)
        fetched(waiting)
        assert [f"{PREFIX}1"] == transit_keys(bao)
        accessors = bao.root.get("/v1/auth/token/accessors?list=true").json()["data"]["keys"]
        of = [bao.write("auth/token/lookup-accessor", {"accessor": each})["data"]["path"] for each in accessors]
        assert "auth/jwt/login" not in of

    def test_rights(self, bao: OpenBao, waiting: AgentProcess) -> None:
        """A right that lacks is named, with the path; with it the agent goes on by itself."""
        bao.write("sys/policies/acl/sojourn", {"policy": RIGHTS.replace("transit/sign/", "transit/nothing/")})
        self.trust(bao, waiting)
        said = "its policy has to allow update of transit/sign/"
        until(lambda: said in waiting.log.read_text(), "what lacks is told", 120)
        for _ in range(3):
            waiting.stop()
            waiting.start()
        assert [f"{PREFIX}1"] == transit_keys(bao)
        bao.write("sys/policies/acl/sojourn", {"policy": RIGHTS})
        until(lambda: waiting.json("status")["state"] == "ready", "it is ready", 120)
        assert [f"{PREFIX}1"] == transit_keys(bao)
