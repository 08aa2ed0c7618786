"""The sockets: who comes in, what hostile bytes do, and that nobody else suffers for it."""

import contextlib
import errno
import itertools
import os
import signal
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from harness.agent import AgentProcess
from harness.borrowed import Borrowed, wire_of
from harness.looking import OF_CALLERS, until
from harness.raw import ENTRY_API, Admin, Wire, module_agent, refusal
from sojourn.limits import SUBORDINATE_LOOK_SECONDS

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CLOSED_SECONDS = 25.0  # the longest limit is ten; on a busy machine its end comes later
PER_UID = 12
UIDS = itertools.count(4701)  # a user for each test that wants one of its own


@pytest.fixture(scope="module")
def agent() -> Iterator[AgentProcess]:
    with module_agent() as running, Admin(running.admin_socket) as admin:
        admin.register("/root", f"unix:uid:{os.getuid()}")
        yield running


@contextlib.contextmanager
def connected(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(CLOSED_SECONDS)
        yield connection


def rest(connection: socket.socket) -> bytes:
    """All that comes until the other side closes. Raise TimeoutError if it does not."""
    got = b""
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            got += data
    return got


def served(agent: AgentProcess) -> bool:
    """Whether a good client is served."""
    with Wire(agent.socket) as wire:
        return wire.x509_ids() == ["spiffe://example.org/root"]


ACCEPTING = 0x10000  # __SO_ACCEPTCON, in /proc/net/unix


class TestProtocols:
    def test_http_1_and_http_2_on_one_socket(self, agent: AgentProcess) -> None:
        """The public socket speaks HTTP/1.1 and gRPC, told apart by the first bytes."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=agent.socket), base_url="http://agent") as client:
            keys = client.get("/keys")
            metadata = client.get("/.well-known/openid-configuration")
            unknown = client.get("/nothing")
        assert [200, 200, 404] == [keys.status_code, metadata.status_code, unknown.status_code]
        assert served(agent)

    @pytest.mark.parametrize("size", [1, 3, 23])
    def test_a_preface_in_pieces(self, agent: AgentProcess, size: int) -> None:
        """HTTP/2 is recognized however its first bytes are cut."""
        with connected(agent.socket) as connection:
            settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
            for start in range(0, len(PREFACE), size):
                connection.sendall(PREFACE[start : start + size])
            connection.sendall(settings)
            assert b"\x04" == connection.recv(9)[3:4]

    def test_http_2_without_the_known_preface(self, agent: AgentProcess) -> None:
        """An upgrade from HTTP/1.1 to HTTP/2 is not taken up."""
        request = b"GET /keys HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        with connected(agent.socket) as connection:
            connection.sendall(request)
            assert b"HTTP/1.1 101" != rest(connection)[:12]

    def test_the_admin_socket_speaks_grpc_only(self, agent: AgentProcess) -> None:
        """HTTP/1.1 on the admin socket is closed without an answer."""
        with connected(agent.admin_socket) as connection:
            connection.sendall(b"GET /keys HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"" == rest(connection)


class TestHostileBytes:
    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"\x00" * 64, id="zeros"),
            pytest.param(b"\xff" * 4096, id="ones"),
            pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS"),
            pytest.param(PREFACE[:14] + b"\x00garbage", id="half a preface"),
            pytest.param(PREFACE + b"\xff" * 4096, id="frames of garbage"),
            pytest.param(b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", id="a wrong preface"),
            pytest.param(b"GET /keys HTTP/9.9\r\n\r\n", id="version"),
            pytest.param(b"GET /keys HTTP/1.1\r\nA\x00B: c\r\n\r\n", id="NUL in a header"),
        ],
    )
    def test_end_their_own_connection_only(self, agent: AgentProcess, data: bytes) -> None:
        """Garbage is answered by an error or by nothing, its connection is closed, and others are served."""
        with connected(agent.socket) as connection:
            connection.sendall(data)
            got = rest(connection)
            assert b"200" not in got[:15]
        assert served(agent)

    def test_a_request_line_without_end(self, agent: AgentProcess) -> None:
        """A request whose head is too large is cut off before it has been taken in."""
        with connected(agent.socket) as connection:
            sent = 0
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET /keys HTTP/1.1\r\nHost: a\r\n")
                for number in range(2_000):
                    sent += connection.send(b"X-%d: " % number + b"a" * 8_000 + b"\r\n")
            with contextlib.suppress(ConnectionError):
                assert b" 200 " not in rest(connection)[:15]
        assert sent < 4 * 1024 * 1024
        assert served(agent)

    @pytest.mark.forked
    def test_silence(self, agent: AgentProcess) -> None:
        """Connections that stay silent are closed at a limit, at whatever point they fall silent."""
        beginnings = (b"", PREFACE[:10], b"P", PREFACE, b"G", b"POST /token HTTP/1.1\r\nHost: a\r\n")
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(connected(agent.socket)) for _ in beginnings]
            for connection, beginning in zip(silent, beginnings, strict=True):
                connection.sendall(beginning)
            still_open = []
            for connection, beginning in zip(silent, beginnings, strict=True):
                try:
                    rest(connection)
                except TimeoutError:
                    still_open.append(beginning)
        assert [] == still_open

    def test_connections_that_come_and_go(self, agent: AgentProcess, admin: Admin) -> None:
        """Hundreds of connections that end at once leave nothing open."""
        for number in range(300):
            with connected(agent.socket) as connection:
                connection.sendall(PREFACE[: number % 25])
        until(lambda: admin.status().connections == 0)
        assert served(agent)


class TestLimits:
    @pytest.mark.forked
    @pytest.mark.root
    def test_one_users_connections(self) -> None:
        """A user at its limit of connections gets no more, another user is served, and places come free again."""
        config = f"[limits]\nconnections_per_uid = {PER_UID}\n"
        with module_agent(config) as own, Admin(own.admin_socket) as admin, contextlib.ExitStack() as stack:
            uid = next(UIDS)
            admin.register("/greedy", f"unix:uid:{os.getuid()}")
            admin.register("/modest", f"unix:uid:{uid}")
            taken = [stack.enter_context(connected(own.socket)) for _ in range(PER_UID - 1)]  # admin has one too
            until(lambda: admin.status().connections == PER_UID - 1)
            with connected(own.socket) as refused:
                assert b"" == rest(refused)
            with wire_of(own.socket, uid) as wire:
                assert ["spiffe://example.org/modest"] == wire.x509_ids()
            for connection in taken:
                connection.close()
            until(lambda: admin.status().connections == 0)
            with Wire(own.socket) as wire:
                assert ["spiffe://example.org/greedy"] == wire.x509_ids()

    @pytest.mark.forked
    @pytest.mark.root
    def test_a_user_with_subordinate_ids(self, tmp_path: Path) -> None:
        """All uids of a user's range count as that user, from the moment it is given; refusals name the uid."""
        first, owner, modest = 4901, next(UIDS), next(UIDS)
        ranges = tmp_path / "subuid"
        ranges.touch()
        under = ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                 'mount --bind "$0" /etc/subuid && exec "$@"', str(ranges)]  # fmt: skip
        config = f"[limits]\nconnections_per_uid = {PER_UID}\n"
        with AgentProcess(config=config, under=under) as own, contextlib.ExitStack() as stack:
            with Admin(own.admin_socket) as admin:
                admin.register("/modest", f"unix:uid:{modest}")
            ranges.write_text(f"{owner}:{first}:100\n")
            time.sleep(SUBORDINATE_LOOK_SECONDS + 1)
            uids = [owner, *range(first, first + PER_UID - 1)]
            for uid in uids:
                stack.enter_context(Borrowed(own.socket, uid))
            refused = stack.enter_context(Borrowed(own.socket, first + 99))
            assert b"" == rest(refused.connection)
            assert [first + 99] == [line["uid"] for line in own.log_lines() if line["event"] == "caller_refused"]
            with wire_of(own.socket, modest) as wire:
                assert ["spiffe://example.org/modest"] == wire.x509_ids()

    def test_workloads_of_root_do_not_shut_the_operator_out(self) -> None:
        """Connections to the public socket take no places of the admin socket."""
        config = f"[limits]\nconnections_per_uid = {PER_UID}\n"
        with module_agent(config) as own, contextlib.ExitStack() as stack:
            for _ in range(PER_UID):
                stack.enter_context(connected(own.socket))
            with connected(own.socket) as refused:
                assert b"" == rest(refused)
            with Admin(own.admin_socket) as admin:
                assert 0 == admin.status().entries

    def test_a_burst_waits_its_turn(self) -> None:
        """Hundreds of clients that connect while the agent is busy are not turned away: they wait in the backlog."""
        with module_agent() as own, contextlib.ExitStack() as stack:
            os.kill(own.pid, signal.SIGSTOP)
            stack.callback(os.kill, own.pid, signal.SIGCONT)
            turned_away = 0
            for _ in range(500):
                connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                connection.setblocking(False)
                turned_away += connection.connect_ex(own.socket) == errno.EAGAIN
        assert 0 == turned_away


class TestSockets:
    def test_modes(self, agent: AgentProcess) -> None:
        """Everybody may connect to the public socket, the owner alone to the admin socket, and both are sockets."""
        for path, mode in ((agent.socket, 0o777), (agent.admin_socket, 0o600)):
            status = os.lstat(path)
            assert (True, mode) == (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode))

    def test_folders(self, agent: AgentProcess) -> None:
        """The data folder and the keys are the agent's alone."""
        for path in (agent.data_dir, agent.data_dir / "keys"):
            assert 0o700 == stat.S_IMODE(path.stat().st_mode)
        for path in (*(agent.data_dir / "keys").iterdir(), *agent.data_dir.glob("sojourn.db*")):
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)

    @pytest.mark.root
    def test_admin_is_for_its_owner(self, agent: AgentProcess) -> None:
        """Another user is refused on the admin socket by the mode, and, with the mode out of the way, by its ids."""
        os.chmod(agent.admin_socket, 0o666)
        try:
            with wire_of(agent.admin_socket, next(UIDS)) as wire:
                assert "UNAVAILABLE" == refusal(lambda: wire.unary(ENTRY_API + "ListEntries", b""))[0]
        finally:
            os.chmod(agent.admin_socket, 0o600)

    @pytest.mark.root
    def test_the_doors_are_the_only_way_in(self, agent: AgentProcess) -> None:
        """The agent listens on its two sockets and on no other, neither in a file nor under an abstract name."""
        held = {os.readlink(each) for each in Path(f"/proc/{agent.pid}/fd").iterdir() if each.is_symlink()}
        lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        listening = [line for line in lines if int(line[3], 16) & ACCEPTING and f"socket:[{line[6]}]" in held]
        assert {agent.socket, agent.admin_socket} == {"".join(line[7:]).removesuffix(".new") for line in listening}

    @pytest.mark.root
    def test_streams_end_with_a_killed_caller(self, agent: AgentProcess, admin: Admin) -> None:
        """A caller that is killed leaves no stream and no connection at the agent."""
        uid = next(UIDS)
        admin.register(f"/killed/{uid}", f"unix:uid:{uid}")
        with Borrowed(agent.socket, uid) as borrowed, borrowed.wire() as wire:
            stream = wire.x509_stream()
            next(stream)
            assert ["FetchX509SVID"] == admin.streams_of(borrowed.pid)
            borrowed.process.kill()
            borrowed.process.wait()
            until(lambda: not admin.streams_of(borrowed.pid))
            assert "UNAVAILABLE" == refusal(lambda: next(stream))[0]

    @pytest.mark.root
    def test_descriptors_come_back(self, agent: AgentProcess, admin: Admin) -> None:
        """Callers that were served and are gone leave no descriptor behind."""
        served(agent)
        until(lambda: admin.status().connections == 0)
        before = agent.open_files()
        for _ in range(20):
            assert served(agent)
        until(lambda: admin.status().connections == 0)
        before.await_closed(*OF_CALLERS)


@pytest.mark.root
def test_a_folder_that_others_may_enter() -> None:
    """A folder that the agent makes for its sockets lets other users through, whatever the umask."""
    before = os.umask(0o077)
    try:
        with AgentProcess() as own:
            mode = stat.S_IMODE(Path(own.socket).parent.stat().st_mode)
    finally:
        os.umask(before)
    assert 0o755 == mode
