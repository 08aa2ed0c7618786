"""SDKs of clouds as they are, in programs that know nothing of Sojourn, behind `sojourn task run`."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fakes.cloudtask import AWS
from fakes.fake_agent import ScriptedAgent
from harness.cloudrun import CloudAgent, cloud_agent, left_behind
from harness.looking import until
from harness.vaultecho import Upstream, serving
from sojourn.sdk.task.values import Outside

pytestmark = pytest.mark.full

for library in ("boto3", "google.auth", "azure.identity", "hvac"):
    pytest.importorskip(library)


@pytest.fixture
def vault() -> Iterator[Upstream]:
    with serving(Upstream()) as running:
        yield running


@pytest.fixture
async def agent(tmp_path: Path, vault: Upstream) -> AsyncIterator[CloudAgent]:
    async with cloud_agent(tmp_path, vault) as running:
        yield running


class TestUse:
    async def test_all_four(self, agent: CloudAgent, tmp_path: Path) -> None:
        """boto3, google-auth, azure-identity and hvac get the task's credentials, and nothing is left afterwards."""
        run = await agent.program("use", TMPDIR=str(tmp_path))
        first = (await run.line())["first"]
        assert (0, "", "") == await run.done()
        assert first["aws"].startswith("AKID")
        assert ("secret-gcp", "secret-entra") == (first["gcp"].rpartition("-")[0], first["azure"].rpartition("-")[0])
        assert f"secret-vault-{first['vault']}" in agent.given
        assert [] == left_behind(tmp_path)

    async def test_renewed(self, agent: CloudAgent) -> None:
        """What ends is renewed by each SDK as it does that, and by nothing else."""
        agent.seconds = 4
        run = await agent.program("renew")
        first, then = (await run.line())["first"], (await run.line())["then"]
        assert (0, "", "") == await run.done()
        assert [] == [name for name in first if first[name] == then[name]]

    async def test_at_the_end(self, agent: CloudAgent, tmp_path: Path) -> None:
        """When the task ends the next request of each SDK fails, with the reason, though its credentials were good for
        longer; then the endpoints are gone, and nothing is left.
        """
        run = await agent.program("last", TMPDIR=str(tmp_path))
        await run.line()
        agent.end("revoked", "admin")
        last = (await run.line())["last"]
        status, _, err = await run.done()
        assert 1 == status
        assert "the task has ended (revoked: admin)" in err
        for name, told in last.items():
            assert "task is revoked: admin" in told, (name, told)
        assert [] == left_behind(tmp_path)

    async def test_what_was_there(self, agent: CloudAgent, tmp_path: Path) -> None:
        """Credentials of the environment and of files, which SDKs would take first, are not taken, and that is told."""
        home = tmp_path / "home"
        (home / ".aws").mkdir(parents=True)
        (home / ".aws" / "credentials").write_text("[default]\naws_access_key_id=OLD\naws_secret_access_key=x\n")
        (home / ".vault-token").write_text("hvs.old")
        old = {
            "AWS_ACCESS_KEY_ID": "OLD",
            "AWS_SECRET_ACCESS_KEY": "old-secret",
            "AWS_PROFILE": "prod",
            "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "key.json"),
            "AZURE_CLIENT_ID": "c",
            "AZURE_TENANT_ID": "t",
            "AZURE_CLIENT_SECRET": "old-secret",
            "VAULT_TOKEN": "hvs.old",
        }
        run = await agent.program("use", HOME=str(home), **old)
        first = (await run.line())["first"]
        status, _, err = await run.done()
        assert 0 == status
        assert "OLD" != first["aws"]
        assert first["azure"].startswith("secret-entra")
        assert [name for name in old if name != "AZURE_TENANT_ID"] == [name for name in old if name in err]
        assert 1 == err.count("\n")
        assert "old-secret" not in err

    async def test_behind_a_proxy(self, agent: CloudAgent) -> None:
        """A proxy for the outside is not asked for the endpoints."""
        run = await agent.program("use", HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1")
        await run.line()
        assert (0, "", "") == await run.done()

    async def test_no_secret_to_be_seen(self, agent: CloudAgent) -> None:
        """No credential is in the arguments or the environment of the command, or of the run."""
        run = await agent.program("last")
        pid = (await run.line())["pid"]
        seen = b""
        for each in (pid, run.process.pid):
            seen += Path(f"/proc/{each}/environ").read_bytes() + Path(f"/proc/{each}/cmdline").read_bytes()
        os.kill(pid, signal.SIGTERM)
        await run.done()
        assert 4 <= len(agent.given)
        assert [] == [each for each in agent.given if each.encode() in seen]


class TestOptions:
    async def test_switched_off(self, agent: CloudAgent) -> None:
        """With --no-cloud the command's environment is as it was."""
        run = await agent.run("sh", "-c", "env", options=("--no-cloud",), AWS_PROFILE="prod")
        status, out, err = await run.done()
        assert (0, "") == (status, err)
        assert "AWS_PROFILE=prod" in out
        assert "AWS_CONTAINER" not in out

    async def test_shown(self, agent: CloudAgent) -> None:
        """--show-environment says what is set, without the secrets of the addresses."""
        run = await agent.run("sh", "-c", "echo $VAULT_ADDR", options=("--show-environment",))
        status, out, err = await run.done()
        assert 0 == status
        assert "sojourn: AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:" in err
        assert out.strip().rpartition("/")[2] not in err

    async def test_two_of_a_kind(self, tmp_path: Path, vault: Upstream) -> None:
        """Where it is not clear which resource an SDK is for, nothing is run; --cloud says which."""
        other = replace(AWS, resource="https://sqs.example.org", details={"kind": "aws", "region": "us-east-2"})
        async with cloud_agent(tmp_path, vault, other) as agent:
            status, out, err = await (await agent.run("echo", "ran")).done()
            assert (2, "") == (status, out)
            for part in (AWS.resource, other.resource, "--cloud"):
                assert part in err
        async with cloud_agent(tmp_path, vault, other) as agent:
            chosen = await agent.run("sh", "-c", "echo $AWS_REGION", options=("--cloud", other.resource))
            assert (0, "us-east-2\n", "") == await chosen.done()

    async def test_not_with_the_proxy(self, agent: CloudAgent) -> None:
        """With --proxy the task is the proxy's alone: there are no endpoints, and none can be asked for."""
        status, _, err = await (await agent.run("true", options=("--proxy", "--cloud", AWS.resource))).done()
        assert (2, True) == (status, "--proxy goes without --cloud" in err)
        run = await agent.run("sh", "-c", "env", options=("--proxy",))
        assert "AWS_CONTAINER" not in (await run.done())[1]

    async def test_no_cloud_at_all(self, tmp_path: Path) -> None:
        """A task without clouds runs as ever, and --show-environment says that there is nothing."""
        plain = Outside("https://orders.example.org", "corp", "keycloak", {})
        async with ScriptedAgent().serve(tmp_path / "agent.sock") as fake:
            agent = CloudAgent(fake, tmp_path / "agent.sock", [plain])
            run = await agent.run("sh", "-c", "env", options=("--show-environment",), AWS_PROFILE="prod")
            status, out, err = await run.done()
        assert (0, True) == (status, "AWS_PROFILE=prod" in out)
        assert "sojourn: the task has no resource that SDKs of clouds are for\n" == err

    async def test_vault_token_file(self, agent: CloudAgent, tmp_path: Path) -> None:
        """--vault-token-file has the token where a program reads it, and is gone afterwards."""
        file = tmp_path / "token"
        run = await agent.run(
            "sh", "-c", f"cat {file}; stat -c ' %a' {file}", options=("--vault-token-file", str(file))
        )
        status, out, _ = await run.done()
        assert (0, f"{agent.given[0]} 600\n") == (status, out)
        assert not file.exists()


class TestKilled:
    async def test_the_command(self, agent: CloudAgent, tmp_path: Path) -> None:
        """When the command is killed the run ends as ever, and nothing is left."""
        run = await agent.program("last", TMPDIR=str(tmp_path))
        os.kill((await run.line())["pid"], signal.SIGKILL)
        assert 137 == (await run.done())[0]
        assert [] == left_behind(tmp_path)

    async def test_the_run(self, agent: CloudAgent, tmp_path: Path) -> None:
        """When the run itself is killed its endpoints are gone at once, and its files too, the token file among them."""
        file = tmp_path / "token"
        code = "import json, os, time; print(json.dumps(dict(os.environ, pid=os.getpid())), flush=True); time.sleep(60)"
        options = ("--vault-token-file", str(file))
        run = await agent.run(sys.executable, "-c", code, options=options, TMPDIR=str(tmp_path))
        told = await run.line()
        address = urlsplit(told["VAULT_ADDR"])
        assert 1 == len(left_behind(tmp_path))
        await run.killed()
        until(lambda: [] == left_behind(tmp_path) and not file.exists(), "nothing is left")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.hostname, address.port)
        os.kill(told["pid"], signal.SIGKILL)
        await run.done()
