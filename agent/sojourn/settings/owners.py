"""Who is responsible for something: a text for people, or a person of an OpenID provider, `oidc:ISSUER#SUBJECT`."""

from urllib.parse import urlsplit

from sojourn.limits import OWNER_MAX

_OIDC = "oidc:"


def check_owner(text: str) -> str:
    """Return `text` if it may name an owner or a sponsor. Raise ValueError with the rule; empty: nobody is named."""
    if len(text) > OWNER_MAX:
        raise ValueError(f"is longer than {OWNER_MAX} characters")
    if text != text.strip() or not text.isprintable():
        raise ValueError("has white space around it, or a character that cannot be printed")
    if text.startswith(_OIDC):
        issuer, _, subject = text.removeprefix(_OIDC).partition("#")
        parts = urlsplit(issuer)
        if parts.scheme != "https" or not parts.hostname or not subject:
            raise ValueError(
                "is not oidc:ISSUER#SUBJECT with an https issuer, such as oidc:https://id.example.org#4711"
            )
    return text
