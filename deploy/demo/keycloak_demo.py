"""A task has a token of a real Keycloak, and loses it with its end: `make demo-keycloak`.

Fetches Keycloak through Maven if it is not there, starts it, brings a realm to trust the agent, and prints a line for
each step with what was measured. Ends with `demo: ok`, or with the step that failed (exit 1).
"""

import datetime as dt
import ipaddress
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from demo import HERE, PATIENCE_SECONDS, TRUST, Demo, Failed, Process, main
from keycloak_realm import Realm, RealmFailed
from keycloak_server import Keycloak, KeycloakFailed, distribution

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sojourn"
TOKEN_SECONDS = 60  # the life of Keycloak's tokens, and so the most that one outlives its task where nobody asks
ORDERS = "https://orders.example.org"
WORKLOAD, SERVICE = "/agent/orders", "/service/orders"
JAVA_LEAST = 17

CONFIG = """
[listen]
trust = "127.0.0.1:0"                    # the trust domain's keys, for Keycloak: https://ADDRESS/bundle
trust_certificate = "{certificate}"
trust_key = "{key}"

[tasks]
types_dir = "types"

[providers.corp]
kind = "keycloak"
issuer = "{issuer}"
ca = "{certificate}"
private_networks = ["127.0.0.0/8"]       # this one is on loopback
timeout = "30s"                          # a JVM that has just started takes its time
"""

TYPE = f"""
description = "Read and write orders"
allowed_workloads = ["{TRUST}{WORKLOAD}"]
max_duration = "15m"

[[ceiling]]
resource = "{ORDERS}"
actions = ["orders:read", "orders:write"]
provider = "corp"

[ceiling.ask]
audience = "orders"
scopes = {{ "orders:read" = ["orders.read"], "orders:write" = ["orders.write"] }}
"""


class KeycloakDemo(Demo):
    """The agent, Keycloak, a service and a workload, and the steps."""

    roles = HERE / "keycloak_roles.py"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.keycloak: Keycloak | None = None
        self._starting = False

    def run(self) -> None:
        home = self.fetched()
        certificate, key = self.certificate()
        (self.folder / "keycloak").mkdir()
        keycloak = self.keycloak = Keycloak(
            home, self.folder / "keycloak", certificate=certificate, key=key, trusted=certificate
        )
        started = time.monotonic()
        keycloak.start()
        self._starting = True
        realm = Realm(keycloak.secure_base, "demo", keycloak.admin_password, ca=certificate)
        agent = self.ready(self.configuration(realm.issuer, certificate, key))
        trust = self.ready_line.partition(", TRUST ")[2].split(",")[0].strip()
        self.step("trust listener", f"https://{trust}/bundle has this agent's keys, and nothing else is there")
        with waiting("Keycloak starts"):
            self.told(keycloak.wait)
        self.step("Keycloak ready", f"{keycloak.secure_base}, {time.monotonic() - started:.1f} s after its start")
        self.realm(realm, f"https://{trust}/bundle")
        self.register(SERVICE, "orders")
        self.register(WORKLOAD, "workload")
        self.checked()
        orders = self.start("orders", realm.issuer, str(certificate)).event("serving")["port"]
        self.task(orders, "completed", lambda workload: os.kill(workload.pid, signal.SIGUSR1))
        self.task(orders, "holder killed", lambda workload: os.kill(workload.pid, signal.SIGKILL))
        agent.end()
        if agent.status != 0:
            raise Failed(f"the agent ended with status {agent.status}")
        self.step("agent stopped", "drained on SIGTERM, exit status 0")

    def close(self) -> None:
        if self.keycloak is not None and self._starting:
            self.keycloak.stop()

    # --- the steps ---

    def fetched(self) -> Path:
        java()
        there = any(CACHE.glob("keycloak-*/bin/kc.sh"))
        begun = time.monotonic()
        with waiting("" if there else "fetching Keycloak through Maven (180 MB, once) and building it"):
            home: Path = self.told(distribution)
        took = "was there" if there else f"fetched and built in {time.monotonic() - begun:.0f} s"
        self.step("Keycloak", f"{home.name} {took}")
        return home

    def told(self, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except (KeycloakFailed, RealmFailed) as error:
            raise Failed(str(error)) from None

    def certificate(self) -> tuple[Path, Path]:
        """A certificate for 127.0.0.1, which both sides show and trust here: elsewhere each has its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo")])
        now = dt.datetime.now(dt.UTC)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, SHA256())
        )
        certificate, private = self.folder / "web.pem", self.folder / "web.key"
        certificate.write_bytes(made.public_bytes(Encoding.PEM))
        private.touch(mode=0o600)
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, private

    def configuration(self, issuer: str, certificate: Path, key: Path) -> Path:
        types = self.folder / "types"
        types.mkdir()
        (types / "handle-orders.toml").write_text(TYPE)
        (types / "handle-orders.cedar").write_text('@id("handle-orders.all") permit (principal, action, resource);\n')
        config = self.folder / "agent.toml"
        config.write_text(CONFIG.format(issuer=issuer, certificate=certificate, key=key))
        return config

    def realm(self, realm: Realm, bundle: str) -> None:
        begun = time.monotonic()

        def set_up() -> None:
            realm.ensure(token_seconds=TOKEN_SECONDS)
            realm.trust(TRUST.removeprefix("spiffe://"), bundle)
            realm.service("orders", f"{TRUST}{SERVICE}")
            realm.workload("orders-agent", f"{TRUST}{WORKLOAD}", ["orders"], ["orders.read", "orders.write"])

        self.told(set_up)
        took = (time.monotonic() - begun) * 1000
        self.step("realm set up", f"{realm.name}: trusts {TRUST}; no client has a secret ({took:.0f} ms)")

    def checked(self) -> None:
        found = self.command("provider", "check", "corp", "--spiffe-id", f"{TRUST}{WORKLOAD}")
        took = sum(step["milliseconds"] for step in found["steps"])
        names = ", ".join(step["name"] for step in found["steps"])
        self.step("provider check", f"{len(found['steps'])} steps well in {took} ms: {names}")

    def task(self, orders: int, how: str, end: Callable[[Process], None]) -> None:
        workload = self.start("workload")
        had = workload.event("token")
        if (had["provider"], had["recall"], had["same"]) != ("corp", "revoke", True):
            raise Failed(f"the token is not as it should be: {had['provider']}, {had['recall']}")
        claims = unverified_claims(had["token"])
        self.step(
            "SVID → Keycloak token",
            f"{had['task']}: aud {claims['aud']}, scope {claims['scope']}, by {claims['azp']}"
            f" ({had['milliseconds']:.0f} ms; again {had['again_milliseconds']:.1f} ms)",
        )
        for what, method, path, token, expected in (
            ("service accepts", "GET", "/orders", "token", 200),
            ("introspection", "GET", "/introspected", "token", 200),
            ("narrower token", "GET", "/orders", "narrow", 200),
            ("other action refused", "POST", "/orders", "narrow", 403),
        ):
            status = call(orders, method, path, had[token])
            if status != expected:
                log = (self.folder / "orders.log").read_text()[-800:].strip()
                raise Failed(f"{what}: the service answered {status}, not {expected}; its log: {log or 'empty'}")
            by = "Keycloak says it is active" if path == "/introspected" else "checked by Keycloak's JWKS"
            self.step(what, f"{method} answered {status} ({by})")
        self.ended(orders, how, workload, had, end)

    def ended(
        self, orders: int, how: str, workload: Process, had: dict[str, Any], end: Callable[[Process], None]
    ) -> None:
        before = time.monotonic()
        end(workload)
        while call(orders, "GET", "/introspected", had["token"]) == 200:
            if time.monotonic() - before > PATIENCE_SECONDS:
                raise Failed("Keycloak says still that the token of a task is active that is over")
        took = (time.monotonic() - before) * 1000
        if call(orders, "GET", "/introspected", had["narrow"]) == 200:
            took = self.until_gone(orders, had["narrow"], before)
        self.step(how, f"both tokens recalled at Keycloak, introspection says inactive, {took:.0f} ms after the end")
        offline = call(orders, "GET", "/orders", had["token"])
        left = had["expires_at"] - time.time()
        self.step(
            "residual window",
            f"at Keycloak {took:.0f} ms; at a service that goes by the JWKS alone until exp:"
            f" {max(left, 0):.0f} s (it answered {offline} just now)",
        )
        self.audited(had["task"])
        workload.end()

    def until_gone(self, orders: int, token: str, since: float) -> float:
        while call(orders, "GET", "/introspected", token) == 200:
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise Failed("Keycloak says still that a token is active whose task is over")
        return (time.monotonic() - since) * 1000

    def audited(self, task: str) -> None:
        """What the audit has of how the task's credentials ended."""
        ends = time.monotonic() + PATIENCE_SECONDS
        while True:
            records = self.command("audit", "tail", "-n", "200")["records"]
            ended = [each["fields"] for each in records if each["event"] == "external_credential_ended"]
            found = [each for each in ended if each["task"] == task]
            if len(found) >= 2 or time.monotonic() > ends:
                break
        if {each["how"] for each in found} != {"recalled"}:
            raise Failed(f"the audit does not say that they were recalled: {found}")
        windows = ", ".join(f"{each['residual_ms']} ms" for each in found)
        self.step("audit says", f"external_credential_ended {len(found)} times, how: recalled, residual: {windows}")


def java() -> None:
    """Raise Failed if Keycloak cannot run here."""
    try:
        done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Failed(f"Keycloak needs Java {JAVA_LEAST}: install it (Debian: apt install default-jdk maven)") from None
    version = done.stderr.partition('"')[2].partition('"')[0]
    if done.returncode or not version.partition(".")[0].isdigit() or int(version.partition(".")[0]) < JAVA_LEAST:
        raise Failed(f"Keycloak needs Java {JAVA_LEAST}, and this is {version or 'none that works'}")


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say what is waited for, and every ten seconds that it still is."""
    over = threading.Event()

    def tell() -> None:
        begun = time.monotonic()
        while not over.wait(10):
            print(f"           {what} ... {time.monotonic() - begun:.0f} s", flush=True)

    if what:
        print(f"           {what} ...", flush=True)
        threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def unverified_claims(token: str) -> dict[str, Any]:
    import base64

    part = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return claims


def call(port: int, method: str, path: str, token: str) -> int:
    """Call the service and return the HTTP status."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", method=method, headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, HTTPException) as error:
        raise Failed(f"the service did not answer: {error}") from None


if __name__ == "__main__":
    sys.exit(main(KeycloakDemo))
