"""A real Keycloak to compare the token service with, at which JWT-SVIDs of our own agent are clients' credentials."""

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy" / "demo"))

from beside import Subject
from figures import Missing
from ground import Admin, Bench, entry
from harness.keycloak import BundleServer
from httpload import Step, Work, http_load
from keycloak_realm import Realm
from keycloak_server import Keycloak
from peers import KEYCLOAK
from tokenground import ACCESS_TOKEN, EXCHANGE, SVID_SECONDS, TokenGround

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
WORKLOAD, SERVICE = "agent", "orders"  # clients of the realm
WORKLOAD_PATH, SERVICE_PATH = "/agent/orders", "/service/orders"
FRESH_SECONDS = 20.0
SCOPE = "orders.read"
TOKEN_SECONDS = 900
JAVA_LEAST = 17
HEAP = "-Xms64m -Xmx512m"  # its own default
WARM_CALLS, WARM_SECONDS = 12_000, 60.0  # it compiles what is called often, and is slow until then
SLICE_SECONDS = 1.0


def _check_java() -> None:
    """Raise Missing if there is none that runs it."""
    java = shutil.which("java")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""
    version = told.partition('"')[2].partition(".")[0]
    if not version.isdecimal() or int(version) < JAVA_LEAST:
        raise Missing(f"there is no Java {JAVA_LEAST} or newer: install it (Debian, Ubuntu: openjdk-17-jre-headless)")


@dataclass(frozen=True)
class KeycloakPeer:
    """A running one, which refuses JWT-SVIDs that were made some minutes ago: steps are for a load that begins now."""

    keycloak: Keycloak
    realm: Realm
    certificate: str
    site: TokenGround
    start_seconds: float
    _made: dict[str, tuple[float, str]] = field(default_factory=dict, repr=False)  # by path and audience

    @property
    def subject(self) -> Subject:
        return Subject("Keycloak", {"server": self.keycloak.pid}, self.keycloak.base)

    def work(self, *steps: Step, before: Sequence[Step] = (), tls: bool = False) -> Work:
        if tls:
            return Work(_by_name(self.keycloak.secure_base), steps, before, roots=self.certificate)
        return Work(self.keycloak.base, steps, before)

    @property
    def _path(self) -> str:
        return f"{urlsplit(self.realm.issuer).path}/protocol/openid-connect/token"

    def first(self, *, tls: bool = False) -> Step:
        """A JWT-SVID for a token of the workload's client."""
        return Step.form(self._path, {"grant_type": "client_credentials", **self._client(WORKLOAD_PATH, tls=tls)})

    def exchange(self, *, tls: bool = False) -> Step:
        """Such a token for one for the service, with a scope that is asked for."""
        fields = {"grant_type": EXCHANGE, "subject_token": "{token}", "subject_token_type": ACCESS_TOKEN}
        return Step.form(
            self._path, {**fields, "audience": SERVICE, "scope": SCOPE, **self._client(WORKLOAD_PATH, tls=tls)}
        )

    def introspection(self) -> Step:
        """By the service that the token is for."""
        fields = {"token": "{token}", **self._client(SERVICE_PATH)}
        return Step.form(f"{self._path}/introspect", fields, want='"active":true')

    def _client(self, path: str, *, tls: bool = False) -> dict[str, str]:
        """Client authentication by this SPIFFE ID. The realm has another name by TLS."""
        secure = _by_name(self.keycloak.secure_base)
        audience = self.realm.issuer.replace(self.keycloak.base, secure) if tls else self.realm.issuer
        made_at, svid = self._made.get(path + audience, (0.0, ""))
        if monotonic() - made_at > FRESH_SECONDS:
            svid = _svid(self.site, path, audience)
            self._made[path + audience] = monotonic(), svid
        return {"client_assertion_type": ASSERTION, "client_assertion": svid}

    def warm(self, bench: Bench) -> int:
        """Have it do all that will be measured, and return how often it did."""
        calls, until = 0, monotonic() + (WARM_SECONDS if bench.full else 5)
        works = [
            self.work(self.first(), self.exchange()),
            self.work(self.introspection(), before=[self.first(), self.exchange()]),
        ]
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(http_load({"Keycloak": work}, 8)) for work in works]
            while calls < WARM_CALLS and monotonic() < until:
                bench.say(f"Keycloak warms up: {calls:,} calls")
                calls += sum(load(self.subject, SLICE_SECONDS).calls for load in loads)
        return calls


def _by_name(base: str) -> str:
    return base.replace("127.0.0.1", "localhost")  # which is what the certificate says


@contextlib.contextmanager
def keycloak_beside(site: TokenGround) -> Iterator[KeycloakPeer]:
    """One that trusts the agent of `site`, with the web certificate of that. Raise Missing."""
    _check_java()
    (home,) = KEYCLOAK.there()
    with tempfile.TemporaryDirectory(prefix="sojourn-keycloak-") as name:
        keycloak = Keycloak(home, Path(name) / "home", certificate=Path(site.roots), key=Path(site.key), heap=HEAP)
        began = monotonic()
        with keycloak, BundleServer(lambda: document) as bundles:
            ready = monotonic() - began
            document = site.agent.run("bundle", "show", "--format", "spiffe").stdout.encode()
            realm = Realm(keycloak.base, "bench", keycloak.admin_password)
            realm.ensure(token_seconds=TOKEN_SECONDS)
            realm.trust("example.org", bundles.url)
            realm.service(SERVICE, f"spiffe://example.org{SERVICE_PATH}")
            realm.workload(WORKLOAD, f"spiffe://example.org{WORKLOAD_PATH}", [SERVICE], [SCOPE])
            yield KeycloakPeer(keycloak, realm, site.roots, site, ready)


def _svid(site: TokenGround, path: str, audience: str) -> str:
    """A new JWT-SVID of this SPIFFE ID, for which this process has an entry no longer than that takes."""
    with Admin(site.agent.admin_socket) as admin:
        workload = entry(path, f"gid:{site.gid}")
        workload.jwt_svid_ttl = SVID_SECONDS
        ids = admin.create([workload])
        try:
            return site.client.fetch_jwt_svid(audience, f"spiffe://example.org{path}").token
        finally:
            admin.delete(ids)
