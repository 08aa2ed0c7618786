"""How an OpenBao or Vault is reached, and logged in to, whatever it is asked."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from sojourn.net.urls import parse_url
from sojourn.settings.outside import OutsideTable, Text
from sojourn.settings.tables import FilePath


def _no_slashes(value: str) -> str:
    if value != value.strip("/"):
        raise ValueError("has a slash at an end")
    return value


Place = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,254}$"), AfterValidator(_no_slashes)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


def check_address(value: str) -> str:
    """Raise ValueError for a URL that is not https://HOST[:PORT]."""
    if parse_url(value).target not in {"", "/"}:
        raise ValueError("has a path or a query: it is https://HOST[:PORT]")
    return value


class TransitConfig(OutsideTable):
    """The transit secrets engine that holds the keys of the roots. By `auth_role` the agent logs in with a JWT-SVID of
    its own, by `token_file` with a token that somebody puts there.
    """

    address: Annotated[str, AfterValidator(check_address)]
    mount: Place = "transit"  # of the transit engine
    namespace: Place | None = None
    auth_mount: Place = "jwt"  # of the auth method that takes the agent's own JWT-SVID
    auth_role: Name | None = None
    audience: Text | None = None  # of that JWT-SVID; default: the address
    token_file: FilePath | None = None  # with a token, instead of that

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if (self.auth_role is None) == (self.token_file is None):
            raise ValueError("needs auth_role, or token_file, and not both")
        return self
