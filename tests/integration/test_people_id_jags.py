"""ID-JAGs on a real agent: from an identity provider to the agent's token endpoint, and on to a guarded MCP server."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fakes.guarded import Credentials
from fakes.logouts import logout_token
from fakes.services import McpService, serving_asgi
from harness.exchanges import http, part
from harness.peopleplace import ALL, CHAT, HELPER, People
from harness.taskagent import ISSUER, write_type
from harness.webclients import web
from sojourn import SyncClient
from sojourn.oauth.token_request import GRANT_TYPE, JWT_BEARER
from sojourn.people.token_kind import ID_JAG, ID_TOKEN
from sojourn.sdk.guard.serving_token import serving_token

mcp_server = pytest.importorskip("mcp.server")
uvicorn = pytest.importorskip("uvicorn")

PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"
TOOLS = """
allowed_workloads = ["{chat}"]
[person]
need = "required"
several = true
groups = ["corp/support"]
[[ceiling]]
resource = "{resource}"
actions = ["order:read", "order:cancel"]
"""


@pytest.fixture(scope="module")
def tools(people_running: People) -> Iterator[McpService]:
    """An MCP server that takes calls for people alone, whose tool says whose token it has; and a type that reaches it."""
    from sojourn.sdk.integrations.mcp_server import McpGuard

    server = mcp_server.MCPServer("orders")

    @server.tool()
    def read_orders() -> str:
        """Read the caller's orders."""
        token = serving_token()
        assert token.person is not None
        return json.dumps([token.person.subject, token.person.issuer, *map(str, token.actors)])

    @server.tool()
    def cancel_orders() -> str:
        """Cancel the caller's orders."""
        return "cancelled"

    guarded = McpGuard(
        server.streamable_http_app(stateless_http=True, json_response=True),
        tools={"read_orders": "order:read", "cancel_orders": "order:cancel"},
        audience="https://orders.example.org/mcp",
        socket=people_running.agent.socket,
        person="required",
    )
    toml = TOOLS.format(chat=CHAT, resource="https://orders.example.org/mcp")
    write_type(people_running.agent.folder / "types", "with-tools", toml, ALL)
    people_running.agent.run("policy", "reload")
    with serving_asgi(guarded, uvicorn) as port:
        yield McpService(port)


def of_idp(people: People, subject: str, **wanted: str) -> str:
    """An ID-JAG as a client gets one: for an ID token of the login, at the identity provider's token endpoint."""
    form = {
        "grant_type": GRANT_TYPE,
        "requested_token_type": ID_JAG,
        "subject_token": people.idp.text(subject),
        "subject_token_type": ID_TOKEN,
        "audience": ISSUER,
        **wanted,
    }
    answer = httpx.post(f"{people.idp.issuer.url}/token", data=form).json()
    assert ID_JAG == answer["issued_token_type"]
    return str(answer["access_token"])


def asked(people: People, text: str, client: httpx.Client | None = None, **fields: str) -> httpx.Response:
    form = {"grant_type": JWT_BEARER, "assertion": text, **fields}
    if client is not None:
        return client.post("/token", data=form)
    with http(people.agent.socket) as own:
        return own.post("/token", data=form)


def orders(people: People) -> dict[str, str]:
    """What asks for the guarded service of all."""
    said = [{"type": "for-many", "actions": ["order:read"], "locations": [people.url]}]
    return {"authorization_details": json.dumps(said)}


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.json()["error"], answer.json()["code"]


class TestForAlice:
    def test_a_tool(self, people: People, tools: McpService) -> None:
        """MCP's enterprise-managed authorization: alice has logged in at the company's identity provider, which lets the
        client have a token here for one MCP server and one scope; the tool is told whose it is, by which issuer, and who
        acts; what the scope does not have is refused there.
        """
        resource = "https://orders.example.org/mcp"
        answer = asked(people, of_idp(people, "alice", resource=resource, scope="order:read"))
        body = answer.json()
        assert (200, "Bearer", "order:read", True) == (
            answer.status_code, body["token_type"], body["scope"], 0 < body["expires_in"] <= 300
        )  # fmt: skip
        assert "refresh_token" not in body
        claims, issuer = part(body["access_token"], 1), people.idp.issuer.url
        assert ("alice", {"format": "iss_sub", "iss": issuer, "sub": "alice"}, {"sub": CHAT}, CHAT, resource) == (
            claims["sub"], claims["sub_id"], claims["act"], claims["client_id"], claims["aud"]
        )  # fmt: skip
        sent = Credentials.bearer(body["access_token"])
        called = tools.say("tools/call", {"name": "read_orders", "arguments": {}}, sent)
        assert (200, ["alice", issuer, CHAT]) == (called.status, json.loads(called.said))
        assert 403 == tools.say("tools/call", {"name": "cancel_orders", "arguments": {}}, sent).status

    def test_an_ordinary_service(self, people: People) -> None:
        """The guard of a web service sees the same; each assertion is for its own person, whoever's came before."""
        for name in ("alice", "bob"):
            text = asked(people, people.idp.id_jag(name), **orders(people)).json()["access_token"]
            told = json.loads(people.told(text))
            assert (name, CHAT) == (told["subject"], told["actor"])

    def test_from_another_machine(self, people: People) -> None:
        """A client on another machine authenticates by its X.509-SVID in TLS, or by a JWT-SVID; without, nobody is it,
        and the assertion is still good.
        """
        text, form = people.idp.id_jag("alice"), orders(people)
        with web(people.agent) as nobody:
            assert (401, "invalid_client", "invalid_client") == refusal(asked(people, text, nobody, **form))
        with web(people.agent, HELPER) as helper:
            assert (400, "invalid_grant", "wrong_presenter") == refusal(asked(people, text, helper, **form))
        with web(people.agent, CHAT) as chat:
            assert 200 == asked(people, text, chat, **form).status_code
        with SyncClient(people.agent.socket) as own:
            assertion = own.fetch_jwt_svid(ISSUER, spiffe_id=CHAT).token
        shown = {
            "client_assertion": assertion,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
        }
        with web(people.agent) as chat:
            assert 200 == asked(people, people.idp.id_jag("alice"), chat, **shown, **form).status_code

    def test_metadata(self, people: People) -> None:
        """The agent's metadata say that it takes them, by the name of the profile."""
        with http(people.agent.socket) as client:
            document = client.get("/.well-known/oauth-authorization-server").json()
        assert [PROFILE] == document["authorization_grant_profiles_supported"]
        assert JWT_BEARER in document["grant_types_supported"]


class TestOnce:
    def test_twice_and_over_a_restart(self, people: People) -> None:
        """One is good once, for the next run of the agent too."""
        text, form = people.idp.id_jag("alice"), orders(people)
        assert 200 == asked(people, text, **form).status_code
        assert (400, "invalid_grant", "invalid_grant") == refusal(asked(people, text, **form))
        people.agent.stop()
        people.agent.start()
        answer = asked(people, text, **form)
        assert (400, "invalid_grant", "invalid_grant") == refusal(answer)
        assert "used before" in answer.json()["error_description"]

    async def test_fifty_racers(self, people: People) -> None:
        """Of fifty requests with one at the same time one has a token."""
        form = {"grant_type": JWT_BEARER, "assertion": people.idp.id_jag("alice"), **orders(people)}
        transport = httpx.AsyncHTTPTransport(uds=people.agent.socket, limits=httpx.Limits(max_connections=25))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=30) as client:
            answers = await asyncio.gather(*(client.post("/token", data=form) for _ in range(50)))
        assert [200, *[400] * 49] == sorted(each.status_code for each in answers)
        assert {"invalid_grant"} == {each.json()["error"] for each in answers if each.status_code == 400}


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "error", "code"),
        [
            ({"aud": "https://other.example"}, "invalid_grant", "invalid_grant"),
            ({"aud": [ISSUER, "https://other.example"]}, "invalid_grant", "invalid_grant"),
            ({"client_id": "another"}, "invalid_grant", "wrong_presenter"),
            ({"client_id": HELPER}, "invalid_grant", "wrong_presenter"),
            ({"resource": "https://other.example"}, "invalid_target", "invalid_target"),
            ({"scope": "order:cancel"}, "invalid_scope", "invalid_scope"),
            ({"groups": ["guests"]}, "access_denied", "policy_denied"),
            ({"cnf": {"jkt": "A" * 43}}, "invalid_grant", "bound_elsewhere"),
            ({"act": {"sub": "x"}}, "invalid_grant", "has_actor"),
            ({"nonce": "n"}, "invalid_grant", "wrong_kind"),
        ],
        ids=str,
    )
    def test_with_which_code(self, people: People, changes: dict[str, Any], error: str, code: str) -> None:
        """What is wrong with one, or with what is asked by it, has its code; nothing of it is in the log."""
        text = people.idp.id_jag("dave-of-sales", **changes)
        assert (400, error, code) == refusal(asked(people, text, **orders(people)))
        assert not any(each in people.agent.log.read_text() for each in (text, text.split(".")[2], "dave-of-sales"))

    def test_after_a_logout(self, people: People) -> None:
        """When alice logs out, what was given by an assertion is over at the service, and one of before begins nothing;
        one of after does.
        """
        before = people.idp.id_jag("erin")
        text = asked(people, people.idp.id_jag("erin"), **orders(people)).json()["access_token"]
        assert "erin" == json.loads(people.told(text))["subject"]
        said = logout_token(people.idp.issuer, jti=f"erin-{time.time()}", sid="some-session", sub="erin")
        with httpx.Client(verify=people.trust) as client:
            url = f"https://{people.agent.people}/people/corp/logout"
            assert 200 == client.post(url, data={"logout_token": said}).status_code
        assert "session_ended" in people.told(text)
        assert (400, "invalid_grant", "session_ended") == refusal(asked(people, before, **orders(people)))
        time.sleep(max(0.0, people.idp.issuer.at + 1.05 - time.time()))
        assert 200 == asked(people, people.idp.id_jag("erin"), **orders(people)).status_code


def test_tried_by_an_operator(people: People, tmp_path: Any) -> None:
    """`sojourn person check` goes through an ID-JAG's steps, says what may be asked by it, and does not use it up."""
    file, text = tmp_path / "jag", people.idp.id_jag("alice", scope="order:read")
    file.write_text(text)
    told = people.agent.json("person", "check", "corp", "--token-file", str(file), "--spiffe-id", CHAT)
    steps = {each["name"]: each["told"] for each in told["steps"]}
    assert (True, "it is an ID-JAG") == (told["ok"], steps["kind"])
    assert 'scope: "order:read"' in steps["claims"]
    assert 200 == asked(people, text, **orders(people)).status_code
