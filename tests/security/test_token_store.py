"""The token service on a disk that takes nothing: no token without its record, and an answer that says what it is."""

import os

import httpx
import pytest
from harness.disks import failing
from harness.exchanges import DETAILS, form, http
from harness.looking import until
from harness.taskagent import ISSUER, STRANGER_UID, TICKETS, TRIAGE, inner_failures, make_agent
from harness.webclients import web

pytestmark = pytest.mark.full

ASKED = {"grant_type": "client_credentials", "resource": TICKETS, "authorization_details": DETAILS}
CONFIG = '\n[listen]\nhttps = "127.0.0.1:0"\n'


def test_case_23_nothing_can_be_written() -> None:
    """While nothing can be written there are no tokens, by any grant or door: "not now", with a time to come again. What
    was revoked is dead all the same, and an assertion that could not be used up is good afterwards, once.
    """
    with make_agent(extra=CONFIG) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        agent.register("/other", f"unix:uid:{STRANGER_UID}")
        with http(agent.socket) as local, web(agent, TRIAGE) as remote, web(agent) as nobody:
            token = local.post("/token", data=ASKED).json()["access_token"]
            svid = agent.json("svid", "jwt", "--audience", ISSUER)["token"]
            bearer = {
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": svid,
                "authorization_details": DETAILS,
            }
            with failing(agent):
                for client, fields in ((local, ASKED), (local, form(svid)), (remote, ASKED), (nobody, bearer)):
                    _not_now(client.post("/token", data=fields))
                assert local.post("/introspect", data={"token": token}).json()["active"]
                _not_now(local.post("/revoke", data={"token": token}))
                assert {"active": False} == local.post("/introspect", data={"token": token}).json()
            answer = until(lambda: _granted(nobody.post("/token", data=bearer)), "a token")
            assert [TICKETS] == answer["authorization_details"][0]["locations"]
            assert 400 == nobody.post("/token", data=bearer).status_code
        assert [] == inner_failures(agent)


def _not_now(answer: httpx.Response) -> None:
    assert (503, "temporarily_unavailable") == (answer.status_code, answer.json()["error"]), answer.text
    assert "access_token" not in answer.text
    assert int(answer.headers["retry-after"]) > 0


def _granted(answer: httpx.Response) -> dict[str, list[dict[str, list[str]]]] | None:
    return answer.json() if answer.status_code == 200 else None
