"""`sojourn keys run`: the key process as a service of its own, of another user than the agent's."""

import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import agent as agents
from harness.agent import AgentProcess, clean_environment
from harness.looking import until
from harness.openbao import ROOT_TOKEN, openbao
from harness.ports import free_port
from harness.raw import Wire

pytestmark = [pytest.mark.full, pytest.mark.root]
OWNER, STRANGER = 64_321, 64_322  # uids: of the key process, and of somebody else
CONFIG = 'trust_domain = "example.org"\nnode_name = "n1"\n[authority]\nissuer_ttl = "1h"\n'


class KeyService:
    """One, and where it is: a folder of its user's."""

    def __init__(self, folder: Path, keys: str = "") -> None:
        self.folder = folder
        os.chown(folder, OWNER, OWNER)
        folder.chmod(0o755)
        self.socket, self.data_dir, self.log = folder / "keys.sock", folder / "keys", folder / "log"
        self.keys = f'[keys]\nsocket = "{self.socket}"\nagent_user = "{os.getuid()}"\n{keys}\n'
        self.config = folder / "keys.toml"
        self.config.write_text(CONFIG + self.keys)
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *("setpriv", f"--reuid={OWNER}", f"--regid={OWNER}", "--clear-groups", *agents.COMMAND),
                    *("keys", "run", "--config", str(self.config), "--data-dir", str(self.data_dir)),
                ],
                env=clean_environment(),
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.process.stdout is not None
        assert f"sojourn keys ready: {self.socket}\n" == self.process.stdout.readline(), self.log.read_text()

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        done = self.process.wait(30)
        self.process.stdout.close()
        self.process = None
        return done


@contextmanager
def serving(keys: str = "") -> Iterator[KeyService]:
    with tempfile.TemporaryDirectory() as folder:
        made = KeyService(Path(folder), keys)
        made.start()
        try:
            yield made
        finally:
            if made.process is not None:
                made.stop()


@pytest.fixture
def service() -> Iterator[KeyService]:
    with serving() as made:
        yield made


@pytest.fixture
def agent(service: KeyService) -> Iterator[AgentProcess]:
    with AgentProcess(config=CONFIG + service.keys) as made:
        made.register("/web", f"unix:uid:{os.getuid()}")
        yield made


def fetched(agent: AgentProcess) -> None:
    with Wire(agent.socket) as wire:
        assert wire.x509().svids[0].x509_svid


def condition(agent: AgentProcess) -> str:
    return next((each["found"] for each in agent.json("status")["faults"] if each["name"] == "root-key"), "")


def test_the_root_is_not_the_agents(agent: AgentProcess, service: KeyService) -> None:
    """The root's key lies in the service's folder, and nowhere in the agent's; over a restart of either it is the same,
    and each signature stands in the service's log.
    """
    fetched(agent)
    [key] = service.data_dir.glob("*.pem")
    assert (OWNER, 0o600) == (key.stat().st_uid, key.stat().st_mode & 0o777)
    assert b"PRIVATE KEY" in key.read_bytes()
    root = agent.data_dir / "keys" / "root.pem"
    before = root.read_text()
    assert "PRIVATE KEY" not in before
    agent.stop()
    assert 0 == service.stop()
    service.start()
    agent.start()
    fetched(agent)
    agent.run("authority", "rotate", "x509", "--overlap", "1s")
    fetched(agent)
    assert before in root.read_text() or before.splitlines()[1] in root.read_text()
    assert 2 == len(list(service.data_dir.glob("*.pem")))
    assert "root_key_used" in service.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_away(agent: AgentProcess, service: KeyService, number: int) -> None:
    """While the service is away workloads get what they got and status tells it; when it is back, it is used again."""
    service.stop(number)
    until(lambda: condition(agent), "its absence is told", 60)
    fetched(agent)
    assert 1 == agent.run("authority", "prepare", "x509", check=False).returncode
    service.start()
    until(lambda: not condition(agent), "it is used again", 120)
    agent.run("authority", "prepare", "x509")


def test_other_users(agent: AgentProcess, service: KeyService) -> None:
    """Who is not the agent's user is refused unheard, and that is logged; what is no question ends a connection alone."""
    script = (
        f"import socket; s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect({str(service.socket)!r});"
        " print(s.recv(1))"
    )
    done = subprocess.run(
        ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", "/usr/bin/python3", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "b''" in done.stdout or "reset" in done.stderr.lower(), done.stderr
    assert f'"uid": {STRANGER}' in service.log.read_text() or f'"uid":{STRANGER}' in service.log.read_text()
    for sent in (b"\xff" * 100, b"\0\0\0\x02{}", b'\0\0\0\x1a{"id": 1, "do": "sign" }   ', secrets.token_bytes(500)):
        with socket.socket(socket.AF_UNIX) as caller:
            caller.settimeout(30)
            caller.connect(str(service.socket))
            caller.sendall(sent)
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(4096):
                pass
    agent.run("authority", "prepare", "x509")


def test_another_node(agent: AgentProcess, service: KeyService) -> None:
    """An agent of another node, or trust domain, is not answered, and is told whose keys these are."""
    with AgentProcess(config=CONFIG.replace('"n1"', '"n2"') + service.keys) as other:
        until(lambda: "is of node 'n1'" in condition(other), "why it is not answered", 60)
    fetched(agent)


def test_sealed(tmp_path: Path) -> None:
    """With a seal key the service's files are sealed."""
    seal = tmp_path / "seal"
    seal.write_bytes(secrets.token_bytes(32))
    seal.chmod(0o600)
    tmp_path.chmod(0o755)
    for each in tmp_path.parents:
        if each.stat().st_uid == os.getuid() and not each.stat().st_mode & 0o001:
            each.chmod(each.stat().st_mode | 0o011)
    os.chown(seal, OWNER, OWNER)
    with serving(f'manager = "sealed"\nseal_key = "{seal}"') as service:
        own = service.folder / "agents-seal"
        own.write_bytes(secrets.token_bytes(32))
        own.chmod(0o600)
        with AgentProcess(config=CONFIG + service.keys.replace(str(seal), str(own))) as agent:
            agent.register("/web", f"unix:uid:{os.getuid()}")
            fetched(agent)
        [key] = service.data_dir.glob("*.pem")
        assert b"PRIVATE KEY" not in key.read_bytes()
        assert b"SEALED KEY" in key.read_bytes()


def test_what_is_wrong_is_told(tmp_path: Path) -> None:
    """Without a socket, or for a user that there is not, it does not start, and says why."""
    config = tmp_path / "keys.toml"
    for keys, said in (("", "keys.socket is missing"), ('[keys]\nsocket = "k"\nagent_user = "nobody-here"', "no user")):
        config.write_text(CONFIG + keys)
        done = subprocess.run(
            [*agents.COMMAND, "keys", "run", "--config", str(config), "--data-dir", str(tmp_path / "d")],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (2, True) == (done.returncode, said in done.stderr), done.stderr


def test_openbao(tmp_path: Path) -> None:
    """The service alone has the token by which OpenBao signs: the agent, which asks the service, cannot read it."""
    with openbao(free_port()) as bao, tempfile.TemporaryDirectory() as folder:
        bao.write("sys/mounts/transit", {"type": "transit"})
        Path(folder).chmod(0o755)
        token = Path(folder) / "token"
        token.write_text(ROOT_TOKEN)
        token.chmod(0o600)
        os.chown(token, OWNER, OWNER)
        keys = (
            f'manager = "openbao"\n[keys.openbao]\naddress = "{bao.address}"\nplain_http = true\ntoken_file = "{token}"'
        )
        with serving(keys) as service, AgentProcess(config=CONFIG + service.keys) as agent:
            agent.register("/web", f"unix:uid:{os.getuid()}")
            fetched(agent)
            agent.run("authority", "rotate", "x509", "--overlap", "1s")
            assert ["", ""] == [each["fault"] for each in agent.json("authority", "test")["roots"]]
            told = bao.root.get("/v1/transit/keys?list=true").json()["data"]["keys"]
            assert ["sojourn_sexample.org_sn1_sroot_s1", "sojourn_sexample.org_sn1_sroot_s2"] == sorted(told)
            assert [] == list(service.data_dir.glob("*.pem"))
