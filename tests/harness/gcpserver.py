"""A stand-in for Google's STS and IAM Credentials API, written from their references and from what google-auth sends."""

import json
import re
import secrets
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote

from harness.standin import Issuer, NotGood, Reply, Request, StandIn, verified

PROVIDER = "//iam.googleapis.com/projects/123456/locations/global/workloadIdentityPools/agents/providers/sojourn"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
IMPERSONATING = {f"https://www.googleapis.com/auth/{each}" for each in ("iam", "cloud-platform")}
LIFETIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)s")
GENERATE = re.compile(r"/v1/projects/-/serviceAccounts/([^/]+):generateAccessToken")


@dataclass
class Access:
    """What an access token is for."""

    who: str
    scopes: tuple[str, ...]
    expires: float
    rules: list = field(default_factory=list)


class Fault(Exception):
    def __init__(self, error, description, status=400):
        super().__init__(error)
        self.reply = Reply(status, {"error": error, "error_description": description})


class GcpServer(StandIn):
    """`impersonators`: by service account, who may. `subject`: what google.subject is mapped to."""

    def __init__(self, issuer: Issuer, *, provider=PROVIDER):
        self.issuer, self.provider = issuer, provider
        self.subject = lambda claims: claims["sub"]
        self.condition = lambda claims: True
        self.impersonators: dict[str, set[str]] = {}
        self.api_enabled = True
        self.tokens: dict[str, Access] = {}
        super().__init__()

    @property
    def sts(self):
        return f"{self.url}/v1/token"

    def generate(self, account):
        return f"{self.url}/v1/projects/-/serviceAccounts/{account}:generateAccessToken"

    def answer(self, request: Request) -> Reply:
        try:
            if request.path == "/v1/token" and request.method == "POST":
                return self._exchange(request.fields)
        except Fault as fault:
            return fault.reply
        if (found := GENERATE.fullmatch(unquote(request.path))) and request.method == "POST":
            return self._impersonate(found[1], request)
        return Reply(404, body=b"<html>404</html>", headers={"content-type": "text/html"})

    def _exchange(self, told) -> Reply:
        if told.get("grant_type") != GRANT:
            raise Fault("invalid_request", "Invalid grant_type.")
        if told.get("requested_token_type") != TOKEN:
            raise Fault("invalid_request", "Invalid requested_token_type.")
        if told.get("subject_token_type") == TOKEN:
            return self._bounded(told)
        if told.get("audience") != self.provider:
            raise Fault(
                "invalid_target",
                'The target service indicated by the "audience" parameters is invalid. This might either be because '
                "the pool or provider is disabled or deleted or because it doesn't exist.",
            )
        if told.get("subject_token_type") != JWT:
            raise Fault("invalid_request", "Invalid subject_token_type.")
        if not told.get("scope"):
            raise Fault("invalid_scope", "Scope(s) must be provided.")
        subject = self._subject(told["subject_token"])
        pool = self.provider.partition("/providers/")[0]
        return self._gives(
            Access(f"principal:{pool}/subject/{subject}", tuple(told["scope"].split()), time.time() + 3_600)
        )

    def _subject(self, token):
        audiences = {self.provider, f"https:{self.provider}"}
        try:
            claims = verified(
                token, self.issuer.jwks(), issuer=self.issuer.issuer, audiences=audiences, algorithms={"RS256", "ES256"}
            )
        except NotGood as error:
            words = {
                "audience": "The audience in ID Token [...] does not match the expected audience.",
                "issuer": "The issuer in ID Token does not match the expected ones.",
                "expired": "ID Token issued at 1 is stale to sign-in.",
            }
            raise Fault("invalid_grant", words.get(error.what, "Invalid JWT Signature.")) from None
        subject = self.subject(claims)
        if not subject:
            raise Fault("invalid_grant", "Could not obtain a value for google.subject from the given credential.")
        if len(subject.encode()) > 127:
            raise Fault("invalid_request", "The size of mapped attribute google.subject exceeds the 127 bytes limit.")
        if not self.condition(claims):
            raise Fault("unauthorized_client", "The given credential is rejected by the attribute condition.")
        return subject

    def _bounded(self, told) -> Reply:
        source = self.tokens.get(told["subject_token"])
        if source is None or source.rules:
            raise Fault("invalid_grant", "The subject token is not valid.")
        options = told.get("options", "")
        try:
            read = json.loads(options if options.startswith("{") else unquote(options))
            rules = read["accessBoundary"]["accessBoundaryRules"]
            good = 0 < len(rules) <= 10 and all(
                each["availableResource"].startswith("//storage.googleapis.com/projects/_/buckets/")
                and all(role.startswith("inRole:") for role in each["availablePermissions"])
                for each in rules
            )
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise Fault("invalid_request", "Invalid access boundary.")
        return self._gives(Access(source.who, source.scopes, source.expires, rules))

    def _gives(self, access: Access) -> Reply:
        token = f"ya29.{secrets.token_urlsafe(48)}"
        self.tokens[token] = access
        told = {"access_token": token, "issued_token_type": TOKEN, "token_type": "Bearer"}
        return Reply(200, {**told, "expires_in": int(access.expires - time.time() + 0.5)})

    def _impersonate(self, account, request: Request) -> Reply:
        caller, told = self.tokens.get(request.bearer), request.fields
        if caller is None or caller.expires <= time.time():
            return _fault(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        if not self.api_enabled:
            message = (
                "IAM Service Account Credentials API has not been used in project 123456 before or it is disabled."
            )
            return _fault(403, "PERMISSION_DENIED", message)
        if not IMPERSONATING & set(caller.scopes):
            return _fault(403, "PERMISSION_DENIED", "Request had insufficient authentication scopes.")
        if caller.who not in self.impersonators.get(account, set()):
            message = "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist)."
            return _fault(403, "PERMISSION_DENIED", message)
        life = LIFETIME.fullmatch(told.get("lifetime", "3600s"))
        if life is None or not 0 < float(life[1]) <= 3_600 or not told.get("scope"):
            return _fault(400, "INVALID_ARGUMENT", "The value for lifetime or scope is not valid.")
        token, expires = f"ya29.c.{secrets.token_urlsafe(48)}", time.time() + float(life[1])
        self.tokens[token] = Access(account, tuple(told["scope"]), expires)
        return Reply(
            200, {"accessToken": token, "expireTime": f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%M:%SZ}"}
        )


def _fault(code, status, message) -> Reply:
    return Reply(code, {"error": {"code": code, "message": message, "status": status}})
