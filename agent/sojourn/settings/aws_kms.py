"""Where AWS KMS is. By what it is asked comes from where every AWS SDK looks: variables, files, or the machine."""

from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field

from sojourn.net.allowed_addresses import is_loopback, parse_address
from sojourn.net.urls import parse_url
from sojourn.settings.tables import Duration, Table, between


def _endpoint(value: str) -> str:
    url = parse_url(value)
    address = parse_address(url.host)
    if url.scheme != "https" and (address is None or not is_loopback(address)):
        raise ValueError("is to be an https URL, unless it is on this host")
    return value


class AwsKmsConfig(Table):
    """`endpoint` is another than the region's own, such as one of a VPC. `timeout`: to connect, and for an answer."""

    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$")]
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    timeout: Annotated[Duration, between(timedelta(seconds=0.1), timedelta(seconds=9))] = timedelta(seconds=3)
