"""The egress proxy: commands that know nothing of tasks get a task's authority, and never a token."""

import http.server
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.agent import COMMAND
from harness.lacking import lacking_program
from harness.looking import until
from harness.ticketshop import Shop, ticket_shop
from sojourn import Client, SyncClient
from sojourn.sdk.client.sync import SyncTask
from sojourn.sdk.egress.proxy import Egress

pytestmark = pytest.mark.full

pytest.importorskip("requests")
TOKEN = "eyJ"  # how each JWT begins


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with ticket_shop(tmp_path_factory.mktemp("shop")) as running:
        yield running


@pytest.fixture
def task(shop: Shop) -> Iterator[SyncTask]:
    with SyncClient(shop.agent.socket) as client, client.task("read-tickets", params={"ticket": "42"}) as begun:
        yield begun


@pytest.fixture
def proxy(shop: Shop, task: SyncTask) -> Iterator[Egress]:
    with task.proxy(ca_file=str(shop.tls.ca)) as running:
        yield running


def curl(proxy: Egress, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    lacking_program("curl")
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "30", *arguments],
        env=proxy.of(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stderr
    return done


def run(
    shop: Shop, *command: str, before: tuple[str, ...] = (), kind: str = "read-tickets", **options: Any
) -> subprocess.CompletedProcess[str]:
    """`sojourn task run --proxy`."""
    arguments = [
        "task",
        "run",
        "--type",
        kind,
        "--param",
        "ticket=42",
        "--proxy",
        "--proxy-ca",
        str(shop.tls.ca),
        *before,
    ]
    return subprocess.run(
        [*COMMAND, *arguments, "--", *command],
        env=shop.agent.environment,
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


PYTHON = """
import requests, sys
answer = requests.post(sys.argv[1] + "/tickets/42/notes", json={"text": "hello"})
print(answer.status_code, answer.text)
"""
NODE = """
// A tunnel by hand: this Node's own fetch does not look for a proxy.
const http = require("http"), https = require("https"), proxy = new URL(process.env.HTTPS_PROXY), url = new URL(process.argv[2]);
const basic = "Basic " + Buffer.from(`${proxy.username}:${proxy.password}`).toString("base64");
const tunnel = http.request({host: proxy.hostname, port: proxy.port, method: "CONNECT", path: url.host, headers: {"Proxy-Authorization": basic}});
tunnel.on("connect", (answer, socket) => {
  https.get({host: url.hostname, port: url.port, path: url.pathname, socket, agent: false}, (found) => {
    let text = ""; found.on("data", (part) => text += part); found.on("end", () => console.log(found.statusCode, text));
  });
});
tunnel.end();
"""


class TestCommands:
    def test_curl(self, shop: Shop, proxy: Egress) -> None:
        """curl, as it is, reads a ticket: the service sees a bound token that curl does not."""
        note = json.loads(curl(proxy, f"{shop.resource}/tickets/42").stdout)
        assert ("GET", "/v1/tickets/42", True) == (note["method"], note["target"], note["bound"])
        assert {"authorization", "dpop"} <= set(note["headers"])

    def test_curl_sees_no_token(self, shop: Shop, proxy: Egress) -> None:
        """Nothing that curl sends or is answered has a token in it, however much it tells."""
        done = curl(proxy, "-v", f"{shop.resource}/tickets/42")
        assert TOKEN not in done.stdout + done.stderr

    def test_requests_in_a_run(self, shop: Shop) -> None:
        """`sojourn task run --proxy`: a program with requests posts a note, and its output passes through."""
        done = run(shop, sys.executable, "-c", PYTHON, shop.resource)
        assert (done.returncode, done.stdout[:3]) == (0, "200"), done.stderr
        assert len('{"text": "hello"}') == json.loads(done.stdout[4:])["size"]

    @pytest.mark.skipif(not shutil.which("node"), reason="needs node")
    def test_node_in_a_run(self, shop: Shop, tmp_path: Path) -> None:
        """A Node program trusts the run's authority, and reads a ticket."""
        (tmp_path / "get.js").write_text(NODE)
        done = run(shop, "node", str(tmp_path / "get.js"), f"{shop.resource}/tickets/42")
        assert (done.returncode, done.stdout[:3]) == (0, "200"), done.stdout + done.stderr

    def test_outside(self, shop: Shop) -> None:
        """What is outside of the task is refused at CONNECT, and the program's own error says why."""
        code = "import requests; requests.get('https://tickets.example.org.evil.example/')"
        done = run(shop, sys.executable, "-c", code)
        assert done.returncode == 1
        assert "403 the task has nothing at https://tickets.example.org.evil.example:443" in done.stderr

    def test_environment(self, shop: Shop) -> None:
        """The environment of the command has addresses and the proxy's secret: no token, no key."""
        done = run(shop, "sh", "-c", "env; cat $SSL_CERT_FILE; ls -ld $(dirname $SSL_CERT_FILE)")
        assert "HTTPS_PROXY=http://task:" in done.stdout
        assert "NO_PROXY" not in done.stdout
        assert TOKEN not in done.stdout
        assert "PRIVATE KEY" not in done.stdout
        assert "drwx------" in done.stdout

    def test_the_task_is_the_proxys(self, shop: Shop) -> None:
        """With --proxy the command gets no token by itself: neither of the task nor of one of its own."""
        inner = (
            "task",
            "run",
            "--socket",
            shop.agent.socket,
            "--type",
            "read-tickets",
            "--",
            *COMMAND,
            "task",
            "token",
        )
        done = run(shop, *COMMAND, *inner)
        assert done.returncode == 1
        assert TOKEN not in done.stdout
        assert "never holds a token" in done.stderr

    def test_status_passes_through(self, shop: Shop) -> None:
        """The exit status of the command is that of the run."""
        assert 7 == run(shop, "sh", "-c", "exit 7").returncode

    def test_certificate_is_not_trusted(self, shop: Shop, task: SyncTask) -> None:
        """Without --proxy-ca a service of another authority is not spoken to, and the answer says what to do."""
        with task.proxy() as running:
            done = curl(running, "-w", "%{http_code}", f"{shop.resource}/tickets/42")
        assert "502" == done.stdout[-3:]
        assert f"{shop.url.removeprefix('https://')} is not trusted: name the file of its authority" in done.stdout


class TestRequests:
    def test_large_bodies(self, shop: Shop, proxy: Egress, tmp_path: Path) -> None:
        """A body of 30 MiB goes up and one comes down whole, in parts.

        It is not kept, so the service's first wish for a nonce is told to the command: to send it again.
        """
        (tmp_path / "file").write_bytes(os.urandom(1024) * 30 * 1024)
        sent = curl(proxy, "--fail", "--retry", "3", "-T", str(tmp_path / "file"), f"{shop.resource}/tickets/42/file")
        assert 30 * 1024 * 1024 == json.loads(sent.stdout)["size"]
        done = curl(proxy, "-o", str(tmp_path / "back"), "-w", "%{size_download}", f"{shop.resource}/big?parts=480")
        assert str(480 * 65536) == done.stdout

    def test_chunked_upload(self, shop: Shop, proxy: Egress, tmp_path: Path) -> None:
        """A body whose length is not known goes up in chunks."""
        (tmp_path / "file").write_bytes(b"x" * 300_000)
        url = f"{shop.resource}/tickets/42/file"
        done = curl(proxy, "-T", str(tmp_path / "file"), "-H", "Transfer-Encoding: chunked", url)
        assert 300_000 == json.loads(done.stdout)["size"]

    def test_own_authorization_is_replaced(self, shop: Shop, proxy: Egress) -> None:
        """What the command calls its authorization does not reach the service."""
        before = len(shop.seen)
        curl(proxy, "-H", "Authorization: Bearer mine", "-H", "DPoP: mine", f"{shop.resource}/tickets/42")
        sent = [value for name, value in shop.seen[before] if name in {"authorization", "dpop"}]
        assert 2 == len(sent)
        assert "mine" not in " ".join(sent)

    def test_one_action(self, shop: Shop, proxy: Egress) -> None:
        """`Sojourn-Action` says what a request is: its token is for that alone, and the header goes no further."""
        note = json.loads(curl(proxy, "-H", "Sojourn-Action: ticket:read", f"{shop.resource}/tickets/42").stdout)
        assert ["ticket:read"] == note["actions"]
        assert "sojourn-action" not in note["headers"]

    def test_an_action_that_the_task_lacks(self, shop: Shop, proxy: Egress) -> None:
        """An action that the task lacks is refused with the resource and the action that were wanted."""
        done = curl(proxy, "-w", "%{http_code}", "-H", "Sojourn-Action: ticket:delete", f"{shop.resource}/tickets/42")
        said = json.loads(done.stdout[:-3])
        assert ("403", "outside_task", shop.resource, "ticket:delete") == (
            done.stdout[-3:],
            said["error"],
            said["resource"],
            said["action"],
        )

    def test_another_path_there(self, shop: Shop, proxy: Egress) -> None:
        """The same host outside of the resource's path is outside of the task."""
        done = curl(proxy, "-w", "%{http_code}", f"{shop.url}/v2/tickets/42")
        assert "403" == done.stdout[-3:]
        assert shop.url == json.loads(done.stdout[:-3])["resource"]

    def test_one_request_tokens(self, shop: Shop) -> None:
        """A task of class high has a token for each single request, over its content, through the proxy too."""
        kind, params, ca = "delete-ticket", {"ticket": "42"}, str(shop.tls.ca)
        requests = (
            (("-X", "DELETE"), "/tickets/42"),
            (("-X", "DELETE"), "/tickets/42"),
            (("-d", "x" * 100_000), "/tickets/42/notes?n=1"),
            (("-X", "DELETE"), "/tickets/43"),
        )
        with (
            SyncClient(shop.agent.socket) as client,
            client.task(kind, params=params) as high,
            high.proxy(ca_file=ca) as running,
        ):
            codes = [
                curl(running, *options, "-o", os.devnull, "-w", "%{http_code}", f"{shop.resource}{path}").stdout
                for options, path in requests
            ]
        assert ["200", "200", "200", "403"] == codes

    def test_head(self, shop: Shop, proxy: Egress) -> None:
        """An answer without content is one to the command too, and the connection goes on."""
        url = f"{shop.resource}/tickets/42"
        done = curl(proxy, "-I", url, "--next", "-sS", "-o", os.devnull, "-w", "%{http_code} %{num_connects}", url)
        assert done.stdout.endswith("200 0")


class _Plain(http.server.BaseHTTPRequestHandler):
    """A model's API: it tells what it was sent, and knows nothing of tasks."""

    def do_POST(self) -> None:
        size = self.rfile.read(int(self.headers["Content-Length"]))
        said = json.dumps({"path": self.path, "size": len(size), **dict(self.headers.items())}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(params=["http", "https"])
def model(request: pytest.FixtureRequest, shop: Shop) -> Iterator[str]:
    """Its origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Plain) as server:
        if request.param == "https":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(shop.tls.chain, shop.tls.key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"{request.param}://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


class TestPasses:
    def test_without_a_token(self, shop: Shop, task: SyncTask, model: str, tmp_path: Path) -> None:
        """A request to an origin that is let through arrives as it was sent: its own authorization, and no token."""
        (tmp_path / "body").write_bytes(b"x" * 2_000_000)
        sent = ("-H", "Authorization: Bearer mine", "--data-binary", f"@{tmp_path / 'body'}")
        with task.proxy(ca_file=str(shop.tls.ca), passes=[model]) as running:
            done = curl(running, *sent, f"{model}/v1/chat?stream=1")
            read = json.loads(curl(running, f"{shop.resource}/tickets/42").stdout)
        said = json.loads(done.stdout)
        assert ("/v1/chat?stream=1", 2_000_000, "Bearer mine") == (said["path"], said["size"], said["Authorization"])
        assert TOKEN not in done.stdout
        assert not {"Proxy-Authorization", "DPoP"} & set(said)
        assert read["bound"]

    def test_it_is_recorded(self, shop: Shop, task: SyncTask, model: str) -> None:
        """What is let through is in the journal and in what operators see of the task, before it is."""
        with task.proxy(passes=[model.upper().replace("HTTP", "http").replace("S://", "s://")]):
            assert [model] == shop.agent.json("task", "show", task.id)["passes"]
            assert model in shop.agent.run("task", "show", task.id).stdout
        (record,) = [
            each for each in shop.agent.json("task", "why", task.id)["records"] if each["event"] == "egress_passes"
        ]
        assert [model] == record["fields"]["passes"]

    def test_nothing_else_passes(self, shop: Shop, task: SyncTask, model: str) -> None:
        """Another port of the same host is as much outside of the task as ever."""
        with task.proxy(passes=[model]) as running:
            done = curl(running, "-w", "%{http_code}", "http://localhost:1/")
        assert "403" == done.stdout[-3:]

    def test_in_a_run(self, shop: Shop) -> None:
        """--proxy-pass takes several, and an origin where nobody is answers 502."""
        passes = ("--proxy-pass", "https://localhost:1", "--proxy-pass", "http://localhost:1")
        command = ["curl", "-sS", "-w", "%{http_code} %{http_connect}", "https://localhost:1/", "http://localhost:1/"]
        arguments = ["task", "run", "--type", "read-tickets", "--proxy", *passes, "--", *command]
        done = subprocess.run([*COMMAND, *arguments], env=shop.agent.environment, capture_output=True, text=True)
        assert "502" in done.stdout
        assert "service_unreachable" in done.stdout
        assert "response 502" in done.stderr

    def test_no_origin(self, shop: Shop) -> None:
        """What is no origin is an error before anything runs."""
        done = run(shop, "echo", "ran", before=("--proxy-pass", "https://x.example/v1"))
        assert (2, "") == (done.returncode, done.stdout)
        assert "is no origin: write it as https://api.example.org" in done.stderr

    def test_within_the_task(self, shop: Shop) -> None:
        """An origin where the task has something cannot be let through beside it."""
        done = run(shop, "echo", "ran", before=("--proxy-pass", shop.url))
        assert (2, "") == (done.returncode, done.stdout)
        assert "is within the task" in done.stderr

    @pytest.mark.parametrize("option", [("--proxy-pass", "https://x.example"), ("--isolate",)])
    def test_without_a_proxy(self, shop: Shop, option: tuple[str, ...]) -> None:
        """Each of these options goes with --proxy alone."""
        done = shop.agent.run("task", "run", "--type", "read-tickets", *option, "--", "echo", "ran", check=False)
        assert (2, "") == (done.returncode, done.stdout)
        assert f"{option[0]} goes with --proxy" in done.stderr


class TestHint:
    def test_a_command_that_goes_past(self, shop: Shop) -> None:
        """Where none of a command's requests came through the proxy, that is said, with what to do."""
        past = run(shop, "curl", "-sS", "--noproxy", "*", f"{shop.url}/", "--cacert", str(shop.tls.ca))
        assert "no request of the command came through its proxy" in past.stderr
        assert "22.21" in past.stderr
        through = run(shop, "curl", "-sS", f"{shop.resource}/tickets/42")
        assert "" == through.stderr


class TestEnds:
    def test_narrowed(self, shop: Shop, task: SyncTask, proxy: Egress) -> None:
        """What the task gives up is outside of it at once; what it keeps works on, with newer tokens."""
        url = f"{shop.resource}/tickets/42"
        write = ("-o", os.devnull, "-w", "%{http_code}", "-d", "x", f"{url}/notes")
        assert "200" == curl(proxy, *write).stdout
        task.narrow([type(task.grants[0]).parse(shop.resource, ["ticket:read"])])
        assert "403" == curl(proxy, *write).stdout
        assert "200" == curl(proxy, "-o", os.devnull, "-w", "%{http_code}", url).stdout

    @pytest.mark.curl
    def test_revoked(self, shop: Shop, task: SyncTask, proxy: Egress) -> None:
        """When the task ends what is under way is cut off, and all that follows is refused with the reason."""
        url = f"{shop.resource}/big?parts=2000&pause=0.05"
        slow = subprocess.Popen(
            ["curl", "-sS", "-o", os.devnull, url], env=proxy.of(os.environ), stderr=subprocess.PIPE, text=True
        )
        until(lambda: any(each["query"].endswith("pause=0.05") for each in shop.requests), "the answer has begun")
        shop.agent.run("task", "revoke", task.id, "--reason", "enough")
        assert slow.wait(timeout=60) != 0
        assert slow.stderr is not None
        slow.stderr.close()
        done = curl(proxy, "-w", "%{http_code}", f"{shop.resource}/tickets/42", status=56)  # at the CONNECT
        assert "403" in done.stderr
        plain = curl(proxy, "http://localhost:1/")
        assert "task_not_active" == json.loads(plain.stdout)["error"]
        assert "revoked: admin" in json.loads(plain.stdout)["error_description"]

    @pytest.mark.curl
    def test_run_is_killed(self, shop: Shop, tmp_path: Path) -> None:
        """When the run is killed its task is over, and the proxy is gone with it, and what it had in a folder."""
        code = textwrap.dedent("""
            import os, pathlib, sys, time
            said = os.environ["HTTPS_PROXY"], os.environ["SSL_CERT_FILE"], str(os.getpid()), "."
            pathlib.Path(sys.argv[1]).write_text(" ".join(said))
            time.sleep(60)
        """)
        file = tmp_path / "said"
        arguments = ["task", "run", "--type", "read-tickets", "--proxy", "--", sys.executable, "-c", code, str(file)]
        running = subprocess.Popen([*COMMAND, *arguments], env=shop.agent.environment)
        said = until(lambda: file.exists() and file.read_text(), "the command runs").split()
        until(lambda: file.read_text().endswith("."), "the command has written")
        url, authority, child, _ = file.read_text().split()
        (task_id,) = [each["id"] for each in shop.agent.json("task", "list")["tasks"]]
        assert Path(authority).exists()
        os.kill(running.pid, signal.SIGKILL)
        running.wait(timeout=10)
        until(lambda: shop.agent.json("task", "show", task_id)["state"] == "revoked", "the task is over")
        environment = {**os.environ, "HTTPS_PROXY": url}
        done = subprocess.run(["curl", "-sS", f"{shop.resource}/tickets/42"], env=environment, capture_output=True)
        assert 7 == done.returncode  # nobody listens
        os.kill(int(child), signal.SIGKILL)
        until(lambda: not Path(authority).parent.exists(), "the folder is gone")
        assert said


@pytest.mark.curl
async def test_asynchronous(shop: Shop) -> None:
    """The proxy of an asynchronous task serves while the loop runs."""
    import asyncio

    async with Client(shop.agent.socket) as client, client.task("read-tickets") as task:
        async with task.proxy(ca_file=str(shop.tls.ca)) as proxy:
            process = await asyncio.create_subprocess_exec(
                "curl", "-sS", f"{shop.resource}/tickets/7", env=proxy.of(os.environ), stdout=subprocess.PIPE
            )
            out, _ = await process.communicate()
        assert not Path(proxy.ca_file).exists()
    assert task.id == json.loads(out)["task"]
