"""Tasks of a real agent at a real Keycloak, which knows the agent by nothing but its SPIFFE bundle, over https."""

import json
import os
import ssl
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import jwt
import pytest
from harness.agent import AgentProcess
from harness.keycloak import Realm, Running, running_keycloak
from harness.looking import until
from harness.outside import ORDERS, PERMIT_ALL
from harness.taskagent import TRIAGE, inner_failures, make_agent, write_type
from harness.trusting import WEB, signed
from sojourn import SojournError, SyncClient
from sojourn.authority.jwt_keys import JwtKeys

pytestmark = [pytest.mark.full, pytest.mark.timeout(900)]
TYPE = f"""
allowed_workloads = ["{TRIAGE}"]
max_duration = "1m"
[[ceiling]]
resource = "{ORDERS}"
actions = ["orders:list", "orders:read"]
provider = "corp"
ask = {{ audience = "orders", scopes = {{ "orders:read" = ["orders.read"], "orders:list" = ["orders.list"] }} }}
"""


@dataclass
class Place:
    agent: AgentProcess
    realm: Realm
    client: SyncClient

    def verified(self, token: str) -> dict[str, object]:
        """What a service reads in a token that it verifies by Keycloak's keys."""
        keys = jwt.PyJWKClient(
            f"{self.realm.issuer}/protocol/openid-connect/certs", ssl_context=ssl.create_default_context()
        )
        key = keys.get_signing_key_from_jwt(token)
        claims: dict[str, object] = jwt.decode(
            token, key, algorithms=["RS256"], audience="orders", issuer=self.realm.issuer
        )
        return claims

    def is_active(self, token: str) -> bool:
        """What Keycloak's introspection tells the service that a token is for."""
        form = {
            "token": token,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
            "client_assertion": signed(self.agent, self.realm.issuer, JwtKeys),
        }
        url = f"{self.realm.issuer}/protocol/openid-connect/token/introspect"
        with urllib.request.urlopen(url, urllib.parse.urlencode(form).encode(), timeout=60) as answer:
            return bool(json.load(answer)["active"])


@pytest.fixture(scope="module")
def keycloak() -> Running:
    return running_keycloak()


@pytest.fixture
def place(keycloak: Running) -> Iterator[Place]:
    with keycloak.realm() as realm:
        extra = f"""
[providers.corp]
kind = "keycloak"
issuer = "{realm.issuer}"
plain_http = true
timeout = "30s"
[listen]
trust = "127.0.0.1:0"
trust_certificate = "{keycloak.chain}"
trust_key = "{keycloak.key}"
"""
        made = make_agent(extra=extra)
        write_type(made.folder / "types", "at-keycloak", TYPE, PERMIT_ALL)
        with made as agent, SyncClient(agent.socket) as client:
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            realm.trust("example.org", f"https://{agent.trust}/bundle")
            realm.service("orders", WEB)
            realm.workload("triage", TRIAGE, ["orders"], ["orders.read", "orders.list"])
            yield Place(agent, realm, client)
            assert [] == inner_failures(agent)


class TestTask:
    def test_from_its_beginning_to_its_end(self, place: Place) -> None:
        """A task has a token that the service accepts, with what was asked for; when it ends Keycloak ends the token."""
        with place.client.task("at-keycloak") as task:
            got = task.token(ORDERS, ["orders:read"])
            assert "orders.read" == place.verified(got.token)["scope"]
            assert place.is_active(got.token)
            assert got.expires_at <= task.expires_at
            task.complete()
        until(lambda: not place.is_active(got.token), "Keycloak says that the token is over", seconds=60)
        assert "eyJ" not in json.dumps(place.agent.log_lines())  # what every token begins with

    def test_each_task_its_own(self, place: Place) -> None:
        """Two tasks have two tokens, and the end of one leaves the other's."""
        with place.client.task("at-keycloak") as first, place.client.task("at-keycloak") as second:
            tokens = [each.token(ORDERS).token for each in (first, second)]
            assert tokens[0] != tokens[1]
            assert tokens[0] == first.token(ORDERS).token
            first.complete()
            until(lambda: not place.is_active(tokens[0]), "the first one's token is over", seconds=60)
            assert place.is_active(tokens[1])

    def test_realm_that_does_not_know_it(self, place: Place) -> None:
        """Where the client is disabled, the task is told that its provider refuses, and goes on."""
        place.realm.change_client("triage", enabled=False)
        with place.client.task("at-keycloak") as task:
            with pytest.raises(SojournError, match="invalid_client") as refused:
                task.token(ORDERS)
            assert "provider_refused" == refused.value.remote_code
            place.realm.change_client("triage", enabled=True)
            until(lambda: given(task), "the realm knows it again", seconds=60)


def given(task: object) -> bool:
    try:
        return bool(task.token(ORDERS).token)
    except SojournError:
        return False
