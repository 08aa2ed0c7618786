"""The providers of the configuration as task types name them, and what is to be asked of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from sojourn.credentials.circuit_breaker import Circuit
from sojourn.errors import Fault, InvalidTarget, SojournError
from sojourn.limits import (
    PROVIDER_CALLS_AT_ONCE,
    PROVIDER_CALLS_PER_OWNER,
    PROVIDER_CALLS_WAITING,
    PROVIDER_DEADLINE_SECONDS,
    TASK_TYPES,
)
from sojourn.policy import rules
from sojourn.policy.task_types import TaskType
from sojourn.providers.provider import Provider, audiences_of
from sojourn.quota.fair_semaphore import FairSemaphore
from sojourn.quota.lru import Lru
from sojourn.runtime.clock import Clock
from sojourn.settings.durations import parse_duration
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.task import Task

log = structlog.get_logger()


def deadlines(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The deadlines of providers in seconds, by the names of their tables in the configuration, which are good."""
    return {
        name: parse_duration(table["timeout"]).total_seconds() if "timeout" in table else PROVIDER_DEADLINE_SECONDS
        for name, table in tables.items()
    }


_ASKS_KEPT = 4 * TASK_TYPES  # of the set in force, of a candidate, and of those that were in force a moment ago


def _places() -> FairSemaphore:
    """What may be asked of one provider at once."""
    return FairSemaphore(
        PROVIDER_CALLS_PER_OWNER,
        in_all=PROVIDER_CALLS_AT_ONCE,
        waiting=PROVIDER_CALLS_WAITING,
        refusal="too many requests of this user or workload wait for the provider: come again later",
    )


@dataclass(slots=True, eq=False)
class Outlet:
    """One provider, and how it fares. `seconds`: its deadline for an exchange as a whole."""

    name: str
    provider: Provider
    seconds: float
    circuit: Circuit
    places: FairSemaphore = field(default_factory=_places)
    exchanges: int = 0  # since the agent started
    failures: int = 0


@dataclass(frozen=True, slots=True)
class ProviderRoute:
    """Where the credentials for a resource come from, and what the provider is asked with."""

    outlet: Outlet
    ask: Any


class ProviderRoutes:
    """All providers, by their names in the configuration."""

    def __init__(
        self, providers: Mapping[str, Provider], clock: Clock, deadlines: Mapping[str, float] | None = None
    ) -> None:
        """`deadlines`: in seconds, of those that have another than the usual one."""
        seconds = deadlines or {}
        self._outlets = {
            name: Outlet(name, provider, seconds.get(name, PROVIDER_DEADLINE_SECONDS), Circuit(name, clock))
            for name, provider in providers.items()
        }
        self._audiences = [(audience, name) for name, each in providers.items() for audience in audiences_of(each)]
        # By a type's digest and a resource: what is asked for it, as its provider has read it.
        self._asks: Lru[tuple[str, str], tuple[Any]] = Lru(_ASKS_KEPT, by_age=True)

    def __len__(self) -> int:
        return len(self._outlets)

    def all(self) -> list[Outlet]:
        return list(self._outlets.values())

    def find(self, name: str) -> Outlet | None:
        return self._outlets.get(name)

    def taking(self, audience: str) -> list[str]:
        """The providers whose outside systems would take a JWT-SVID for this audience.

        Those are whoever names the audience, or a URL above it: servers take the URLs of their endpoints too.
        """
        return [
            name
            for each, name in self._audiences
            if audience == each or audience.startswith(f"{each.removesuffix('/')}/")
        ]

    def reserving(self, types: Mapping[str, TaskType], spiffe_id: SpiffeId, audience: str) -> str:
        """The provider that gives tasks of this workload, by these types, what a JWT-SVID for this audience would give
        it without one; '': none.
        """
        names = self.taking(audience)
        for kind in types.values() if names else ():
            given = {each.provider for each in kind.outside.values()}.intersection(names)
            if given and any(rules.may_hold(kind, str(spiffe_id), depth) for depth in (0, 1)):
                return min(given)
        return ""

    def faults(self, types: Mapping[str, TaskType]) -> list[Fault]:
        """What is wrong with how task types name providers, each with its file's name and line; none: all is read."""
        found = []
        for kind in types.values():
            for resource, outside in kind.outside.items():
                try:
                    if outside.provider not in self._outlets:
                        found.append(Fault(f"{kind.name}.toml", outside.line, self._unknown(outside.provider)))
                    else:
                        self._read(kind, resource)
                except SojournError as error:
                    fault = f"ceiling: ask: {resource}: {error.public}"
                    found.append(Fault(f"{kind.name}.toml", outside.ask_line, fault))
                except Exception as error:
                    log.exception("ask_not_read", provider=outside.provider, type=kind.name)
                    fault = f"ceiling: ask: {resource}: cannot be read: {type(error).__name__}"
                    found.append(Fault(f"{kind.name}.toml", outside.ask_line, fault))
        return found

    def route(self, kind: TaskType, resource: str) -> ProviderRoute | None:
        """From where credentials for a resource of a task type come; None: they are our own task tokens.

        Raise InvalidTarget if the provider is not there, or does not take what it is to be asked: types that were
        checked name none such.
        """
        outside = kind.outside.get(resource)
        if outside is None:
            return None
        outlet = self._outlets.get(outside.provider)
        if outlet is None:
            raise InvalidTarget(f"there is no provider {outside.provider!r} for {resource[:200]!r}")
        return ProviderRoute(outlet, self._read(kind, resource))

    def described(self, task: Task) -> Sequence[tuple[str, Outlet, Mapping[str, str]]]:
        """The resources of a task's grants that providers give credentials for, with what programs must know of them.

        Empty of a task whose type is not in force any more.
        """
        each = ((resource, self._described(task, resource)) for resource in task.authority.resources)
        return [(resource, *told) for resource, told in each if told is not None]

    def asked_of(self, task: Task, resource: str) -> Mapping[str, str]:
        """What a provider is asked for, so that it is known of a lost answer whatever task types say by then."""
        told = self._described(task, resource)
        return {} if told is None else told[1]

    def _described(self, task: Task, resource: str) -> tuple[Outlet, Mapping[str, str]] | None:
        """None if no provider gives its credentials, or it cannot be described."""
        try:
            route = self.route(task.type, resource)
            if route is None:
                return None
            told = route.outlet.provider.describe(route.ask)
            return route.outlet, {str(name): str(value) for name, value in told.items()}
        except Exception:
            log.exception("resource_not_described", task_id=task.id, resource=resource)
            return None

    def types_of(self, name: str, types: Mapping[str, TaskType]) -> list[str]:
        """The names of the task types that name a provider, sorted."""
        return sorted(
            kind.name for kind in types.values() if any(each.provider == name for each in kind.outside.values())
        )

    def _read(self, kind: TaskType, resource: str) -> Any:
        key = (kind.digest, resource)
        read = self._asks.get(key)
        if read is None:
            outside = kind.outside[resource]
            read = (self._outlets[outside.provider].provider.read_ask(outside.ask, kind.ceiling.at(resource)),)
            self._asks.put(key, read)
        return read[0]

    def _unknown(self, name: str) -> str:
        there = ", ".join(sorted(self._outlets)) or "none"
        return f"ceiling: provider: the configuration has no [providers.{name}]; there are: {there}"

    async def close(self) -> None:
        """Let go of what the providers hold."""
        for outlet in self._outlets.values():
            try:
                await outlet.provider.close()
            except Exception:
                log.exception("provider_not_closed", provider=outlet.name)
