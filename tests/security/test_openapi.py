"""The endpoints of the token service do what docs/openapi.json says, whatever they are sent.

SOJOURN_FUZZ_CASES: so many requests to each endpoint (`make fuzz`).
"""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from harness.agent import ROOT, AgentProcess
from harness.exchanges import DETAILS, http
from harness.taskagent import TICKETS, TRIAGE, inner_failures, make_agent
from harness.webclients import context, svid
from hypothesis import HealthCheck, settings
from sojourn.endpoints.oauth import introspection_revocation
from sojourn.oauth import token_request

pytestmark = pytest.mark.full

schemathesis = pytest.importorskip("schemathesis")
requests = pytest.importorskip("requests")
checks = pytest.importorskip("schemathesis.checks")
openapi_checks = pytest.importorskip("schemathesis.specs.openapi.checks")

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "openapi.json").read_text())
CASES = min(int(os.environ.get("SOJOURN_FUZZ_CASES", "40")), 20_000)


LISTEN = '\n[listen]\nhttps = "127.0.0.1:0"\n'


@pytest.fixture(scope="module")
def shared() -> Iterator[AgentProcess]:
    with make_agent(level="warning", extra=LISTEN) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        yield agent
        assert [] == inner_failures(agent)
        assert "Traceback" not in agent.log.read_text()


class Adapter(requests.adapters.HTTPAdapter):
    """Shows an X.509-SVID of /agent/triage; whoever answers is taken as it is."""

    def __init__(self, agent: AgentProcess) -> None:
        self._tls = context(svid(agent, TRIAGE))
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._tls)

    def send(self, *args: Any, **kwargs: Any) -> Any:
        return super().send(*args, **{**kwargs, "verify": False})


@pytest.fixture(scope="module")
def session(shared: AgentProcess) -> Iterator[Any]:
    with requests.Session() as opened:
        opened.trust_env = False
        opened.mount("https://", Adapter(shared))
        yield opened


@pytest.fixture(scope="module")
def base_url(shared: AgentProcess) -> str:
    return f"https://{shared.https}"


def parameters(path: str) -> set[str]:
    content = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]
    return set(content["application/x-www-form-urlencoded"]["schema"]["properties"])


class TestDescription:
    def test_parameters(self) -> None:
        """The parameters that are described are those that the endpoints know; secrets are known to be refused."""
        known = set().union(*token_request.KNOWN.values())
        assert known - {"client_secret"} == parameters("/token")
        for path in ("/introspect", "/revoke"):
            assert introspection_revocation.FIELDS - {"client_secret"} == parameters(path)

    def test_grant_types(self) -> None:
        """The grant types that are described are those that the token endpoint knows."""
        form = DOCUMENT["paths"]["/token"]["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"]
        assert set(token_request.GRANT_TYPES) == set(form["schema"]["properties"]["grant_type"]["enum"])

    def test_real_answers(self, shared: AgentProcess) -> None:
        """Real answers, good and bad, are as described."""
        jsonschema = pytest.importorskip("jsonschema_rs")
        schemas = DOCUMENT["components"]["schemas"]

        def check(name: str, value: object) -> None:
            jsonschema.validator_for(schemas[name]).validate(value)

        with http(shared.socket) as client:
            asked = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS}
            given = client.post("/token", data=asked).json()
            check("Token", given)
            told = client.post("/introspect", data={"token": given["access_token"]}).json()
            assert told["active"]
            check("Introspection", told)
            check("Introspection", client.post("/introspect", data={"token": "x"}).json())
            check("Error", client.post("/token", data={"grant_type": 'odd "grant"'}).json())


schema = schemathesis.openapi.from_dict(DOCUMENT)


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
@schema.parametrize()
@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_any_request(case: Any, session: Any, base_url: str) -> None:
    """Whatever a client with an X.509-SVID sends, the answer is one that is described: never a 5xx but "not now"."""
    case.call_and_validate(
        base_url=base_url,
        session=session,
        checks=[
            checks.not_a_server_error,
            openapi_checks.status_code_conformance,
            openapi_checks.content_type_conformance,
            openapi_checks.response_schema_conformance,
            openapi_checks.response_headers_conformance,
        ],
    )
