"""Tasks are given the tokens of providers outside: by GetToken, at the token endpoint, by the command, from an agent
and an authorization server that are real processes and sockets.
"""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

import pytest
from harness import overunix
from harness.agent import AgentProcess
from harness.authserver import AuthServer, refuse, status
from harness.callers import Caller
from harness.exchanges import ACCESS_TOKEN, GRANT, JWT, http
from harness.looking import until
from harness.outside import HELPER, ORDERS, STOCK, client_beside, listed, working_agent
from harness.ports import free_port
from harness.taskagent import ISSUER, OTHER_UID, TICKETS, TRIAGE
from sojourn import SojournError, SyncClient
from sojourn.errors import TaskOver


@pytest.fixture(scope="module")
def metrics() -> int:
    return free_port()


@pytest.fixture(scope="module")
def shared(corp: AuthServer, other: AuthServer, metrics: int) -> Iterator[AgentProcess]:
    extra = f'\n[metrics]\nlisten = "127.0.0.1:{metrics}"\n'
    with working_agent(corp, other, extra=extra) as agent:
        yield agent


@pytest.fixture
def client(shared: AgentProcess, corp: AuthServer, other: AuthServer) -> Iterator[SyncClient]:
    with client_beside(shared, corp, other) as opened:
        yield opened


class TestGetToken:
    def test_it_is_the_provider_s(self, client: SyncClient, corp: AuthServer) -> None:
        """A task is given what the provider gives, who that is, and what becomes of it at the end."""
        before = len(corp.calls("token"))
        with client.task("outside") as task:
            got = task.token(ORDERS, ["orders:read"])
            assert corp.active(got.token)
            assert ("Bearer", ACCESS_TOKEN, "corp", "revoke") == (
                got.token_type,
                got.issued_type,
                got.provider,
                got.recall,
            )
            assert (ORDERS, ("orders:read",)) == (got.resource, got.actions)
            assert got.expires_at <= task.expires_at
        (call,) = corp.calls("token")[before:]
        claims = call.claims["subject_token"]
        assert (ISSUER, TRIAGE, corp.issuer) == (claims["iss"], claims["sub"], claims["aud"])
        assert (GRANT, "orders", "orders.read") == (
            call.form["grant_type"],
            call.form["audience"],
            call.form["scope"],
        )

    def test_the_same_again(self, client: SyncClient, corp: AuthServer) -> None:
        """Whoever asks for the same of a task is given the same, and another task another one."""
        before = len(corp.calls("token"))
        with client.task("outside") as task, client.task("outside") as second:
            tokens = [each.token(ORDERS).token for each in (task, task, second)]
            assert 2 == len(corp.calls("token")) - before
        assert tokens[0] == tokens[1] != tokens[2]

    def test_after_the_end(self, client: SyncClient, corp: AuthServer) -> None:
        """A task that is over is given nothing, and what it had is taken back at the provider."""
        held = client.begin_task("outside")
        got = held.token(ORDERS)
        held.complete()
        with pytest.raises(TaskOver):
            client.get_token(held.id, ORDERS)
        until(lambda: not corp.active(got.token), "what the task had is taken back")

    def test_our_own_go_on_beside(self, client: SyncClient) -> None:
        """A resource of ours has our own tokens, as ever."""
        with client.task("outside") as task:
            got = task.token(TICKETS)
            assert ("", "", ACCESS_TOKEN) == (got.provider, got.recall, got.issued_type)

    @pytest.mark.parametrize("options", [{"bound": "agent"}, {"params_digest": "A" * 43}, {"certificate": b"x"}])
    def test_nothing_is_bound(self, client: SyncClient, corp: AuthServer, options: dict[str, object]) -> None:
        """A token that is to be bound, or for one request, is refused before a provider is asked."""
        before = len(corp.calls("token"))
        with client.task("outside") as task:
            with pytest.raises(SojournError, match="a provider gives the credentials") as found:
                task.token(ORDERS, **options)
            assert found.value.remote_code == "binding_not_offered"
        assert before == len(corp.calls("token"))

    @pytest.mark.root
    def test_a_task_that_was_handed_on(self, shared: AgentProcess, client: SyncClient, corp: AuthServer) -> None:
        """Whoever has a task by delegation has credentials of its own, obtained with its own identity."""
        with client.task("outside") as task, Caller(shared.socket, OTHER_UID) as helper:
            own = task.token(ORDERS).token
            ticket = client.delegate_task(task.id, HELPER)
            child = helper.ask("accept", ticket=ticket.ticket)
            got = helper.ask("token", task=child["id"], resource=ORDERS)
            assert own != got["token"]
            assert corp.calls("token")[-1].claims["subject_token"]["sub"] == HELPER
            task.complete()
        until(lambda: not corp.active(got["token"]), "what the child had is taken back")


class TestEndpointsBeside:
    def test_of_a_provider_s_token_nothing_is_known(
        self, shared: AgentProcess, client: SyncClient, corp: AuthServer
    ) -> None:
        """Our introspection says nothing of a provider's token, and our revocation leaves it as it is."""
        with client.task("outside") as task:
            token = task.token(ORDERS).token
            with http(shared.socket) as opened:
                said = opened.post("/introspect", data={"token": token})
                revoked = opened.post("/revoke", data={"token": token})
            assert {"active": False} == said.json()
            assert 200 == revoked.status_code
            assert corp.active(token)
            assert token == task.token(ORDERS).token

    def test_a_helper_of_a_script(self, shared: AgentProcess, corp: AuthServer) -> None:
        """What a helper fetched by a bare request is its caller's when the helper has ended, and is good still."""
        script = (
            "import subprocess, sys, json;"
            f"form = ['grant_type=client_credentials', 'resource={ORDERS}'];"
            f"command = [sys.executable, '-I', {overunix.SCRIPT!r}, {shared.socket!r}, '/token', *form];"
            "got = json.loads(subprocess.run(command, capture_output=True, check=True).stdout);"
            "print(got['access_token'], flush=True); sys.stdin.read()"
        )
        shell = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            token = shell.stdout.readline().strip()
            revoked = len(corp.calls("revoke"))
            until(lambda: listed(shared)["corp"].held >= 1, "it is held")
            assert corp.active(token)
            assert revoked == len([call for call in corp.calls("revoke") if call.form.get("token") != token])
        finally:
            shell.communicate("")
        until(lambda: not corp.active(token), "it is taken back when the caller has ended")


class TestTokenEndpoint:
    def test_a_bare_request(self, shared: AgentProcess, client: SyncClient, corp: AuthServer) -> None:
        """A standard exchange for an audience of a provider begins a one-shot task, and answers by RFC 8693."""
        svid = client.fetch_jwt_svid(ISSUER).token
        fields = {"grant_type": GRANT, "subject_token": svid, "subject_token_type": JWT, "audience": ORDERS}
        with http(shared.socket) as opened:
            answer = opened.post("/token", data={**fields, "scope": "orders:list"})
        body = answer.json()
        assert 200 == answer.status_code, body
        assert ("Bearer", ACCESS_TOKEN, "orders:list") == (
            body["token_type"],
            body["issued_token_type"],
            body["scope"],
        )
        assert ("corp", "revoke") == (body["provider"], body["recall"])
        assert [{"type": "outside", "actions": ["orders:list"], "locations": [ORDERS]}] == body["authorization_details"]
        assert 0 < body["expires_in"] <= 60
        assert body["access_token"] in corp.given()
        assert answer.headers["cache-control"] == "no-store"

    def test_client_credentials(self, shared: AgentProcess, client: SyncClient) -> None:
        """By that grant too; what type it is of is said there as well."""
        with http(shared.socket) as opened, client.task("outside") as task:
            fields = {"grant_type": "client_credentials", "resource": STOCK, "task_id": task.id}
            body = opened.post("/token", data=fields).json()
        assert ("other", ACCESS_TOKEN, task.id) == (body["provider"], body["issued_token_type"], body["task_id"])

    @pytest.mark.parametrize(
        ("wanted", "target", "answer"),
        [
            (ACCESS_TOKEN, ORDERS, 200),
            (JWT, ORDERS, 400),
            ("urn:example:other", ORDERS, 400),
            ("urn:example:other", TICKETS, 400),
            (JWT, TICKETS, 200),
        ],
    )
    def test_the_type_that_is_wanted(
        self, shared: AgentProcess, client: SyncClient, wanted: str, target: str, answer: int
    ) -> None:
        """A type that the client names is the one that it is given, or it is given none."""
        svid = client.fetch_jwt_svid(ISSUER).token
        details = json.dumps([{"type": "outside", "actions": [ACTION[target]], "locations": [target]}])
        fields = {"grant_type": GRANT, "subject_token": svid, "subject_token_type": JWT, "audience": target}
        fields |= {"requested_token_type": wanted, "authorization_details": details}
        with http(shared.socket) as opened:
            got = opened.post("/token", data=fields)
        assert answer == got.status_code, got.json()
        if answer == 200:
            assert got.json()["issued_token_type"] == wanted
        else:
            assert got.json()["error"] == "invalid_request"

    def test_a_provider_that_is_down(self, shared: AgentProcess, client: SyncClient, other: AuthServer) -> None:
        """Whoever asks is told to come again, by the status that says so."""
        other.always["token"] = status(503)
        with http(shared.socket) as opened, client.task("outside") as task:
            fields = {"grant_type": "client_credentials", "resource": STOCK, "task_id": task.id}
            answer = opened.post("/token", data=fields)
        assert (503, "temporarily_unavailable", "provider_unavailable") == (
            answer.status_code,
            answer.json()["error"],
            answer.json()["code"],
        )
        assert answer.headers["retry-after"]

    def test_a_provider_that_refuses(self, shared: AgentProcess, client: SyncClient, corp: AuthServer) -> None:
        """Whoever asks is told that this target is not to be had."""
        corp.script("token", refuse("invalid_target", "no such audience"))
        with http(shared.socket) as opened, client.task("outside") as task:
            fields = {"grant_type": "client_credentials", "resource": ORDERS, "task_id": task.id}
            answer = opened.post("/token", data=fields)
        assert (400, "invalid_target", "provider_refused") == (
            answer.status_code,
            answer.json()["error"],
            answer.json()["code"],
        )


ACTION = {ORDERS: "orders:read", TICKETS: "ticket:read"}


class TestSeen:
    def test_providers(self, shared: AgentProcess, client: SyncClient) -> None:
        """Operators see each provider, what it can, and what there is of it."""
        with client.task("outside") as task:
            task.token(ORDERS)
            corp = listed(shared)["corp"]
        assert ("oidc", "revoke", True, "closed") == (corp.kind, corp.recall, corp.offline, corp.circuit)
        assert corp.held >= 1
        assert ["outside"] == list(corp.task_types)
        assert corp.exchanges >= 1

    def test_metrics(self, client: SyncClient, metrics: int, shared: AgentProcess) -> None:
        """Exchanges are counted by provider and result, timed, and the circuit is told."""
        with client.task("outside") as task:
            task.token(ORDERS)
        text = urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read().decode()
        assert 'sojourn_provider_exchanges_total{provider="corp",result="issued"}' in text
        assert 'sojourn_provider_exchange_seconds_bucket{le="10.0",provider="corp"}' in text
        assert 'sojourn_provider_circuit{provider="corp"} 0.0' in text

    def test_tasks(self, shared: AgentProcess, client: SyncClient, corp: AuthServer) -> None:
        """A task's holder and operators see which resources are a provider's, and what programs must know of it."""
        expected = {"resource": ORDERS, "provider": "corp", "kind": "oidc"}
        details = {"audience": "orders", "issuer": corp.issuer}
        with client.task("outside") as task:
            found = {each.resource: each for each in task.status.outside}
            assert {ORDERS, STOCK} == set(found)
            assert ("corp", "oidc", details) == (found[ORDERS].provider, found[ORDERS].kind, found[ORDERS].details)
            shown = shared.json("task", "show", task.id)
            assert {**expected, "details": details} in shown["outside"]
            assert f"{ORDERS}: corp (oidc)" in shared.run("task", "show", task.id).stdout

    def test_by_the_command(self, shared: AgentProcess, corp: AuthServer) -> None:
        """`sojourn task token` prints what the provider gave, and with --output json all that is known of it."""
        begun = shared.json("task", "begin", "--type", "outside", "--holder-pid", str(os.getpid()))
        assert {each["resource"] for each in begun["outside"]} == {ORDERS, STOCK}
        got = shared.json("task", "token", begun["id"], "--resource", ORDERS)
        assert ("corp", "revoke", ACCESS_TOKEN) == (got["provider"], got["recall"], got["issued_token_type"])
        alone = shared.run("task", "token", begun["id"], "--resource", ORDERS).stdout.strip()
        assert got["access_token"] == alone
        shared.run("task", "complete", begun["id"])

    def test_the_audit(self, shared: AgentProcess, client: SyncClient, corp: AuthServer) -> None:
        """The audit has who was asked, on what policy decided, and each hand-out; neither it nor the log has a token."""
        with client.task("outside") as task:
            tokens = [task.token(ORDERS).token for _ in range(3)]
        # The last hand-outs are recorded when the credential goes.
        until(lambda: handed_out(shared, task.id) == 3, "all three hand-outs are recorded")
        for event in ("external_credential_asked", "external_credential_issued"):
            (record,) = audited(shared, task.id, event)
            assert ("corp", ORDERS) == (record["fields"]["provider"], record["fields"]["resource"])
        assert ["all"] == record["fields"]["policies"]
        written = [shared.log.read_bytes(), *(path.read_bytes() for path in shared.data_dir.glob("sojourn.db*"))]
        for token in {*tokens, *(call.form["subject_token"] for call in corp.calls("token"))}:
            assert not any(token.encode() in each for each in written)


HANDED_OUT = "external_credential_handed_out"


def handed_out(agent: AgentProcess, task: str) -> int:
    return sum(each["fields"]["count"] for each in audited(agent, task, HANDED_OUT))


def audited(agent: AgentProcess, task: str, event: str) -> list[dict[str, dict[str, object]]]:
    records = agent.json("task", "why", task)["records"]
    return [each for each in records if each["event"] == event]
