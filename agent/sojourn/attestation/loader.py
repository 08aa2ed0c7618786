"""Makes the attestors that the configuration names: ours here, and anyone else's in a process of their own."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from importlib.metadata import EntryPoint
from typing import Any

from sojourn.attestation.attestor import Attestor, Closing
from sojourn.attestation.plugin_attestor import HostedAttestor
from sojourn.errors import InvalidConfig
from sojourn.runtime.clock import Clock
from sojourn.settings.plugin_loader import faults_below, is_ours, make_plugins


async def load_attestors(tables: Mapping[str, Mapping[str, Any]], pool: Executor, clock: Clock) -> dict[str, Attestor]:
    """Make every attestor that `tables` names; those that do not come with Sojourn in a process of their own.

    Raise InvalidConfig with all faults of all tables.
    """
    hosted: dict[str, HostedAttestor] = {}

    def make(name: str, settings: Mapping[str, Any], found: Mapping[str, EntryPoint]) -> Attestor:
        if name not in found:
            raise InvalidConfig([f": no such attestor is installed; there are: {', '.join(sorted(found))}"])
        if is_ours(found[name]):
            made: Attestor = found[name].load()(settings, pool)
            return made
        return hosted.setdefault(name, HostedAttestor(found[name], settings, clock))

    attestors: dict[str, Attestor] = {}
    faults: list[str] = []
    try:
        attestors = make_plugins("attestors", tables, make)
    except InvalidConfig as error:
        faults += error.faults
    started = await asyncio.gather(*(each.start() for each in hosted.values()), return_exceptions=True)
    for name, failure in zip(hosted, started, strict=True):
        if isinstance(failure, InvalidConfig):
            faults += faults_below("attestors", name, failure)
        elif failure is not None:
            raise failure
    if faults:
        for each in (*hosted.values(), *attestors.values()):
            if isinstance(each, Closing):
                await each.close()
        raise InvalidConfig(faults)
    return attestors
