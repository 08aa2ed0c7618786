"""The services that the configuration names."""

from sojourn.config.model import Config
from sojourn.oauth.resource_servers import Service
from sojourn.spiffe.ids import SpiffeId


def services_of(config: Config) -> list[Service]:
    """The services that the configuration names."""
    return [
        Service(each.resource, frozenset(SpiffeId.parse(name) for name in each.workloads), each.name or "")
        for each in config.services
    ]
