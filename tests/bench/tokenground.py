"""An agent for the lines about tokens, and the requests that are put on its token service."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from beside import Subject
from ground import TRIAGE, Admin, entry
from harness.agent import AgentProcess
from harness.exchanges import ACCESS_TOKEN, form
from harness.exchanges import GRANT as EXCHANGE
from harness.taskagent import CONFIG, ISSUER, PLACE_A, write_type
from harness.taskagent import TRIAGE as TRIAGE_ID
from httpload import Step, Work
from sojourn import SyncClient

# Those of one token end by themselves soon, so that there are never too many: each exchange of a JWT-SVID begins one.
ONCE = "once"
TYPES = {"docs": "1h", ONCE: "3s"}
TYPE = f"""
allowed_workloads = ["{TRIAGE_ID}"]
max_duration = "{{longest}}"
[[ceiling]]
resource = "{{resource}}"
actions = ["doc:read", "doc:write"]
"""
SVID_SECONDS = 3600  # longer than any line takes: one JWT-SVID is shown again and again
POLICY = '@id("all") permit (principal, action, resource);'


@dataclass(frozen=True)
class TokenGround:
    """A running agent, this process as its workload, and PEM files: a web server's certificate and key, and the
    workload's X.509-SVID with its key.
    """

    agent: AgentProcess
    client: SyncClient
    roots: str
    key: str
    pair: str

    @property
    def gid(self) -> int:
        return os.getgid()

    @property
    def subject(self) -> Subject:
        return Subject("Sojourn", {"agent": self.agent.pid}, self.agent.socket)

    def work(self, *steps: Step, before: Sequence[Step] = (), tls: bool = False) -> Work:
        if tls:
            port = self.agent.https.rpartition(":")[2]
            return Work(f"https://localhost:{port}", steps, before, roots=self.roots, pair=self.pair)
        return Work("http://localhost", steps, before, socket=self.agent.socket)

    def from_svid(self, kind: str, *actions: str) -> Step:
        """A JWT-SVID for a token, which begins a task of its own that is of this type."""
        details = json.dumps([{"type": kind, "actions": actions, "locations": [PLACE_A]}])
        subject = self.client.fetch_jwt_svid(ISSUER).token
        return Step.form("/token", form(subject, audience=PLACE_A, authorization_details=details))

    def client_credentials(self, kind: str, *actions: str) -> Step:
        """A token for the client itself, as it has authenticated: a task of its own is begun."""
        details = json.dumps([{"type": kind, "actions": actions, "locations": [PLACE_A]}])
        return Step.form("/token", {"grant_type": "client_credentials", "authorization_details": details})

    def wider(self) -> Step:
        """For `before`: a token that can be exchanged for a narrower one."""
        return self.from_svid("docs", "doc:read", "doc:write")

    def narrower(self) -> Step:
        """A task's token for a narrower one, as clients of other servers do it again and again."""
        fields = {"grant_type": EXCHANGE, "subject_token": "{token}", "subject_token_type": ACCESS_TOKEN}
        return Step.form("/token", {**fields, "resource": PLACE_A, "scope": "doc:read"})

    def introspection(self) -> Step:
        return Step.form("/introspect", {"token": "{token}"}, want='"active":true')


@contextmanager
def token_ground(resource: str = PLACE_A) -> Iterator[TokenGround]:
    """With an HTTPS listener whose certificate is a web server's, and with task types for `resource`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        certificate, key = folder / "web.pem", folder / "web.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", "/CN=localhost", "-days", "2", "-addext", "subjectAltName=DNS:localhost"]
        subprocess.run([*command, "-out", certificate, "-keyout", key], check=True, capture_output=True, timeout=30)
        listen = f'\n[listen]\nhttps = "127.0.0.1:0"\nhttps_certificate = "{certificate}"\nhttps_key = "{key}"\n'
        listen += f'[[services]]\nresource = "{PLACE_A}"\nworkloads = ["{TRIAGE_ID}"]\n'
        agent = AgentProcess(config=CONFIG.format(level="warning") + listen)
        types = agent.folder / "types"
        types.mkdir()
        for kind, longest in TYPES.items():
            write_type(types, kind, TYPE.format(longest=longest, resource=resource), POLICY)
        with agent, Admin(agent.admin_socket) as admin, SyncClient(agent.socket) as client:
            workload = entry(TRIAGE)
            workload.jwt_svid_ttl = SVID_SECONDS
            admin.create([workload])
            agent.run("svid", "x509", "--write", str(folder))
            pair = folder / "pair.pem"
            pair.write_bytes(b"".join((folder / each).read_bytes() for each in ("svid.0.pem", "svid.0.key")))
            yield TokenGround(agent, client, str(certificate), str(key), str(pair))
