"""Makes the providers that the configuration names, each with an HTTP client of its own."""

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import ValidationError

from sojourn.errors import InvalidConfig
from sojourn.providers.provider import Provider, ProviderTable
from sojourn.settings.models import faults_of
from sojourn.settings.plugin_loader import make_plugins


class _Common(ProviderTable):
    """The keys that all kinds have, read out of a table that has others too."""

    model_config = ProviderTable.model_config | {"extra": "ignore"}


def load_providers(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Provider]:
    """Make every provider of `tables` (name to its table). Raise InvalidConfig with all faults of all tables."""
    return make_plugins("providers", tables, _load)


def _load(name: str, table: Mapping[str, Any], found: Mapping[str, EntryPoint]) -> Provider:
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in found:
        raise InvalidConfig([f"kind: is none that is installed; there are: {', '.join(sorted(found))}"])
    from sojourn.providers.guarded_http import GuardedHttp  # with it comes an HTTP library: for those who use it

    plugin = found[kind].load()
    try:
        reached = _Common.model_validate(dict(table))
    except ValidationError as error:
        faults = faults_of(error, ProviderTable)
        try:
            plugin(name, table, GuardedHttp(ProviderTable(kind=kind)))  # what is wrong with its own keys is told too
        except InvalidConfig as more:
            faults += [fault for fault in more.faults if fault not in faults]
        raise InvalidConfig(faults) from error
    made: Provider = plugin(name, table, GuardedHttp(reached))
    return made
