"""Keys that lie on disk sealed: a real agent that seals them, goes on with them, and has none in clear anywhere."""

import json
import re
import secrets
import shutil
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from harness.agent import AgentProcess
from harness.backups import command, done
from harness.raw import Wire
from sojourn.authority.key_seal import KeySeal
from sojourn.authority.keys_at_rest import MARKER

CONFIG = 'trust_domain = "example.org"\n[authority]\nrs256 = true\n[identity]\nwit_svids = true\n'
_PEM = re.compile(b"-----BEGIN PRIVATE KEY-----.*?-----END PRIVATE KEY-----\n", re.DOTALL)


def sealed_by(agent: AgentProcess, manager: str = "sealed", key: str = "seal-key") -> str:
    return f'{CONFIG}[keys]\nmanager = "{manager}"\nseal_key = "{agent.folder / key}"\n'


@pytest.fixture
def agent() -> Iterator[AgentProcess]:
    """One with each kind of key, which lie in clear, and two files that keys may be sealed with."""
    with AgentProcess(config=CONFIG) as made:
        for name in ("seal-key", "other-key"):
            (made.folder / name).write_bytes(secrets.token_bytes(32))
            (made.folder / name).chmod(0o600)
        made.register("/agent/triage", f"unix:uid:{Path('/proc/self').stat().st_uid}")
        yield made


def clear_keys(agent: AgentProcess) -> dict[str, bytes]:
    """All that a key of the agent's lies on disk as, by the name of its file: as it is read and written."""
    seal = KeySeal.at(agent.folder / "seal-key")
    found = {}
    for path in (agent.data_dir / "keys").iterdir():
        content = path.read_bytes()
        if path.name not in {"sequence", MARKER}:
            found[path.name] = seal.open(path.name, content) if b"SEALED KEY" in content else content
    return found


def forms(content: bytes) -> list[bytes]:
    """What private keys are known by in binary and text: of those in PEM each encoding and the number itself."""
    pems = _PEM.findall(content)
    if not pems:
        return [content, content.hex().encode(), b64encode(content)[:40]]
    found = []
    for pem in pems:
        key = load_pem_private_key(pem, None)
        ders = [key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())]
        if isinstance(key, ec.EllipticCurvePrivateKey):
            found.append(key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big"))
            ders.append(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        elif isinstance(key, Ed25519PrivateKey):
            found.append(key.private_bytes_raw())
        found += [each for der in ders for each in (der, _line_of(b64encode(der)))]
        found += [each.hex().encode() for each in found[:1]]
    return found


def _line_of(text: bytes) -> bytes:
    """A line of PEM that no other key has."""
    lines = [text[begin : begin + 64] for begin in range(0, len(text), 64)]
    return lines[1] if len(lines) > 2 else lines[0]


def in_clear(agent: AgentProcess) -> list[tuple[str, str]]:
    """Which keys are found in which files below the agent's folder, those that seal apart."""
    files = {path: path.read_bytes() for path in agent.folder.rglob("*") if path.is_file() and not path.is_socket()}
    return [
        (name, path.name)
        for name, content in clear_keys(agent).items()
        for path, octets in files.items()
        if any(form in octets for form in forms(content))
    ]


def configured(agent: AgentProcess, config: str) -> None:
    """Have the agent stopped, with this for its next start."""
    if agent.process is not None:
        agent.stop()
    agent.config.write_text(config)


@pytest.mark.forked
def test_sealed_and_back(agent: AgentProcess) -> None:
    """Keys in clear are sealed at a start, with the same SVIDs and bundle afterwards, and the other way round; after that
    no file of the agent has one of them in clear.
    """
    with Wire(agent.socket) as wire:
        wire.jwt("audience")
    before, keys = agent.json("authority", "show")["keys"], clear_keys(agent)
    assert {"root.pem", "jwt.pem", "jwt-rs256.pem", "wit.pem", "audit.key", "people.key"} <= set(keys)
    assert set(keys) <= {name for name, _ in in_clear(agent)}  # they are found, if they are there
    configured(agent, sealed_by(agent))
    agent.start()
    assert before == agent.json("authority", "show")["keys"]
    assert keys == clear_keys(agent)
    assert [] == in_clear(agent)
    [told] = agent.json("audit", "list", "--event", "keys_sealed")["records"]
    assert set(keys) == set(told["fields"]["files"].split(", "))
    agent.run("authority", "prepare", "x509")
    agent.run("authority", "prepare", "jwt")
    agent.run("audit", "rotate-key")
    agent.stop()
    agent.start()
    assert keys.keys() == clear_keys(agent).keys()
    assert [] == in_clear(agent)
    configured(agent, sealed_by(agent, "file"))
    agent.start()
    assert set(keys) <= {name for name, _ in in_clear(agent)}
    configured(agent, CONFIG)
    agent.start()
    agent.run("audit", "verify")


@pytest.mark.parametrize("config", ["none", "another"])
def test_without_the_key(agent: AgentProcess, config: str) -> None:
    """Without the key that sealed them, or with another, the agent does not start, says why, and makes no new keys."""
    configured(agent, sealed_by(agent))
    agent.start()
    configured(agent, CONFIG if config == "none" else sealed_by(agent, key="other-key"))
    before = {path.name: path.read_bytes() for path in (agent.data_dir / "keys").iterdir()}
    with pytest.raises(RuntimeError, match=r"keys\.seal_key"):
        agent.start()
    assert before == {path.name: path.read_bytes() for path in (agent.data_dir / "keys").iterdir()}
    configured(agent, sealed_by(agent))
    agent.start()


@pytest.mark.forked
def test_backups(agent: AgentProcess) -> None:
    """A backup of sealed keys needs their key, has none in clear, and is restored here by it and elsewhere without."""
    configured(agent, sealed_by(agent))
    agent.start()
    refused = command(agent, "backup", "create", "--to", str(agent.folder / "no.backup"))
    assert (1, True) == (refused.returncode, "--seal-key" in refused.stderr)
    seal = ("--seal-key", str(agent.folder / "seal-key"))
    made = Path(done(agent, "backup", "create", "--to", str(agent.folder / "agent.backup"), *seal)["file"])
    assert [] == in_clear(agent)
    agent.stop()
    refused = command(agent, "restore", str(made), "--accept-loss")
    assert (1, True) == (refused.returncode, "--seal-key" in refused.stderr)
    done(agent, "restore", str(made), "--accept-loss", *seal)
    assert [] == in_clear(agent)
    root = clear_keys(agent)["root.pem"]
    agent.start()
    assert [] == in_clear(agent)
    with AgentProcess(config=CONFIG) as other:
        other.stop()
        shutil.rmtree(other.data_dir)
        other.data_dir.mkdir(mode=0o700)
        shutil.copy(made, other.folder / "agent.backup")
        done(other, "restore", str(other.folder / "agent.backup"))
        other.start()
        assert root == (other.data_dir / "keys" / "root.pem").read_bytes()


def test_by_the_configuration(agent: AgentProcess) -> None:
    """A command beside the agent takes the key that the configuration names, where that is a file."""
    configured(agent, f'data_dir = "{agent.data_dir}"\n{sealed_by(agent)}')
    agent.start()
    passphrase = agent.folder / "passphrase"
    passphrase.write_text("correct horse battery staple")
    passphrase.chmod(0o600)
    made = agent.folder / "by-config.backup"
    said = agent.run(
        *("backup", "create", "--to", str(made), "--config", str(agent.config), "--output", "json"),
        *("--passphrase-file", str(passphrase)),
    )
    assert str(made) == json.loads(said.stdout)["file"]
