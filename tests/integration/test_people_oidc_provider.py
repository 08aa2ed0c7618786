"""People of an OpenID provider of another make than Keycloak: its form, its ID tokens, its logout."""

import json
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sojourn
from harness.agent import AgentProcess
from harness.looking import until
from harness.oidcprovider import CLIENT, OidcProvider, running_provider
from harness.ports import free_port
from harness.taskagent import write_type
from harness.tlsplace import TlsPlace
from sojourn.errors import InvalidToken, SojournError
from sojourn.sdk.task.current import TaskBlock

pytestmark = [pytest.mark.full, pytest.mark.timeout(300)]
CHAT = "spiffe://example.org/agent/chat"
CONFIG = """
[tasks]
types_dir = "types"
[listen]
people = "127.0.0.1:0"
people_certificate = "{chain}"
people_key = "{key}"
[people.corp]
issuer = "{issuer}"
plain_http = true
{more}
[[people.corp.presenters]]
workloads = ["{chat}"]
id_token_audiences = ["{client}"]
access_token_audiences = ["https://chat.example.org"]
authorized_parties = ["{client}"]
"""
TYPE = """
allowed_workloads = ["{chat}"]
max_duration = "10m"
[person]
need = "required"
groups = ["corp/support"]
several = true
[[ceiling]]
resource = "https://orders.example.org"
actions = ["order:read"]
"""


@dataclass
class Place:
    provider: OidcProvider
    agent: AgentProcess


def begin(text: str, kind: str = "id_token") -> TaskBlock:
    token = getattr(sojourn.PersonToken, kind)(text)
    return sojourn.task("for-many", person=token, spiffe_id=CHAT)


OPAQUE = """
recheck = "5s"
client_auth = "private_key_jwt"
opaque = true
scopes = {"orders.read" = ["order:read"]}
"""
RESOURCE = "https://chat.example.org"


def asker(agent: AgentProcess) -> dict[str, Any]:
    """The agent as a client of the provider: by its own SPIFFE ID, and by the keys that sign its JWT-SVIDs."""
    keys = json.loads(agent.run("bundle", "show", "--format", "spiffe").stdout)["keys"]
    named = [{**each, "use": "sig"} for each in keys if each["use"] == "jwt-svid"]
    return {"client_id": agent.json("status")["node_id"], "jwks": {"keys": named}}


@pytest.fixture
def more() -> str:
    """Of `[people.corp]`."""
    return ""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str) -> Iterator[Place]:
    tls = TlsPlace(tmp_path / "tls")
    os.chmod(tls.key, 0o600)
    port = free_port()
    told = {"issuer": f"http://127.0.0.1:{port}", "chat": CHAT, "client": CLIENT, "chain": tls.chain, "key": tls.key}
    agent = AgentProcess(config=CONFIG.format(**told, more=more))
    (agent.folder / "types").mkdir()
    policy = '@id("all") permit (principal, action, resource);'
    write_type(agent.folder / "types", "for-many", TYPE.format(chat=CHAT), policy)
    groups = {"alice": ["support"], "bob": ["support"], "carol": ["guests"]}
    with agent:
        agent.register("/agent/chat", f"unix:uid:{os.getuid()}")
        monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", f"unix://{agent.socket}")
        logout = f"https://localhost:{agent.people.rpartition(':')[2]}/people/corp/logout"
        options = {"groups": groups, "port": port, "logout_url": logout, "ca": tls.ca, "asker": asker(agent)}
        with running_provider(tmp_path, **options) as provider:
            yield Place(provider, agent)


def test_from_login_to_logout(place: Place) -> None:
    """Two people log in at the provider's form, a task begins for each, and one's logout there ends what is theirs alone;
    the same ID token begins nothing any more, and a new login does.
    """
    alice, bob = place.provider.login("alice"), place.provider.login("bob")
    with begin(alice.id_token) as task, begin(bob.id_token) as other:
        assert ("corp|alice", "corp|bob") == (task.person.name, other.person.name)
        began = time.monotonic()
        place.provider.logout(alice)
        until(lambda: task.ended)
        print(f"over {time.monotonic() - began:.3f} s after the logout was asked for")
        assert "session_ended" == task.reason
        with sojourn.acting_for("corp|bob"):
            assert other.token()
        with pytest.raises(SojournError) as refused, begin(alice.id_token):
            pass
        assert "session_ended" == refused.value.remote_code
    assert f"{CLIENT} was told" in place.provider.said
    with begin(place.provider.login("alice").id_token) as again:
        assert "corp|alice" == again.person.name


def test_groups(place: Place) -> None:
    """The groups of its ID token are those that types and policies read."""
    with pytest.raises(SojournError) as refused, begin(place.provider.login("carol").id_token):
        pass
    assert "policy_denied" == refused.value.remote_code


def test_opaque(place: Place) -> None:
    """Its access tokens say nothing by themselves, and are refused, as whatever they are shown."""
    text = place.provider.login("alice").access_token
    for kind in ("id_token", "access_token"):
        with pytest.raises(SojournError) as refused, begin(text, kind):
            pass
        assert InvalidToken.code == refused.value.remote_code


@pytest.mark.parametrize("more", [OPAQUE])
class TestOpaque:
    def test_by_what_the_provider_says(self, place: Place) -> None:
        """Where the provider is asked, as a client by a key of the agent's own, its opaque access tokens for the workload
        are taken: the person, with groups and scope; a logout ends what is done by them, and they begin nothing more.
        """
        alice = place.provider.login("alice", resource=RESOURCE, scope="orders.read")
        assert 2 > alice.access_token.count(".")
        with begin(alice.access_token, "access_token") as task:
            assert "corp|alice" == task.person.name
            with sojourn.acting_for("corp|alice"):
                assert task.token()
            place.provider.logout(alice)
            until(lambda: task.ended)
            assert "session_ended" == task.reason
        with pytest.raises(SojournError) as refused, begin(alice.access_token, "access_token"):
            pass
        assert refused.value.remote_code in {"not_active", "session_ended"}
        kept = b"".join(each.read_bytes() for each in place.agent.data_dir.rglob("*") if each.is_file())
        assert alice.access_token.encode() not in kept + place.agent.log.read_bytes()

    def test_what_is_none_for_it(self, place: Place) -> None:
        """One for nobody but the provider, one without a scope that is mapped, one of somebody in another group, and one
        that somebody made up begin nothing; nor does an ID token, of which this provider says nothing.
        """
        of_carol = place.provider.login("carol", resource=RESOURCE, scope="orders.read").access_token
        for text, code in (
            (place.provider.login("alice").access_token, "wrong_presenter"),
            (place.provider.login("alice", resource=RESOURCE, scope="orders.write").access_token, "not_in_scope"),
            (of_carol, "policy_denied"),
            (secrets.token_urlsafe(32), "not_active"),
        ):
            with pytest.raises(SojournError) as refused, begin(text, "access_token"):
                pass
            assert code == refused.value.remote_code
        with pytest.raises(SojournError) as refused, begin(place.provider.login("alice").id_token):
            pass
        assert "issuer_unavailable" == refused.value.remote_code

    def test_tried_by_an_operator(self, place: Place) -> None:
        """An operator's check says step by step what becomes of one, and shows nothing of it."""
        text = place.provider.login("alice", resource=RESOURCE, scope="orders.read").access_token
        (place.agent.folder / "token").write_text(text)
        file = str(place.agent.folder / "token")
        done = place.agent.run("person", "check", "corp", "--token-file", file, "--spiffe-id", CHAT)
        assert "opaque access token" in done.stdout
        assert text not in done.stdout
