"""Tables of the configuration about who vouches for the signed journal: witnesses, and a time-stamp authority."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from sojourn.errors import InvalidInput
from sojourn.net.allowed_addresses import is_loopback, parse_address
from sojourn.net.urls import parse_url
from sojourn.operating_limits import (
    STAMP_EVERY_LEAST_SECONDS,
    STAMP_EVERY_SECONDS,
    WITNESS_DEADLINE_MAX_SECONDS,
    WITNESS_DEADLINE_SECONDS,
    WITNESS_EVERY_LEAST_SECONDS,
    WITNESS_EVERY_SECONDS,
)
from sojourn.settings.outside import Networks
from sojourn.settings.tables import Called, Duration, FilePath, Table, between
from sojourn.tlog.notes import VerifierKey


def is_here(host: str) -> bool:
    """Whether a host is a loopback address, or localhost."""
    address = parse_address(host)
    return host == "localhost" or (address is not None and is_loopback(address))


def _secure(value: str) -> str:
    url = parse_url(value)  # its ValueError says what is wrong
    if url.scheme != "https" and not is_here(url.host):
        raise ValueError("is not an https URL: plain http is for loopback addresses alone")
    return value


def _prefix(value: str) -> str:
    if "?" in parse_url(value).target:
        raise ValueError("has a query: it is the prefix of the witness's addresses")
    return value.rstrip("/")


def _vkey(value: str) -> str:
    try:
        VerifierKey.parse_cosigner(value)
    except InvalidInput as error:
        raise ValueError(f"{value[:100]!r}: {error.public}") from None
    return value


SecureUrl = Annotated[str, AfterValidator(_secure), Called("https URL")]
Deadline = Annotated[Duration, between(timedelta(seconds=0.1), timedelta(seconds=WITNESS_DEADLINE_MAX_SECONDS))]


class WitnessConfig(Table):
    """One witness that cosigns the journal's checkpoints (C2SP tlog-witness)."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    url: Annotated[SecureUrl, AfterValidator(_prefix)]  # the submission prefix: add-checkpoint is below it
    key: Annotated[str, AfterValidator(_vkey), Called("verifier key")]
    every: Annotated[Duration, between(timedelta(seconds=WITNESS_EVERY_LEAST_SECONDS))] = timedelta(
        seconds=WITNESS_EVERY_SECONDS
    )  # at most so often
    timeout: Deadline = timedelta(seconds=WITNESS_DEADLINE_SECONDS)  # for one request
    ca: FilePath | None = None  # a PEM file: who may have signed its certificate; default: the system's
    private_networks: Networks = ()  # not public, and may be connected to


class TimestampsConfig(Table):
    """A time-stamp authority (RFC 3161) that stamps a checkpoint now and then. Off without its URL."""

    url: SecureUrl | None = None
    tsa_ca: FilePath | None = None  # a PEM file: root certificates, of which one must vouch for its own
    every: Annotated[Duration, between(timedelta(seconds=STAMP_EVERY_LEAST_SECONDS))] = timedelta(
        seconds=STAMP_EVERY_SECONDS
    )
    timeout: Deadline = timedelta(seconds=WITNESS_DEADLINE_SECONDS)
    ca: FilePath | None = None  # a PEM file: who may have signed the certificate of its TLS; default: the system's
    private_networks: Networks = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.url is None) != (self.tsa_ca is None):
            raise ValueError("url and tsa_ca go together: no stamp counts that no root vouches for")
        return self
