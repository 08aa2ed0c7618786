"""AWS Private CA and Kubernetes with cert-manager, as their public documentation has their answers. Neither was there
when these were written: what is here is what is documented, and no more.
"""

import json
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from urllib.parse import parse_qs

from sojourn.providers.http import HttpResponse
from sojourn.testing import Sent, SigningAuthority, answer_of
from sojourn.testing.signing_authority import pem

AUTHORITY = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555"
ROLE = "arn:aws:iam::123456789012:role/sojourn"
STS_EXPIRES = "2099-01-01T00:00:00Z"


class Pca:
    """https://docs.aws.amazon.com/privateca/latest/APIReference/API_IssueCertificate.html and its like, and STS."""

    def __init__(self, authority: SigningAuthority, pending: int = 0) -> None:
        """`pending`: how often it says that the certificate is not there yet."""
        self.authority = authority
        self.pending = pending
        self.secrets = ["wJalrXUtnFEMI/of-a-session", "IQoJb3JpZ2luX2VjEXAMPLE"]
        self.by_token: dict[str, str] = {}
        self.issued: dict[str, str] = {}
        self.refusing: tuple[int, str, str] | None = None
        self.asked: list[dict] = []

    def answer(self, sent: Sent) -> HttpResponse:
        if "sts." in sent.url:
            return self._sts(sent)
        action = sent.headers["x-amz-target"].removeprefix("ACMPrivateCA.")
        told = json.loads(sent.content)
        self.asked.append({"action": action, **told})
        assert sent.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=")
        if self.refusing is not None:
            status, code, message = self.refusing
            return answer_of({"__type": code, "message": message}, status)
        return getattr(self, action)(told)

    def _sts(self, sent: Sent) -> HttpResponse:
        form = {name: value for name, (value,) in parse_qs(sent.content.decode()).items()}
        assert ("AssumeRoleWithWebIdentity", ROLE) == (form["Action"], form["RoleArn"])
        result = {
            "AccessKeyId": "ASIAIOSFODNN7EXAMPLE",
            "SecretAccessKey": self.secrets[0],
            "SessionToken": self.secrets[1],
            "Expiration": STS_EXPIRES,
        }
        inner = "".join(f"<{name}>{value}</{name}>" for name, value in result.items())
        body = (
            '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
            f"<AssumeRoleWithWebIdentityResult><Credentials>{inner}</Credentials></AssumeRoleWithWebIdentityResult>"
            "</AssumeRoleWithWebIdentityResponse>"
        )
        return HttpResponse(200, {"content-type": "text/xml"}, body.encode())

    def IssueCertificate(self, told: dict) -> HttpResponse:  # the action's name
        token = told["IdempotencyToken"]
        if token not in self.by_token:
            ends = datetime.fromtimestamp(told["Validity"]["Value"], UTC)
            made = self.authority.sign(b64decode(told["Csr"]), ends)
            arn = f"{told['CertificateAuthorityArn']}/certificate/{made.serial_number:032x}"
            self.by_token[token], self.issued[arn] = arn, pem(made)
        return answer_of({"CertificateArn": self.by_token[token]})

    def GetCertificate(self, told: dict) -> HttpResponse:
        if told["CertificateArn"] not in self.issued:
            return answer_of({"__type": "ResourceNotFoundException", "message": "no such certificate"}, 400)
        if self.pending:
            self.pending -= 1
            return answer_of({"__type": "RequestInProgressException", "message": "in progress"}, 400)
        return answer_of(
            {"Certificate": self.issued[told["CertificateArn"]], "CertificateChain": self.authority.line_pem}
        )

    def GetCertificateAuthorityCertificate(self, _told: dict) -> HttpResponse:
        line = self.authority.line
        above = {"CertificateChain": pem(*line[1:])} if len(line) > 1 else {}
        return answer_of({"Certificate": pem(line[0]), **above})


class CertManager:
    """https://cert-manager.io/docs/reference/api-docs/#cert-manager.io/v1.CertificateRequest on a Kubernetes API."""

    def __init__(self, authority: SigningAuthority, pending: int = 0) -> None:
        self.authority = authority
        self.pending = pending
        self.secrets: list[str] = []
        self.ready = True
        self.condition: dict | None = None  # in the place of what an issuer says that has signed
        self.tells_root = True
        self.kept: dict[str, dict] = {}

    def answer(self, sent: Sent) -> HttpResponse:
        assert sent.headers["authorization"].startswith("Bearer ")
        _, _, path = sent.url.partition("/apis/cert-manager.io/v1/")
        if path.endswith("/certificaterequests"):
            return self._create(json.loads(sent.content))
        if "/certificaterequests/" in path:
            return self._of(sent.method, path.rpartition("/")[2])
        status = "True" if self.ready else "False"
        conditions = [
            {"type": "Ready", "status": status, "reason": "KeyPairVerified", "message": "Signing CA verified"}
        ]
        return answer_of({"kind": "Issuer", "metadata": {"name": "company"}, "status": {"conditions": conditions}})

    def _create(self, told: dict) -> HttpResponse:
        name = told["metadata"]["name"]
        if name in self.kept:
            return answer_of({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "code": 409}, 409)
        self.kept[name] = told
        return answer_of(told, 201)

    def _of(self, method: str, name: str) -> HttpResponse:
        if name not in self.kept:
            return answer_of({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404}, 404)
        if method == "DELETE":
            self.kept.pop(name)
            return answer_of({"kind": "Status", "status": "Success"})
        told = self.kept[name]
        if self.pending:
            self.pending -= 1
            return answer_of(told)
        if self.condition is not None:
            return answer_of({**told, "status": {"conditions": [self.condition]}})
        ends = datetime.now(UTC).timestamp() + int(told["spec"]["duration"].removesuffix("s"))
        made = self.authority.sign(b64decode(told["spec"]["request"]), datetime.fromtimestamp(ends, UTC))
        conditions = [
            {"type": "Approved", "status": "True", "reason": "cert-manager.io"},
            {"type": "Ready", "status": "True", "reason": "Issued", "message": "Certificate fetched"},
        ]
        status = {"conditions": conditions, "certificate": _b64(pem(made, *self.authority.line[:-1]))}
        if self.tells_root:
            status["ca"] = _b64(pem(self.authority.root))
        return answer_of({**told, "status": status})


def _b64(text: str) -> str:
    return b64encode(text.encode()).decode()
