"""What Vault and OpenBao answer when they say no, and what to do about it."""

from typing import Any, Final

from sojourn.errors import SojournError
from sojourn.providers.answers import said, unanswered
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import HttpResponse

# By a part of what they say, in lower case: what happened, and what to set.
_LOGIN: Final = (
    ("role", "could not be found", "Vault has no such role", "compare the role with: vault list auth/MOUNT/role"),
    ("audience", "claim", "the role does not take the JWT-SVID's audience", "set the role's bound_audiences"),
    ("subject", "claim", "the role does not take this SPIFFE ID", "set the role's bound_subject to the SPIFFE ID"),
    ("issuer", "claim", "Vault does not take the JWT-SVID's issuer", "set bound_issuer in auth/MOUNT/config"),
    ("claims", "bound", "the role does not take the JWT-SVID's claims", "look at the role's bound_claims"),
    ("expir", "token", "Vault finds the JWT-SVID expired", "set this machine's clock: it was made just now"),
    ("issued", "future", "Vault finds the JWT-SVID not yet good", "set this machine's clock: it was made just now"),
    ("not before", "", "Vault finds the JWT-SVID not yet good", "set this machine's clock: it was made just now"),
    (
        "signature",
        "",
        "Vault could not verify the JWT-SVID's signature",
        "set oidc_discovery_url or jwks_url in auth/MOUNT/config to the agent's issuer, or new jwt_validation_pubkeys",
    ),
    ("keys", "", "Vault could not get the agent's keys", "the issuer's JWKS has to be where Vault reaches it"),
)


def refusal_of(answer: HttpResponse, step: str) -> SojournError:
    """The error that an answer other than a good one is."""
    told: Any = answer.told().get("errors")
    texts = [each for each in told if isinstance(each, str)] if isinstance(told, list) else []
    lower, detail = " ".join(texts).lower(), said("; ".join(texts))
    if answer.status == 503 and "sealed" in lower:
        return ProviderUnavailable("Vault is sealed", step=step, hint="unseal it", detail=detail)
    if answer.status not in {400, 403, 404}:
        return unanswered(answer, step, detail=detail)
    if step == "login":
        for first, second, sentence, hint in _LOGIN:
            if first in lower and second in lower:
                return ProviderRefused(sentence, step=step, hint=hint, detail=detail)
    if answer.status == 404 and "namespace" in lower:
        return ProviderRefused("Vault has no such namespace", step=step, hint="look at `namespace`", detail=detail)
    if step == "revoke":  # an end is tried again as long as it may yet come
        if answer.status == 400 and "batch" in lower:
            return ProviderRefused("a batch token cannot be revoked", step=step, detail=detail)
        return unanswered(answer, step, detail=detail)
    known = {
        ("login", 403): ("Vault does not let it log in there", "compare `mount` with: vault auth list"),
        ("login", 404): ("Vault has no auth method there", "compare `mount` with: vault auth list"),
        ("secret", 403): (
            "the role's policies do not allow to read the secret",
            "allow read of ask.path in one of them",
        ),
        ("secret", 404): (
            "there is no secret at this path",
            "compare ask.path: KV version 2 has data/ after its mount",
        ),
    }
    sentence, hint = known.get((step, answer.status), (f"Vault refused (HTTP {answer.status})", ""))
    return ProviderRefused(sentence, step=step, hint=hint, detail=detail)
