"""Requests that try to get past an Envoy with a token that is good for something else."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from harness.agent import AgentProcess
from harness.echo import Echo
from harness.envoy import Envoy, find_envoy, placed
from harness.guarded import BASE, Answer, Guarded, config, refused, trusting
from harness.ports import free_port
from harness.raw import Admin
from harness.taskagent import TICKETS, TRIAGE, make_agent, write_type
from sojourn import SyncClient
from sojourn.tasktoken import request_digest

pytestmark = [pytest.mark.full, pytest.mark.timeout(240)]

ALL = '@id("all") permit (principal, action, resource);'
TYPES = {
    "close-ticket": f"""
allowed_workloads = ["{TRIAGE}"]
consequence = "high"
token_ttl = "15s"
params.ticket = "long"
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:close"]
""",
    "read-twice": f"""
allowed_workloads = ["{TRIAGE}"]
max_reported_calls = 2
[[ceiling]]
resource = "{TICKETS}"
actions = ["ticket:read"]
""",
}
CLOSE = """              - match: {prefix: /tickets/, headers: [{name: ":method", string_match: {exact: POST}}]}
                route: {cluster: service}
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings:
                      context_extensions:
                        sojourn.action: ticket:close
                        sojourn.route: POST /tickets/{ticket}/close
"""
REST = "              # All else has no action, so nobody gets there.\n"
PLAIN_PATHS = (
    ("normalize_path: true", "normalize_path: false"),
    ("merge_slashes: true", "merge_slashes: false"),
    ("path_with_escaped_slashes_action: REJECT_REQUEST", "path_with_escaped_slashes_action: KEEP_UNCHANGED"),
)


@dataclass
class Ground:
    agent: AgentProcess
    program: Path
    echo: Echo
    guarded: Guarded  # as the sample is, and with a second route
    lax: Guarded  # the same without a rule for the spelling of paths
    client: SyncClient


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    program = find_envoy()
    with make_agent() as agent, Admin(agent.admin_socket) as admin, Echo() as echo:
        for name, toml in TYPES.items():
            write_type(agent.folder / "types", name, toml, ALL)
        agent.run("policy", "reload")
        uid = f"unix:uid:{os.getuid()}"
        guard = placed(program, agent.folder / "guard")
        admin.register("/envoy/guard", uid, f"unix:path:{guard}")
        admin.register("/agent/triage", uid, f"unix:path:{os.path.realpath(sys.executable)}")
        strict, lax = free_port(), free_port()
        second = (REST, CLOSE + REST)
        with (
            Envoy(guard, config(agent, strict, echo, second), agent.folder / "envoy"),
            Envoy(guard, config(agent, lax, echo, second, *PLAIN_PATHS), agent.folder / "envoy-lax"),
            SyncClient(agent.socket) as client,
        ):
            context = trusting(agent)
            yield Ground(agent, guard, echo, Guarded(strict, echo, context), Guarded(lax, echo, context), client)


@pytest.fixture
def task(ground: Ground) -> Iterator[Any]:
    with ground.client.task("triage-ticket", params={"ticket": "42"}) as begun:
        yield begun


def proved(guarded: Guarded, task: Any, token: Any, path: str = "/tickets/42", **options: Any) -> Answer:
    """A request with a proof of the task's own key, with the nonce that is asked for, if one is."""
    method, url = options.get("method", "GET"), BASE + path.partition("?")[0]
    answer = guarded.call(
        token.token, path, scheme="DPoP", headers=[("dpop", task.proof(method, url, token))], **options
    )
    if answer.status == 401 and answer.body["error"] == "use_dpop_nonce":
        proof = task.proof(method, url, token, nonce=answer.headers["dpop-nonce"])
        answer = guarded.call(token.token, path, scheme="DPoP", headers=[("dpop", proof)], **options)
    return answer


# --- whose ticket ---------------------------------------------------------------------------------------------------

SPELLINGS = [
    "/tickets/43",
    "//tickets/43",
    "/tickets//43",
    "/tickets/%34%33",
    "/tickets/43%2F",
    "/tickets/42%2F..%2F43",
    "/tickets/42%2f..%2f43",
    "/tickets/42/../43",
    "/tickets/42/%2e%2e/43",
    "/tickets/42/%2E%2E/43",
    "/tickets/42%252F..%252F43",
    "/x/../tickets/43",
    "/./tickets/43",
    "/tickets/./43",
    "/tickets/43/",
    "/tickets/43;x=42",
    "/tickets/42;/../43",
    "/tickets/42,43",
    "/tickets/43%00",
    "/tickets/42%00",
    "/tickets/42%20",
    "/tickets/42\\..\\43",
    "/tickets/42%5C..%5C43",
    "/TICKETS/43",
    "/Tickets/42",
    "/tickets/",
    "/tickets/..",
    "/tickets/.",
    "/tickets/42/x",
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_another_tickets_path(ground: Ground, task: Any, path: str) -> None:
    """A token for ticket 42 opens no other ticket, however its path is spelt, whatever Envoy does about spelling."""
    token = task.token(TICKETS).token
    for guarded in (ground.guarded, ground.lax):
        answer = guarded.call(token, path)
        assert (answer.status in {400, 403, 404, 301, 307}, None) == (True, answer.seen), answer


def test_spellings_of_the_same_ticket(ground: Ground, task: Any) -> None:
    """What reaches the service is ticket 42 whenever something does, and no query names another beside it."""
    token = task.token(TICKETS).token
    for path in ("/tickets/42", "/tickets/42?ticket=43", "/tickets/4%32", "/tickets/41/../42"):
        answer = ground.guarded.call(token, path)
        if answer.seen is not None:
            assert "/tickets/42" == answer.seen["path"].partition("?")[0].replace("%32", "2")
    for query, status in (("ticket=43", 403), ("ticket=42", 200), ("other=43", 200)):
        assert status == ground.guarded.call(token, f"/tickets/42?{query}").status


def test_headers_that_name_another_path(ground: Ground, task: Any) -> None:
    """Headers by which some servers take another path, method or host change nothing of what is judged."""
    token = task.token(TICKETS).token
    more = [("x-original-url", "/tickets/42"), ("x-rewrite-url", "/tickets/42"), ("x-http-method-override", "GET")]
    assert (403, "insufficient_scope") == refused(ground.guarded.call(token, "/tickets/43", headers=more))
    assert (403, "insufficient_scope") == refused(
        ground.guarded.call(token, "/tickets/42", method="DELETE", headers=more)
    )


def test_headers_that_name_another_request_to_the_service(ground: Ground, task: Any) -> None:
    """A request that passes does not reach the service with a header by which that would do another one."""
    more = [("x-original-url", "/tickets/43"), ("x-rewrite-url", "/tickets/43"), ("x-http-method-override", "DELETE")]
    answer = ground.guarded.call(task.token(TICKETS).token, headers=more)
    assert (200, []) == (answer.status, [value for name, _ in more for value in answer.at_service(name)])


# --- whose token ----------------------------------------------------------------------------------------------------


def test_proof_of_possession(ground: Ground, task: Any) -> None:
    """A token that is bound to the task's key passes with a proof for this request, and the service sees neither."""
    token = task.token(TICKETS, bound="agent")
    answer = proved(ground.guarded, task, token)
    assert (200, [], []) == (answer.status, answer.at_service("dpop"), answer.at_service("authorization"))


def test_a_bound_token_without_its_proof(ground: Ground, task: Any) -> None:
    """A bound token that somebody else has got hold of is worth nothing, under either scheme."""
    token = task.token(TICKETS, bound="agent").token
    assert 401 == refused(ground.guarded.call(token))[0]
    assert 401 == refused(ground.guarded.call(token, scheme="DPoP"))[0]


def test_a_proof_for_another_request(ground: Ground, task: Any) -> None:
    """A proof is for one method and URL, and for its token."""
    token, other = task.token(TICKETS, bound="agent"), task.token(TICKETS, bound="agent")
    assert 200 == proved(ground.guarded, task, token).status
    for method, url, of in (
        ("POST", f"{BASE}/tickets/42", token),
        ("GET", f"{BASE}/tickets/43", token),
        ("GET", "https://tickets.example.org/tickets/42", token),
        ("GET", f"{BASE}/tickets/42", other),
    ):
        header = ("dpop", task.proof(method, url, of))
        answer = ground.guarded.call(token.token, scheme="DPoP", headers=[header])
        assert (401, "invalid_dpop_proof") == refused(answer), (method, url)


def test_a_proof_is_good_once(ground: Ground, task: Any) -> None:
    """Of twenty requests with the same proof at the same time one passes, whichever Envoy it comes through."""
    token = task.token(TICKETS, bound="agent")
    first = proved(ground.guarded, task, token)  # from now on this token's owner knows whether a nonce is asked for
    assert 200 == first.status
    asked = ground.guarded.call(
        token.token, scheme="DPoP", headers=[("dpop", task.proof("GET", f"{BASE}/tickets/42", token))]
    )
    nonce = asked.headers.get("dpop-nonce")
    header = ("dpop", task.proof("GET", f"{BASE}/tickets/42", token, nonce=nonce))
    places = [ground.guarded, ground.lax] * 10
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda each: each.call(token.token, scheme="DPoP", headers=[header]), places))
    assert [200] == [each.status for each in answers if each.status == 200]
    assert {"invalid_dpop_proof"} == {each.body["error"] for each in answers if each.status != 200}


def test_a_certificate(ground: Ground, task: Any, tmp_path: Path) -> None:
    """A token that is bound to a certificate passes on a connection with that one, and on no other."""
    context = trusting(ground.agent, tmp_path, TRIAGE)
    certificate = x509.load_pem_x509_certificate(
        (tmp_path / "pair.pem").read_bytes().partition(b"-----BEGIN CERTIFICATE")[1]
        + (tmp_path / "pair.pem").read_bytes().partition(b"-----BEGIN CERTIFICATE")[2]
    ).public_bytes(Encoding.DER)
    token = task.token(TICKETS, certificate=certificate).token
    mutual = Guarded(ground.guarded.port, ground.echo, context)
    assert 200 == mutual.call(token).status
    assert (401, "invalid_token") == refused(ground.guarded.call(token))


def test_a_certificate_in_a_header(ground: Ground, task: Any, tmp_path: Path) -> None:
    """A certificate that a client puts into a header is none of its connection."""
    trusting(ground.agent, tmp_path, TRIAGE)
    text = (tmp_path / "pair.pem").read_text()
    pem = text[text.index("-----BEGIN CERTIFICATE") :]
    certificate = x509.load_pem_x509_certificate(pem.encode())
    token = task.token(TICKETS, certificate=certificate.public_bytes(Encoding.DER)).token
    escaped = pem.replace("\n", "%0A").replace(" ", "%20")
    headers = [
        ("x-forwarded-client-cert", f'Cert="{escaped}"'),
        ("client-cert", f":{escaped}:"),
        ("ssl-client-cert", escaped),
    ]
    assert (401, "invalid_token") == refused(ground.guarded.call(token, headers=headers))


# --- for which request ----------------------------------------------------------------------------------------------


def test_a_token_for_one_request(ground: Ground) -> None:
    """A token of class high is for one request, content and all, is good once, and that it was used for it is recorded."""
    path, content = "/tickets/42/close", b'{"why": "done"}'
    digest = request_digest.of_http("POST", path, content)
    with ground.client.task("close-ticket", params={"ticket": "42"}) as task:
        token = task.token(TICKETS, bound="agent", params_digest=digest)
        for other in (b'{"why": "spam"}', b"", content + b" "):
            answer = proved(ground.guarded, task, token, path, method="POST", content=other)
            assert (403, None) == (answer.status, answer.seen), answer
        answer = proved(ground.guarded, task, token, path + "?force=1", method="POST", content=content)
        assert (403, None) == (answer.status, answer.seen), answer
        answer = proved(ground.guarded, task, token, path, method="POST", content=content)
        assert (200, content.decode()) == (answer.status, answer.body["content"])
        answer = proved(ground.guarded, task, token, path, method="POST", content=content)
        assert (401, "invalid_token") == refused(answer)
        records = ground.agent.json("task", "why", task.id)["records"]
        (used,) = [each["fields"] for each in records if each["event"] == "token_used"]
    assert ("POST", path, "ticket:close", {"ticket": "42"}) == (
        used["method"],
        used["target"],
        used["action"],
        {name: str(value) for name, value in used["params"].items()},
    )


def test_content_that_is_not_sent_to_us(ground: Ground) -> None:
    """Where Envoy keeps contents to itself, a token for one request is refused, whatever its headers say of content."""
    path, content = "/tickets/42/close", b'{"why": "done"}'
    port = free_port()
    for number, lines in enumerate(
        (
            [("              with_request_body: {max_request_bytes: 65536, pack_as_bytes: true}\n", "")],
            [("pack_as_bytes: true", "pack_as_bytes: false")],
            [("max_request_bytes: 65536", "max_request_bytes: 4, allow_partial_message: true")],
            [('sojourn.content: "true"', 'sojourn.content: "false"')],
        )
    ):
        text = config(ground.agent, port, ground.echo, (REST, CLOSE + REST), *lines)
        with (
            Envoy(ground.program, text, ground.agent.folder / f"envoy-content-{number}"),
            ground.client.task("close-ticket", params={"ticket": "42"}) as task,
        ):
            guarded = Guarded(port, ground.echo, ground.guarded.context)
            empty = task.token(TICKETS, bound="agent", params_digest=request_digest.of_http("POST", path, b""))
            whole = task.token(TICKETS, bound="agent", params_digest=request_digest.of_http("POST", path, content))
            for token in (empty, whole):
                answer = proved(guarded, task, token, path, method="POST", content=content)
                assert (answer.status >= 400, None) == (True, answer.seen), (number, answer)


def test_the_budget_of_a_task(ground: Ground) -> None:
    """A call that is one too many for its task does not pass, and ends it."""
    with ground.client.task("read-twice") as task:
        token = task.token(TICKETS).token
        statuses = [ground.guarded.call(token, f"/tickets/{number}").status for number in range(3)]
        assert [200, 200, 401] == statuses


def test_the_protected_resource_says_what_it_is(ground: Ground) -> None:
    """The metadata that challenges name (RFC 9728) is served at the Envoy, without a token."""
    answer = ground.guarded.call(path="/.well-known/oauth-protected-resource")
    assert (200, TICKETS, None) == (answer.status, answer.body["resource"], answer.seen)
    assert 'resource_metadata="' in ground.guarded.call().headers["www-authenticate"]
