"""This process as a node of a real spire-server, or of a server of ours, and what a test looks for in it."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from sojourn.jose import strict_json
from sojourn.runtime.clock import Alarms, SystemClock
from sojourn.spiffe import bundle as bundles
from sojourn.spiffe.bundle import Bundle
from sojourn.spiffe.ids import TrustDomain
from sojourn.upstream.node import NodeSettings, SpireNode
from sojourn.upstream.node_attestation import JoinToken, X509PopFiles

from harness.federating import SpireServer
from harness.servers import ServerProcess
from harness.spirecli import binary

T = TypeVar("T")
NodeServer = SpireServer | ServerProcess
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def server_of(whose: str, folder: Path, x509pop_ca: Path | None = None, *, node_ttl: str = "1h") -> NodeServer:
    """A server that has the same keys when it is started again. `whose`: spire or sojourn. `node_ttl`: the life of what
    it gives its nodes.
    """
    if whose == "sojourn":
        return ServerProcess(folder, x509pop_ca=x509pop_ca, node_svid_ttl=node_ttl)
    lines = f'agent_ttl = "{node_ttl}"'
    return SpireServer(binary("spire-server"), folder, x509pop_ca=x509pop_ca, lines=lines, keys_stay=True)


class Machines:
    """A certificate authority of the machines, as an operator has one: a server's x509pop trusts it."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._signed("machines", self.key.public_key(), ca=True)

    def machine(self, key: Key, name: str = "machine-7") -> x509.Certificate:
        return self._signed(name, key.public_key(), ca=False)

    def files(self, folder: Path, key: Key, name: str = "machine-7") -> X509PopFiles:
        """A machine's certificate and key as files, of which the key is the owner's alone."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.machine(key, name).public_bytes(Encoding.PEM))
        private.touch(0o600)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return X509PopFiles(certificate, private)

    def _signed(self, name: str, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "machines")])
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )


class RunningNode:
    """A node that polls each half second. Use as an async context manager; `stop` and `begin` are a restart."""

    def __init__(self, server: NodeServer, folder: Path, attestor: Any = None, **changes: Any) -> None:
        """`attestor`: None for a token of the server's. `changes`: other settings than what they are here."""
        made = token(server) if attestor is None else None
        given = {
            "servers": [f"127.0.0.1:{server.node_port}"],
            "bootstrap": bundle_of(server),
            "attestor": attestor or (lambda: made),
            "folder": folder / "node",
            "poll": timedelta(seconds=0.5),
            **changes,
        }
        self.server = server
        self.settings = NodeSettings(**given)

    async def __aenter__(self) -> Self:
        await self.begin()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def begin(self) -> None:
        clock = SystemClock()
        alarms = Alarms(clock)
        self.node = SpireNode(self.settings, clock, alarms)
        self.lost: set[str] = set()
        self.refused: list[str] = []
        self.node.on_bundle(lambda _bundle, lost: self.lost.update(lost))
        self.node.on_refused(lambda refusal: self.refused.append(refusal.reason_code))
        self._ringing = asyncio.ensure_future(alarms.run())
        await self.node.start()
        self._running = asyncio.ensure_future(self.node.run())

    async def stop(self) -> None:
        assert not self._running.done(), self._running  # nothing ends a node
        self._running.cancel()
        await asyncio.wait({self._running})
        await self.node.close()
        self._ringing.cancel()
        await asyncio.wait({self._ringing})

    async def register(self, *paths: str) -> None:
        """Register workloads, and wait until the node has them: the server's own cache is rebuilt every five seconds."""
        await register(self.server, str(self.node.spiffe_id), paths)
        await until(lambda: set(paths) <= {each.spiffe_id.path for each in self.node.entries.values()}, "entries come")

    def entry(self, path: str) -> Any:
        return next(each for each in self.node.entries.values() if each.spiffe_id.path == path)


async def until(look: Callable[[], T], what: str, seconds: float = 40.0) -> T:
    """Look until it is true, while others go on. Raise AssertionError."""
    ends = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < ends, f"not within {seconds} s: {what}; last seen: {seen!r}"
        await asyncio.sleep(0.05)
    return seen


async def command(server: NodeServer, *arguments: str) -> str:
    """Run one of the server's commands, while others go on."""
    done = await asyncio.to_thread(server.run, *arguments)
    return done.stdout


async def register(server: NodeServer, parent: str, paths: tuple[str, ...] | list[str]) -> None:
    """Many entries by one command."""
    file = Path(server.socket).with_name(f"entries-{abs(hash(tuple(paths)))}.json")
    made = [
        {
            "spiffe_id": f"spiffe://{server.trust_domain}{path}",
            "parent_id": parent,
            "selectors": [{"type": "unix", "value": f"user:{path.strip('/').replace('/', '-')}"}],
        }
        for path in paths
    ]
    file.write_text(json.dumps({"entries": made}))
    await command(server, "entry", "create", "-data", str(file))


def bundle_of(server: NodeServer) -> Bundle:
    return bundles.parse(TrustDomain.parse(server.trust_domain), strict_json.loads(server.bundle()))


def token(server: NodeServer) -> JoinToken:
    return JoinToken(server.run("token", "generate").stdout.split()[1])
