"""/introspect, /revoke and the metadata, as their callers see them, on the socket and over HTTPS."""

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from harness.agent import AgentProcess
from harness.exchanges import DETAILS, http, part
from harness.feeds import FeedOf
from harness.taskagent import ISSUER, PLACE_A, STRANGER_UID, TICKETS, TRIAGE, inner_failures, make_agent, revoke_all
from harness.webclients import SERVICE, STRANGER, introspected, revoked, web
from joserfc import jwt
from joserfc.jwk import KeySet
from sojourn import SyncClient
from sojourn.jose.jws import ALGORITHMS
from sojourn.tasktoken.task_claim import APPROVED

SERVICES = f"""
[listen]
https = "127.0.0.1:0"
https_url = "https://agent.example.org:8443"
[[services]]
resource = "{TICKETS}"
workloads = ["{SERVICE}"]
name = "Tickets"
"""
NO_TYPES = f"""
[[services]]
resource = "{TICKETS}"
workloads = ["{SERVICE}"]
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    """This user is /agent/triage; /service serves TICKETS by configuration, /place PLACE_A by its DNS name."""
    with make_agent(extra=SERVICES) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        for path in ("/service", "/stranger"):
            agent.register(path, f"unix:uid:{STRANGER_UID}")
        agent.register("/place", f"unix:uid:{STRANGER_UID}", dns_name="a.example.org")
        yield agent
        revoke_all(agent)
        assert [] == inner_failures(agent)


@pytest.fixture(scope="module")
def holder(shared: AgentProcess) -> Iterator[httpx.Client]:
    """This process, on the socket."""
    with http(shared.socket) as client:
        yield client


@pytest.fixture(scope="module")
def service(shared: AgentProcess) -> Iterator[httpx.Client]:
    with web(shared, SERVICE) as client:
        yield client


@pytest.fixture(scope="module")
def stranger(shared: AgentProcess) -> Iterator[httpx.Client]:
    with web(shared, STRANGER) as client:
        yield client


@pytest.fixture
def sdk(shared: AgentProcess) -> Iterator[SyncClient]:
    with SyncClient(shared.socket) as client:
        yield client


def one_shot(holder: httpx.Client, **fields: str) -> str:
    """A token of a one-shot task."""
    asked = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS, **fields}
    answer = holder.post("/token", data=asked)
    assert 200 == answer.status_code, answer.text
    token: str = answer.json()["access_token"]
    return token


class TestIntrospection:
    def test_for_the_audience(self, holder: httpx.Client, service: httpx.Client) -> None:
        """The service that a token is for is told all that is in it."""
        token = one_shot(holder)
        claims = part(token, 1)
        told = introspected(service, token, token_type_hint="access_token")
        same = ("iss", "sub", "client_id", "aud", "iat", "nbf", "exp", "jti", "authorization_details", "task")
        assert {name: claims[name] for name in same} == {name: told[name] for name in same}
        assert (True, "ticket:read", "Bearer") == (told["active"], told["scope"], told["token_type"])

    def test_for_the_holder(self, holder: httpx.Client) -> None:
        """The workload that a token was issued to is told all that is in it, on the socket."""
        assert introspected(holder, one_shot(holder))["active"]

    def test_by_dns_name(self, shared: AgentProcess, sdk: SyncClient, service: httpx.Client) -> None:
        """Without configuration, a workload with the resource's host among its DNS names is the audience."""
        with sdk.task("two-places") as task, web(shared, "spiffe://example.org/place") as place:
            token = task.token(PLACE_A, ["doc:read"]).token
            assert introspected(place, token)["active"]
            assert {"active": False} == introspected(service, token)

    def test_for_nobody_else(self, holder: httpx.Client, stranger: httpx.Client) -> None:
        """Anybody else learns nothing, whatever the token."""
        for token in (one_shot(holder), "x", "a.b.c", one_shot(holder)[:-4] + "AAAA"):
            assert {"active": False} == introspected(stranger, token)

    def test_states(self, shared: AgentProcess, sdk: SyncClient, holder: httpx.Client, service: httpx.Client) -> None:
        """A token is inactive as soon as its task is suspended, narrowed or over, for good; its audience is told of
        the task, its holder and others are not.
        """
        with sdk.task("triage-ticket", params={"ticket": "42"}) as task:
            token = task.token(TICKETS, ["ticket:read"]).token
            assert introspected(service, token)["active"]
            shared.run("task", "suspend", task.id)
            assert {"active": False, "task_state": "suspended"} == introspected(service, token)
            assert {"active": False} == introspected(holder, token)
            shared.run("task", "resume", task.id)
            assert {"active": False, "task_state": "active"} == introspected(service, token)  # it revives nothing
            token = task.token(TICKETS, ["ticket:read"]).token
            assert introspected(service, token)["active"]
            shared.run("task", "revoke", task.id)
            assert {"active": False, "task_state": "revoked"} == introspected(service, token)

    def test_as_a_jwt(self, holder: httpx.Client, service: httpx.Client) -> None:
        """Whoever asks for it gets the answer signed, for itself alone (RFC 9701)."""
        token = one_shot(holder)
        kind = "application/token-introspection+jwt"
        answer = service.post("/introspect", data={"token": token}, headers={"accept": kind})
        assert (200, kind) == (answer.status_code, answer.headers["content-type"])
        keys = KeySet.import_key_set(holder.get("/keys").json())
        signed = jwt.decode(answer.text, keys, algorithms=["ES256"])
        assert (kind.partition("/")[2], ISSUER, SERVICE) == (
            signed.header["typ"],
            signed.claims["iss"],
            signed.claims["aud"],
        )
        assert introspected(service, token) == signed.claims["token_introspection"]
        assert {"iss", "aud", "iat", "token_introspection"} == set(signed.claims)
        for other in ("*/*", f"{kind};q=0", "application/json"):
            plain = service.post("/introspect", data={"token": token}, headers={"accept": other})
            assert "application/json" == plain.headers["content-type"]

    def test_jwt_svids(
        self, sdk: SyncClient, holder: httpx.Client, service: httpx.Client, stranger: httpx.Client
    ) -> None:
        """A JWT-SVID is told of to its subject and to the workload that it names; others learn nothing."""
        svid = sdk.fetch_jwt_svid(SERVICE).token
        for client in (holder, service):
            told = introspected(client, svid)
            assert (True, TRIAGE, "N_A") == (told["active"], told["sub"], told["token_type"])
        assert {"active": False} == introspected(stranger, svid)
        assert {"active": False} == introspected(service, sdk.fetch_jwt_svid("https://elsewhere.example").token)

    def test_clients_authenticate(self, shared: AgentProcess, holder: httpx.Client) -> None:
        """Whoever does not say who it is learns nothing and changes nothing."""
        token = one_shot(holder)
        with web(shared) as nobody:
            for path in ("/introspect", "/revoke"):
                answer = nobody.post(path, data={"token": token})
                assert (401, "invalid_client") == (answer.status_code, answer.json()["error"])
        assert introspected(holder, token)["active"]

    def test_by_assertion(self, shared: AgentProcess, sdk: SyncClient, holder: httpx.Client) -> None:
        """A JWT-SVID as client assertion is good once."""
        token = one_shot(holder)
        fields = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
            "client_assertion": sdk.fetch_jwt_svid(ISSUER).token,
        }
        with web(shared) as client:
            assert introspected(client, token, **fields)["active"]
            again = client.post("/introspect", data={"token": token, **fields})
        assert 400 <= again.status_code < 402
        assert again.json()["error"] in {"invalid_client", "invalid_grant"}

    @pytest.mark.parametrize(
        "fields", [{}, {"token": ""}, {"token": "x", "unheard": "y"}, {"token": "x", "client_secret": "s"}]
    )
    def test_bad_requests(self, holder: httpx.Client, fields: dict[str, str]) -> None:
        """A request without a token, or with a parameter that means nothing here, is refused at both endpoints."""
        for path in ("/introspect", "/revoke"):
            answer = holder.post(path, data=fields)
            assert answer.status_code in {400, 401}
            assert {"error", "error_description", "code", "decision_id"} <= set(answer.json())


class TestRevocation:
    @pytest.mark.root
    def test_of_a_one_shot_task(self, shared: AgentProcess, holder: httpx.Client, service: httpx.Client) -> None:
        """To revoke the token of a one-shot task ends the task; both sides may, and again is as good."""
        for client in (holder, service):
            token = one_shot(holder)
            with FeedOf(shared.socket, STRANGER_UID, [TICKETS]) as feed:
                feed.hear("snapshot")
                revoked(client, token)
                assert "token_revoked" in feed.delta(part(token, 1)["task"]["id"], live=False).reason
            assert {"active": False, "task_state": "revoked"} == introspected(service, token)
            revoked(client, token)

    @pytest.mark.root
    def test_of_a_task_that_lives_on(self, shared: AgentProcess, sdk: SyncClient, service: httpx.Client) -> None:
        """Of another task all tokens die at validators, and its holder gets new ones."""
        with sdk.task("triage-ticket", params={"ticket": "42"}) as task:
            first, second = (task.token(TICKETS, ["ticket:read"]).token for _ in range(2))
            with FeedOf(shared.socket, STRANGER_UID, [TICKETS]) as feed:
                feed.hear("snapshot")
                revoked(service, first)
                assert feed.delta(task.id, live=True).version > part(first, 1)["task"]["ver"]
            for token in (first, second):
                assert {"active": False, "task_state": "active"} == introspected(service, token)
            assert introspected(service, task.token(TICKETS, ["ticket:read"]).token)["active"]
        events = [each["event"] for each in shared.json("audit", "tail")["records"]]
        assert "tokens_revoked" in events

    def test_an_old_token_revokes_no_new_ones(self, sdk: SyncClient, service: httpx.Client) -> None:
        """A token that is dead already takes nothing with it."""
        with sdk.task("triage-ticket", params={"ticket": "42"}) as task:
            old = task.token(TICKETS, ["ticket:read"]).token
            revoked(service, old)
            new = task.token(TICKETS, ["ticket:read"]).token
            revoked(service, old)
            assert introspected(service, new)["active"]

    def test_of_the_whole_task(
        self, shared: AgentProcess, sdk: SyncClient, holder: httpx.Client, service: httpx.Client
    ) -> None:
        """With the hint `task` the holder ends the task; from the audience it is a revocation of tokens like another."""
        task = sdk.begin_task("triage-ticket", params={"ticket": "42"})
        token = task.token(TICKETS, ["ticket:read"]).token
        revoked(service, token, token_type_hint="task")
        assert {"active": False, "task_state": "active"} == introspected(service, token)
        token = task.token(TICKETS, ["ticket:read"]).token
        revoked(holder, token, token_type_hint="task")
        assert {"active": False, "task_state": "completed"} == introspected(service, token)
        assert "cancelled" == shared.json("task", "show", task.id)["reason"]

    def test_by_nobody_else(self, holder: httpx.Client, service: httpx.Client, stranger: httpx.Client) -> None:
        """Another caller is answered the same, and nothing has changed."""
        token = one_shot(holder)
        for fields in ({}, {"token_type_hint": "task"}, {"token_type_hint": "refresh_token"}):
            revoked(stranger, token, **fields)
        assert introspected(service, token)["active"]

    def test_of_what_is_none(self, sdk: SyncClient, holder: httpx.Client) -> None:
        """What never was a token is not good either: 200. Of an SVID it is said that it cannot be revoked here."""
        token = one_shot(holder)
        for text in ("x", "a.b.c", token[:-4] + "AAAA", token + "x"):
            revoked(holder, text)
        answer = holder.post("/revoke", data={"token": sdk.fetch_jwt_svid(SERVICE).token})
        assert (400, "unsupported_token_type") == (answer.status_code, answer.json()["error"])


class TestMetadata:
    DOCUMENTS = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")

    def test_issuer_and_documents(self, holder: httpx.Client, service: httpx.Client) -> None:
        """Both documents are the same, by either way in, but for how clients authenticate there."""
        first = holder.get(self.DOCUMENTS[0]).json()
        assert first == holder.get(self.DOCUMENTS[1]).json()
        assert ISSUER == first["issuer"] == part(one_shot(holder), 1)["iss"]
        over_tls = service.get(self.DOCUMENTS[1]).json()
        methods = "token_endpoint_auth_methods_supported"
        assert (["none"], []) == ([m for m in first[methods] if m not in over_tls[methods]], over_tls[methods][3:])
        assert {k: v for k, v in first.items() if not k.endswith("auth_methods_supported")} == {
            k: v for k, v in over_tls.items() if not k.endswith("auth_methods_supported")
        }

    def test_endpoints(self, holder: httpx.Client) -> None:
        """Each endpoint that is named is one below the issuer that answers."""
        told = holder.get(self.DOCUMENTS[0]).json()
        for name in ("token", "introspection", "revocation"):
            path = told[f"{name}_endpoint"].removeprefix(ISSUER)
            assert holder.post(path, data={}).json()["error"] == "invalid_request"
        assert holder.get(told["jwks_uri"].removeprefix(ISSUER)).json()["keys"]

    def test_grants(self, sdk: SyncClient, holder: httpx.Client) -> None:
        """Each grant that is named gives a token; another is refused as such."""
        told = holder.get(self.DOCUMENTS[0]).json()
        extra = {
            "client_credentials": {},
            "urn:ietf:params:oauth:grant-type:jwt-bearer": {"assertion": sdk.fetch_jwt_svid(ISSUER).token},
            "urn:ietf:params:oauth:grant-type:token-exchange": {
                "subject_token": sdk.fetch_jwt_svid(ISSUER).token,
                "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            },
        }
        assert set(extra) == set(told["grant_types_supported"])
        for grant, fields in extra.items():
            assert one_shot(holder, grant_type=grant, **fields)
        answer = holder.post("/token", data={"grant_type": "password", "resource": TICKETS})
        assert "unsupported_grant_type" == answer.json()["error"]

    def test_auth_methods(self, shared: AgentProcess, sdk: SyncClient, holder: httpx.Client) -> None:
        """Each way to authenticate that is named works: by assertion, by certificate with and without the client's
        name, and on the socket by nothing.
        """
        by = {
            "spiffe_jwt": (
                web(shared),
                {
                    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
                    "client_assertion": sdk.fetch_jwt_svid(ISSUER).token,
                },
            ),
            "spiffe_x509": (web(shared, TRIAGE), {"client_id": TRIAGE}),
            "tls_client_auth": (web(shared, TRIAGE), {"client_id": TRIAGE}),
            "none": (http(shared.socket), {}),
        }
        told = holder.get(self.DOCUMENTS[0]).json()
        for endpoint in ("token", "introspection", "revocation"):
            assert set(by) == set(told[f"{endpoint}_endpoint_auth_methods_supported"])
        for client, fields in by.values():
            with client:
                assert one_shot(client, **fields)

    def test_details_types_and_scopes(self, shared: AgentProcess, holder: httpx.Client) -> None:
        """The types are those that the agent has, and the scopes their actions."""
        told = holder.get(self.DOCUMENTS[0]).json()
        assert sorted(shared.json("status")["task_types"]) == told["authorization_details_types_supported"]
        assert {"ticket:read", "doc:read", "page:print"} <= set(told["scopes_supported"])

    def test_mtls_aliases(self, holder: httpx.Client) -> None:
        """The listener's endpoints are named by the URL that the configuration gives."""
        aliases = holder.get(self.DOCUMENTS[0]).json()["mtls_endpoint_aliases"]
        assert {f"https://agent.example.org:8443/{path}" for path in ("token", "introspect", "revoke")} == set(
            aliases.values()
        )

    def test_without_a_listener(self) -> None:
        """Where there is no listener nothing is said of certificates and aliases."""
        with make_agent() as agent, http(agent.socket) as client:
            told = client.get(self.DOCUMENTS[0]).json()
        assert ["spiffe_jwt", "none"] == told["token_endpoint_auth_methods_supported"]
        assert "mtls_endpoint_aliases" not in told

    def test_what_there_is_none_of(self) -> None:
        """A list that would be empty is left out (RFC 8414, 3.2; RFC 9728, 3.2), but for the one that RFC 8414 requires;
        so is an `acr` that no type can have (RFC 9470, 7).
        """
        with AgentProcess(config=NO_TYPES) as agent, http(agent.socket) as client:
            told = client.get(self.DOCUMENTS[0]).json()
            resource = client.get("/.well-known/oauth-protected-resource", params={"resource": TICKETS}).json()
        assert ["response_types_supported"] == [name for name, value in told.items() if value == []]
        assert {"scopes_supported", "authorization_details_types_supported", "acr_values_supported"}.isdisjoint(told)
        assert TICKETS == resource["resource"]
        assert [] == [name for name, value in resource.items() if value == []]

    def test_algorithms(self, holder: httpx.Client) -> None:
        """The algorithms that are named are those of proofs that are taken, and of what is signed."""
        told = holder.get(self.DOCUMENTS[0]).json()
        resource = holder.get("/.well-known/oauth-protected-resource", params={"resource": TICKETS}).json()
        for document in (told, resource):
            assert set(ALGORITHMS) == set(document["dpop_signing_alg_values_supported"])
            assert document["tls_client_certificate_bound_access_tokens"]
        assert not resource["dpop_bound_access_tokens_required"]
        kind = "application/token-introspection+jwt"
        signed = holder.post("/introspect", data={"token": one_shot(holder)}, headers={"accept": kind}).text
        assert [part(signed, 0)["alg"]] == told["introspection_signing_alg_values_supported"]
        assert [part(one_shot(holder), 0)["alg"]] == told["id_token_signing_alg_values_supported"]

    def test_acr(self, holder: httpx.Client) -> None:
        """The `acr` of tokens whose task somebody approved is named where a type asks for approval (RFC 9470, 7)."""
        assert [APPROVED] == holder.get(self.DOCUMENTS[0]).json()["acr_values_supported"]

    def test_of_a_service(self, holder: httpx.Client) -> None:
        """What a configured service is to publish of itself (RFC 9728): by name, or by the host that is asked for."""
        path = "/.well-known/oauth-protected-resource"
        told = holder.get(path, params={"resource": TICKETS}).json()
        expected: dict[str, Any] = {
            "resource": TICKETS,
            "resource_name": "Tickets",
            "authorization_servers": [ISSUER],
            "bearer_methods_supported": ["header"],
        }
        assert expected == {name: told[name] for name in expected}
        assert "triage-ticket" in told["authorization_details_types_supported"]
        assert "ticket:read" in told["scopes_supported"]
        assert told == holder.get(path, headers={"host": "tickets.example.org"}).json()
        for other in ({"params": {"resource": PLACE_A}}, {"headers": {"host": "a.example.org"}}):
            assert 404 == holder.get(path, **other).status_code  # type: ignore[arg-type]  # of httpx's many
        assert 404 == holder.get(path + "/x", headers={"host": "tickets.example.org"}).status_code
