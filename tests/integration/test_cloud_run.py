"""From a real agent to real SDKs: a workload's SVID at each cloud's token service, and the program that needs no change.

Google's, Entra's and Vault's services are stand-ins that verify as those do; AWS's are moto's; and a real OpenBao.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest
from harness.agent import COMMAND, AgentProcess
from harness.cloudrun import PROGRAM
from harness.entraserver import TENANT, Application, EntraServer
from harness.exchanges import http
from harness.gcpserver import PROVIDER, GcpServer
from harness.looking import until
from harness.openbao import openbao
from harness.ports import free_port
from harness.taskagent import TRIAGE, inner_failures, make_agent, write_type
from harness.vaultserver import Role, VaultServer

pytestmark = pytest.mark.full

for library in ("boto3", "google.auth", "azure.identity", "hvac", "moto.server"):
    pytest.importorskip(library)

APPLICATION = "aaaaaaaa-0000-0000-0000-000000000001"
SCOPE = "https://vault.azure.net"
KINDS = ("aws", "gcp", "entra", "vault")
ASKS = {
    "aws": '{ policy_actions = { "use" = ["s3:GetObject", "s3:PutObject"] }, policy_resources = ["*"] }',
    "gcp": '{ scopes = { "use" = ["https://www.googleapis.com/auth/devstorage.read_only"] } }',
    "entra": f'{{ scope = "{SCOPE}/.default" }}',
    "vault": '{ role = "orders" }',
}
S3 = """
import boto3, json
session = boto3.Session()
s3 = session.client("s3")
s3.create_bucket(Bucket="orders", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
s3.put_object(Bucket="orders", Key="1", Body=b"one")
body = s3.get_object(Bucket="orders", Key="1")["Body"].read().decode()
arn = session.client("sts").get_caller_identity()["Arn"]
print(json.dumps({"body": body, "arn": arn, "method": session.get_credentials().method}))
"""
HVAC = """
import hvac, json
client = hvac.Client()
print(json.dumps({
    "authenticated": client.is_authenticated(),
    "data": client.secrets.kv.v2.read_secret_version("orders", raise_on_deleted_version=True)["data"]["data"],
    "id": client.lookup_token()["data"]["id"],
}))
"""


class Keys:
    """A running agent, as those see it who trust it."""

    agent: AgentProcess

    def jwks(self) -> dict[str, Any]:
        with http(self.agent.socket) as asking:
            return asking.get("/keys").json()

    @property
    def issuer(self) -> str:
        with http(self.agent.socket) as asking:
            return asking.get("/.well-known/openid-configuration").json()["issuer"]


class Clouds:
    """An agent, and the outside that trusts it."""

    def __init__(self, agent: AgentProcess, vault: VaultServer, aws: str) -> None:
        self.agent = agent
        self.vault = vault
        self.aws = aws

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        words = [*COMMAND, "task", "run", "--type", "use-clouds", "--grace", "30", "--", *command]
        environment = {**self.agent.environment, "AWS_ENDPOINT_URL": self.aws, **environment}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def program(self, what: str) -> "subprocess.Popen[str]":
        return self.start(sys.executable, PROGRAM, what)


def write_use_clouds(agent: AgentProcess, kinds: tuple[str, ...], **asks: str) -> None:
    ceilings = "".join(
        f'[[ceiling]]\nresource = "https://{kind}.example.org"\nactions = ["use"]\nprovider = "{kind}"\n'
        f"ask = {({**ASKS, **asks})[kind]}\n"
        for kind in kinds
    )
    toml = f'allowed_workloads = ["{TRIAGE}"]\n{ceilings}'
    write_type(agent.folder / "types", "use-clouds", toml, '@id("all") permit (principal, action, resource);')
    assert 0 == agent.run("policy", "reload").returncode


@contextmanager
def trusted_agent(keys: Keys, tables: dict[str, dict[str, str]]) -> Iterator[AgentProcess]:
    lines = ""
    for name, table in tables.items():
        lines += f'\n[providers.{name}]\nkind = "{name}"\nplain_http = true\n'
        lines += "".join(f'{key} = "{value}"\n' for key, value in table.items())
    with make_agent(extra=lines) as agent:
        agent.register("/agent/triage", f"unix:uid:{os.getuid()}")
        keys.agent = agent
        yield agent
        assert [] == inner_failures(agent)


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    from moto.server import ThreadedMotoServer

    keys = Keys()
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    aws = f"http://{host}:{port}"
    with ExitStack() as stack:
        stack.callback(moto.stop)
        gcp, entra, vault = (stack.enter_context(kind(keys)) for kind in (GcpServer, EntraServer, VaultServer))
        vault.roles["orders"] = Role(TRIAGE, audience=vault.url, reads=("secret/x",))
        vault.secrets["secret/x"] = {"used": "yes"}
        tables = {
            "aws": {"endpoint": f"{aws}/", "role_arn": "arn:aws:iam::123456789012:role/triage", "region": "eu-west-1"},
            "gcp": {"audience": PROVIDER, "sts": gcp.sts, "project_id": "my-project"},
            "entra": {"authority": entra.url, "tenant_id": TENANT, "client_id": APPLICATION},
            "vault": {"address": vault.url},
        }
        agent = stack.enter_context(trusted_agent(keys, tables))
        entra.applications[APPLICATION] = Application([(keys.issuer, TRIAGE)], {SCOPE})
        write_use_clouds(agent, KINDS)
        yield Clouds(agent, vault, aws)


def line(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    text = process.stdout.readline()
    assert text, process.communicate(timeout=30)
    return json.loads(text)


class TestAll:
    def test_each_sdk_is_served(self, clouds: Clouds) -> None:
        """Each SDK gets what its cloud gave for the workload's SVID; the Vault token is revoked when the command ends."""
        with clouds.program("use") as run:
            first = line(run)["first"]
            out, err = run.communicate(timeout=60)
        assert (0, "", "") == (run.returncode, out, err)
        assert (True, True) == (first["gcp"].startswith("ya29."), first["azure"].startswith("eyJ"))
        assert "yes" == first["vault"]
        assert first["aws"].startswith("ASIA")
        until(lambda: {} == clouds.vault.tokens, "the Vault token is revoked")

    def test_s3(self, clouds: Clouds) -> None:
        """boto3 puts and gets an object with the task's session, and is told by STS that it is that session's."""
        with clouds.start(sys.executable, "-c", S3) as run:
            told = line(run)
            out, err = run.communicate(timeout=60)
        assert (0, "", "") == (run.returncode, out, err)
        assert ("one", "container-role") == (told["body"], told["method"])
        assert ":assumed-role/triage/" in told["arn"]

    def test_revoked(self, clouds: Clouds) -> None:
        """When an operator ends the task, the next request of each SDK fails and says so."""
        with clouds.program("last") as run:
            line(run)
            (task,) = [each for each in clouds.agent.json("task", "list")["tasks"] if each["type"] == "use-clouds"]
            clouds.agent.run("task", "revoke", task["id"])
            last = line(run)["last"]
            _, err = run.communicate(timeout=60)
        assert 1 == run.returncode
        assert "the task has ended (revoked" in err
        assert [] == [told for told in last.values() if "task is revoked" not in told]
        until(lambda: {} == clouds.vault.tokens, "the Vault token is revoked")

    @pytest.mark.parametrize("who", ["command", "run"])
    def test_killed(self, clouds: Clouds, who: str) -> None:
        """When the command or the run is killed the task is over, and its Vault token with it."""
        with clouds.program("last") as run:
            pid = line(run)["pid"]
            assert 1 == len(clouds.vault.tokens)
            os.kill(pid if who == "command" else run.pid, signal.SIGKILL)
            until(lambda: {} == clouds.vault.tokens, "the Vault token is revoked")
            if who == "run":
                os.kill(pid, signal.SIGKILL)
            run.communicate(timeout=60)

    def test_a_restart_of_the_agent(self, clouds: Clouds) -> None:
        """A task whose agent restarts gets credentials again at the same endpoints."""
        code = "import json, sys, boto3\nc = boto3.Session().get_credentials()\n"
        code += "for line in sys.stdin: print(json.dumps(c.get_frozen_credentials().access_key), flush=True)"
        words = [*COMMAND, "task", "run", "--type", "use-clouds", "--", sys.executable, "-c", code]
        with subprocess.Popen(
            words, env=clouds.agent.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdin is not None
            run.stdin.write("\n")
            run.stdin.flush()
            assert line(run).startswith("ASIA")
            clouds.agent.stop()
            clouds.agent.start()
            run.stdin.write("\n")
            run.stdin.flush()
            assert line(run).startswith("ASIA")
            run.communicate(timeout=60)
        assert 0 == run.returncode

    def test_an_assertion_for_azure(self, clouds: Clouds) -> None:
        """Where the operator has Azure's SDK make the exchange, it finds an SVID in a file, which Entra takes."""
        write_use_clouds(clouds.agent, KINDS, entra=f'{{ scope = "{SCOPE}/.default", gives = "assertion" }}')
        code = "import json, os; e = os.environ; print(json.dumps([open(e['AZURE_FEDERATED_TOKEN_FILE']).read(), dict(e)]))"
        try:
            with clouds.start(sys.executable, "-c", code) as run:
                assertion, environment = line(run)
                run.communicate(timeout=60)
        finally:
            write_use_clouds(clouds.agent, KINDS)
        assert (APPLICATION, TENANT) == (environment["AZURE_CLIENT_ID"], environment["AZURE_TENANT_ID"])
        form = {
            "grant_type": "client_credentials",
            "client_id": APPLICATION,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion,
            "scope": f"{SCOPE}/.default",
        }
        url = f"{environment['AZURE_AUTHORITY_HOST']}/{TENANT}/oauth2/v2.0/token"
        answer = httpx.post(url, data=form, trust_env=False)
        assert "access_token" in answer.json()
        assert not os.path.exists(environment["AZURE_FEDERATED_TOKEN_FILE"])

    def test_the_egress_proxy(self, clouds: Clouds) -> None:
        """A resource outside that is reached by HTTP has its token attached by the egress proxy too, as it is."""
        resource = clouds.vault.url
        toml = f'allowed_workloads = ["{TRIAGE}"]\n[[ceiling]]\nresource = "{resource}"\nactions = ["use"]\n'
        toml += f'provider = "vault"\nask = {ASKS["vault"]}\n'
        types = clouds.agent.folder / "types"
        write_type(types, "use-vault", toml, '@id("all") permit (principal, action, resource);')
        assert 0 == clouds.agent.run("policy", "reload").returncode
        # The Vault looks for the token in another header, and says 403; which one came is looked at below.
        program = (
            "import sys, urllib.error, urllib.request\n"
            "try: urllib.request.urlopen(sys.argv[1]).read()\n"
            "except urllib.error.HTTPError as error: assert error.code == 403"
        )
        command = [sys.executable, "-c", program, f"{resource}/v1/secret/x"]
        arguments = ["task", "run", "--type", "use-vault", "--proxy", "--", *command]
        before = len(clouds.vault.asked)
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=clouds.agent.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert 0 == done.returncode, done.stderr
        sent = [each.bearer for each in clouds.vault.asked[before:] if each.path == "/v1/secret/x"]
        assert [True] == [each.startswith("s.") for each in sent]


@pytest.mark.timeout(180)
def test_a_real_vault() -> None:
    """hvac as it is reads a secret of a real OpenBao without ever holding the token, which is revoked at the end."""
    keys = Keys()
    with openbao(free_port()) as bao, trusted_agent(keys, {"vault": {"address": bao.address}}) as agent:
        bao.trust(_AsIssuer(keys))  # type: ignore[arg-type]
        bao.role("orders", TRIAGE)
        bao.write("secret/data/orders", {"data": {"user": "orders"}})
        write_use_clouds(agent, ("vault",))
        words = [*COMMAND, "task", "run", "--type", "use-clouds", "--vault-token-file", str(agent.folder / "token")]
        code = f"{HVAC}\nprint(json.dumps(open({str(agent.folder / 'token')!r}).read()))"
        with subprocess.Popen(
            [*words, "--", sys.executable, "-c", code], env=agent.environment, stdout=subprocess.PIPE, text=True
        ) as run:
            told, token = line(run), line(run)
            run.communicate(timeout=60)
        assert (True, {"user": "orders"}, "*" * len(token)) == (told["authenticated"], told["data"], told["id"])
        until(lambda: 200 != bao.look_up(token), "the token is revoked")
        assert not (agent.folder / "token").exists()


class _AsIssuer:
    """The agent's keys, as `OpenBao.trust` takes those of a test's issuer."""

    def __init__(self, keys: Keys) -> None:
        from joserfc.jwk import ECKey

        self.issuer = keys.issuer
        self._key = next(ECKey.import_key(each) for each in keys.jwks()["keys"] if each["kty"] == "EC")

    def key(self, _: str) -> Any:
        return self._key
