"""A stand-in for AWS STS and for what IAM decides, written from the API reference of AssumeRoleWithWebIdentity.

It verifies the web identity token as STS does, holds the request to STS's limits, answers in STS's XML, and decides on
calls by a session's policy, its time, and the tags that an operator denies.
"""

import json
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from xml.sax.saxutils import escape

from harness.standin import Issuer, NotGood, Reply, Request, StandIn, verified

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
TAGS, SOURCE = "https://aws.amazon.com/tags", "https://aws.amazon.com/source_identity"
NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
TAG_VALUE = re.compile(r"[\w .:/=+\-@]{0,256}")


@dataclass
class Role:
    """A role with its trust policy: who may assume it, and whether with tags and a source identity."""

    arn: str
    subject: str
    max_session: int = 3600
    tag_session: bool = True
    set_source_identity: bool = False


@dataclass
class Session:
    role: str
    name: str
    policy: dict
    managed: list[str]
    tags: dict
    expires: datetime
    source: str = ""


@dataclass
class Managed:
    """A managed policy: what it allows."""

    actions: list[str] = field(default_factory=list)


class Fault(Exception):
    def __init__(self, status, code, message):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class AwsServer(StandIn):
    def __init__(self, issuer: Issuer, role: Role, *, audience="sts.amazonaws.com", known=True, packed_max=10_000):
        self.issuer, self.role, self.audience, self.known, self.packed_max = issuer, role, audience, known, packed_max
        self.sessions: dict[str, Session] = {}
        self.managed: dict[str, Managed] = {}
        self.denied: set[tuple[str, str]] = set()  # tags, with their values
        self.skew = timedelta(0)
        super().__init__()

    def now(self):
        return datetime.now(UTC) + self.skew

    def answer(self, request: Request) -> Reply:
        fields = request.fields
        try:
            if fields.get("Version") != "2011-06-15":
                raise Fault(400, "InvalidAction", "Could not find operation for version NO_VERSION_SPECIFIED")
            if fields.get("Action") == "AssumeRoleWithWebIdentity":
                return self._assume(fields)
            raise Fault(403, "MissingAuthenticationToken", "Request is missing Authentication Token")
        except Fault as fault:
            return _xml(
                fault.status,
                f"<ErrorResponse xmlns='{NAMESPACE}'><Error><Type>Sender</Type><Code>{fault.code}</Code>"
                f"<Message>{escape(fault.message)}</Message></Error><RequestId>r</RequestId></ErrorResponse>",
            )

    def _assume(self, fields) -> Reply:
        claims = self._identity(fields["WebIdentityToken"])
        name, duration, policy = fields["RoleSessionName"], int(fields.get("DurationSeconds", 3600)), fields["Policy"]
        if not NAME.fullmatch(name):
            raise Fault(400, "ValidationError", f"Value '{name}' at 'roleSessionName' failed to satisfy constraint")
        if not 900 <= duration <= 43_200:
            raise Fault(400, "ValidationError", "Value at 'durationSeconds' failed to satisfy constraint")
        if len(policy) > 2_048:
            raise Fault(400, "ValidationError", "Value at 'policy' failed to satisfy constraint: length")
        arns = [value for key, value in sorted(fields.items()) if re.fullmatch(r"PolicyArns\.member\.\d+\.arn", key)]
        tags = {key: value for key, (value,) in claims.get(TAGS, {}).get("principal_tags", {}).items()}
        if not all(TAG_VALUE.fullmatch(value) for value in tags.values()):
            raise Fault(400, "InvalidIdentityToken", "The tags in the token are not valid")
        refused = fields["RoleArn"] != self.role.arn or claims["sub"] != self.role.subject
        refused |= bool(tags) and not self.role.tag_session
        refused |= SOURCE in claims and not self.role.set_source_identity
        if refused:
            raise Fault(403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity")
        if duration > self.role.max_session:
            message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
            raise Fault(400, "ValidationError", message)
        if len(policy) + sum(map(len, [*tags, *tags.values(), *arns])) > self.packed_max:
            raise Fault(400, "PackedPolicyTooLarge", "Packed size of session tags and policies is over 100%")
        read = self._policy(policy)
        key, expires = f"ASIA{secrets.token_hex(8).upper()}", self.now() + timedelta(seconds=duration)
        session = Session(fields["RoleArn"], name, read, arns, tags, expires, claims.get(SOURCE, ""))
        self.sessions[key] = session
        arn = session.role.replace(":iam:", ":sts:").replace(":role/", ":assumed-role/") + f"/{name}"
        return _xml(
            200,
            f"<AssumeRoleWithWebIdentityResponse xmlns='{NAMESPACE}'><AssumeRoleWithWebIdentityResult>"
            f"<SubjectFromWebIdentityToken>{escape(claims['sub'])}</SubjectFromWebIdentityToken>"
            f"<Audience>{escape(claims['aud'])}</Audience><AssumedRoleUser><Arn>{escape(arn)}</Arn>"
            f"<AssumedRoleId>AROA:{name}</AssumedRoleId></AssumedRoleUser><Credentials>"
            f"<SessionToken>{secrets.token_urlsafe(300)}</SessionToken>"
            f"<SecretAccessKey>{secrets.token_urlsafe(30)}</SecretAccessKey>"
            f"<Expiration>{expires:%Y-%m-%dT%H:%M:%SZ}</Expiration><AccessKeyId>{key}</AccessKeyId></Credentials>"
            f"<Provider>{escape(self.issuer.issuer)}</Provider></AssumeRoleWithWebIdentityResult>"
            "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>",
        )

    def _identity(self, token):
        if not self.known:
            message = f"No OpenIDConnect provider found in your account for {self.issuer.issuer}"
            raise Fault(400, "InvalidIdentityToken", message)
        try:
            return verified(
                token,
                self.issuer.jwks(),
                issuer=self.issuer.issuer,
                audiences={self.audience},
                algorithms={"RS256", "RS384", "RS512", "ES256", "ES384", "ES512"},
            )
        except NotGood as error:
            if error.what == "expired":
                raise Fault(400, "ExpiredTokenException", "Token expired: current date/time must be before") from None
            message = {
                "audience": "Incorrect token audience",
                "signature": "Couldn't retrieve verification key from your identity provider,  please reference "
                "AssumeRoleWithWebIdentity documentation for requirements",
            }.get(error.what, "The ID Token provided is not a valid JWT")
            raise Fault(400, "InvalidIdentityToken", message) from None

    def _policy(self, text):
        read = json.loads(text)
        for statement in read["Statement"]:
            if statement["Effect"] not in {"Allow", "Deny"} or not {"Action", "Resource"} <= set(statement):
                raise Fault(400, "MalformedPolicyDocument", "Syntax errors in policy.")
        return read

    def allows(self, access_key, action, resource, *, at=None, named_by_resource=False):
        """What IAM decides of a call by a session: its role allows everything, so its session policy decides.

        `named_by_resource`: the resource's own policy allows it to this session by name: no implicit denial counts.
        """
        session, at = self.sessions[access_key], at or self.now()
        if at >= session.expires or self.denied & set(session.tags.items()):
            return False
        applying = [each for each in session.policy["Statement"] if _applies(each, action, resource, at)]
        if any(each["Effect"] == "Deny" for each in applying):
            return False
        managed = [allowed for arn in session.managed for allowed in self.managed[arn].actions]
        return named_by_resource or bool(applying) or any(fnmatchcase(action, allowed) for allowed in managed)


def _applies(statement, action, resource, at):
    def listed(value):
        return [value] if isinstance(value, str) else value

    conditions = statement.get("Condition", {})
    assert set(conditions) <= {"DateLessThan", "DateGreaterThanEquals"}
    for operator, keys in conditions.items():
        assert list(keys) == ["aws:CurrentTime"]
        end = datetime.fromisoformat(keys["aws:CurrentTime"])
        if not (at < end if operator == "DateLessThan" else at >= end):
            return False
    return any(fnmatchcase(action, each) for each in listed(statement["Action"])) and any(
        fnmatchcase(resource, each) for each in listed(statement["Resource"])
    )


def _xml(status, text):
    return Reply(status, body=text.encode(), headers={"content-type": "text/xml"})
