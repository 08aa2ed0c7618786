"""What a token says of the person that its task is for: `sub`, `sub_id` (RFC 9493), `auth_time`, `acr` and `amr`.

A subject is a person if and only if `sub_id` is there: a reader refuses either alone. What else a service may read of
them, by the task's type, stands in the claim `person` and nowhere else: a name that their issuer has made is no claim
of ours.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sojourn.errors import InvalidInput
from sojourn.limits import PERSON_SUBJECT_MAX_BYTES
from sojourn.tasktoken.task_claim import APPROVED

SUB_ID: Final = "sub_id"
PERSON: Final = "person"
GROUPS: Final = "groups"
# What tokens of ours, JWTs and answers of introspection say of themselves, or what would be another's session: no
# service is told a claim of a person by such a name, as one that lays all claims side by side would take it for that.
_OF_TOKENS: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "authorization_details", "act"),
        *("cnf", "status", "task", SUB_ID, PERSON, "auth_time", "acr", "amr"),
        *("azp", "may_act", "sid", "nonce", "events", "typ", "alg", "kid", "crit", "scp", "txn"),
        *("active", "token_type", "username", "issuer", "subject", "audience", "actor", "spiffe_id"),
    }
)
# In the place of a person's name, ISSUER|SUBJECT: what is done is for nobody. Nobody is called so: it has no bar.
NOBODY: Final = "-"
ISS_SUB: Final = "iss_sub"  # its one format that we write and read (RFC 9493, 3.2.3)


Told = str | int | bool | tuple[str, ...]
_NOTHING: Final[Mapping[str, Told]] = {}


class PersonClaims(NamedTuple):
    """The person of a token. `auth_time`: seconds since the epoch; 0 and '': the issuer did not say.

    `prefix` stands before the `subject` in `sub`, where the agent takes people of several issuers: a service that reads
    `sub` alone takes nobody for somebody of another.
    `claims` are what their issuer says of them beyond that, as far as the task's type lets this service read it; as
    `groups` their groups, each behind the name that the issuer has in the agent's configuration: `corp/support`.
    """

    issuer: str  # its `iss`, byte for byte
    subject: str
    auth_time: int = 0
    acr: str = ""
    amr: tuple[str, ...] = ()
    claims: Mapping[str, Told] = _NOTHING
    prefix: str = ""

    @property
    def sub(self) -> str:
        """The token's own `sub`."""
        return self.prefix + self.subject

    def claimed(self) -> dict[str, Any]:
        """The claims. An `acr` of our own name is left out: no other issuer says that somebody approved a task."""
        claims: dict[str, Any] = {
            "sub": check_subject(self.sub),
            SUB_ID: {"format": ISS_SUB, "iss": self.issuer, "sub": self.subject},
        }
        if self.auth_time:
            claims["auth_time"] = self.auth_time
        if self.acr and self.acr != APPROVED:
            claims["acr"] = self.acr
        if self.amr:
            claims["amr"] = list(self.amr)
        if self.claims:
            claims[PERSON] = self.listed()
        return claims

    def listed(self) -> dict[str, str | int | bool | list[str]]:
        """`claims` as JSON has them."""
        return {name: list(each) if isinstance(each, tuple) else each for name, each in self.claims.items()}

    @classmethod
    def read(cls, claims: Mapping[str, Any]) -> "PersonClaims | None":
        """Read them, strictly. None: the subject is no person. Raise InvalidInput."""
        if SUB_ID not in claims:
            if PERSON in claims:
                raise InvalidInput("it tells something of a person, and is for none")
            return None
        said = claims[SUB_ID]
        if not isinstance(said, dict) or set(said) != {"format", "iss", "sub"} or said["format"] != ISS_SUB:
            raise InvalidInput("its sub_id is no issuer with a subject")
        issuer, subject = said["iss"], said["sub"]
        if not isinstance(issuer, str) or not issuer or not isinstance(subject, str):
            raise InvalidInput("its sub_id is no issuer with a subject")
        whole = claims.get("sub")
        if not isinstance(whole, str) or not whole.endswith(check_subject(subject)):
            raise InvalidInput("its sub_id is of another subject")
        prefix = check_subject(whole).removesuffix(subject)
        return cls(issuer, subject, *_login(claims), _told(claims.get(PERSON, {})), prefix)


def check_subject(text: str) -> str:
    """A `sub` that ours can carry. Raise InvalidInput if it is empty, long, hidden, or looks like a workload's."""
    if not 0 < len(text.encode("utf-8", "surrogatepass")) <= PERSON_SUBJECT_MAX_BYTES:
        raise InvalidInput(f"the subject is empty or has more than {PERSON_SUBJECT_MAX_BYTES} bytes")
    if not unicodedata.is_normalized("NFC", text) or not text.isprintable():
        raise InvalidInput("the subject has characters that do not print, or that another spelling has too")
    # Whoever folds letters that look alike, or trims, must not find a workload in it either.
    if unicodedata.normalize("NFKC", text).casefold().lstrip().startswith("spiffe:"):
        raise InvalidInput("the subject looks like a SPIFFE ID")
    return text


def _login(claims: Mapping[str, Any]) -> tuple[int, str, tuple[str, ...]]:
    """When and how the person logged in. Raise InvalidInput."""
    auth_time, acr, amr = claims.get("auth_time", 0), claims.get("acr", ""), claims.get("amr", [])
    if type(auth_time) is not int or auth_time < 0:
        raise InvalidInput("its auth_time is no time")
    if not isinstance(acr, str) or acr == APPROVED:
        raise InvalidInput("its acr is none of a person's")
    if not isinstance(amr, list) or not all(isinstance(each, str) for each in amr):
        raise InvalidInput("its amr is no list of texts")
    return auth_time, acr, tuple(amr)


def check_told(name: str) -> None:
    """Raise InvalidInput if no service is told a claim of a person by this name, in whichever case."""
    if name.casefold() in _OF_TOKENS:  # some readers of JSON do not mind the case
        raise InvalidInput(f"{name!r} is what tokens say of themselves")


def _told(said: Any) -> Mapping[str, Told]:
    """What a service may read. Raise InvalidInput."""
    if not isinstance(said, dict):
        raise InvalidInput("its person is no object")
    return {name: _value(name, each) for name, each in said.items()} or _NOTHING


def _value(name: str, said: Any) -> Told:
    check_told(name)
    if name == GROUPS and isinstance(said, list) and all(isinstance(each, str) for each in said):
        return tuple(said)
    if name == GROUPS or not isinstance(said, str | int):
        raise InvalidInput(f"its person has a {name[:64]!r} that is none")
    return said
