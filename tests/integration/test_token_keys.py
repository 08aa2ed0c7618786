"""Roots whose keys are in a PKCS#11 token: a real agent with a token of SoftHSM's, and all that may happen to it."""

import json
import os
import random
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from harness.agent import AgentProcess
from harness.backups import command, done
from harness.disks import full
from harness.looking import gone, until
from harness.raw import Wire
from harness.slowtoken import SlowToken
from harness.softhsm import LABEL, PIN, SoftHsm
from harness.softtpm import PIN as PIN_OF_TPM
from harness.softtpm import SoftTpm
from sojourn.spiffe.ids import SpiffeId, TrustDomain
from sojourn.spiffe.x509svid import verify_chain

DOMAIN = TrustDomain("example.org")
WEB = SpiffeId.parse("spiffe://example.org/web")
CONFIG = 'trust_domain = "example.org"\nnode_name = "n1"\n'
FIRST = "sojourn/example.org/n1/root/1"
pytestmark = [pytest.mark.full, pytest.mark.forked]


@pytest.fixture
def token(tmp_path: Path) -> SoftHsm:
    return SoftHsm(tmp_path / "hsm")


@pytest.fixture
def agent(token: SoftHsm) -> Iterator[AgentProcess]:
    """One whose root is in the token, with an entry for this test's user."""
    with AgentProcess(config=CONFIG + token.config()) as made:
        made.register("/web", f"unix:uid:{os.getuid()}")
        yield made


def root_file(agent: AgentProcess) -> str:
    return (agent.data_dir / "keys" / "root.pem").read_text()


def fetched(agent: AgentProcess) -> tuple[x509.Certificate, ...]:
    """The chain that a workload gets, which verifies by the bundle that comes with it."""
    with Wire(agent.socket) as wire:
        [svid] = wire.x509().svids
    chain = tuple(_each(svid.x509_svid))
    roots = _each(svid.bundle)
    assert WEB == verify_chain(chain, roots, DOMAIN, chain[0].not_valid_before_utc)
    return chain


def _each(der: bytes) -> list[x509.Certificate]:
    """Certificates that stand one behind the other."""
    found = []
    while der:
        size = 4 + int.from_bytes(der[2:4], "big") if der[1] == 0x82 else 0
        assert size, "a certificate of another length than ours have"
        found.append(x509.load_der_x509_certificate(der[:size]))
        der = der[size:]
    return found


def key_process(agent: AgentProcess) -> int:
    """The pid of the key process that runs now; 0: none does."""
    for each in Path("/proc").glob("[0-9]*"):
        try:
            words = (each / "cmdline").read_bytes().split(b"\0")
            parent = int((each / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == agent.pid and b"sojourn-keys" in words:
            return int(each.name)
    return 0


def condition(agent: AgentProcess) -> str:
    """What is wrong with the root's key by the agent's status; "": nothing is."""
    return next((each["found"] for each in agent.json("status")["faults"] if each["name"] == "root-key"), "")


def logged(agent: AgentProcess, event: str) -> list[dict]:
    return [each for each in agent.log_lines() if each.get("event") == event]


def test_made_once(agent: AgentProcess, token: SoftHsm) -> None:
    """The first start makes a key that never leaves the token; what a workload gets verifies, and so after a restart,
    with the same root.
    """
    assert [FIRST] == token.labels()
    [described] = token.objects()
    assert "never extractable" in described
    assert "PRIVATE KEY" not in root_file(agent)
    [uri] = [each["key_uri"] for each in agent.json("authority", "show")["keys"] if each["kind"] == "x509"]
    assert f"object={FIRST.replace('/', '%2F')};" in uri
    assert f"\n{uri}\n" in root_file(agent)
    assert uri in agent.run("authority", "show").stdout
    [tried] = agent.json("authority", "test")["roots"]
    assert (uri, "", True) == (tried["key"], tried["fault"], 0 < tried["seconds"] < 15)
    assert " ms" in agent.run("authority", "test").stdout
    fetched(agent)
    before = root_file(agent)
    agent.stop()
    agent.start()
    fetched(agent)
    assert (before, [FIRST]) == (root_file(agent), token.labels())
    assert {"root", "intermediate", "test"} == {each["fields"]["what"] for each in records(agent)}


def records(agent: AgentProcess) -> list[dict]:
    return agent.json("audit", "list", "--event", "root_signed")["records"]


def test_rotation(agent: AgentProcess, token: SoftHsm) -> None:
    """Prepare, activate, taint and revoke work as for a root that is a file; keys are never deleted."""
    first = agent.json("authority", "show")["keys"][0]["authority_id"]
    with Wire(agent.socket) as wire:
        stream = wire.x509_stream()
        assert _root(agent, first).subject == _each(next(stream).svids[0].x509_svid)[-1].issuer
        made = agent.json("authority", "prepare", "x509")["authority_id"]
        agent.run("authority", "activate", made)
        agent.run("authority", "taint", first)
        assert _root(agent, made).subject == fetched(agent)[-1].issuer
        agent.run("authority", "revoke", first)
        stream.cancel()
    fetched(agent)
    assert 1 == root_file(agent).count("BEGIN CERTIFICATE")
    assert [FIRST, FIRST[:-1] + "2"] == token.labels()
    agent.stop()
    agent.start()
    fetched(agent)


def _root(agent: AgentProcess, authority_id: str) -> x509.Certificate:
    block = next(each for each in root_file(agent).split("# ") if each.startswith(authority_id))
    return x509.load_pem_x509_certificate(block.encode())


def test_from_files(token: SoftHsm) -> None:
    """An agent whose root is a file goes over to a token by a rotation, and workloads that stay see nothing of it."""
    with AgentProcess(config=CONFIG) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        old = agent.json("authority", "show")["keys"][0]["authority_id"]
        agent.stop()
        agent.config.write_text(CONFIG + token.config())
        agent.start()
        assert [] == token.labels()
        fetched(agent)
        made = agent.json("authority", "prepare", "x509")["authority_id"]
        assert [FIRST] == token.labels()
        agent.run("authority", "activate", made)
        agent.run("authority", "taint", old)
        agent.run("authority", "revoke", old)
        fetched(agent)
        assert "PRIVATE KEY" not in root_file(agent)
        agent.stop()
        agent.config.write_text(CONFIG)
        with pytest.raises(RuntimeError, match="pkcs11"):
            agent.start()


def test_token_away(agent: AgentProcess, token: SoftHsm) -> None:
    """A token that goes away is told at once, and nothing of it is seen by workloads; when it is back, it is used anew."""
    token.unplug()
    until(lambda: condition(agent), "the token's absence is told", 60)
    fetched(agent)
    refused = agent.run("authority", "prepare", "x509", check=False)
    assert (1, True) == (refused.returncode, "[keys_unavailable]" in refused.stderr)
    assert logged(agent, "keys_unavailable")
    tried = agent.run("authority", "test", check=False)
    assert (1, True) == (tried.returncode, "has not signed" in tried.stdout)
    token.plug_in()
    until(lambda: not condition(agent), "the token is back", 120)
    agent.run("authority", "rotate", "x509", "--overlap", "1s")
    fetched(agent)
    assert "degraded" not in agent.run("agent", "health", check=False).stdout


def test_away_at_the_start(agent: AgentProcess, token: SoftHsm) -> None:
    """Without its token an agent starts, says what is missing to whoever asks, gives JWT-SVIDs, and goes on by itself."""
    agent.stop()
    token.unplug()
    agent.start()
    assert "unready" == agent.json("status")["state"]
    assert "no intermediate" in (shown := agent.run("authority", "show").stdout)
    assert "has no token, or cannot be used" in shown
    check_x509_unavailable(agent)
    token.plug_in()
    until(lambda: agent.json("status")["state"] == "ready", "it is ready", 120)
    fetched(agent)
    assert [FIRST] == token.labels()


def test_sealed_restart_without_the_token(agent: AgentProcess, token: SoftHsm) -> None:
    """With a seal key a restart asks nothing of the token: while it is away X.509-SVIDs are given by the same
    intermediate, and the agent says that it is degraded.
    """
    agent.stop()
    agent.config.write_text(CONFIG + token.config(f'seal_key = "{seal_key(agent)}"'))
    agent.start()
    before, signed = fetched(agent)[1:], len(records(agent))
    agent.stop()
    token.unplug()
    agent.start()
    assert before == fetched(agent)[1:]
    until(lambda: agent.json("status")["state"] == "degraded", "the token's absence is told", 60)
    assert signed == len(records(agent))


def seal_key(agent: AgentProcess) -> Path:
    """A file with a seal key, beside the agent's folder."""
    path = agent.folder / "seal-key"
    path.write_bytes(secrets.token_bytes(32))
    path.chmod(0o600)
    return path


@pytest.mark.root
def test_slow(tmp_path: Path) -> None:
    """A token that takes two seconds for a signature holds nobody up: while it signs, SVIDs are given and operators
    answered at once.
    """
    token = SlowToken(tmp_path / "hsm", 2)
    with AgentProcess(config=CONFIG + token.config()) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        fetched(agent)
        with ThreadPoolExecutor(1) as pool:
            tried = pool.submit(agent.json, "authority", "test")
            count, longest = 0, 0.0
            while not tried.done():
                begun = time.monotonic()
                fetched(agent)
                count, longest = count + 1, max(longest, time.monotonic() - begun)
        assert 2 <= tried.result()["roots"][0]["seconds"] < 15
        assert (True, True) == (count > 20, longest < 1)


def check_x509_unavailable(agent: AgentProcess) -> None:
    """A workload is told that there are no X.509-SVIDs for now, and by which code; it has JWT-SVIDs."""
    with Wire(agent.socket) as wire:
        with pytest.raises(grpc.RpcError) as refused:
            wire.x509()
        assert grpc.StatusCode.UNAVAILABLE == refused.value.code()
        assert "no valid intermediate" in refused.value.details()
        assert ("sojourn-code", "keys_unavailable") in refused.value.trailing_metadata()
        assert wire.jwt("audience").svids


def test_away_at_the_first_start(token: SoftHsm) -> None:
    """Also a first start opens the sockets while the token is away: it says what it waits for, gives JWT-SVIDs, is no
    loss to the next start, and goes on by itself when the token is there, with one key.
    """
    token.unplug()
    with AgentProcess(config=CONFIG + token.config()) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        for _ in range(2):
            assert "unready" == agent.json("status")["state"]
            assert "has no token, or cannot be used" in condition(agent)
            assert "root-key: the token" in agent.run("agent", "health", check=False).stdout
            assert "there is no root yet" in (shown := agent.run("authority", "show").stdout)
            assert "has no token, or cannot be used" in shown
            check_x509_unavailable(agent)
            assert [] == logged(agent, "root_lost")
            agent.stop()
            agent.start()
        health = agent.run("doctor", check=False).stdout
        assert "Traceback" not in health
        backup = command(agent, "backup", "create", "--to", str(agent.folder / "a.backup"))
        assert (1, True) == (backup.returncode, "has not made" in backup.stderr)
        token.plug_in()
        until(lambda: agent.json("status")["state"] == "ready", "it is ready", 120)
        fetched(agent)
        assert [FIRST] == token.labels()


def test_one_key_for_all_starts(token: SoftHsm) -> None:
    """However often an agent is killed before it has written what the token has made, one key is made."""
    with AgentProcess(config=CONFIG + token.config()) as agent:
        keys = agent.data_dir / "keys"
        for _ in range(3):
            agent.stop()
            (keys / "root.pem").unlink()
            (keys / "jwt.pem").unlink()
            (keys / "root-number").write_text("1")  # as one is left that was killed before it wrote root.pem
            agent.start()
            assert not (keys / "root-number").exists()
        assert [FIRST] == token.labels()


@pytest.mark.root
def test_full(token: SoftHsm) -> None:
    """A token that is full makes no key: that is told, what signs goes on, and the key process is neither ended nor
    asked again and again. The root is made once there is room.
    """
    with token.small(), AgentProcess(config=CONFIG + token.config()) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        before, pid = fetched(agent)[1:], key_process(agent)
        with full(token.tokens):
            refused = agent.run("authority", "prepare", "x509", check=False)
            assert (1, True) == (refused.returncode, "has it room?" in refused.stderr)
            assert before == fetched(agent)[1:]
            assert ("ready", pid) == (agent.json("status")["state"], key_process(agent))
        agent.run("authority", "rotate", "x509", "--overlap", "1s")
        fetched(agent)
        [active] = [
            each for each in agent.json("authority", "show")["keys"] if each["status"] == "active" and each["key_uri"]
        ]
        assert ("root%2F2;" in active["key_uri"], 2) == (True, len(token.labels()))


@pytest.mark.root
def test_full_at_the_first_start(token: SoftHsm) -> None:
    """With a full token the agent starts, says so, and has its root when there is room."""
    with token.small():
        with full(token.tokens), AgentProcess(config=CONFIG + token.config()) as agent:
            assert "has it room?" in agent.run("authority", "show").stdout
            assert "unready" == agent.json("status")["state"]
            assert 1 == len(logged(agent, "root_not_made"))
            agent.stop()
        with AgentProcess(config=CONFIG + token.config()) as agent:
            agent.register("/web", f"unix:uid:{os.getuid()}")
            fetched(agent)
            assert [FIRST] == token.labels()


def test_wrong_pin(agent: AgentProcess, token: SoftHsm) -> None:
    """A wrong PIN is tried once, over restarts of the agent too, is told by a code of its own and stands nowhere; the
    right one is tried as soon as it is in the file.
    """
    agent.stop()
    token.give_pin("999999")
    agent.start()
    assert "count low" in token.flags()  # a wrong one was tried
    assert {"pin_refused"} == {each["code"] for each in logged(agent, "keys_unavailable")}
    token.tool(
        "pkcs11-tool",
        "--module",
        "/usr/lib/softhsm/libsofthsm2.so",
        "--token-label",
        LABEL,
        "--login",
        "--pin",
        PIN,
        "-O",
    )
    assert "count low" not in token.flags()
    for _ in range(3):
        agent.stop()
        agent.start()
        until(lambda: "refused this PIN before" in condition(agent), "why it does not try", 60)
    assert "count low" not in token.flags()
    record = agent.data_dir / "keys" / "tried-pin"
    agent.stop()
    record.write_text(json.dumps([*json.loads(record.read_text())[:3], False]))  # as one that was killed as it tried it
    token.mistype("999999")
    agent.start()
    until(lambda: "not known what came of it" in condition(agent), "that it does not try", 60)
    assert json.loads(record.read_text())[3]
    assert "999999" not in agent.log.read_text() + (agent.data_dir / "keys" / "tried-pin").read_text()
    token.give_pin(PIN)
    until(lambda: agent.json("status")["state"] == "ready", "it is ready", 60)
    fetched(agent)
    assert not (agent.data_dir / "keys" / "tried-pin").exists()
    assert PIN not in agent.log.read_text()


def test_killed_and_hung(agent: AgentProcess) -> None:
    """A key process that is killed or stands still is followed by another one, and no workload sees it."""
    chance = random.Random(1)
    for each in (signal.SIGKILL, signal.SIGSTOP, signal.SIGKILL):
        pid = until(lambda: key_process(agent), "a key process runs", 60)
        time.sleep(chance.random())
        os.kill(pid, each)
        fetched(agent)
        until(lambda pid=pid: key_process(agent) not in {0, pid}, "another one runs", 90)  # type: ignore[misc]
        until(lambda: not condition(agent), "it is used", 60)
    agent.run("authority", "rotate", "x509", "--overlap", "1s")
    fetched(agent)
    agent.stop()
    assert [] == [each for each in agent.log_lines() if each["event"] in {"authority_not_renewed", "call_failed"}]


def test_what_the_process_is(agent: AgentProcess, token: SoftHsm) -> None:
    """The key process has no secret in its arguments and environment, no variable of the agent's, no capability, and
    ends with the agent.
    """
    pid = key_process(agent)
    folder = Path(f"/proc/{pid}")
    if os.geteuid() == 0:
        environment = (folder / "environ").read_bytes()
        assert f"SOFTHSM2_CONF={token.conf}".encode() in environment
        assert PIN.encode() not in environment
        assert b"HOME=" not in environment
    assert PIN.encode() not in (folder / "cmdline").read_bytes()
    status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
    assert ("0" * 16, "1", "2") == (status["CapEff"], status["NoNewPrivs"], status["Seccomp"])
    agent.kill()
    until(lambda: gone(pid), "it has ended", 30)


def test_no_key_anywhere(agent: AgentProcess, token: SoftHsm) -> None:
    """With a seal key no private key lies in clear in the data folder, a backup, or a file that is mapped; without one
    that is told. The backup says that the root's key is not in it, and is restored where the token is.
    """
    assert logged(agent, "keys_in_clear")
    seal = seal_key(agent)
    agent.stop()
    agent.config.write_text(CONFIG + token.config(f'seal_key = "{seal}"'))
    agent.start()
    fetched(agent)
    keys = agent.data_dir / "keys"
    assert "BEGIN CERTIFICATE" in root_file(agent)
    made = done(agent, "backup", "create", "--to", str(agent.folder / "a.backup"), "--seal-key", str(seal))
    assert made["root_in_token"]
    files = [each for each in agent.folder.rglob("*") if each.is_file() and not each.is_socket()]
    assert [] == [each for each in files if b"BEGIN PRIVATE KEY" in each.read_bytes()]
    for name in ("jwt.pem", "intermediates.pem"):
        assert b"SEALED KEY" in (keys / name).read_bytes()
    before = root_file(agent)
    agent.stop()
    agent.start()
    assert before == root_file(agent)
    agent.stop()
    done(agent, "restore", made["file"], "--accept-loss", "--seal-key", str(seal))
    agent.start()
    fetched(agent)
    assert (before, [FIRST]) == (root_file(agent), token.labels())


def test_on_a_tpm(tmp_path: Path) -> None:
    """A token of a TPM's does as well: its library takes the key that is asked for, and finds it again after a restart."""
    with SoftTpm(tmp_path / "tpm") as tpm, AgentProcess(config=CONFIG + tpm.config()) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        fetched(agent)
        before = root_file(agent)
        assert ("PRIVATE KEY" not in before, True) == (True, "token=tpm;" in before)
        agent.stop()
        tpm.make_room()
        agent.start()
        fetched(agent)
        assert before == root_file(agent)
        agent.run("authority", "prepare", "x509")
        assert "root%2F2;" in root_file(agent)


def test_a_tpm_away_slow_and_back(tmp_path: Path) -> None:
    """A TPM that is taken away, stands still and comes back is no loss to workloads: it is told, and then used anew."""
    with SoftTpm(tmp_path / "tpm") as tpm, AgentProcess(config=CONFIG + tpm.config()) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        fetched(agent)
        before = root_file(agent)
        tpm.unplug()
        until(lambda: condition(agent), "the TPM's absence is told", 60)
        fetched(agent)
        refused = agent.run("authority", "prepare", "x509", check=False)
        assert (1, True) == (refused.returncode, "[keys_unavailable]" in refused.stderr)
        tpm.plug_in()
        until(lambda: not condition(agent), "the TPM is back", 120)
        with ThreadPoolExecutor(1) as pool:
            tpm.hold(signal.SIGSTOP)
            tried = pool.submit(agent.json, "authority", "test")
            until(lambda: fetched(agent) and tried.running(), "workloads are served while it stands still", 60)
            tpm.hold(signal.SIGCONT)
            assert tried.result()["roots"][0]["seconds"] > 0
        assert before == root_file(agent)


def test_a_wrong_pin_at_a_tpm(tmp_path: Path) -> None:
    """A TPM counts one failure for a wrong PIN, however often the agent is started: enough of them would lock it."""
    with SoftTpm(tmp_path / "tpm") as tpm, AgentProcess(config=CONFIG + tpm.config()) as agent:
        agent.register("/web", f"unix:uid:{os.getuid()}")
        fetched(agent)
        agent.stop()
        tpm.make_room()
        before = tpm.failures()
        tpm.pin.write_text("111111")
        for _ in range(3):
            agent.start()
            assert "keys_unavailable" in {each["event"] for each in agent.log_lines()}
            agent.stop()
            tpm.make_room()
            assert before + 1 == tpm.failures()
        tpm.pin.write_text(PIN_OF_TPM)
        agent.start()
        until(lambda: agent.json("status")["state"] == "ready", "it is ready", 60)
        fetched(agent)
        assert before + 1 == tpm.failures()


def test_lists(agent: AgentProcess) -> None:
    """A revoked SVID whose intermediate was lost by a restart stands in a list that the root in the token has signed."""
    leaf = fetched(agent)[0]
    agent.stop()
    agent.start()
    agent.run("svid", "revoke", "--serial", f"{leaf.serial_number:x}")

    def listed() -> x509.CertificateRevocationList | None:
        with Wire(agent.socket) as wire:
            found = [x509.load_der_x509_crl(each) for each in wire.x509().crl]
        return next((each for each in found if each.get_revoked_certificate_by_serial_number(leaf.serial_number)), None)

    made = until(listed, "the list is there", 60)
    root = x509.load_pem_x509_certificate(root_file(agent).partition("\n")[2].encode())
    assert made is not None
    assert made.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert "list" in {each["fields"]["what"] for each in records(agent)}
