"""What Google's STS and IAM Credentials API answer when they say no, and what to do about it."""

from dataclasses import dataclass
from typing import Any, Final

from sojourn.errors import SojournError
from sojourn.providers.answers import code_of, said, unanswered
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import HttpResponse

_WHERE: Final = "IAM, Workload Identity Pools, this pool's provider"


@dataclass(frozen=True, slots=True)
class _Told:
    codes: frozenset[str]
    part: str  # of Google's sentence, in lower case
    sentence: str
    hint: str


_STS: Final = (
    _Told(
        frozenset({"invalid_target"}),
        "",
        "Google knows no such pool or provider, or it is disabled",
        f"{_WHERE}: compare its full name with `audience`, and see that both are enabled",
    ),
    _Told(
        frozenset({"unauthorized_client"}),
        "",
        "the provider's attribute condition does not let this workload in",
        f"{_WHERE}, Attribute condition: let the SPIFFE ID (assertion.sub) in",
    ),
    _Told(
        frozenset({"invalid_grant", "invalid_request"}),
        "127 bytes",
        "what google.subject is mapped to is longer than 127 bytes",
        f"{_WHERE}, Attribute mapping: map google.subject to a shorter part of assertion.sub",
    ),
    _Told(
        frozenset({"invalid_grant"}),
        "google.subject",
        "Google finds no google.subject in the JWT-SVID",
        f"{_WHERE}, Attribute mapping: google.subject = assertion.sub",
    ),
    _Told(
        frozenset({"invalid_grant"}),
        "audience",
        "Google does not take the JWT-SVID's audience",
        f"{_WHERE}, Allowed audiences: the default one, or the provider's `jwt_audience`",
    ),
    _Told(
        frozenset({"invalid_grant"}),
        "connecting to the given credential's issuer",
        "Google could not reach this agent's issuer",
        "publish the issuer's discovery document and JWKS over https, or upload the JWKS to the provider",
    ),
    _Told(
        frozenset({"invalid_grant"}),
        "issuer",
        "Google does not take the JWT-SVID's issuer",
        f"{_WHERE}, Issuer: the agent's issuer, byte for byte",
    ),
    _Told(
        frozenset({"invalid_grant"}),
        "stale",
        "Google finds the JWT-SVID too old",
        "set this machine's clock: the JWT-SVID was made just now",
    ),
    _Told(
        frozenset({"invalid_grant"}),
        "",
        "Google does not take the JWT-SVID",
        f"{_WHERE}: compare its issuer, its keys (an uploaded JWKS is never renewed by itself) and its audiences",
    ),
    _Told(frozenset({"invalid_scope"}), "", "Google does not take the scopes", "look at ask.scopes"),
)


def sts_refusal_of(answer: HttpResponse, step: str) -> SojournError:
    """The error that an answer of STS other than 200 is (RFC 6749, 5.2)."""
    if answer.status in {408, 429} or answer.status >= 500:
        return unanswered(answer, step)
    told = answer.told()
    error = told.get("error")
    if isinstance(error, dict):  # as Google's other APIs write it
        return _api_refusal(error, answer, step, "", "")
    code, sentence = code_of(error), told.get("error_description")
    lower = sentence.lower() if isinstance(sentence, str) else ""
    for each in _STS:
        if code in each.codes and each.part in lower:
            return ProviderRefused(f"{each.sentence} ({code})", step=step, hint=each.hint, detail=said(sentence))
    if not code:
        return unanswered(answer, step)
    hint = "look at ask.boundary" if step == "boundary" else ""
    return ProviderRefused(f"Google's STS refused ({code})", step=step, hint=hint, detail=said(sentence))


def refusal_of(answer: HttpResponse, step: str, account: str, principal: str) -> SojournError:
    """The error that an answer of the IAM Credentials API other than 200 is."""
    error = answer.told().get("error")
    if not isinstance(error, dict) or answer.status in {408, 429} or answer.status >= 500:
        return unanswered(answer, step)
    return _api_refusal(error, answer, step, account, principal)


def _api_refusal(error: dict[str, Any], answer: HttpResponse, step: str, account: str, principal: str) -> SojournError:
    status, message = code_of(error.get("status")), error.get("message")
    lower, detail = message.lower() if isinstance(message, str) else "", said(message)
    if status == "PERMISSION_DENIED" and ("has not been used" in lower or "disabled" in lower):
        sentence = "the IAM Service Account Credentials API is not enabled in the project"
        hint = "APIs & Services: enable iamcredentials.googleapis.com"
    elif status == "PERMISSION_DENIED":
        sentence = f"this workload may not impersonate {account or 'the service account'}"
        hint = f"IAM, Service accounts, this account, Permissions: grant roles/iam.workloadIdentityUser to {principal}"
    elif status == "NOT_FOUND":
        sentence, hint = f"there is no service account {account}", "compare service_account with IAM, Service accounts"
    elif status == "INVALID_ARGUMENT":
        sentence, hint = "Google does not take the scopes or the lifetime", "look at ask.scopes"
    elif status == "UNAUTHENTICATED":
        return ProviderUnavailable(
            "Google did not take the federated token that it had just given (UNAUTHENTICATED)", step=step, detail=detail
        )
    elif status in {"UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"} or not status:
        return unanswered(answer, step, detail=detail)
    else:
        sentence, hint = "Google refused", ""
    return ProviderRefused(f"{sentence} ({status})", step=step, hint=hint, detail=detail)
