"""ext_authz.py: what goes on to a service behind an Envoy, and what is taken out."""

import base64
import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sojourn._pb.envoy.service.auth.v3 import external_auth_pb2 as pb
from sojourn.endpoints.envoy.ext_authz import ExtAuthzApi
from sojourn.jose.jws import VerifiedClaims
from sojourn.oauth.resource_servers import Audiences
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.person_claims import PersonClaims
from sojourn.tasktoken.task_claim import TaskClaim
from sojourn.tasktoken.tokens import TaskToken

TICKETS = "https://tickets.example.org"
TRIAGE = SpiffeId.parse("spiffe://example.org/agent/triage")
TOKEN = TaskToken(
    "x",
    TRIAGE,
    TICKETS,
    ("ticket:read",),
    TaskClaim("t1", "triage", 1, "normal"),
    datetime.now(UTC),
    VerifiedClaims({}),
)


class _Known:
    async def of(self, _peer: object) -> list[object]:
        return []


class _Good:
    def __init__(self, token: TaskToken) -> None:
        self._token = token

    async def judge(self, *_: object) -> TaskToken:
        return self._token


async def allowed(*names: str, token: TaskToken = TOKEN) -> Any:
    """The answer for a good request that has headers of these names."""
    request = pb.CheckRequest()
    request.attributes.context_extensions.update({"sojourn.audience": TICKETS, "sojourn.action": "ticket:read"})
    http = request.attributes.request.http
    http.method, http.path = "GET", "/tickets/42"
    http.headers.update(dict.fromkeys(names, "spiffe://example.org/admin"))
    call: Any = SimpleNamespace(peer=None)
    answer = await ExtAuthzApi(_Good(token), _Known(), Audiences()).check(call, request)  # type: ignore[arg-type]  # what it asks of them
    assert 0 == answer.status.code
    return answer.ok_response


@pytest.mark.parametrize(
    "name",
    [
        "x-sojourn-role",
        "x_sojourn_subject",
        "x.sojourn.subject",
        "x-sojourn.subject",
        "X-Sojourn.Task",
        "x!sojourn+subject",
        "x~sojourn~",
    ],
)
async def test_look_alikes_are_taken_out(name: str) -> None:
    """A header that some service could read as one of ours never reaches it, whatever stands for the dashes."""
    assert name.lower() in (await allowed(name)).headers_to_remove


@pytest.mark.parametrize(
    "name",
    [
        "x-http-method-override",
        "X_HTTP_Method_Override",
        "x-http-method",
        "x-method-override",
        "x-original-method",
        "x-original-url",
        "x.original.url",
        "x-original-uri",
        "x-rewrite-url",
        "x-envoy-original-path",
    ],
)
async def test_another_method_or_path_is_taken_out(name: str) -> None:
    """A header by which some services take another method or path never reaches them: what was judged is what is done."""
    assert name.lower() in (await allowed(name)).headers_to_remove


async def test_ours_take_the_place_of_the_clients() -> None:
    """A header of the very name of ours is overwritten, not removed after it was set; what is like none stays."""
    said = await allowed("x-sojourn-subject", "x-sojournsubject", "x-request-id", "authorization")
    assert ["authorization", "dpop"] == list(said.headers_to_remove)
    assert [str(TRIAGE)] == [each.header.value for each in said.headers if each.header.key == "x-sojourn-subject"]


@pytest.mark.parametrize("subject", ["alice", "a|b", 'a"b', "\u00e9", "auth0|5f7c", "a, b"])
async def test_whose_it_is(subject: str) -> None:
    """The service reads issuer and subject of the person from one header, whatever characters they have."""
    person = PersonClaims("https://login.example.org/a|b", subject)
    said = await allowed(token=replace(TOKEN, person=person, actors=(TRIAGE,)))
    ours = {each.header.key: each.header.value for each in said.headers}
    text = ours["x-sojourn-person"]
    assert re.fullmatch("[A-Za-z0-9_-]+", text)
    assert {"iss": person.issuer, "sub": subject} == json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert (str(TRIAGE), str(TRIAGE)) == (ours["x-sojourn-subject"], ours["x-sojourn-actor"])


@pytest.mark.parametrize("name", ["x-sojourn-person", "X_Sojourn_Person", "x.sojourn.person"])
async def test_no_client_says_whose_it_is(name: str) -> None:
    """A header that says for whom a request is reaches the service from us alone: without a person it is taken out."""
    said = await allowed(name)
    assert name.lower() in said.headers_to_remove
    assert "x-sojourn-person" not in {each.header.key for each in said.headers}
