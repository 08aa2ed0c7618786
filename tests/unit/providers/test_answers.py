"""What a provider says of an error is for the log, and what it gives is read strictly."""

import json

import pytest
from fakes.outside import FakeHttp, FakeMint, answer, ended, wanted
from sojourn.errors import SojournError
from sojourn.providers.answers import code_of, said
from sojourn.providers.aws import AwsProvider
from sojourn.providers.entra import EntraProvider
from sojourn.providers.gcp import GcpProvider
from sojourn.providers.vault import VaultProvider

AUDIENCE = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/agents/providers/sojourn"
SECRETS = {
    "jwt": "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJzcGlmZmUifQ.c2lnbmF0dXJl",
    "vault": "s.u6EigiH6u5gj90Sp0busuceN",
    "aws": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "google": "ya29.c.b0AXv0zTMxH1",
}
WORDS = f"this {SECRETS['jwt']} and '{SECRETS['vault']}' and token={SECRETS['aws']} and \"{SECRETS['google']}1234\""
PROVIDERS = {
    "aws": (
        AwsProvider,
        {"role_arn": "arn:aws:iam::123456789012:role/x"},
        {"policy_actions": {"a": ["s3:GetObject"]}, "policy_resources": ["*"]},
    ),
    "gcp": (
        GcpProvider,
        {"audience": AUDIENCE, "service_account": "a@b.iam.gserviceaccount.com"},
        {"scopes": {"a": ["https://x"]}},
    ),
    "entra": (
        EntraProvider,
        {"tenant_id": "contoso", "client_id": "aaaaaaaa-0000-0000-0000-000000000001"},
        {"scope": "https://x/.default"},
    ),
    "vault": (VaultProvider, {"address": "https://vault.example.org", "role": "x"}, {}),
}


class TestSaid:
    @pytest.mark.parametrize("secret", sorted(SECRETS))
    def test_is_without_what_may_be_a_secret(self, secret):
        """Words that may be tokens or keys are left out of what is logged."""
        assert SECRETS[secret] not in said(WORDS)

    def test_says_what_people_need(self):
        """What a provider says in words is kept, in quotes."""
        words = "Not authorized to perform sts:AssumeRoleWithWebIdentity at https://agent.example.org"
        assert json.dumps(words) == said(words)

    @pytest.mark.parametrize("text", ["a\nb", "a\x1b[31mb", "a" * 10_000, "\ud800"])
    def test_is_one_short_line(self, text):
        """Line ends and control characters are escaped, and the whole is short."""
        assert said(text).isprintable()
        assert len(said(text)) < 200

    @pytest.mark.parametrize("other", [None, 5, [], {}, ""])
    def test_what_is_no_text_is_nothing(self, other):
        """Anything else than a text is not shown."""
        assert "" == said(other)

    @pytest.mark.parametrize("code", ["", "a b", "a\n", "x" * 65, None, 5, "ü"])
    def test_only_a_code_is_a_code(self, code):
        """What does not look like an error code is not shown as one."""
        assert "" == code_of(code)


@pytest.mark.parametrize("kind", sorted(PROVIDERS))
@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
async def test_what_a_provider_hands_back_is_shown_nowhere(kind, status):
    """A provider that answers with the secrets it was sent gets none of them into an error's texts."""
    make, settings, ask = PROVIDERS[kind]
    xml = f"<ErrorResponse><Error><Code>Odd</Code><Message>{WORDS.replace('<', '')}</Message></Error></ErrorResponse>"
    told = {"error": "odd", "error_description": WORDS, "errors": [WORDS], "error_codes": [1], "message": WORDS}
    reply = answer(body=xml.encode(), status=status) if kind == "aws" else answer(told, status)
    made = make("p", {"kind": kind, **settings}, FakeHttp(reply, reply, answer(told, 500)))
    asked = wanted(made, ask, ("a",), ends_in=3 * 10**8)
    shown = []
    for attempt in (
        lambda: made.exchange(asked, FakeMint()),
        lambda: made.take_back(ended(asked, handle={"token": SECRETS["vault"]}), FakeMint()),
    ):
        with pytest.raises(SojournError) as caught:
            await attempt()
        error = caught.value
        shown.append(" ".join((error.public, error.detail, error.hint, str(error), repr(error))))
    assert [] == [name for name, secret in SECRETS.items() if any(secret in each for each in shown)]
