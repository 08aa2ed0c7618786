"""The `docker` attestor: which container the process is in, as Docker Engine or Podman tells.

Selector values, as SPIRE has them: `label:KEY:VALUE env:KEY=VALUE image_id:NAME image_config_digest:sha256:HEX`; and
`image_digest:sha256:HEX image_digest:REPOSITORY@sha256:HEX`, which no tag can be moved under. Those of a user's own
engine, which says what they like, all begin `rootless:UID:`.

The kernel tells which container to ask about, and whether the process truly is inside; the engine, what that container
is. It is asked once for each container: what it says of one does not change while that runs.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field
from sojourn.errors import InvalidConfig
from sojourn.limits import (
    CONTAINER_UNKNOWN_SECONDS,
    CONTAINERS_KEPT,
    CONTAINERS_KEPT_PER_USER,
    CONTAINERS_NESTED,
    ENGINE_SECONDS,
    SOCKET_PATH_MAX_BYTES,
)
from sojourn.plugins.attestor import Answer, AttestationFailed, Subject, Table, read_settings
from sojourn.runtime.single_flight import SingleFlight

from sojourn_attestors.asking.fetching import NotThere
from sojourn_attestors.asking.localfetching import SocketFinder
from sojourn_attestors.containers.place import Containers, NotInside, OfUser, Place
from sojourn_attestors.engines.asking import Engine, Engines
from sojourn_attestors.engines.facts import KINDS, Found, parse_container, parse_image
from sojourn_attestors.kernel.bootclock import boot_seconds
from sojourn_attestors.kernel.processes import birth_of

_Value = TypeVar("_Value")
_ENGINES: Final = {"libpod": "Podman", "docker": "Docker Engine"}  # by the runtime that a container's cgroup names


def _socket(value: str) -> str:
    path = value.removeprefix("unix://")
    if path and not path.startswith("/"):
        raise ValueError("is not the absolute path of a Unix socket, nor empty")
    if len(path.encode()) > SOCKET_PATH_MAX_BYTES:
        raise ValueError(f"is longer than {SOCKET_PATH_MAX_BYTES} bytes")
    return path


def _user_socket(value: str) -> str:
    path = _socket(value)
    if path and "{uid}" not in path:
        raise ValueError("does not hold {uid}: each user has an engine of their own")
    return path


def _variables(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)):
        return value
    raise ValueError('is neither true or false, nor the names of variables, as in ["APP"]')


_Socket = Annotated[str, AfterValidator(_socket)]
_UserSocket = Annotated[str, AfterValidator(_user_socket)]
_Switch = Annotated[bool, Field(strict=True)]


class Settings(Table):
    """`[attestors.docker]`. A socket that is empty: there is no such engine here."""

    docker_socket: _Socket = "/var/run/docker.sock"
    podman_socket: _Socket = "/run/podman/podman.sock"
    rootless: _Switch = False  # whether users' own engines are asked too
    docker_rootless_socket: _UserSocket = "/run/user/{uid}/docker.sock"
    podman_rootless_socket: _UserSocket = "/run/user/{uid}/podman/podman.sock"
    # Whether variables are told, which often are secrets; or the names of those.
    env: Annotated[bool | tuple[str, ...], BeforeValidator(_variables)] = False


@dataclass(frozen=True, slots=True)
class _Known:
    """What an engine said of a container (at a moment of our clock), and its first process."""

    found: Found
    pid: int
    birth: int
    at: float


_Key = tuple[str, str, str, int]  # of a place: what its engine is asked by


class DockerAttestor:
    """Settings: see `Settings`."""

    def __init__(self, settings: Mapping[str, Any], pool: Executor) -> None:
        table = read_settings(Settings, settings)
        machine = {"docker": table.docker_socket, "podman": table.podman_socket}
        of_users = {"docker": table.docker_rootless_socket, "podman": table.podman_rootless_socket}
        machine = {kind: path for kind, path in machine.items() if path}
        of_users = {kind: path for kind, path in of_users.items() if path and table.rootless}
        if not machine and not of_users:
            raise InvalidConfig(["docker_socket: neither this nor another engine's socket is given"])
        self._env = table.env
        self._containers = Containers(pool, rootless=table.rootless)
        self._engines = Engines(machine, of_users, SocketFinder(pool), boot_seconds)
        self._known: OrderedDict[_Key, _Known] = OrderedDict()
        self._unknown: OrderedDict[_Key, float] = OrderedDict()  # until when an engine is not asked again
        self._asking = SingleFlight[_Key, _Known | None]()

    async def attest(self, subject: Subject) -> Answer:
        """Empty, without asking anybody, if the process is in no container."""
        try:
            place = await self._containers.locate(subject)
        except OfUser as error:
            return self._nothing(f"the container is one of user {error.uid}'s own engine: `rootless` is off")
        if place is None:
            return Answer(frozenset())
        for each in (place, *place.enclosing[:CONTAINERS_NESTED]):
            begun = boot_seconds()
            known = await self._of(each)
            if known is not None:
                return await self._answer(subject, each, known, begun)
        if self._engines.of(place):
            return self._nothing(f"the process is in container {place.id[:12]}, which no engine that is asked knows")
        engine = _ENGINES.get(place.runtime, place.runtime) or "its engine"
        whose = f"user {place.owner}'s engine" if place.owner else engine
        return self._nothing(f"the process is in container {place.id[:12]}, and {whose} is not asked here")

    async def check(self) -> None:
        """Raise AttestationFailed if no engine of the machine answers."""
        failures = await self._engines.faults(ENGINE_SECONDS)
        if failures:
            raise _together(failures)

    async def close(self) -> None:
        """Ask no more."""
        await self._asking.close()

    async def _answer(self, subject: Subject, place: Place, known: _Known, begun: float) -> Answer:
        outside = ""
        try:
            await self._containers.check_inside(subject, place, known.pid)
        except NotInside as error:
            outside = error.reason
        if birth_of(known.pid) != known.birth:
            self._known.pop(_key(place), None)
            raise AttestationFailed("the container was started again, or ended, meanwhile")
        if outside:
            return self._nothing(outside)
        prefix = f"rootless:{place.owner}:" if place.owner else ""
        values = frozenset(f"{prefix}{value}" for value in known.found.values)
        withheld = {f"{prefix}{kind}": reason for kind, reason in known.found.withheld.items()}
        return Answer(values, withheld, max(begun - known.at, 0.0))

    def _nothing(self, reason: str) -> Answer:
        return Answer(frozenset(), dict.fromkeys((*KINDS, "env") if self._env else KINDS, reason))

    async def _of(self, place: Place) -> _Known | None:
        """What the engines say of a container; None if none of those that could know it does."""
        key = _key(place)
        known = self._known.get(key)
        if known is not None:
            if birth_of(known.pid) == known.birth:
                self._known.move_to_end(key)
                return known
            del self._known[key]
        if self._unknown.get(key, 0.0) > boot_seconds():
            return None
        return await self._asking.run(key, lambda: self._learn(place))

    async def _learn(self, place: Place) -> _Known | None:
        """Ask about a container, and keep what is said."""
        known = await self._ask(place)
        if known is not None:
            _keep(self._known, _key(place), known)
        else:
            _keep(self._unknown, _key(place), boot_seconds() + CONTAINER_UNKNOWN_SECONDS)
        return known

    async def _ask(self, place: Place) -> _Known | None:
        begun = boot_seconds()
        failures: list[AttestationFailed] = []
        for engine in self._engines.of(place):
            try:
                return await self._ask_one(engine, place.id, begun)
            except NotThere:
                continue
            except AttestationFailed as error:
                failures.append(error)
        if failures:
            raise _together(failures)
        return None

    async def _ask_one(self, engine: Engine, container_id: str, begun: float) -> _Known:
        ends = begun + ENGINE_SECONDS
        container = parse_container(await engine.container(container_id, ends), container_id, self._env)
        birth = birth_of(container.pid)
        if birth is None:
            raise AttestationFailed(
                "the container's first process has gone, or this agent cannot see it from its own PID namespace"
            )
        try:
            image = parse_image(await engine.image(container.image, ends), container)
        except NotThere:
            reason = "the engine has the container's image no more"
            image = Found(withheld={"image_config_digest": reason, "image_digest": reason})
        found = Found(container.found.values | image.values, {**container.found.withheld, **image.withheld})
        return _Known(found, container.pid, birth, begun)


def _key(place: Place) -> _Key:
    return (place.id, place.runtime, place.pod, place.owner)


def _keep(kept: "OrderedDict[_Key, _Value]", key: _Key, value: _Value) -> None:
    kept[key] = value
    kept.move_to_end(key)
    owner = key[-1]
    its = [each for each in kept if each[-1] == owner] if owner else []
    if len(its) > CONTAINERS_KEPT_PER_USER:
        del kept[its[0]]  # what a user's engine says is not to push out what others' say
    elif len(kept) > CONTAINERS_KEPT:
        kept.popitem(last=False)


def _together(failures: Sequence[AttestationFailed]) -> AttestationFailed:
    return AttestationFailed(
        "; ".join(error.reason for error in failures),
        detail="; ".join(error.detail for error in failures if error.detail),
    )
