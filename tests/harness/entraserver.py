"""A stand-in for Entra ID's token endpoint with federated credentials, written from its references and error codes."""

import base64
import json
import secrets
import time
from dataclasses import dataclass, field

from harness.standin import Issuer, NotGood, Reply, Request, StandIn, verified

TENANT = "11111111-2222-3333-4444-555555555555"
AUDIENCE = "api://AzureADTokenExchange"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
CREDENTIALS_MAX = 20  # of one application


@dataclass
class Application:
    """An app registration: its federated credentials, as (issuer, subject), and the resources it has roles at."""

    credentials: list[tuple[str, str]]
    resources: set[str] = field(default_factory=set)
    enabled: bool = True
    audience: str = AUDIENCE


class Fault(Exception):
    def __init__(self, code, error, words, status=400):
        super().__init__(code)
        told = {"error": error, "error_description": f"AADSTS{code}: {words} Trace ID: t", "error_codes": [code]}
        told |= {"timestamp": "2026-11-26 04:00:00Z", "trace_id": "t", "correlation_id": "c"}
        self.reply = Reply(status, told)


class EntraServer(StandIn):
    def __init__(self, issuer: Issuer, tls=None, *, tenant=TENANT):
        self.issuer, self.tenant = issuer, tenant
        self.applications: dict[str, Application] = {}
        self.life = 3_599
        super().__init__(tls)

    def answer(self, request: Request) -> Reply:
        tenant, _, path = request.path.removeprefix("/").partition("/")
        try:
            if tenant != self.tenant:
                raise Fault(90002, "invalid_request", f"Tenant '{tenant}' not found.")
            if path == "v2.0/.well-known/openid-configuration":
                return Reply(200, self._metadata())
            if path == "oauth2/v2.0/token" and request.method == "POST":
                return self._token(request.fields)
        except Fault as fault:
            return fault.reply
        return Reply(404, body=b"")

    def _metadata(self):
        base = f"{self.url}/{self.tenant}"
        return {
            "issuer": f"{base}/v2.0",
            "token_endpoint": f"{base}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
            "jwks_uri": f"{base}/discovery/v2.0/keys",
            "response_types_supported": ["code"],
        }

    def _token(self, told) -> Reply:
        if told.get("grant_type") != "client_credentials":
            raise Fault(70003, "unsupported_grant_type", "The app requested an unsupported grant type.")
        application = self.applications.get(told.get("client_id", ""))
        if application is None:
            raise Fault(700016, "unauthorized_client", "Application with identifier was not found in the directory.")
        if not application.enabled:
            raise Fault(7000112, "unauthorized_client", "Application is disabled.")
        scope = told.get("scope", "")
        if not scope.endswith("/.default"):
            raise Fault(1002012, "invalid_scope", "The provided value for scope is not valid.")
        assert len(application.credentials) <= CREDENTIALS_MAX
        self._assertion(told, application)
        resource = scope.removesuffix("/.default")
        if resource not in application.resources:
            raise Fault(500011, "invalid_resource", "The resource principal was not found in the tenant.")
        claims = {"aud": resource, "appid": told["client_id"], "tid": self.tenant, "exp": int(time.time()) + self.life}
        token = ".".join((_part({"alg": "RS256", "typ": "JWT"}), _part(claims), secrets.token_urlsafe(64)))
        return Reply(
            200, {"token_type": "Bearer", "expires_in": self.life, "ext_expires_in": self.life, "access_token": token}
        )

    def _assertion(self, told, application):
        if told.get("client_assertion_type") != ASSERTION:
            raise Fault(900144, "invalid_request", "The request body must contain 'client_assertion_type'.", 401)
        token = told.get("client_assertion", "")
        head = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
        if head.get("alg") != "RS256":
            raise Fault(50013, "invalid_client", "Assertion failed signature validation.", 401)
        issuers = {issuer for issuer, _ in application.credentials}
        try:
            claims = verified(
                token,
                self.issuer.jwks(),
                issuer=self.issuer.issuer,
                audiences={application.audience},
                algorithms={"RS256"},
            )
            if claims["iss"] not in issuers:
                raise NotGood("issuer")
            if (claims["iss"], claims["sub"]) not in application.credentials:
                raise NotGood("subject")
        except NotGood as error:
            no = "No matching federated identity record found for presented assertion"
            code, words = {
                "issuer": (700211, f"{no} issuer."),
                "audience": (700212, f"{no} audience."),
                "subject": (700213, f"{no} subject."),
                "expired": (700024, "Client assertion is not within its valid time range."),
                "early": (700024, "Client assertion is not within its valid time range."),
                "signature": (
                    700027,
                    "The certificate with identifier used to sign the client assertion is not known.",
                ),
            }[error.what]
            raise Fault(code, "invalid_client", words, 401) from None


def _part(value) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
