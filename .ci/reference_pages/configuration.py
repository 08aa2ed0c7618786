"""docs/reference/configuration.md: every key of the configuration, from the models that read them."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby

from sojourn.config.description import Key, described
from sojourn.providers.aws import AwsSettings
from sojourn.providers.bearer import BearerTable
from sojourn.providers.entra import EntraSettings
from sojourn.providers.gcp import GcpSettings
from sojourn.providers.id_jag import IdJagTable
from sojourn.providers.keycloak import KeycloakTable
from sojourn.providers.oidc import OidcTable
from sojourn.providers.provider import ProviderTable
from sojourn.providers.vault import VaultSettings
from sojourn.settings.tables import Table
from sojourn_attestors import docker, kubernetes, systemd, unix

from reference_pages import MADE, code, plugin_keys, table

ATTESTORS: dict[str, type[Table]] = {
    "unix": unix.Settings,
    "systemd": systemd.SystemdSettings,
    "docker": docker.Settings,
    "k8s": kubernetes.KubernetesSettings,
}
PROVIDERS: dict[str, type[Table]] = {
    "aws": AwsSettings,
    "bearer": BearerTable,
    "entra": EntraSettings,
    "gcp": GcpSettings,
    "id-jag": IdJagTable,
    "keycloak": KeycloakTable,
    "oidc": OidcTable,
    "vault": VaultSettings,
}
_HEAD = f"""# Configuration

{MADE}

One TOML file; every key has a default that works. A flag of `sojourn agent run` wins over its `SOJOURN_…` variable,
which wins over the file. Paths in the file are relative to it. Durations are `90s`, `15m`, `1h30m`, `7d`; a bare number
is seconds.

- `sojourn config show` prints each value that is in force and where it comes from, and all faults at once, each with
  its line.
- `sojourn config explain KEY` prints what stands here.
- **Restart**: a key with “no” is in force when the file is read again (SIGHUP, `systemctl reload sojourn`), and every
  other one when the agent is started again. `sojourn status` names those that have changed and wait for a start.

Defaults that say “for root” are those of an agent that runs as root; anybody else's follow. In `NAME[].KEY` the key is
one of each table of an array, `[[NAME]]`; in `TABLE.NAME.KEY` it is one of each table `[TABLE.NAME]`.
"""
_PLUGINS = """## Attestors

A table `[attestors.NAME]` turns an attestor on; without any, `unix` is. [attestors.md](../attestors.md) tells of each.
These tables are looked at when the agent starts.
"""
_PROVIDERS = """## Providers

A table `[providers.NAME]` has the `kind` and these keys, looked at when the agent starts.
[providers.md](../providers.md) tells how each kind is set up. Keys that all kinds have:
"""


def page() -> str:
    """docs/reference/configuration.md, whole."""
    return "\n".join([*_HEAD.splitlines(), "", *_agent(), *_attestors(), *_providers()]).rstrip("\n") + "\n"


def _agent() -> Iterator[str]:
    for name, keys in groupby(described(), lambda key: _of(key.name)):
        yield f"## {name}"
        yield ""
        yield from table(
            ("Key", "Type", "Default", "Limits", "Restart", "Meaning"),
            (
                (
                    code(each.name),
                    each.kind,
                    each.default or "must be given",
                    each.limits,
                    _restart(each),
                    _meaning(each),
                )
                for each in keys
            ),
        )


def _of(key: str) -> str:
    return key.replace("[]", "").partition(".")[0] if "." in key or key in _TABLES else "The agent"


_PLUGINS_KEY = "plugin."
_TABLES = ("attestors", "signals", "services", "providers", "people")


def _restart(key: Key) -> str:
    return "no" if key.at_once else "yes"


def _meaning(key: Key) -> str:
    ways = [code(each) for each in (key.flag, key.variable) if each]
    return f"{key.meaning} {', '.join(ways)}." if ways else key.meaning


def _plugin(model: type[Table], meaning: Callable[[str], str], without: set[str]) -> Iterator[str]:
    # With a name in front, since the agent has keys of the same names.
    keys = ((each.name.removeprefix(_PLUGINS_KEY), each) for each in described(model, _PLUGINS_KEY))
    rows = [
        (code(name), each.kind, each.default or "must be given", each.limits, meaning(name))
        for name, each in keys
        if name not in without
    ]
    yield from table(("Key", "Type", "Default", "Limits", "Meaning"), rows)


def _attestors() -> Iterator[str]:
    yield from (*_PLUGINS.splitlines(), "")
    for name, model in ATTESTORS.items():
        yield from (f"### attestors.{name}", "")
        yield from _plugin(model, partial(plugin_keys.of_attestor, name), set())


def _providers() -> Iterator[str]:
    yield from (*_PROVIDERS.splitlines(), "")
    yield from _plugin(ProviderTable, partial(plugin_keys.of_provider, ""), set())
    for kind, model in PROVIDERS.items():
        yield from (f"### providers of kind {kind}", "")
        yield from _plugin(model, partial(plugin_keys.of_provider, kind), set(ProviderTable.model_fields))
