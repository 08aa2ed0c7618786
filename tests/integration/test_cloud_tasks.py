"""Tasks of a real agent at all four clouds: a real OpenBao, and stand-ins that trust the keys that the agent shows."""

import json
import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from harness import awsserver, entraserver, gcpserver
from harness.agent import AgentProcess
from harness.exchanges import http
from harness.looking import until
from harness.openbao import openbao
from harness.ports import free_port
from harness.standin import Reply, StandIn
from harness.taskagent import ISSUER, TRIAGE, make_agent, write_type
from sojourn import SyncClient

pytestmark = pytest.mark.full

PLACES = {name: f"https://{name}.example.org" for name in ("aws", "gcp", "entra", "vault")}
ROLE = "arn:aws:iam::123456789012:role/triage"
ACCOUNT = "triage@orders.iam.gserviceaccount.com"
CLIENT = "aaaaaaaa-0000-0000-0000-000000000001"
OBJECT = "arn:aws:s3:::orders/1"
ASKS = {
    "aws": '{ policy_actions = { "read" = ["s3:GetObject"], "list" = ["s3:ListBucket"] }, policy_resources = ["*"] }',
    "gcp": '{ scopes = { "read" = ["https://scope.example.org/read"], "list" = ["https://scope.example.org/list"] } }',
    "entra": '{ scope = "https://graph.microsoft.com/.default" }',
    "vault": '{ roles = { "read" = "reader", "list" = "lister" } }',
}
TYPE = f'allowed_workloads = ["{TRIAGE}"]\nmax_duration = "10m"\n' + "".join(
    f'[[ceiling]]\nresource = "{PLACES[name]}"\nactions = ["list", "read"]\nprovider = "{name}"\nask = {ask}\n'
    for name, ask in ASKS.items()
)
PERMIT_ALL = '@id("all") permit (principal, action, resource);'


class Agents:
    """The issuer that stand-ins trust: the agent, by the keys that it shows at /keys."""

    issuer = ISSUER

    def __init__(self) -> None:
        self.socket = ""

    def jwks(self):
        with http(self.socket) as opened:
            return opened.get("/keys").json()


@pytest.fixture(scope="module")
def world() -> Iterator[SimpleNamespace]:
    issuer = Agents()
    aws = awsserver.AwsServer(issuer, awsserver.Role(ROLE, TRIAGE))
    gcp, entra, hook = gcpserver.GcpServer(issuer), entraserver.EntraServer(issuer), StandIn()
    pool = gcpserver.PROVIDER.partition("/providers/")[0]
    gcp.impersonators[ACCOUNT] = {f"principal:{pool}/subject/{TRIAGE}"}
    entra.applications[CLIENT] = entraserver.Application([(ISSUER, TRIAGE)], {"https://graph.microsoft.com"})

    def deny(request):
        aws.denied.add(("session", request.fields["session_id"]))
        return Reply(204)

    hook.instead["/deny"] = deny
    with openbao(free_port()) as bao, aws, gcp, entra, hook:
        tables = {
            "aws": {"endpoint": f"{aws.url}/", "role_arn": ROLE, "deny_hook": f"{hook.url}/deny"},
            "gcp": {
                "audience": gcpserver.PROVIDER,
                "sts": gcp.sts,
                "iam_credentials": gcp.url,
                "service_account": ACCOUNT,
            },
            "entra": {"authority": entra.url, "tenant_id": entraserver.TENANT, "client_id": CLIENT},
            "vault": {"address": bao.address},
        }
        extra = ""
        for name, table in tables.items():
            lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
            extra += f'\n[providers.{name}]\nkind = "{name}"\nplain_http = true\n' + "\n".join(lines) + "\n"
        made = make_agent(level="debug", extra=extra)
        write_type(made.folder / "types", "cloudy", TYPE, PERMIT_ALL)
        with made as agent:
            issuer.socket = agent.socket
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            keys = [each for each in issuer.jwks()["keys"] if each["kty"] == "EC"]
            bao.trust_keys(keys, ISSUER)
            bao.role("reader", TRIAGE)
            bao.role("lister", TRIAGE)
            yield SimpleNamespace(agent=agent, aws=aws, gcp=gcp, entra=entra, bao=bao)


@pytest.fixture
def client(world) -> Iterator[SyncClient]:
    with SyncClient(world.agent.socket) as opened:
        yield opened


def ends_of(agent: AgentProcess, task_id: str) -> dict[str, str]:
    """How the external credentials of a task ended, or that they stay open, by provider, as the audit has it."""
    found = {}
    for each in agent.json("audit", "tail", "--lines", "1000")["records"]:
        fields = each["fields"]
        if fields.get("task") == task_id and each["event"] in {"external_credential_ended", "external_credential_open"}:
            found[fields["provider"]] = fields.get("how", "open")
    return found


@pytest.mark.timeout(180)
class TestTasks:
    def test_each_cloud_gives_a_task_what_it_asks_for(self, world, client):
        """One task has a credential of each cloud, of its own kind, and for no longer than itself."""
        with client.task("cloudy") as task:
            got = {name: task.token(place, ["read"]) for name, place in PLACES.items() if name != "entra"}
            got["entra"] = task.token(PLACES["entra"])
            assert all(each.expires_at <= task.expires_at for each in got.values())
            assert {"aws": "deny", "gcp": "none", "entra": "none", "vault": "revoke"} == {
                name: each.recall for name, each in got.items()
            }
            key = json.loads(got["aws"].token)["AccessKeyId"]
            assert world.aws.allows(key, "s3:GetObject", OBJECT)
            assert not world.aws.allows(key, "s3:ListBucket", OBJECT)
            assert (ACCOUNT, ("https://scope.example.org/read",)) == (
                world.gcp.tokens[got["gcp"].token].who,
                world.gcp.tokens[got["gcp"].token].scopes,
            )
            assert 200 == world.bao.look_up(got["vault"].token)
            assert task.id == world.aws.sessions[key].tags["task"]

    def test_the_end_of_a_task_is_the_end_of_what_can_be_ended(self, world, client):
        """At the end OpenBao's token is revoked and AWS denies the session; the others stay open until they expire."""
        task = client.begin_task("cloudy")
        key = json.loads(task.token(PLACES["aws"], ["read"]).token)["AccessKeyId"]
        token = task.token(PLACES["vault"], ["read"]).token
        other = client.begin_task("cloudy")
        kept = other.token(PLACES["vault"], ["read"]).token
        for name in ("gcp", "entra"):
            task.token(PLACES[name])
        task.complete()
        until(lambda: world.bao.look_up(token) == 403, "OpenBao knows the token no more")
        until(lambda: not world.aws.allows(key, "s3:GetObject", OBJECT), "AWS denies the session")
        assert 200 == world.bao.look_up(kept)
        ends = {"aws": "denied", "gcp": "open", "entra": "open", "vault": "recalled"}
        until(lambda: ends == ends_of(world.agent, task.id), "the audit has how each ended")
        other.complete()
        until(lambda: world.bao.look_up(kept) == 403, "the other's token goes with the other task")

    def test_nothing_of_a_cloud_is_in_the_log(self, world, client):
        """With everything logged, no token, key or assertion of a cloud is."""
        with client.task("cloudy") as task:
            keys = json.loads(task.token(PLACES["aws"], ["list"]).token)
            secrets = [keys["SecretAccessKey"], keys["Token"]]
            secrets += [task.token(PLACES[name], ["list"]).token for name in ("gcp", "vault")]
            secrets.append(task.token(PLACES["entra"]).token)
        secrets += [
            request.fields["WebIdentityToken"] for request in world.aws.asked if "WebIdentityToken" in request.fields
        ]
        log = world.agent.log.read_text()
        assert [] == [each[:12] for each in secrets if each in log]


@pytest.mark.timeout(180)
def test_a_token_of_openbao_does_not_outlive_an_agent_that_was_killed():
    """After kill -9 with a token in a task's hands the next run revokes it at a real OpenBao, which was sealed meanwhile."""
    port = free_port()
    issuer = Agents()
    with openbao(port) as bao:
        extra = f'\n[providers.vault]\nkind = "vault"\nplain_http = true\naddress = "{bao.address}"\n'
        made = make_agent(extra=extra)
        ask = f'[[ceiling]]\nresource = "{PLACES["vault"]}"\nactions = ["read"]\nprovider = "vault"\nask = {{ role = "reader" }}\n'
        write_type(made.folder / "types", "cloudy", f'allowed_workloads = ["{TRIAGE}"]\n{ask}', PERMIT_ALL)
        with made as agent:
            issuer.socket = agent.socket
            agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
            bao.trust_keys(issuer.jwks()["keys"], ISSUER)
            bao.role("reader", TRIAGE)
            with SyncClient(agent.socket) as client:
                token = client.begin_task("cloudy").token(PLACES["vault"]).token
                assert 200 == bao.look_up(token)
                agent.kill()
            bao.write("sys/seal", {})
            agent.start()
            until(lambda: "external_recall_failed" in agent.log.read_text(), "the agent finds OpenBao sealed")
            bao.unseal()
            until(lambda: bao.look_up(token) == 403, "OpenBao knows the token no more", 60)
