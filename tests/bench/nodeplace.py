"""One real SPIRE server with two nodes: Sojourn's agent and SPIRE's, on this machine, each over a relay that counts."""

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import grpc
from beside import Subject
from figures import Missing
from ground import Admin
from harness.agent import AgentProcess, clean_environment
from harness.federating import SpireServer
from harness.keeper import wait_or_kill
from harness.looking import until
from harness.raw import Wire
from peers import SPIRE
from sojourn._pb.spire.api.types import types_pb2 as types

DOMAIN = "example.org"
ALIAS = "/bench"  # the second name of both nodes, which entries have as their parent
FIRST_SECONDS = 180.0
_QUICK = 'experimental { cache_reload_interval = "200ms" }'
_AGENT = """
agent {{
  server_address = "127.0.0.1"
  server_port = "{port}"
  socket_path = "{folder}/agent.sock"
  trust_domain = "{domain}"
  trust_bundle_path = "{folder}/bundle.pem"
  data_dir = "{folder}/data"
  log_level = "WARN"
  experimental {{ sync_interval = "{poll}" }}
}}
plugins {{
  NodeAttestor "join_token" {{ plugin_data {{}} }}
  KeyManager "disk" {{ plugin_data {{ directory = "{folder}/data" }} }}
  WorkloadAttestor "unix" {{ plugin_data {{}} }}
}}
"""


class Relay:
    """TCP to the server's port. `bytes`: what has gone through it, both ways, as TLS has it."""

    def __init__(self, port: int) -> None:
        self._target, self.bytes = port, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(262_144):
                self.bytes += len(data)
                sink.sendall(data)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Node:
    """One of the two. `begin` and `end` are starts and stops of its process; it has joined with the first start."""

    def __init__(self, name: str, relay: Relay, address: str) -> None:
        self.name, self.relay, self.socket = name, relay, address

    @property
    def pid(self) -> int:
        raise NotImplementedError

    @property
    def subject(self) -> Subject:
        return Subject(self.name, {"agent": self.pid}, self.socket)

    def begin(self) -> None:
        """Start it, and do not wait."""
        raise NotImplementedError

    def end(self, number: int = signal.SIGTERM) -> None:
        raise NotImplementedError

    def has(self, path: str) -> bool:
        """Whether it gives this user an SVID of this path now. Looking takes no time of a processor to speak of while
        nobody listens.
        """
        with socket.socket(socket.AF_UNIX) as knock:
            if knock.connect_ex(self.socket):
                return False
        with contextlib.suppress(grpc.RpcError), Wire(self.socket) as wire:
            return any(each.endswith(path) for each in wire.x509_ids())
        return False

    def first_svid(self, path: str) -> float:
        """When it gave this user an SVID of this path, by the monotonic clock."""
        ends = monotonic() + FIRST_SECONDS
        while monotonic() < ends:
            if self.has(path):
                return monotonic()
            sleep(0.01)
        raise RuntimeError(f"{self.name} gives no SVID of {path} within {FIRST_SECONDS:g} s")


class Sojourn(Node):
    def __init__(self, relay: Relay, folder: Path, token: str, bundle: str, poll: str) -> None:
        folder.mkdir()
        (folder / "bundle.pem").write_text(bundle)
        (folder / "token").write_text(token)
        os.chmod(folder / "token", 0o600)
        files = f'bundle = "{folder}/bundle.pem"\ntoken_file = "{folder}/token"\nattestor = "join_token"\n'
        self._agent = AgentProcess(
            config=f'trust_domain = "{DOMAIN}"\n[attestors.unix]\npath = false\nsha256 = false\n[upstream]\nkind = "spire"\n'
            f'servers = ["127.0.0.1:{relay.port}"]\npoll = "{poll}"\n{files}'
        )
        super().__init__("Sojourn", relay, self._agent.socket)

    @property
    def pid(self) -> int:
        return self._agent.pid

    def begin(self) -> None:
        self._agent.process = self._agent.spawn()

    def end(self, number: int = signal.SIGTERM) -> None:
        self._agent.stop(number)

    def close(self) -> None:
        self._agent.__exit__()


class Spire(Node):
    def __init__(self, program: str, relay: Relay, folder: Path, token: str, bundle: str, poll: str) -> None:
        (folder / "data").mkdir(parents=True)
        (folder / "bundle.pem").write_text(bundle)
        (folder / "agent.conf").write_text(_AGENT.format(port=relay.port, folder=folder, domain=DOMAIN, poll=poll))
        self._folder = folder
        self._command = [program, "run", "-config", f"{folder}/agent.conf", "-joinToken", token]
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__("SPIRE", relay, f"{folder}/agent.sock")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def begin(self) -> None:
        with (self._folder / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=clean_environment())

    def ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def end(self, number: int = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        wait_or_kill(self._process, 30)

    def close(self) -> None:
        if not self.ended():
            self.end()


class Place:
    """The server and its nodes, which have joined and serve this user `/me`."""

    def __init__(self, server: SpireServer, admin: Admin, nodes: tuple[Sojourn, Spire]) -> None:
        self.server, self.admin, self.nodes = server, admin, nodes

    def register(self, *entries: types.Entry) -> None:
        self.admin.create(entries)


def entry(path: str, *selectors: str) -> types.Entry:
    """One below both nodes, for this user unless other selectors are given."""
    return types.Entry(
        spiffe_id=types.SPIFFEID(trust_domain=DOMAIN, path=path),
        parent_id=types.SPIFFEID(trust_domain=DOMAIN, path=ALIAS),
        selectors=[types.Selector(type="unix", value=each) for each in selectors or (f"uid:{os.getuid()}",)],
    )


@contextlib.contextmanager
def place(full: bool) -> Iterator[Place]:
    """With the defaults of both, or with a server and agents that ask more often. Raise Missing if there is no SPIRE."""
    poll, lines = ("5s", "") if full else ("1s", _QUICK)
    server_program, agent_program = map(str, SPIRE.there())
    if os.getuid() != 0:
        raise Missing("only root can look at processes that keep others from it")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="sojourn-bench-")))
        os.chmod(folder, 0o755)
        server = stack.enter_context(
            SpireServer(server_program, folder / "server", DOMAIN, keys_stay=True, lines=lines)
        )
        admin = stack.enter_context(Admin(server.socket))
        admin.create([entry("/me")])
        bundle = server.run("bundle", "show", "-format", "pem").stdout

        def token() -> str:
            told = server.run("token", "generate", "-ttl", "3600", "-spiffeID", f"spiffe://{DOMAIN}{ALIAS}").stdout
            return told.partition("Token:")[2].split()[0]

        relays = [Relay(server.node_port) for _ in range(2)]
        for each in relays:
            stack.callback(each.close)
        ours = Sojourn(relays[0], folder / "sojourn", token(), bundle, poll)
        stack.callback(ours.close)
        theirs = Spire(agent_program, relays[1], folder / "spire", token(), bundle, poll)
        stack.callback(theirs.close)
        for node in (ours, theirs):
            node.begin()
        for node in (ours, theirs):
            until(lambda node=node: node.first_svid("/me"), f"{node.name} serves", FIRST_SECONDS)
        yield Place(server, admin, (ours, theirs))
