"""The tables [[signals]] of the configuration: who signs events that this agent hears, and how they come."""

from datetime import timedelta
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from sojourn.limits import (
    AUDIENCE_MAX_BYTES,
    FACT_MAX_AGE_SECONDS,
    SIGNAL_AGE_MAX_SECONDS,
    SIGNAL_POLL_MAX_SECONDS,
)
from sojourn.net.urls import parse_url
from sojourn.settings.outside import Issuer, OutsideTable, Text, printable
from sojourn.settings.tables import Duration, FilePath, SpiffeIds, between

# How old an event may be that nobody said otherwise of: one that waits to be fetched may do so for as long as the
# tokens live that it is about.
PUSHED_AGE: Final = timedelta(minutes=10)
POLLED_AGE: Final = timedelta(hours=1)
_OF_THE_POLL: Final = (
    "poll_every",
    "token_issuer",
    "scope",
    "resource",
    "client_id",
    "client_auth",
    "assertion_audience",
)
_OUTSIDE: Final = ("ca", "private_networks", "plain_http", "timeout")


def _plain(value: str) -> str:
    parse_url(value)  # its ValueError says what is wrong
    return value


def _uri(value: str) -> str:
    if value and (not urlsplit(printable(value)).scheme or "#" in value):
        raise ValueError("is not an absolute URI without a fragment, nor empty")
    return value


class SignalsConfig(OutsideTable):
    """One issuer of signed events (Shared Signals) that this agent hears."""

    issuer: str  # its `iss`, compared byte for byte
    jwks: FilePath | None = None  # a file with its JWK Set; default: by the transmitter's metadata
    audience: Annotated[str, Field(min_length=1, max_length=AUDIENCE_MAX_BYTES)] | None = None  # default: our issuer
    valid: Annotated[Duration | None, between(timedelta(seconds=1), timedelta(seconds=FACT_MAX_AGE_SECONDS))] = None
    max_age: Annotated[Duration, between(timedelta(seconds=1), timedelta(seconds=SIGNAL_AGE_MAX_SECONDS))] | None = None
    publishers: SpiffeIds = ()  # SPIFFE IDs that may hand its events in; none: every process here may
    people: Annotated[str, Field(min_length=1)] | None = None  # the table [people.NAME] of whose people it may speak
    poll: Annotated[str, AfterValidator(_plain)] | None = None  # where its events are fetched (RFC 8936)
    stream: Literal["create"] | None = None  # in the place of poll: it is found, or created, at the transmitter
    poll_every: Annotated[Duration, between(timedelta(seconds=1), timedelta(seconds=SIGNAL_POLL_MAX_SECONDS))] = (
        timedelta(seconds=5)
    )
    token_issuer: Issuer | None = None  # the authorization server that gives the token for it; default: the issuer
    scope: Text | None = None  # of that token; default: ssf.read, and ssf.manage with stream
    resource: Annotated[str, Field(max_length=AUDIENCE_MAX_BYTES), AfterValidator(_uri)] | None = (
        None  # of that token (RFC 8707); "": none is named
    )
    client_id: Text | None = None  # sent along if it is set
    client_auth: Literal["jwt-spiffe", "jwt-bearer"] = "jwt-spiffe"  # by a JWT-SVID of the node
    assertion_audience: Text | None = None  # `aud` of that; default: the authorization server's issuer

    @property
    def is_polled(self) -> bool:
        return self.poll is not None or self.stream is not None

    @property
    def scopes(self) -> str:
        """What is asked for with the token."""
        return self.scope or ("ssf.read" if self.stream is None else "ssf.read ssf.manage")

    @property
    def token_resource(self) -> str:
        """Where the token is to be good: at the transmitter, and nowhere else; "": that is not said."""
        return self.issuer if self.resource is None else self.resource

    @property
    def oldest(self) -> float:
        """Seconds that an event may be old."""
        usual = POLLED_AGE if self.is_polled else PUSHED_AGE
        return (usual if self.max_age is None else self.max_age).total_seconds()

    @property
    def authorization_server(self) -> str:
        return self.token_issuer or self.issuer

    @field_validator("issuer")
    @classmethod
    def _issuer_is_a_url(cls, value: str) -> str:
        parts = urlsplit(value)
        odd = not value.isprintable() or " " in value or len(value) > AUDIENCE_MAX_BYTES
        if parts.scheme not in {"https", "http"} or not parts.hostname or "#" in value or odd:
            raise ValueError("is not an https URL")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        given = self.model_fields_set
        if self.issuer.startswith("http:") and not self.plain_http:
            raise ValueError("issuer is not an https URL; plain_http = true allows one of a loopback address")
        if self.poll is not None and self.stream is not None:
            raise ValueError("has poll and stream: with a stream that is created nobody says where it is polled")
        if not self.is_polled:
            if odd := next((key for key in _OF_THE_POLL if key in given), ""):
                raise ValueError(f"{odd} is for polling, and there is neither poll nor stream")
            if self.jwks is not None and (odd := next((key for key in _OUTSIDE if key in given), "")):
                raise ValueError(f"{odd} is for asking the issuer, which jwks makes needless without poll or stream")
        asked = self.issuer if self.jwks is None or self.stream is not None else ""
        for key, url in (("issuer", asked), ("poll", self.poll or "")):
            if url.startswith("http:") and not self.plain_http:
                raise ValueError(
                    f"{key} is asked over plain http, which plain_http = true allows for a loopback address"
                )
        if asked:
            _asked(self.issuer)
        return self


def _asked(issuer: str) -> None:
    """Raise ValueError unless an issuer's metadata can be asked for."""
    try:
        parse_url(issuer)
    except ValueError as error:
        raise ValueError(f"issuer {error}: name its keys in jwks") from None
