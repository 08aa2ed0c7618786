"""Agents that follow partners: the commands, and what a workload of theirs has of the partner."""

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sojourn._pb import workload_pb2 as workload
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.x509svid import X509Svid, parse_certificates

from harness.agent import AgentProcess
from harness.bundleserver import BundleServer, Partner
from harness.keeper import wait_or_kill
from harness.looking import until
from harness.ports import free_port
from harness.raw import WORKLOAD_API, Wire


def follow(agent: AgentProcess, partner: Partner, server: BundleServer, folder: Path) -> dict[str, Any]:
    """Have an agent follow a partner by https_spiffe, from the partner's bundle of now on."""
    first = folder / f"{partner.name}.json"
    first.write_bytes(partner.document())
    return follow_at(agent, partner.name, server.url, partner.endpoint_id, first)


def follow_at(agent: AgentProcess, domain: str, url: str, endpoint_id: str, first: Path) -> dict[str, Any]:
    return agent.json(  # type: ignore[no-any-return]
        "federation", "create", domain, "--url", url, "--profile", "https_spiffe", "--endpoint-id", endpoint_id,
        "--bundle", str(first),
    )  # fmt: skip


def friend(agent: AgentProcess, *domains: str, of: str = "example.org") -> None:
    """Give this process an identity that federates with trust domains whose bundles are there."""
    arguments = [word for domain in domains for word in ("--federates-with", domain)]
    agent.run(
        "entry", "create", "--spiffe-id", f"spiffe://{of}/friend", "--selector", f"unix:uid:{os.getuid()}", *arguments
    )


def fetched(agent: AgentProcess, domain: str) -> dict[str, Any]:
    """How a relationship fares, once it was fetched."""

    def look() -> dict[str, Any] | None:
        shown: dict[str, Any] = agent.json("federation", "show", domain)
        return shown if shown["fetched_at"] else None

    found = until(look, f"the bundle of {domain} is fetched")
    assert found is not None
    return found


def roots(message: Any, domain: str) -> list[x509.Certificate]:
    """The X.509 authorities of a trust domain in an answer of FetchX509Bundles."""
    return list(parse_certificates(message.bundles[f"spiffe://{domain}"]))


def jwt_keys(wire: Wire, domain: str) -> list[str]:
    """The ids of the JWT keys of a trust domain that a workload has."""
    answer = wire.first(WORKLOAD_API + "FetchJWTBundles", workload.JWTBundlesRequest(), workload.JWTBundlesResponse)
    return [key["kid"] for key in json.loads(answer.bundles[f"spiffe://{domain}"])["keys"]]


def own_svid(agent: AgentProcess, folder: Path, spiffe_id: str) -> X509Svid:
    """The X.509-SVID that an agent gives this process."""
    folder.mkdir(exist_ok=True)
    told = agent.json("svid", "x509", "--write", str(folder))
    assert spiffe_id in [each["spiffe_id"] for each in told["svids"]]
    number = [each["spiffe_id"] for each in told["svids"]].index(spiffe_id)
    chain = x509.load_pem_x509_certificates((folder / f"svid.{number}.pem").read_bytes())
    key: Any = load_pem_private_key((folder / f"svid.{number}.key").read_bytes(), None)
    return X509Svid(SpiffeId.parse(spiffe_id), tuple(chain), key)


class SpireServer:
    """A real spire-server that serves its bundle by https_spiffe. Use as a context manager."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        trust_domain: str = "spire.example",
        x509pop_ca: Path | None = None,
        *,
        lines: str = "",
        plugins: str = "",
        keys_stay: bool = False,
        under: Sequence[str] = (),
    ) -> None:
        """`x509pop_ca`: a PEM file of the authorities whose certificates make a machine a node. `lines`, `plugins`:
        more of its settings and plugins. `keys_stay`: it has the same authorities when it is started again.
        `under`: a command that becomes the one which follows it.
        """
        keys = f'KeyManager "disk" {{ plugin_data {{ keys_path = "{folder}/data/keys.json" }} }}'
        keys = keys if keys_stay else 'KeyManager "memory" { plugin_data {} }'
        self._binary = binary
        self._under = under
        self.trust_domain = trust_domain
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.socket = str(folder / "server.sock")
        self.log = folder / "server.log"
        self._config = folder / "server.conf"
        self.node_port, self.port = free_port(), free_port()
        self._config.write_text(f"""
server {{
    bind_address = "127.0.0.1"
    bind_port = "{self.node_port}"
    socket_path = "{self.socket}"
    trust_domain = "{trust_domain}"
    data_dir = "{folder}/data"
    log_level = "DEBUG"
    {lines}
    federation {{
        bundle_endpoint {{
            address = "127.0.0.1"
            port = {self.port}
            refresh_hint = "10s"
            profile "https_spiffe" {{}}
        }}
    }}
}}
plugins {{
    DataStore "sql" {{
        plugin_data {{
            database_type = "sqlite3"
            connection_string = "{folder}/data/datastore.sqlite3"
        }}
    }}
    {keys}
    NodeAttestor "join_token" {{
        plugin_data {{}}
    }}
    {"" if x509pop_ca is None else f'NodeAttestor "x509pop" {{ plugin_data {{ ca_bundle_path = "{x509pop_ca}" }} }}'}
    {plugins}
}}
""")
        (folder / "data").mkdir(exist_ok=True)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def endpoint_id(self) -> str:
        return f"spiffe://{self.trust_domain}/spire/server"

    def __enter__(self) -> "SpireServer":
        with self.log.open("w") as log:
            command = [*self._under, self._binary, "run", "-config", str(self._config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: self.run("healthcheck", check=False).returncode == 0, "the SPIRE server is healthy", 90)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        wait_or_kill(self.process, 15)

    def run(self, *arguments: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        count = next((n for n, each in enumerate(arguments) if each.startswith("-")), len(arguments))
        command = [self._binary, *arguments[:count], "-socketPath", self.socket, *arguments[count:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        if check and done.returncode:
            raise AssertionError(f"{arguments}: {done.stdout}{done.stderr}\n{self.log.read_text()[-2000:]}")
        return done

    def bundle(self) -> str:
        """Its bundle as a SPIFFE document."""
        return self.run("bundle", "show", "-format", "spiffe").stdout
