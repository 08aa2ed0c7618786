"""A real spire-agent beside a real spire-server, or a server of ours, on one machine."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from sojourn.upstream.node_attestation import X509PopFiles

from harness.keeper import wait_or_kill
from harness.looking import until
from harness.spirenode import NodeServer


class SpireAgent:
    """Attests by the kernel alone, and is let in by a join token. Use as a context manager."""

    def __init__(
        self,
        binary: str,
        server: NodeServer,
        folder: Path,
        x509pop: X509PopFiles | None = None,
        *,
        k8s_psat: tuple[str, Path] | None = None,
        under: Sequence[str] = (),
    ) -> None:
        """`x509pop`: a machine's certificate and key, by which it joins in the place of a token. `k8s_psat`: its
        cluster and the file with a pod's token, likewise. `under`: a command that becomes the one which follows it.
        """
        self._under = under
        self._binary, self._server = binary, server
        self._by_token = x509pop is None and k8s_psat is None
        folder.mkdir(parents=True, exist_ok=True)
        self.socket = str(folder / "api.sock")
        self.log = folder / "agent.log"
        self._config = folder / "agent.conf"
        (folder / "data").mkdir(exist_ok=True)
        self._config.write_text(f"""
agent {{
    data_dir = "{folder}/data"
    log_level = "DEBUG"
    server_address = "127.0.0.1"
    server_port = "{server.node_port}"
    socket_path = "{self.socket}"
    trust_domain = "{server.trust_domain}"
    insecure_bootstrap = true
}}
plugins {{
    {_attestor(x509pop, k8s_psat)}
    KeyManager "memory" {{
        plugin_data {{}}
    }}
    WorkloadAttestor "unix" {{
        plugin_data {{}}
    }}
}}
""")

    def __enter__(self) -> "SpireAgent":
        command = [*self._under, self._binary, "run", "-config", str(self._config)]
        if self._by_token:
            command += ["-joinToken", self._server.run("token", "generate").stdout.split()[1]]  # behind `Token:`
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until(self._healthy, "the SPIRE agent is healthy", 30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        command = [self._binary, "healthcheck", "-socketPath", self.socket]
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        wait_or_kill(self.process, 15)

    @property
    def spiffe_id(self) -> str:
        """The agent's own ID, which its entries have as parent."""
        shown = self._server.run("agent", "list").stdout
        return next(line.split()[-1] for line in shown.splitlines() if line.startswith("SPIFFE ID"))


def _attestor(x509pop: X509PopFiles | None, k8s_psat: tuple[str, Path] | None) -> str:
    if k8s_psat is not None:
        cluster, file = k8s_psat
        return f'NodeAttestor "k8s_psat" {{ plugin_data {{ cluster = "{cluster}" token_path = "{file}" }} }}'
    if x509pop is None:
        return 'NodeAttestor "join_token" { plugin_data {} }'
    said = f'private_key_path = "{x509pop.key}"\n certificate_path = "{x509pop.certificate}"'
    return f'NodeAttestor "x509pop" {{ plugin_data {{ {said} }} }}'
