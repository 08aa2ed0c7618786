"""A provider of AWS roles, and what AWS answers it."""

from datetime import UTC, datetime

from fakes.clock import FakeClock
from fakes.outside import FakeHttp, FakeMint, answer, wanted
from sojourn.providers.aws import AwsProvider

ROLE = "arn:aws:iam::123456789012:role/triage"
ASK = {
    "role_arn": ROLE,
    "policy_actions": {"s3:read": ["s3:GetObject"], "s3:list": ["s3:ListBucket"]},
    "policy_resources": ["arn:aws:s3:::orders", "arn:aws:s3:::orders/*"],
}
ACTIONS = ("s3:list", "s3:read")
READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
UNTIL = datetime(2030, 1, 1, 0, 10, tzinfo=UTC)
XML = """<?xml version="1.0"?>
<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <AssumeRoleWithWebIdentityResult><Credentials>
    <SessionToken>session</SessionToken><SecretAccessKey>secret</SecretAccessKey>
    <Expiration>{expires}</Expiration><AccessKeyId>ASIAEXAMPLE</AccessKeyId>
  </Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>"""


def good(expires="2030-01-01T00:15:00Z", text=XML):
    return answer(body=text.format(expires=expires).encode())


def error(code, message="", status=400):
    body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
    return answer(status=status, body=body.encode())


def provider(http=None, clock=None, **settings):
    return AwsProvider("cloud", {"kind": "aws", **settings}, http or FakeHttp(), clock or FakeClock())


async def exchange(reply, ask=ASK, actions=ACTIONS, asked=None, ends_in=600, mint=None, **settings):
    http, mint = FakeHttp(reply), mint or FakeMint()
    made = provider(http, **settings)
    obtained = await made.exchange(wanted(made, ask, actions, asked, ends_in=ends_in), mint)
    return obtained, http.asked[0], mint
