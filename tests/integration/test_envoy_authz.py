"""Real Envoys on deploy/envoy/guarded.yaml: a service without code of ours, guarded by the agent."""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness.agent import AgentProcess
from harness.echo import Echo
from harness.envoy import Envoy, find_envoy, placed
from harness.guarded import Guarded, config, refused, trusting
from harness.looking import until
from harness.ports import free_port
from harness.raw import Admin
from harness.taskagent import PLACE_A, TICKETS, TRIAGE, make_agent
from sojourn import SyncClient

pytestmark = [pytest.mark.full, pytest.mark.timeout(240)]


@dataclass
class Ground:
    agent: AgentProcess
    program: Path
    echo: Echo
    guarded: Guarded
    envoy: Envoy
    client: SyncClient


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    """An agent; an Envoy that is /envoy/guard, before a service; and this process, which is /agent/triage."""
    program = find_envoy()
    with make_agent() as agent, Admin(agent.admin_socket) as admin, Echo() as echo:
        uid = f"unix:uid:{os.getuid()}"
        guard = placed(program, agent.folder / "guard")
        admin.register("/envoy/guard", uid, f"unix:path:{guard}")
        admin.register("/agent/triage", uid, f"unix:path:{os.path.realpath(sys.executable)}")
        port = free_port()
        with (
            Envoy(guard, config(agent, port, echo), agent.folder / "envoy") as envoy,
            SyncClient(agent.socket) as client,
        ):
            yield Ground(agent, guard, echo, Guarded(port, echo, trusting(agent)), envoy, client)


@pytest.fixture
def task(ground: Ground) -> Iterator[Any]:
    with ground.client.task("triage-ticket", params={"ticket": "42"}) as begun:
        yield begun


def test_allowed(ground: Ground, task: Any) -> None:
    """A request with a good token passes; the service learns whose it is, and does not see the token."""
    answer = ground.guarded.call(task.token(TICKETS).token, "/tickets/42?full=1")
    assert (200, "/tickets/42?full=1") == (answer.status, answer.body["path"])
    said = {name: value for name, value in answer.seen["headers"] if name.startswith("x-sojourn-")}
    assert {
        "x-sojourn-subject": TRIAGE,
        "x-sojourn-actor": TRIAGE,
        "x-sojourn-task": task.id,
        "x-sojourn-task-type": "triage-ticket",
        "x-sojourn-action": "ticket:read",
    }.items() <= said.items()
    assert [] == answer.at_service("authorization") + answer.at_service("dpop")


def test_use_is_counted(ground: Ground, task: Any) -> None:
    """Each request that passes is a call of the task; one that is refused is none."""
    token = task.token(TICKETS).token
    for path in ("/tickets/42", "/tickets/42", "/other"):
        ground.guarded.call(token, path)
    shown = ground.agent.json("task", "show", task.id)
    assert [2] == [row["calls"] for row in shown["uses"] if row["action"] == "ticket:read"]


def test_refusals_are_seen(ground: Ground, task: Any) -> None:
    """What an Envoy was told to refuse is counted with its task and recorded, and nothing of what has no token."""
    token = task.token(TICKETS).token
    assert 403 == ground.guarded.call(token, "/tickets/43?key=s3cret").status
    assert 401 == ground.guarded.call(None, "/tickets/marked").status
    shown = ground.agent.json("task", "show", task.id)
    assert (1, ["wrong_params"]) == (shown["refused"], [each["code"] for each in shown["refusals"]])
    records = ground.agent.json("task", "why", task.id)["records"]
    (told,) = [each["fields"] for each in records if each["event"] == "request_refused"]
    assert ("envoy", TICKETS, "GET", "/tickets/43?key") == (
        told["by"],
        told["resource"],
        told["method"],
        told["target"],
    )
    assert "marked" not in ground.agent.run("audit", "tail", "-n", "500").stdout


def test_without_a_token(ground: Ground) -> None:
    """A request without a token, or with another scheme's credentials, is asked for one."""
    assert (401, "no_token") == refused(ground.guarded.call())
    assert (401, "no_token") == refused(ground.guarded.call("YTpi", scheme="Basic"))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("authorization", "Bearer a"), ("authorization", "Bearer b")], (400, "invalid_request")),
        ([("authorization", "Bearer")], (400, "invalid_request")),
        ([("authorization", "Bearer a b")], (400, "invalid_request")),
        ([("authorization", "Bearer e30.e30.e30")], (401, "invalid_token")),
    ],
)
def test_what_is_no_token(ground: Ground, headers: list[tuple[str, str]], expected: tuple[int, str]) -> None:
    """Anything but one token in one header is refused as no request, and a token that is not good as such."""
    assert expected == refused(ground.guarded.call(headers=headers))


def test_a_second_header_beside_a_good_one(ground: Ground, task: Any) -> None:
    """A good token is refused if there is a second Authorization header, whichever comes first."""
    good, bad = ("authorization", f"Bearer {task.token(TICKETS).token}"), ("authorization", "Bearer x")
    for headers in ([good, bad], [bad, good], [good, good]):
        assert (400, "invalid_request") == refused(ground.guarded.call(headers=headers))


def test_other_tokens(ground: Ground) -> None:
    """A JWT-SVID for the audience, and a task token for another, are no tokens for the service."""
    svid = ground.client.fetch_jwt_svid(TICKETS).token
    with ground.client.task("two-places") as task:
        elsewhere = task.token(PLACE_A).token
    for token in (svid, elsewhere):
        assert (401, "invalid_token") == refused(ground.guarded.call(token))


def test_another_action(ground: Ground, task: Any) -> None:
    """A path or a method that is no action is forbidden, whatever the token."""
    token = task.token(TICKETS).token
    for method, path in (("GET", "/"), ("GET", "/tickets/42/labels"), ("POST", "/tickets/42"), ("DELETE", "/x")):
        assert (403, "insufficient_scope") == refused(ground.guarded.call(token, path, method=method)), path


def test_a_route_of_another_action(ground: Ground, task: Any) -> None:
    """A token that lacks the route's action is refused."""
    port = free_port()
    changed = config(ground.agent, port, ground.echo, ("sojourn.action: ticket:read", "sojourn.action: ticket:write"))
    with Envoy(ground.program, changed, ground.agent.folder / "envoy-write"):
        other = Guarded(port, ground.echo, ground.guarded.context)
        assert (403, "insufficient_scope") == refused(other.call(task.token(TICKETS).token))


def test_parameters_elsewhere_than_in_the_path(ground: Ground, task: Any) -> None:
    """A route that says where the task's parameter stands is compared there, in contents as Envoy has sent them whole."""
    token, json_content = task.token(TICKETS).token, [("content-type", "application/json")]
    mapped = ("sojourn.route: GET /tickets/{ticket}", "sojourn.params: ticket = body:/of/id")
    asked = ("{exact: GET}", "{exact: POST}")
    port = free_port()
    with Envoy(
        ground.program, config(ground.agent, port, ground.echo, mapped, asked), ground.agent.folder / "envoy-body"
    ):
        other = Guarded(port, ground.echo, ground.guarded.context)

        def post(content: bytes, headers: list[tuple[str, str]] = json_content) -> Any:
            return other.call(token, "/tickets/7", method="POST", headers=headers, content=content)

        answer = post(b'{"of": {"id": "42"}}')
        assert (200, '{"of": {"id": "42"}}') == (answer.status, (answer.seen or {})["content"])
        assert (403, "insufficient_scope") == refused(post(b'{"of": {"id": "43"}}'))
        assert (403, "insufficient_scope") == refused(post(b'{"of": {"id": "42", "ID": "43"}}'))
        assert (403, "unbound_parameter") == refused(post(b"{}"))
        assert (403, "unbound_parameter") == refused(post(b'{"of": {"id": "42"}}', [("content-type", "text/plain")]))
        assert (400, "invalid_request") == refused(post(b'{"of": {"id": "42"}, "of": {"id": "43"}}'))
    port = free_port()
    part = ("{max_request_bytes: 65536, pack", "{max_request_bytes: 20, allow_partial_message: true, pack")
    changed = config(ground.agent, port, ground.echo, mapped, asked, part)
    with Envoy(ground.program, changed, ground.agent.folder / "envoy-part"):
        other = Guarded(port, ground.echo, ground.guarded.context)
        answer = other.call(token, method="POST", headers=json_content, content=b'{"of": {"id": "42"}} ' + b" " * 100)
        assert (400, "invalid_request") == refused(answer)


def test_a_parameter_that_the_route_forgets(ground: Ground, task: Any) -> None:
    """A route that has no place for the task's parameter refuses it, says what to write, and may leave it unchecked."""
    token = task.token(TICKETS).token
    for route, status in (("sojourn.route: GET /tickets/{id}", 403), ("sojourn.unchecked: ticket", 200)):
        port = free_port()
        changed = config(ground.agent, port, ground.echo, ("sojourn.route: GET /tickets/{ticket}", route))
        with Envoy(ground.program, changed, ground.agent.folder / f"envoy-{status}"):
            answer = Guarded(port, ground.echo, ground.guarded.context).call(token, "/tickets/42?ticket=42")
        assert status == answer.status
        if status == 403:
            assert (403, "unbound_parameter") == refused(answer)
            assert "sojourn.params: ticket = " in answer.body["error_description"]


def test_spoofed_headers(ground: Ground, task: Any) -> None:
    """What a client sends of the headers that are ours never reaches the service, in whatever spelling."""
    spoofed = [
        ("x-sojourn-subject", "spiffe://example.org/admin"),
        ("X-Sojourn-Subject", "spiffe://example.org/admin"),
        ("x-sojourn-actor", "spiffe://example.org/admin"),
        ("x-sojourn-admin", "yes"),
        ("X-SOJOURN-ROLE", "admin"),
    ]
    answer = ground.guarded.call(task.token(TICKETS).token, headers=spoofed)
    assert 200 == answer.status
    assert [TRIAGE] == answer.at_service("x-sojourn-subject") == answer.at_service("x-sojourn-actor")
    assert [] == answer.at_service("x-sojourn-admin") + answer.at_service("x-sojourn-role")


def test_spoofed_headers_with_underscores(ground: Ground, task: Any) -> None:
    """The sample refuses names with underscores; an Envoy that lets them through has ours removed all the same."""
    spoofed = [("x_sojourn_subject", "spiffe://example.org/admin"), ("x-sojourn_task-type", "admin")]
    assert (400, None) == ((answer := ground.guarded.call(headers=spoofed)).status, answer.seen)
    port = free_port()
    line = "common_http_protocol_options: {headers_with_underscores_action: REJECT_REQUEST}"
    changed = config(ground.agent, port, ground.echo, (line, ""))
    with Envoy(ground.program, changed, ground.agent.folder / "envoy-underscores"):
        other = Guarded(port, ground.echo, ground.guarded.context)
        answer = other.call(task.token(TICKETS).token, headers=spoofed)
        assert 200 == answer.status
        assert [] == [name for name, _ in answer.seen["headers"] if "_" in name]


def test_raw_headers(ground: Ground, task: Any) -> None:
    """With `encode_raw_headers` all is the same, and two Authorization headers are still refused."""
    port = free_port()
    changed = config(
        ground.agent,
        port,
        ground.echo,
        ("include_peer_certificate: true", "include_peer_certificate: true\n              encode_raw_headers: true"),
    )
    token = task.token(TICKETS).token
    with Envoy(ground.program, changed, ground.agent.folder / "envoy-raw"):
        other = Guarded(port, ground.echo, ground.guarded.context)
        answer = other.call(token, headers=[("x-sojourn-subject", "x"), ("x-sojourn-subject", "y")])
        assert (200, [TRIAGE], []) == (
            answer.status,
            answer.at_service("x-sojourn-subject"),
            answer.at_service("authorization"),
        )
        assert (400, "invalid_request") == refused(other.call(token, headers=[("authorization", "Bearer x")]))


def test_the_token_is_kept_if_the_owner_wants(ground: Ground, task: Any) -> None:
    """With `sojourn.keep_token` the service sees the token too, to hand it on or to judge it itself."""
    port = free_port()
    line = "sojourn.action: ticket:read"
    indented = f'{line}\n                        sojourn.keep_token: "true"'
    with Envoy(
        ground.program, config(ground.agent, port, ground.echo, (line, indented)), ground.agent.folder / "envoy-keep"
    ):
        token = task.token(TICKETS).token
        answer = Guarded(port, ground.echo, ground.guarded.context).call(token)
        assert (200, [f"Bearer {token}"]) == (answer.status, answer.at_service("authorization"))


def test_an_ended_task(ground: Ground) -> None:
    """The first request after a task's end is refused."""
    delays = []
    for _ in range(5):
        with ground.client.task("triage-ticket", params={"ticket": "42"}) as task:
            token = task.token(TICKETS).token
            assert 200 == ground.guarded.call(token).status
        began = time.monotonic()
        assert (401, "invalid_token") == refused(ground.guarded.call(token))
        delays.append(time.monotonic() - began)
    assert min(delays) < 1.0


def test_a_revoked_task(ground: Ground, task: Any) -> None:
    """What an operator ends is over at the Envoy too, at once."""
    token = task.token(TICKETS).token
    assert 200 == ground.guarded.call(token).status
    ground.agent.run("task", "revoke", task.id, "--reason", "test")
    answer = ground.guarded.call(token)
    assert (401, "invalid_token") == refused(answer)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sojourn.action: ticket:read", "sojourn.acton: ticket:read"),
        ("sojourn.audience: https://tickets.example.org", "other.audience: https://tickets.example.org"),
        ('sojourn.content: "true"', 'sojourn.content: "yes"'),
        ("sojourn.route: GET /tickets/{ticket}", "sojourn.route: /tickets/{ticket}"),
    ],
)
def test_a_route_that_is_wrong(ground: Ground, task: Any, old: str, new: str) -> None:
    """A slip of the pen in Envoy's configuration lets nobody in, also with `failure_mode_allow`; the log has it."""
    port = free_port()
    changed = config(ground.agent, port, ground.echo, (old, new), ("mode_allow: false", "mode_allow: true"))
    with Envoy(ground.program, changed, ground.agent.folder / f"envoy-wrong-{port}") as envoy:
        other = Guarded(port, ground.echo, ground.guarded.context)
        answer = other.call(task.token(TICKETS).token)
        assert (503, "temporarily_unavailable", None) == (answer.status, answer.body["error"], answer.seen)
        lines = [line for line in ground.agent.log_lines() if line["event"] == "envoy_check_refused"]
        assert envoy.pid in {line["pid"] for line in lines}


def test_an_envoy_that_nobody_registered(ground: Ground, task: Any) -> None:
    """An Envoy whose entry was deleted gets no judgement any more, so nothing passes it."""
    token = task.token(TICKETS).token
    with Admin(ground.agent.admin_socket) as admin:
        program = placed(ground.program, ground.agent.folder / "stranger")
        entry = admin.register("/envoy/stranger", f"unix:path:{program}")
        port = free_port()
        with Envoy(program, config(ground.agent, port, ground.echo), ground.agent.folder / "envoy-stranger"):
            other = Guarded(port, ground.echo, ground.guarded.context)
            assert 200 == other.call(token).status
            admin.delete(entry.id)
            until(lambda: other.call(token).status == 503, "the Envoy is nobody now")


def test_the_agent_is_away(ground: Ground) -> None:
    """While the agent is away nothing passes, and when it is back all goes on."""
    with make_agent() as agent, Admin(agent.admin_socket) as admin:
        program = placed(ground.program, agent.folder / "guard")
        admin.register("/envoy/guard", f"unix:path:{program}")
        admin.register("/agent/triage", f"unix:uid:{os.getuid()}")
        port = free_port()
        with Envoy(program, config(agent, port, ground.echo), agent.folder / "envoy"):
            other = Guarded(port, ground.echo, trusting(agent))
            with SyncClient(agent.socket) as client, client.task("triage-ticket", params={"ticket": "42"}) as task:
                token = task.token(TICKETS).token
                assert 200 == other.call(token).status
                agent.stop()
                answer = other.call(token)
                assert (503, None) == (answer.status, answer.seen)
            agent.start()
            with SyncClient(agent.socket) as client, client.task("triage-ticket", params={"ticket": "42"}) as task:
                token = task.token(TICKETS).token
                until(lambda: other.call(token).status == 200, "requests pass again")
