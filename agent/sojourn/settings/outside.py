"""What a table of the configuration says of an outside system that is asked over HTTP, whatever it is asked."""

from datetime import timedelta
from ipaddress import ip_network
from typing import Annotated

from pydantic import AfterValidator, Field

from sojourn.limits import AUDIENCE_MAX_BYTES, PROVIDER_DEADLINE_MAX_SECONDS, PROVIDER_DEADLINE_SECONDS
from sojourn.net.urls import parse_url
from sojourn.settings.tables import Duration, FilePath, Table, between


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        ip_network(each)  # its ValueError says what is wrong
    return value


def _issuer(value: str) -> str:
    if "?" in parse_url(value).target:
        raise ValueError("has a query, which no issuer has (RFC 8414, 2)")
    return value


def printable(value: str) -> str:
    """Raise ValueError for a text that no header, form or claim could carry as it is."""
    if not (value.isascii() and value.isprintable()):
        raise ValueError("has characters that are not printable ASCII")
    return value


Text = Annotated[str, Field(min_length=1, max_length=AUDIENCE_MAX_BYTES), AfterValidator(printable)]
Networks = Annotated[tuple[str, ...], Field(max_length=32), AfterValidator(_networks)]
Issuer = Annotated[str, AfterValidator(_issuer)]  # a URL, compared byte for byte


class OutsideTable(Table):
    """How it is reached."""

    timeout: Annotated[Duration, between(timedelta(seconds=0.1), timedelta(seconds=PROVIDER_DEADLINE_MAX_SECONDS))] = (
        timedelta(seconds=PROVIDER_DEADLINE_SECONDS)
    )  # for one request as a whole, with what is tried again
    ca: FilePath | None = None  # a PEM file: who may have signed its certificate; default: the system's
    private_networks: Networks = ()  # not public, and may be connected to
    plain_http: Annotated[bool, Field(strict=True)] = False  # http:// to a loopback address too, for trying it out
