"""HOST:PORT in the configuration."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator

from sojourn.settings.tables import Called

_HOST_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def _host_port(value: str) -> str:
    found = _HOST_PORT.fullmatch(value)
    if found is None or not 0 < int(found[2]) <= 65_535:
        raise ValueError("is not HOST:PORT, such as spire-server.example.org:8081")
    return value


HostPort = Annotated[str, AfterValidator(_host_port), Called("HOST:PORT")]
