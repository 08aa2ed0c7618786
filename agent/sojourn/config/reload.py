"""The configuration, read again while the agent runs: what can be in force at once is, and the rest is named.

A configuration that has a fault changes nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import structlog

from sojourn.audit.journal import Audit
from sojourn.config.load import Loaded
from sojourn.config.model import Config
from sojourn.errors import InvalidConfig, joined
from sojourn.limits import AUDITED_TEXT
from sojourn.runtime.clock import Clock
from sojourn.settings.tables import Table

log = structlog.get_logger()
Apply = Callable[[Config], Awaitable[None]]
_PLUGINS = frozenset({"attestors", "people", "providers"})  # tables of tables, each of which is one key here
_ABSENT = object()


class ConfigReload:
    """What of the configuration is in force, and what will be after a restart."""

    def __init__(
        self, loaded: Loaded, file: Path | None, read: Callable[[], Loaded], audit: Audit, clock: Clock
    ) -> None:
        """`read` puts the configuration together once more, in a thread. Raises InvalidConfig."""
        self.file = file
        self.digest = loaded.digest  # of what was taken last
        self.read_at: datetime = clock.now()
        self.fault = ""
        self.restart_needed: tuple[str, ...] = ()
        self._in_force = values_of(loaded.config)
        self._read = read
        self._audit = audit
        self._clock = clock
        self._appliers: list[tuple[frozenset[str], Apply]] = []
        self._wake = asyncio.Event()
        self.on_read: Callable[[], object] = lambda: None  # told when all that was wished was read, whatever came of it

    def on(self, keys: Collection[str], apply: Apply) -> None:
        """Have `apply` called with the whole configuration when one of these keys has another value."""
        self._appliers.append((frozenset(keys), apply))

    def wake(self) -> None:
        """Have the configuration read soon."""
        self._wake.set()

    async def run(self) -> NoReturn:
        """Read it whenever that is wished, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.reload()
            except Exception:  # whatever it is, what is in force stays
                log.exception("config_failed", path=str(self.file))
                self.fault = "internal error; the log has it"
            if not self._wake.is_set():
                self.on_read()

    async def reload(self) -> None:
        """Read it now, and bring into force what can be."""
        try:
            loaded = await asyncio.to_thread(self._read)
        except InvalidConfig as error:
            self.fault = joined(error.faults)
            log.error("config_refused", path=str(self.file), reason=self.fault)
            self._audit.note("config_refused", path=str(self.file), reason=self.fault[:AUDITED_TEXT])
            return
        self.fault, self.read_at, self.digest = "", self._clock.now(), loaded.digest
        wanted = values_of(loaded.config)
        applied = await self._apply(loaded.config, wanted)
        self.restart_needed = self._changed(wanted)
        said = {"path": str(self.file), "changed": applied, "restart_needed": list(self.restart_needed)}
        log.info("config_reloaded", **said)
        self._audit.note("config_reloaded", **said)
        if self.restart_needed:
            reason = f"not in force until the agent is started again: {', '.join(self.restart_needed)}"
            log.warning("config_restart_needed", path=str(self.file), reason=reason)

    async def _apply(self, config: Config, wanted: Mapping[str, Any]) -> list[str]:
        """Bring into force what can be, and return its keys."""
        applied: list[str] = []
        changed = frozenset(self._changed(wanted))
        for keys, apply in self._appliers:
            mine = sorted(keys & changed)
            if not mine:
                continue
            try:
                await apply(config)
            except Exception:
                log.exception("config_not_applied", path=str(self.file), keys=mine)
                continue
            self._in_force.update((key, wanted[key]) for key in mine)
            applied += mine
        return applied

    def _changed(self, wanted: Mapping[str, Any]) -> tuple[str, ...]:
        keys = dict.fromkeys([*self._in_force, *wanted])
        return tuple(key for key in keys if self._in_force.get(key, _ABSENT) != wanted.get(key, _ABSENT))


def values_of(config: Config) -> dict[str, Any]:
    """Each key with its value. Arrays of tables, and the table of one plugin, are one key each."""
    return dict(_walk("", config))


def _walk(prefix: str, table: Table) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name in type(table).model_fields:
        value = getattr(table, name)
        if isinstance(value, Table):
            found += _walk(f"{prefix}{name}.", value)
        elif prefix + name in _PLUGINS:
            found += ((f"{name}.{plugin}", settings) for plugin, settings in value.items())
        else:
            found.append((prefix + name, value))
    found += ((prefix + name, value) for name, value in (table.model_extra or {}).items())
    return found
