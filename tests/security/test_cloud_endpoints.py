"""Attacks on the local endpoints of clouds, by others on the machine and by pages in a browser on it."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fakes.cloudtask import AWS, ENTRA, GCP, KEY, S3, VAULT, CloudTask, token
from harness import overunix
from harness.cloudrun import cloud_agent
from harness.looking import OpenFiles, command_lines, until
from harness.taskagent import STRANGER_UID
from harness.vaultecho import Upstream, serving
from sojourn.errors import Unavailable
from sojourn.limits import LOCAL_CONNECTIONS, PROXY_HEAD_MAX_BYTES
from sojourn.sdk.cloud import access
from sojourn.sdk.cloud.endpoints import CloudEndpoints, running

pytestmark = pytest.mark.full

AS_STRANGER = ("setpriv", f"--reuid={STRANGER_UID}", "--clear-groups")
# Without the interpreter, which a stranger may not be able to start: the answer to one request.
ASK = 'exec 3<>/dev/tcp/127.0.0.1/$0; printf "%b" "$1" >&3; cat <&3'


@pytest.fixture
def vault() -> Iterator[Upstream]:
    with serving(Upstream()) as running_one:
        yield running_one


@pytest.fixture
def task(vault: Upstream) -> CloudTask:
    there = replace(VAULT, details={"address": vault.address, "gives": "token"})
    return CloudTask(AWS, GCP, ENTRA, there)


@pytest.fixture
async def endpoints(task: CloudTask) -> AsyncIterator[CloudEndpoints]:
    async with running(task) as found:
        yield found


def place(endpoints: CloudEndpoints, name: str = "AWS_CONTAINER_CREDENTIALS_FULL_URI") -> tuple[int, str]:
    """Port, and path with the secret."""
    url = urlsplit(endpoints.environment[name])
    assert url.port is not None
    return url.port, url.path


async def raw(port: int, request: bytes) -> bytes:
    """All that is answered to these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while part := await asyncio.wait_for(reader.read(65536), 20):
            answer += part
    writer.close()
    return answer


def get(path: str, host: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


class TestSecret:
    async def test_guesses(self, task: CloudTask, endpoints: CloudEndpoints) -> None:
        """Whoever does not know the secret is told the same of every path, and the agent is asked for nothing."""
        port, path = place(endpoints)
        guesses = ["/", "/aws", "/latest/meta-data/", "/x" + path, path[:-1], path + "x", path.upper(), path.lower()]
        guesses += ["/" + "A" * 43, "//" + path.strip("/"), "/%41" + path[2:], "/." + path, path.replace("/", "/x/../")]
        answers = {await raw(port, get(each, f"127.0.0.1:{port}")) for each in guesses}
        assert 1 == len(answers)
        assert 404 == status(answers.pop())
        assert [] == task.asked

    async def test_one_secret_each(self, task: CloudTask, endpoints: CloudEndpoints) -> None:
        """The secret of one cloud, such as that in a Vault's address, which programs log, opens no other."""
        port, path = place(endpoints, "VAULT_ADDR")
        _, other = place(endpoints)
        assert path != other
        answer = await raw(port, get(path, f"127.0.0.1:{port}"))
        assert 400 == status(answer)
        assert b"SecretAccessKey" not in answer
        assert [] == task.asked

    async def test_compared_in_constant_time(self, monkeypatch: pytest.MonkeyPatch, endpoints: CloudEndpoints) -> None:
        """Each secret is compared with each guess as a whole, found or not, so that time tells nothing."""
        compared: list[tuple[bytes, bytes]] = []

        def compare(one: bytes, other: bytes) -> bool:
            compared.append((one, other))
            return one == other

        monkeypatch.setattr(access.hmac, "compare_digest", compare)
        port, path = place(endpoints)
        for each in (path, "/guess"):
            compared.clear()
            await raw(port, get(each, f"127.0.0.1:{port}"))
            assert 4 == len(compared)

    async def test_long_enough(self, endpoints: CloudEndpoints) -> None:
        """A secret has 256 bits, and is another one each time."""
        secrets = [
            urlsplit(each).path for each in endpoints.environment.values() if each.startswith("http://127.0.0.1")
        ]
        assert (4 - 1, 44) == (len(set(secrets)), min(map(len, secrets)))


class TestBrowsers:
    @pytest.mark.parametrize(
        "host",
        ["localhost:{port}", "evil.example:{port}", "127.0.0.1", "127.0.0.1:80", "[::1]:{port}", "127.1:{port}", ""],
    )
    async def test_rebinding(self, task: CloudTask, endpoints: CloudEndpoints, host: str) -> None:
        """A name that leads here is not the address that was given: the answer is the same as to a guess."""
        port, path = place(endpoints)
        guess = await raw(port, get("/guess", f"127.0.0.1:{port}"))
        assert guess == await raw(port, get(path, host.format(port=port)))
        assert [] == task.asked

    async def test_two_hosts(self, task: CloudTask, endpoints: CloudEndpoints) -> None:
        """A second Host makes a request no good."""
        port, path = place(endpoints)
        answer = await raw(port, get(path, f"127.0.0.1:{port}", "Host: evil.example"))
        assert status(answer) in {400, 404}
        assert [] == task.asked

    @pytest.mark.parametrize(
        "header", ["Origin: null", "Referer: http://evil.example/", "X-Forwarded-For: 10.0.0.1", "Forwarded: for=x"]
    )
    async def test_sent_by_others(self, task: CloudTask, endpoints: CloudEndpoints, header: str) -> None:
        """What browsers and proxies add is a sign that no SDK asks: the answer is the same as to a guess."""
        port, path = place(endpoints)
        guess = await raw(port, get("/guess", f"127.0.0.1:{port}"))
        assert guess == await raw(port, get(path, f"127.0.0.1:{port}", header))
        assert [] == task.asked

    async def test_on_the_unix_socket_too(self, vault: Upstream, endpoints: CloudEndpoints) -> None:
        """A proxy that leads to the Unix socket gets nothing there."""
        path = endpoints.environment["VAULT_AGENT_ADDR"].removeprefix("unix://")
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(get("/v1/x", "localhost", "X-Forwarded-For: 10.0.0.1"))
        assert 404 == status(await reader.read())
        writer.close()
        assert [] == vault.seen

    async def test_no_permission_for_pages(self, endpoints: CloudEndpoints) -> None:
        """No answer lets a page of another origin read it."""
        port, path = place(endpoints)
        for target in (path, "/guess"):
            assert b"access-control" not in (await raw(port, get(target, f"127.0.0.1:{port}"))).lower()


class TestMalformed:
    @pytest.mark.parametrize(
        "request_",
        [
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /%s HTTP/1.1\r\n\r\n" % (b"x" * PROXY_HEAD_MAX_BYTES),
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
            b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\n\r\n",
            b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        ],
    )
    async def test_survived(self, endpoints: CloudEndpoints, request_: bytes) -> None:
        """What is no good request is refused or left, and the next one is answered."""
        port, path = place(endpoints)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        writer.write_eof()
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert not answer or 400 <= status(answer) < 500
        assert KEY["SecretAccessKey"].encode() not in answer
        assert 200 == status(await raw(port, get(path, f"127.0.0.1:{port}")))

    async def test_strangers_take_no_place(self, endpoints: CloudEndpoints) -> None:
        """Connections that say nothing, as many as there may be, keep the command's from nothing."""
        port, path = place(endpoints)
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(LOCAL_CONNECTIONS + 5)]
        assert 200 == status(await raw(port, get(path, f"127.0.0.1:{port}")))
        for _, writer in idle:
            writer.close()

    @pytest.mark.parametrize("target", ["/v1/../../admin", "/v1/%2e%2e/x", "/v1/x\\y", "/v1//evil.example/x"])
    async def test_the_vault_is_where_it_is(self, vault: Upstream, endpoints: CloudEndpoints, target: str) -> None:
        """Whatever the path, the request goes to the one Vault, as it was written, or nowhere."""
        port, path = place(endpoints, "VAULT_ADDR")
        await raw(port, get(path + target, f"127.0.0.1:{port}"))
        assert [target] == [each[1] for each in vault.seen] or [] == vault.seen

    async def test_headers_do_not_reach_the_vault_twice(self, vault: Upstream, endpoints: CloudEndpoints) -> None:
        """A client that says VAULT_TOKEN's text in both headers, or hides one in Connection, is given the token once."""
        port, path = place(endpoints, "VAULT_ADDR")
        lines = ["X-Vault-Token: added-by-sojourn", "Authorization: Bearer added-by-sojourn"]
        await raw(port, get(path + "/v1/x", f"127.0.0.1:{port}", *lines, "Connection: x-vault-token, host"))
        headers = vault.seen[0][2]
        assert ("hvs.token-of-vault", None) == (headers["x-vault-token"], headers.get("authorization"))
        assert vault.address.removeprefix("http://") == headers["host"]


class TestOtherUsers:
    @pytest.mark.root
    async def test_with_the_secret(self, task: CloudTask, endpoints: CloudEndpoints) -> None:
        """Another user who has got hold of the address is answered as to a guess: it is of this user's processes alone."""
        port, path = place(endpoints)
        answers = []
        for target in ("/guess", path):
            text = get(target, f"127.0.0.1:{port}").decode().replace("\r\n", "\\r\\n")
            process = await asyncio.create_subprocess_exec(
                *AS_STRANGER, "bash", "-c", ASK, str(port), text, stdout=asyncio.subprocess.PIPE
            )
            answers.append((await process.communicate())[0])
        assert 404 == status(answers[0])
        assert answers[0] == answers[1]
        assert [] == task.asked

    @pytest.mark.root
    async def test_with_the_secret_and_gone(self, vault: Upstream, endpoints: CloudEndpoints) -> None:
        """One who has got hold of the address and closes at once, whose socket the kernel then calls root's, has had
        nothing done with the task's token.
        """
        port, path = place(endpoints, "VAULT_ADDR")
        text = get(path + "/v1/x", f"127.0.0.1:{port}").decode().replace("\r\n", "\\r\\n")
        ask = [*AS_STRANGER, "bash", "-c", ASK.removesuffix("; cat <&3"), str(port), text]
        assert 0 == subprocess.run(ask, check=False, timeout=20).returncode
        time.sleep(0.3)  # the loop is busy until the kernel has forgotten whose it was
        await raw(port, get("/guess", f"127.0.0.1:{port}"))
        await asyncio.sleep(0.5)
        assert [] == vault.seen

    @pytest.mark.root
    async def test_the_unix_socket(self, task: CloudTask, vault: Upstream, endpoints: CloudEndpoints) -> None:
        """Another user cannot come to the Unix socket, and is not served if its folder were open."""
        path = Path(endpoints.environment["VAULT_AGENT_ADDR"].removeprefix("unix://"))
        command = [sys.executable, "-I", overunix.SCRIPT, str(path), "/v1/x", "--uid", str(STRANGER_UID)]
        closed = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert (overunix.NOBODY_THERE, b"") == (closed.returncode, closed.stdout)
        path.parent.chmod(0o755)
        path.chmod(0o777)
        opened = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=False)
        assert (0, {"error": "not_found"}) == (opened.returncode, json.loads(opened.stdout))
        assert [] == vault.seen
        assert [] == task.asked

    @pytest.mark.root
    async def test_files_and_environment(self, tmp_path: Path, vault: Upstream) -> None:
        """Another user can read neither the command's environment nor a file of the run, and sees no address in ps."""
        code = (
            "import json, os, time; print(json.dumps({**os.environ, 'pid': os.getpid()}), flush=True); time.sleep(60)"
        )
        async with cloud_agent(tmp_path, vault) as agent:
            run = await agent.run(sys.executable, "-c", code, options=("--vault-token-file", str(tmp_path / "token")))
            told = await run.line()
            os.chmod(tmp_path, 0o755)
            files = [f"/proc/{told['pid']}/environ", told["GOOGLE_APPLICATION_CREDENTIALS"], str(tmp_path / "token")]
            for path in files:
                done = subprocess.run([*AS_STRANGER, "cat", path], capture_output=True, text=True, check=False)
                assert 0 != done.returncode
                assert "ermission denied" in done.stderr
            seen = command_lines()
            assert str(tmp_path / "token") in seen
            secrets = [urlsplit(told[name]).path.strip("/") for name in ("VAULT_ADDR", "IDENTITY_ENDPOINT")]
            assert [] == [each for each in [*secrets, *agent.given] if each in seen]
            run.process.terminate()
            await run.done()

    async def test_only_on_loopback(self, endpoints: CloudEndpoints) -> None:
        """The endpoints listen on the loopback address, and on no other."""
        port, _ = place(endpoints)
        ending = f":{port:04X}"
        listening = [
            line.split()[1]
            for table in ("tcp", "tcp6")
            for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            if " 0A " in line
        ]
        assert [f"0100007F{ending}"] == [each for each in listening if each.endswith(ending)]

    async def test_nobody_told_whose_it_is(self, monkeypatch: pytest.MonkeyPatch, endpoints: CloudEndpoints) -> None:
        """Where the kernel says that a connection is nobody's it is not answered; where it says nothing the secret does."""
        port, path = place(endpoints)
        for uid, expected in ((-1, 404), (os.geteuid() + 1, 404), (None, 200), (os.geteuid(), 200)):

            async def said(_: Any, uid: int | None = uid) -> int | None:
                return uid

            monkeypatch.setattr(access.peer_socket, "uid_of_tcp", said)
            assert expected == status(await raw(port, get(path, f"127.0.0.1:{port}")))


class TestSecretsOfTheRun:
    async def test_not_logged(
        self, task: CloudTask, endpoints: CloudEndpoints, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No log line has a credential or a secret of an address, also when something fails."""
        caplog.set_level(0)
        port, path = place(endpoints)
        await raw(port, get(path, f"127.0.0.1:{port}"))
        task.given[S3] = token(AWS, text="no JSON with secret-of-aws")
        task.change()
        assert 503 == status(await raw(port, get(path, f"127.0.0.1:{port}")))
        said = [record.getMessage() for record in caplog.records if record.name.startswith("sojourn")]
        assert [] == [line for line in said if path.strip("/") in line or "secret-of-aws" in line]

    async def test_an_answer_under_way_is_cut_off(self, task: CloudTask, endpoints: CloudEndpoints) -> None:
        """When the task ends, a connection that waits is closed, so that it is not used for a request after the end."""
        port, path = place(endpoints)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(get(path, f"127.0.0.1:{port}").replace(b"Connection: close\r\n", b""))
        assert b"200" in await reader.readline()
        task.end("revoked", "admin")
        await asyncio.wait_for(reader.read(), 20)
        writer.close()
        document = json.loads((await raw(port, get(path, f"127.0.0.1:{port}"))).partition(b"\r\n\r\n")[2])
        assert "task is revoked: admin" == document["message"]


KILLED_AS_IT_WRITES = """
import asyncio, os, signal, sys
from fakes.cloudtask import VAULT, CloudTask
from sojourn.sdk.cloud.endpoints import running
os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
async def run():
    async with running(CloudTask(VAULT), vault_token_file=sys.argv[1]):
        pass
asyncio.run(run())
"""


def test_killed_as_it_writes_a_token(tmp_path: Path) -> None:
    """A run that is killed amid writing the file for a token leaves neither the file nor what it was written as."""
    command = [sys.executable, "-c", KILLED_AS_IT_WRITES, str(tmp_path / "token")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    assert -9 == subprocess.run(command, env=environment, check=False, timeout=30).returncode
    until(lambda: [] == os.listdir(tmp_path), "nothing is left")


async def test_a_token_that_cannot_be_written(tmp_path: Path) -> None:
    """A file for a token that cannot be written is an error that names it, and nothing is left of it."""
    (tmp_path / ".token.new").mkdir()
    with pytest.raises(Unavailable, match=r"the file '.*/token' for a token cannot be written: Is a directory"):
        async with running(CloudTask(VAULT), vault_token_file=str(tmp_path / "token")):
            pass
    assert not (tmp_path / "token").exists()


def test_no_descriptor_left() -> None:
    """Many runs of endpoints leave no descriptor behind."""

    async def once() -> None:
        async with running(CloudTask(AWS, VAULT)):
            pass

    asyncio.run(once())
    before = OpenFiles()
    for _ in range(20):
        asyncio.run(once())
    assert [] == before.opened_since()
