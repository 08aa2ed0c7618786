"""The container engines of this machine: which to ask about a container, how often, and when to leave one alone."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from sojourn.errors import AttestationFailed
from sojourn.limits import (
    ENGINE_ANSWER_MAX_BYTES,
    ENGINE_FAILURES,
    ENGINE_LATE_AGAIN_SECONDS,
    ENGINE_LATE_KEPT,
    ENGINE_USERS,
    USER_ENGINE_ANSWER_MAX_BYTES,
)
from sojourn.quota.lru import Lru

from sojourn_attestors.asking.fetching import Late, NotThere, Unwell
from sojourn_attestors.asking.localfetching import LocalJsonClient, SocketFinder
from sojourn_attestors.containers.place import Place

_PAUSES: Final = (0.1, 0.3, 0.9, 0.0)  # after each try, of an engine that is being started again
_NO_SUCH: Final = frozenset({"cri-containerd", "crio", "nerdctl"})  # runtimes that are neither of the two


class Engine:
    """One engine, by its socket."""

    def __init__(self, what: str, path: str, owner: int, finder: SocketFinder, now: Callable[[], float]) -> None:
        """`what`: its name, for people. `owner`: the uid that must own the socket and listen. `now`: in seconds."""
        self.path = path
        self._what = what
        limit = USER_ENGINE_ANSWER_MAX_BYTES if owner else ENGINE_ANSWER_MAX_BYTES
        self._client = LocalJsonClient(what, path, owner, finder, answer_max_bytes=limit)
        self._now = now
        self._failures = 0
        self._under_way = {
            False: 0,
            True: 0,
        }  # of what it answered before or was not asked, and of what it did not answer
        self._late: Lru[str, float] = Lru(ENGINE_LATE_KEPT, by_age=True)  # until when it is not asked again

    async def container(self, container_id: str, ends: float) -> Any:
        """What it says of a container, before the moment `ends`. Raise NotThere or AttestationFailed."""
        return await self._get(f"/containers/{container_id}/json", ends)

    async def image(self, image: str, ends: float) -> Any:
        """The same for an image, by its id."""
        return await self._get(f"/images/{image}/json", ends)

    async def fault(self, seconds: float) -> AttestationFailed | None:
        """Why it does not answer within `seconds`, if it does not."""
        try:
            await self._client.get("/version", seconds)
        except AttestationFailed as error:
            return error
        return None

    async def _get(self, path: str, ends: float) -> Any:
        if (self._late.get(path) or 0.0) > self._now():
            raise AttestationFailed(f"{self._what} did not answer a moment ago")
        again = path in self._late  # it may be stuck about that alone: others do not wait for it
        if self._failures >= ENGINE_FAILURES and self._under_way[again]:
            raise AttestationFailed(f"{self._what} did not answer a moment ago, and is being asked again")
        self._under_way[again] += 1
        try:
            answer = await self._try(path, ends)
        except (Late, Unwell) as error:
            self._failures += 1
            if isinstance(error, Late):
                self._late.put(path, self._now() + ENGINE_LATE_AGAIN_SECONDS)
            raise
        except NotThere:
            self._failures = 0
            raise
        finally:
            self._under_way[again] -= 1
        self._failures = 0
        self._late.drop(path)
        return answer

    async def _try(self, path: str, ends: float) -> Any:
        for pause in _PAUSES:
            seconds = ends - self._now()
            if seconds <= 0:
                raise AttestationFailed(f"{self._what} was not asked: there was no time left")
            try:
                return await self._client.get(path, seconds)
            except Unwell:
                if not pause or self._now() + pause >= ends:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError


class Engines:
    """Docker Engine and Podman of this machine, and of its users."""

    def __init__(
        self,
        machine: Mapping[str, str],
        of_users: Mapping[str, str],
        finder: SocketFinder,
        now: Callable[[], float],
    ) -> None:
        """`machine`: `docker` and `podman`, if they are to be asked, with their sockets. `of_users`: the same, where
        `{uid}` stands for the user.
        """
        self._finder = finder
        self._now = now
        self._of_users = of_users
        self._machine = {kind: self._engine(kind, path, 0) for kind, path in machine.items()}
        self._users: Lru[int, dict[str, Engine]] = Lru(ENGINE_USERS)

    def of(self, place: Place) -> list[Engine]:
        """The engines that could know a container, the likeliest first; none if neither kind names containers so."""
        if place.runtime in _NO_SUCH:
            return []
        engines = self._of_user(place.owner) if place.owner else self._machine
        if place.runtime == "libpod":
            kinds = ["podman"]
        elif place.runtime == "docker" or place.pod:  # Podman does not work for a kubelet
            kinds = ["docker"]
        else:
            kinds = ["docker", "podman"]
        return [engines[kind] for kind in kinds if kind in engines]

    async def faults(self, seconds: float) -> list[AttestationFailed]:
        """Why none of the machine's engines answers within `seconds`; nothing if one does, or there are to be none."""
        tried = await asyncio.gather(*(each.fault(seconds) for each in self._machine.values()))
        faults = [each for each in tried if each is not None]
        return faults if len(faults) == len(tried) else []

    def _of_user(self, uid: int) -> dict[str, Engine]:
        engines = self._users.get(uid)
        if engines is None:
            engines = {kind: self._engine(kind, path, uid) for kind, path in self._of_users.items()}
            self._users.put(uid, engines)
        return engines

    def _engine(self, kind: str, path: str, uid: int) -> Engine:
        what = {"docker": "Docker Engine", "podman": "Podman"}[kind]
        if uid:
            return Engine(f"{what} of user {uid}", path.replace("{uid}", str(uid)), uid, self._finder, self._now)
        return Engine(what, path, 0, self._finder, self._now)
