"""A stand-in for Vault's JWT auth method, tokens and leases, written from its API reference and OpenBao's answers."""

import secrets
import time
from dataclasses import dataclass, field

from harness.standin import Issuer, NotGood, Reply, Request, StandIn, verified

DENIED = {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}
GONE = {"errors": ["permission denied"]}
WORDS = {
    "signature": "error verifying token signature: no known key successfully validated the token signature",
    "issuer": "invalid issuer (iss) claim",
    "audience": "invalid audience (aud) claim: audience claim does not match any expected audience",
    "expired": "invalid expiration time (exp) claim: token is expired",
    "early": "invalid issued at (iat) claim: token issued in the future",
    "subject": "invalid subject (sub) claim",
}


@dataclass
class Role:
    subject: str
    audience: str
    ttl: int = 600
    batch: bool = False
    num_uses: int = 0
    default_policy: bool = True
    reads: tuple[str, ...] = ()


@dataclass
class Token:
    role: str
    expires: float
    accessor: str
    leases: list[str] = field(default_factory=list)


class VaultServer(StandIn):
    """`roles` by name; `secrets` by path: data that is not leased. A path below `database/creds/` makes a user."""

    def __init__(self, issuer: Issuer, *, mount="jwt", namespace=""):
        self.issuer, self.mount, self.namespace = issuer, mount, namespace
        self.roles: dict[str, Role] = {}
        self.secrets: dict[str, dict] = {}
        self.tokens: dict[str, Token] = {}
        self.users: set[str] = set()
        self.sealed = False
        super().__init__()

    def answer(self, request: Request) -> Reply:
        path = request.path.removeprefix("/v1/")
        if path == "sys/health":
            code = 503 if self.sealed else 200
            return Reply(code, {"initialized": True, "sealed": self.sealed, "standby": False, "version": "2.7.2"})
        if self.sealed:
            return Reply(503, {"errors": ["Vault is sealed"]})
        if request.headers.get("x-vault-namespace", "") != self.namespace:
            return Reply(404, {"errors": ["namespace not found"]})
        if path == f"auth/{self.mount}/login":
            return self._login(request.fields)
        token = self.tokens.get(request.headers.get("x-vault-token", ""))
        if token is None or token.expires <= time.time():
            return Reply(403, GONE)
        return self._of_token(request, path, token)

    def _login(self, fields) -> Reply:
        role = self.roles.get(fields.get("role", ""))
        if not fields.get("role"):
            return Reply(400, {"errors": ["missing role"]})
        if role is None:
            return Reply(400, {"errors": [f'role "{fields["role"]}" could not be found']})
        try:
            claims = verified(
                fields["jwt"],
                self.issuer.jwks(),
                issuer=self.issuer.issuer,
                audiences={role.audience},
                algorithms={"RS256", "ES256"},
            )
            if claims["sub"] != role.subject:
                raise NotGood("subject")
        except NotGood as error:
            return Reply(400, {"errors": [f"error validating token: {WORDS[error.what]}"]})
        token, accessor = f"{'b' if role.batch else 's'}.{secrets.token_hex(12)}", secrets.token_hex(12)
        self.tokens[token] = Token(fields["role"], time.time() + role.ttl, accessor)
        auth = {
            "client_token": token,
            "accessor": "" if role.batch else accessor,
            "policies": ["default", "p"],
            "token_policies": ["default", "p"] if role.default_policy else ["p"],
            "metadata": {"role": fields["role"]},
            "lease_duration": role.ttl,
            "renewable": not role.batch,
            "entity_id": "e",
            "token_type": "batch" if role.batch else "service",
            "orphan": True,
            "mfa_requirement": None,
            "num_uses": role.num_uses,
        }
        return _told(auth=auth)

    def _of_token(self, request: Request, path: str, token: Token) -> Reply:
        role = self.roles[token.role]
        if path == "auth/token/revoke-self" and request.method in {"POST", "PUT"}:
            if role.batch:
                return Reply(400, {"errors": ["batch tokens cannot be revoked"]})
            if not role.default_policy:
                return Reply(403, DENIED)
            self.revoke(request.headers["x-vault-token"])
            return Reply(204)
        if path in {"auth/token/lookup-self", "sys/capabilities-self"} and not role.default_policy:
            return Reply(403, DENIED)
        if path == "sys/capabilities-self":
            rights = {"auth/token/revoke-self": ["update"], "auth/token/lookup-self": ["read"]}
            return _told(data={each: rights.get(each, ["deny"]) for each in request.fields["paths"]})
        if path == "auth/token/lookup-self":
            ttl = int(token.expires - time.time())
            return _told(data={"accessor": token.accessor, "ttl": ttl, "type": "service", "num_uses": 0})
        if path not in role.reads:
            return Reply(403, DENIED)
        if path.startswith("database/creds/"):
            user = f"v-{secrets.token_hex(6)}"
            self.users.add(user)
            token.leases.append(user)
            data = {"username": user, "password": secrets.token_urlsafe(16)}
            return _told(data=data, lease_id=f"{path}/{user}", lease_duration=300)
        if path not in self.secrets:
            return Reply(404, {"errors": []})
        return _told(data=self.secrets[path])

    def revoke(self, token: str) -> None:
        """A token, and with it what was leased by it."""
        self.users -= set(self.tokens.pop(token).leases)


def _told(**more) -> Reply:
    told = {"request_id": "r", "lease_id": "", "renewable": False, "lease_duration": 0, "data": None, "auth": None}
    return Reply(200, {**told, "wrap_info": None, "warnings": None, **more})
