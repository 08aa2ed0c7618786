"""All clouds by the agent's own keys, as the configuration names them."""

from datetime import timedelta

import pytest
from fakes.authorities import authority_in
from fakes.outside import WORKLOAD, wanted
from harness import awsserver, entraserver, gcpserver, vaultserver
from harness.standin import ISSUER
from sojourn.errors import InvalidConfig
from sojourn.providers.errors import ProviderRefused
from sojourn.providers.loader import load_providers
from sojourn.runtime.clock import SystemClock

ROLE = "arn:aws:iam::123456789012:role/triage"
CLIENT = "aaaaaaaa-0000-0000-0000-000000000001"
ASKS = {
    "aws": {"policy_actions": {"read": ["s3:GetObject"]}, "policy_resources": ["*"]},
    "gcp": {"scopes": {"read": ["https://www.googleapis.com/auth/devstorage.read_only"]}},
    "entra": {"scope": "https://graph.microsoft.com/.default"},
    "vault": {"role": "orders"},
}


class Agent:
    """The agent's authority, as it mints for providers and as its JWKS shows it."""

    issuer = ISSUER

    def __init__(self, authority):
        self.authority = authority

    def jwks(self):
        return {"keys": [dict(key.jwk) for key in self.authority.jwt_keys.values()]}

    def mint(self, spiffe_id=WORKLOAD):
        async def mint(audience, *, algorithm="ES256", claims=None):
            made = self.authority.issue_assertion(
                spiffe_id, audience, timedelta(minutes=1), issuer=ISSUER, algorithm=algorithm, claims=claims
            )
            return made.token

        return mint


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    return Agent(authority_in(tmp_path_factory.mktemp("keys"), SystemClock(), rs256=True))


@pytest.fixture
def outside(agent):
    """The tables of four providers whose servers trust the agent."""
    aws = awsserver.AwsServer(agent, awsserver.Role(ROLE, str(WORKLOAD)))
    gcp, entra, vault = gcpserver.GcpServer(agent), entraserver.EntraServer(agent), vaultserver.VaultServer(agent)
    application = entraserver.Application([(ISSUER, str(WORKLOAD))], {"https://graph.microsoft.com"})
    entra.applications[CLIENT] = application
    vault.roles["orders"] = vaultserver.Role(str(WORKLOAD), vault.url)
    tenant = {"tenant_id": entraserver.TENANT, "client_id": CLIENT}
    with aws, gcp, entra, vault:
        yield {
            "aws": {"kind": "aws", "endpoint": f"{aws.url}/", "role_arn": ROLE, "plain_http": True},
            "gcp": {"kind": "gcp", "audience": gcpserver.PROVIDER, "sts": gcp.sts, "plain_http": True},
            "entra": {"kind": "entra", "authority": entra.url, **tenant, "plain_http": True},
            "vault": {"kind": "vault", "address": vault.url, "plain_http": True},
        }


@pytest.mark.parametrize("kind", sorted(ASKS))
async def test_each_takes_the_agents_svids(outside, agent, kind):
    """Each cloud gives a credential for a JWT-SVID that the agent signed, and none for another workload's."""
    made = load_providers(outside)
    provider = made[kind]
    other = WORKLOAD.parse("spiffe://example.org/other")
    try:
        asked = wanted(provider, ASKS[kind], ("read",), clock=SystemClock())
        obtained = await provider.exchange(asked, agent.mint())
        assert obtained.token
        assert (kind, kind) == (provider.kind, provider.describe(asked.ask)["kind"])
        if kind != "gcp":  # a pool takes all of its issuer's: what they may do is said elsewhere
            with pytest.raises(ProviderRefused):
                await provider.exchange(asked, agent.mint(other))
    finally:
        for each in made.values():
            await each.close()


def test_all_faults_of_a_configuration_are_told_at_once(outside):
    """Faults in several tables are told together, each by its provider and key."""
    outside["aws"]["region"] = "mars"
    outside["gcp"].pop("audience")
    outside["vault"]["token"] = "s.root"
    with pytest.raises(InvalidConfig) as caught:
        load_providers(outside)
    found = [": ".join(fault.split(": ")[:1]) for fault in caught.value.faults]
    assert ["providers.aws.region", "providers.gcp.audience", "providers.vault.token"] == found
