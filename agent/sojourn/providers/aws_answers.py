"""What AWS STS answers to AssumeRoleWithWebIdentity: credentials, or an error with what to do about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from xml.parsers import expat  # without DTDs, and so without entities: see _Leaves

from sojourn.errors import SojournError
from sojourn.providers.answers import code_of, odd, retry_after, said, unanswered
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import HttpResponse

_DEPTH_MAX: Final = 16
_ELEMENTS_MAX: Final = 256
_TROUBLED: Final = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"})
_FAILED: Final = frozenset({"InternalFailure", "InternalError", "ServiceUnavailable", "ServiceUnavailableException"})


@dataclass(frozen=True, slots=True)
class _Told:
    sentence: str
    hint: str
    part: str = ""  # of AWS's message, by which it is told from others of the same code


_REFUSALS: Final[Mapping[str, tuple[_Told, ...]]] = {
    "InvalidIdentityToken": (
        _Told(
            "AWS knows no identity provider for this agent's issuer",
            "IAM, Identity providers, Add provider, OpenID Connect: provider URL = the agent's issuer, byte for byte",
            "No OpenIDConnect provider found",
        ),
        _Told(
            "AWS does not take the JWT-SVID's audience",
            "IAM, Identity providers, this provider, Audiences: add the provider's `audience` (sts.amazonaws.com)",
            "audience",
        ),
        _Told(
            "AWS could not get the key that the JWT-SVID is signed with",
            "publish the issuer's /.well-known/openid-configuration and its JWKS over https where AWS reaches them",
            "verification key",
        ),
        _Told(
            "AWS does not take the JWT-SVID",
            "the JWKS that AWS reaches has to have the agent's present keys, and the issuer's URL has to be the same",
        ),
    ),
    "ExpiredTokenException": (
        _Told("AWS finds the JWT-SVID expired", "set this machine's clock: the JWT-SVID was made just now"),
    ),
    "IDPRejectedClaim": (
        _Told(
            "AWS says that a claim of the JWT-SVID is not good",
            "IAM, Roles, this role, Trust relationships: compare its conditions with the workload's SPIFFE ID",
        ),
    ),
    "PackedPolicyTooLarge": (
        _Told(
            "the session policy and tags are too large for AWS once packed",
            "shorten ask.policy_actions and ask.policy_resources by wildcards, or use ask.policy_arns",
        ),
    ),
    "MalformedPolicyDocument": (
        _Told("AWS does not take the session policy", "look at ask.policy_actions and ask.policy_resources"),
    ),
    "RegionDisabledException": (
        _Told(
            "AWS STS is not active in this region for the account",
            "IAM, Account settings, Security Token Service: activate the region, or set another `region`",
        ),
    ),
    "AccessDenied": (
        _Told(
            "the role does not let this workload assume it",
            "IAM, Roles, this role, Trust relationships: allow sts:AssumeRoleWithWebIdentity, sts:TagSession, and with "
            "source_identity sts:SetSourceIdentity, to the identity provider, for ISSUER:sub = the SPIFFE ID",
        ),
    ),
    "ValidationError": (
        _Told(
            "the role's sessions may not be as long as was asked",
            "IAM, Roles, this role, Maximum session duration: lengthen it, or shorten the provider's `max_session`",
            "MaxSessionDuration",
        ),
        _Told("AWS does not take the request", "compare role_arn and the ask with the role in IAM"),
    ),
    "InvalidParameterValue": (_Told("AWS does not take the request", "compare role_arn and the ask with the role"),),
    "NoSuchEntity": (_Told("AWS knows no such role or policy", "compare role_arn and ask.policy_arns with IAM"),),
}
_SAME: Final = {"ExpiredToken": "ExpiredTokenException", "AccessDeniedException": "AccessDenied"}


def fields_of(answer: HttpResponse, step: str) -> dict[str, Any]:
    """An answer's values by their path, such as `ErrorResponse/Error/Code`. Raise ProviderUnavailable.

    STS answers in XML, or in JSON to those who ask for that: both are read into the same.
    """
    if answer.body.lstrip()[:1] == b"{":
        return dict(_flat(answer.json(step)))
    try:
        return _Leaves().read(answer.body)
    except (expat.ExpatError, UnicodeError, ValueError) as error:
        raise odd("the answer is neither XML nor JSON as AWS writes them", step) from error


def refusal_of(answer: HttpResponse, step: str) -> SojournError:
    """The error that an answer other than 200 is."""
    try:
        fields = fields_of(answer, step)
    except ProviderUnavailable:
        return unanswered(answer, step)
    found = fields.get("ErrorResponse/Error/Code", fields.get("Error/Code"))
    message = fields.get("ErrorResponse/Error/Message", fields.get("Error/Message"))
    code, detail = code_of(found), said(message)
    code = _SAME.get(code, code)
    if code == "IDPCommunicationError":
        return ProviderUnavailable(
            "AWS could not reach this agent's issuer (IDPCommunicationError)",
            step=step,
            hint="publish the issuer's discovery document and JWKS over https where AWS reaches them, and fast",
            detail=detail,
        )
    if code in _TROUBLED or code in _FAILED:
        return ProviderUnavailable(
            f"AWS STS says that it cannot now ({code})", step=step, retry_after=retry_after(answer), detail=detail
        )
    for told in _REFUSALS.get(code, ()):
        if isinstance(message, str) and told.part.lower() in message.lower():
            return ProviderRefused(f"{told.sentence} ({code})", step=step, hint=told.hint, detail=detail)
    if not code or answer.status >= 500:
        return unanswered(answer, step, detail=detail)
    return ProviderRefused(f"AWS refused ({code})", step=step, detail=detail)


def _flat(value: Mapping[str, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            if depth < _DEPTH_MAX:
                yield from _flat(inner, f"{path}{key}/", depth + 1)
        else:
            yield f"{path}{key}", inner


class _Leaves:
    """The texts of an XML document's innermost elements by their path.

    A document type, a processing instruction, an element twice, and more than any answer has are refused.
    """

    def __init__(self) -> None:
        self._path: list[str] = []
        self._text: list[str] = []
        self._found: dict[str, str] = {}
        self._seen = 0
        self._inner = False

    def read(self, body: bytes) -> dict[str, str]:
        """Raise ValueError or ExpatError."""
        parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.ProcessingInstructionHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.Parse(body, True)
        return self._found

    def _refuse(self, *_: object) -> None:
        raise ValueError("has what no answer has")

    def _start(self, name: str, _: object) -> None:
        self._seen += 1
        if self._seen > _ELEMENTS_MAX or len(self._path) >= _DEPTH_MAX:
            raise ValueError("has more elements than any answer has")
        self._path.append(name)
        self._text.clear()
        self._inner = True

    def _end(self, _: str) -> None:
        if self._inner:
            path = "/".join(self._path)
            if path in self._found:
                raise ValueError("has an element twice")
            self._found[path] = "".join(self._text).strip()
        self._inner = False
        self._path.pop()
