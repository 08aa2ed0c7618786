"""Outside systems as they should behave, for the contract of providers: in this process, without a network."""

import base64
import json
import secrets
from datetime import UTC, datetime, timedelta

from sojourn.providers.http import HttpResponse
from sojourn.testing.outside import answer_of, claims_of

LIFE = 300
ID_JAG = "urn:ietf:params:oauth:token-type:id-jag"


def moment(seconds=LIFE):
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def refused(error="invalid_client", status=401):
    return answer_of({"error": error, "error_description": "no"}, status)


class Outside:
    """Counts what it gave. `step` by step it is a table of paths."""

    def __init__(self):
        self.secrets = set()
        self.given = {}  # token: what it is good for
        self.revocable = True

    def give(self, length=24, **about):
        token = secrets.token_hex(length)
        self.secrets.add(token)
        self.given[token] = about
        return token

    def live(self):
        return len(self.given)


class AuthorizationServer(Outside):
    """An OAuth authorization server with metadata, token endpoint, revocation and introspection."""

    def __init__(self, issuer="https://as.example.org/realms/x"):
        super().__init__()
        self.issuer = issuer

    def answer(self, sent):
        if sent.method == "GET":
            paths = ("token", "revoke", "introspect")
            named = ("token_endpoint", "revocation_endpoint", "introspection_endpoint")
            endpoints = {name: f"{self.issuer}/{path}" for name, path in zip(named, paths, strict=True)}
            if sent.url != f"{self.issuer}/.well-known/openid-configuration":
                return answer_of({}, 404)
            return answer_of({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys", **endpoints})
        return getattr(self, sent.url.rpartition("/")[2])(sent.form)

    def token(self, form):
        shown = [form[name] for name in ("client_assertion", "subject_token", "assertion") if name in form]
        known = [each for each in shown if each in self.given or self._for_us(each)]
        if not shown:
            return refused("invalid_request" if form.get("grant_type") else "invalid_client", 400)
        if known != shown:
            return refused("invalid_grant", 400)
        issued = "urn:ietf:params:oauth:token-type:access_token"
        answer = {"access_token": self.give(), "token_type": "Bearer", "expires_in": LIFE, "issued_token_type": issued}
        return answer_of({**answer, **({"scope": form["scope"]} if "scope" in form else {})})

    def _for_us(self, assertion):
        try:
            return claims_of(assertion)["aud"] == self.issuer
        except (ValueError, LookupError):
            return False

    def revoke(self, form):
        self.given.pop(form["token"], None)
        return HttpResponse(200, {}, b"")

    def introspect(self, form):
        return answer_of({"active": form["token"] in self.given})


class TwoServers(AuthorizationServer):
    """An identity provider, and beside it the server of a resource, which takes the assertions of that one."""

    def __init__(self):
        super().__init__()
        self.idp = AuthorizationServer("https://idp.example.org")
        self.idp.secrets = self.secrets

    def answer(self, sent):
        if not sent.url.startswith(self.idp.issuer):
            return super().answer(sent)
        if sent.form.get("requested_token_type") != ID_JAG:
            return self.idp.answer(sent)
        parts = [{"typ": "oauth-id-jag+jwt", "alg": "ES256"}, {"aud": self.issuer, "jti": secrets.token_hex(8)}]
        made = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=").decode() for each in parts]
        assertion = ".".join([*made, secrets.token_urlsafe(64)])
        self.secrets.add(assertion)
        answer = {"access_token": assertion, "token_type": "N_A", "issued_token_type": ID_JAG, "expires_in": LIFE}
        return answer_of({**answer, **({"scope": sent.form["scope"]} if "scope" in sent.form else {})})


class Sts(Outside):
    """AWS STS, and an operator's deny hook."""

    def __init__(self):
        super().__init__()
        self.denied = []

    def answer(self, sent):
        if sent.body:
            self.denied.append(sent.body["task_id"])
            return HttpResponse(204, {}, b"")
        if sent.form.get("Action") != "AssumeRoleWithWebIdentity":
            error = "<ErrorResponse><Error><Type>Sender</Type><Code>MissingAuthenticationToken</Code></Error></ErrorResponse>"
            return HttpResponse(403, {"content-type": "text/xml"}, error.encode())
        secret, session = self.give(), secrets.token_urlsafe(200)
        self.secrets.add(session)
        body = f"""<?xml version="1.0"?>
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<Credentials><AccessKeyId>ASIA{secrets.token_hex(8).upper()}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>
<SessionToken>{session}</SessionToken><Expiration>{moment(900)}</Expiration></Credentials>
</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""
        return HttpResponse(200, {"content-type": "text/xml"}, body.encode())


class Google(Outside):
    """Google's STS, and its IAM Credentials API. What STS gives for that is no credential that anybody has."""

    def __init__(self, *, accounts=False):
        super().__init__()
        self._accounts = accounts

    def answer(self, sent):
        if "generateAccessToken" in sent.url:
            return answer_of({"accessToken": self.give(), "expireTime": moment()})
        if not sent.form:
            return refused("invalid_request", 400)
        issued = "urn:ietf:params:oauth:token-type:access_token"
        token = self.give()
        if self._accounts:
            self.given.clear()
        answer = {"access_token": token, "issued_token_type": issued, "token_type": "Bearer", "expires_in": 3599}
        return answer_of(answer)


class Entra(Outside):
    """The token endpoint of a tenant."""

    def answer(self, sent):
        if sent.method == "GET":
            return answer_of({"token_endpoint": "https://login.microsoftonline.com/t/oauth2/v2.0/token"})
        return answer_of(
            {"access_token": self.give(), "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599}
        )


class Vault(Outside):
    """A Vault with the JWT auth method, and a database that leases users."""

    def answer(self, sent):
        path, token = sent.url.partition("/v1/")[2], sent.headers.get("X-Vault-Token", "")
        if path.startswith("sys/health"):
            return answer_of({"initialized": True, "sealed": False, "standby": False})
        if path == "auth/jwt/login":
            auth = {"client_token": self.give(), "accessor": secrets.token_hex(12), "lease_duration": LIFE}
            auth |= {"token_policies": ["default", sent.body["role"]], "token_type": "service", "renewable": True}
            return answer_of({"auth": auth, "data": None})
        if token not in self.given:
            return answer_of({"errors": ["permission denied"]}, 403)
        if path == "sys/capabilities-self":
            return answer_of({"data": {"auth/token/revoke-self": ["update"], "auth/token/lookup-self": ["read"]}})
        if path == "auth/token/revoke-self":
            self.given.pop(token)
            return HttpResponse(204, {}, b"")
        if path == "auth/token/lookup-self":
            return answer_of({"data": {"id": token}})
        password = secrets.token_hex(16)
        self.secrets.add(password)
        data = {"username": "v-reader", "password": password}
        return answer_of({"data": data, "lease_id": f"{path}/1", "lease_duration": LIFE, "renewable": True})
