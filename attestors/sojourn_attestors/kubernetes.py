"""The `k8s` attestor: which pod and container a process is in, as the kubelet of this node says.

Selector values, named as SPIRE names them: `ns:NAME sa:NAME node-name:NAME pod-name:NAME pod-uid:UID
pod-label:KEY:VALUE pod-owner:KIND:NAME pod-owner-uid:KIND:UID pod-image:IMAGE pod-image-count:N pod-init-image:IMAGE
pod-init-image-count:N container-name:NAME container-image:IMAGE`. An IMAGE is given by name and by what it was.

The kernel says which container, and that the process is inside of it; the kubelet says which pod has that container.
What it says is never older than `max_age`. A container that it does not list yet is waited for.
"""

import asyncio
import os
from collections.abc import Mapping
from concurrent.futures import Executor
from datetime import timedelta
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, Field, model_validator
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn.limits import ATTESTOR_DEADLINE_SECONDS
from sojourn.plugins.attestor import Answer, Duration, Subject, Table, between, read_settings
from sojourn.quota.lru import Lru
from sojourn.runtime.single_flight import SingleFlight

from sojourn_attestors.containers.place import Containers, OfUser, Place
from sojourn_attestors.kernel.bootclock import boot_seconds
from sojourn_attestors.kernel.processes import birth_of
from sojourn_attestors.pods.facts import KINDS, PodContainer, selectors_of
from sojourn_attestors.pods.kubelet import Access, Kubelet, Listing, PodList
from sojourn_attestors.pods.paths import made_by_kubelet

WAIT_SECONDS: Final = ATTESTOR_DEADLINE_SECONDS - 0.5  # in all, so that the reason is told before the deadline
LOOK_SECONDS: Final = (0.1, 0.2, 0.3, 0.5)  # between lists while a container is waited for; then as the last
_FIRST_PROCESSES_KEPT: Final = 4_096
_LOOPBACK: Final = "127.0.0.1"
_ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # where Kubernetes gives pods what is theirs


def _absolute(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError("is not an absolute path")
    return value


def _host(value: str) -> str:
    if not value or not (value.isascii() and value.replace("-", "").replace(".", "").replace(":", "").isalnum()):
        raise ValueError("is neither an IP address nor a host's name")
    return value


Port = Annotated[int, Field(ge=1, le=65_535, strict=True)]
Path = Annotated[str, AfterValidator(_absolute)]
Host = Annotated[str, AfterValidator(_host)]


class KubernetesSettings(Table):
    """`[attestors.k8s]`. What files hold is read again for each request."""

    kubelet_address: Host | None = None  # default: 127.0.0.1
    kubelet_address_env: Annotated[str, Field(min_length=1)] | None = None  # or the variable that has it
    kubelet_secure_port: Port = 10_250
    kubelet_read_only_port: Port | None = None  # plain HTTP, which proves nothing about who answers; off unless set
    kubelet_ca_path: Path | None = None  # PEM: who vouches for its certificate; default: the service account's
    kubelet_name: Host | None = None  # in its certificate; default: node name or address
    token_path: Path | None = None  # default: the service account's, unless there is a certificate
    certificate_path: Path | None = None  # PEM, shown to the kubelet
    private_key_path: Path | None = None
    node_name: Host | None = None  # pods of other nodes are refused
    node_name_env: Annotated[str, Field(min_length=1)] | None = None  # or the variable that has it
    cgroup_root: Path = "/"  # the kubelet's `cgroupRoot`, below which it makes the cgroups of pods
    max_age: Annotated[Duration, between(timedelta(), timedelta(minutes=1))] = timedelta(seconds=5)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.certificate_path is None) != (self.private_key_path is None):
            raise ValueError("certificate_path and private_key_path go together")
        if self.node_name is not None and self.node_name_env is not None:
            raise ValueError("node_name and node_name_env: one of them is enough")
        if self.kubelet_address is not None and self.kubelet_address_env is not None:
            raise ValueError("kubelet_address and kubelet_address_env: one of them is enough")
        shown = ("kubelet_ca_path", "kubelet_name", "token_path", "certificate_path")
        useless = [name for name in shown if getattr(self, name) is not None]
        if self.kubelet_read_only_port is not None and useless:
            raise ValueError(f"kubelet_read_only_port is plain HTTP, so {', '.join(useless)} cannot be used with it")
        return self

    def access(self, node: str) -> Access:
        """How the kubelet of the node with that name, if it is known, is reached."""
        address = self.kubelet_address or self._address_of_environment() or _LOOPBACK
        if self.kubelet_read_only_port is not None:
            return Access(address, self.kubelet_read_only_port)
        token = "" if self.certificate_path is not None else f"{_ACCOUNT}/token"
        return Access(
            address,
            self.kubelet_secure_port,
            self.kubelet_name or node or address,
            self.kubelet_ca_path or f"{_ACCOUNT}/ca.crt",
            self.token_path or token,
            self.certificate_path or "",
            self.private_key_path or "",
        )

    def _address_of_environment(self) -> str:
        """The address that the variable has, '' if none is named. Raise InvalidConfig if that is none."""
        found = _of_environment("kubelet_address_env", self.kubelet_address_env)
        try:
            return _host(found) if found else ""
        except ValueError as error:
            raise InvalidConfig([f"kubelet_address_env: {self.kubelet_address_env} {error}"]) from error


class KubernetesAttestor:
    """Asks the kubelet of this node. Settings: KubernetesSettings."""

    def __init__(self, settings: Mapping[str, Any], pool: Executor) -> None:
        read = read_settings(KubernetesSettings, settings)
        self._node = read.node_name or _of_environment("node_name_env", read.node_name_env)
        self._cgroup_root = read.cgroup_root
        self._max_age = read.max_age.total_seconds()
        self._kubelet = Kubelet(read.access(self._node), pool)
        self._pods = PodList(self._kubelet.pods, boot_seconds)
        self._containers = Containers(pool)
        self._first_processes = _FirstProcesses(self._containers)

    async def attest(self, subject: Subject) -> Answer:
        """Nothing is so of a process outside of pods: the kubelet is not asked about it. Raise AttestationFailed if
        the process is not truly inside, or the kubelet does not tell in time.
        """
        begun = boot_seconds()
        try:
            place = self._in_pod(await self._containers.locate(subject))
        except OfUser as error:
            reason = f"the process is in a cgroup of user {error.uid}: a kubelet's are root's"
            return Answer(frozenset(), dict.fromkeys(KINDS, reason))
        if place is None:
            return Answer(frozenset())
        first = await self._first_processes.of(place)
        await self._containers.check_inside(subject, place, first)
        container, listing = await self._find(place, begun)
        values, withheld = selectors_of(container)
        return Answer(values, withheld, age=boot_seconds() - listing.asked_at)

    async def check(self) -> None:
        """Raise AttestationFailed if the kubelet does not list its pods to this agent."""
        await self._pods.since(boot_seconds())

    async def close(self) -> None:
        await self._first_processes.close()
        await self._pods.close()
        await self._kubelet.close()

    def _in_pod(self, place: Place | None) -> Place | None:
        """The pod's container that the process is in, if it is in one. Raise AttestationFailed if it only looks so.

        Of containers within each other that is the outermost: names within a container are the container's to give.
        """
        if place is None:
            return None
        outermost = place.enclosing[-1] if place.enclosing else place
        if not outermost.pod:
            return None
        if not all(made_by_kubelet(cgroup.path, self._cgroup_root) for cgroup in outermost.cgroups):
            raise AttestationFailed(
                "the process's cgroup looks like a pod's, but is not where a kubelet makes those with cgroup_root "
                f"{self._cgroup_root!r}",
                detail=str(sorted(cgroup.path for cgroup in outermost.cgroups)),
            )
        return outermost

    async def _find(self, place: Place, begun: float) -> tuple[PodContainer, Listing]:
        """The container as the kubelet lists it. One that was made just now is waited for."""
        listing = None
        try:
            async with asyncio.timeout(begun + WAIT_SECONDS - boot_seconds()):
                listing = await self._pods.since(begun - self._max_age)
                looks = 0
                while (found := self._checked(place, listing)) is None:
                    pause = LOOK_SECONDS[min(looks, len(LOOK_SECONDS) - 1)]
                    looks += 1
                    await asyncio.sleep(listing.asked_at + pause - boot_seconds())
                    listing = await self._pods.since(listing.asked_at + pause)
        except TimeoutError:
            raise AttestationFailed(_missed(place, listing)) from None
        return found, listing

    def _checked(self, place: Place, listing: Listing) -> PodContainer | None:
        """What the list says of the container, or None if it does not know it."""
        pods = listing.pods
        if place.id in pods.claimed_twice:
            raise AttestationFailed("the kubelet lists the process's container twice")
        found = pods.containers.get(place.id)
        if found is None:
            return None
        if found.pod.uid != place.pod:
            raise AttestationFailed(
                "the kubelet lists the process's container in another pod than its cgroup is of",
                detail=f"{found.pod.uid} is not {place.pod}",
            )
        if self._node and found.pod.node != self._node:
            raise AttestationFailed(
                f"the kubelet that was asked is not of node {self._node!r}: {found.pod.node[:100]!r}"
            )
        return found


class _FirstProcesses:
    """The first process of each container. To find it takes a look at all processes, so it is kept while it lives."""

    def __init__(self, containers: Containers) -> None:
        self._containers = containers
        self._kept: Lru[Place, tuple[int, int]] = Lru(_FIRST_PROCESSES_KEPT)
        self._looking = SingleFlight[Place, int]()

    async def of(self, place: Place) -> int:
        """Its pid. Raise AttestationFailed if it cannot be told."""
        kept = self._kept.get(place)
        if kept is not None and birth_of(kept[0]) == kept[1]:
            return kept[0]
        # A container takes one thread, however many of it ask.
        pid = await self._looking.run(place, lambda: self._containers.first_process(place))
        if (birth := birth_of(pid)) is not None:
            self._kept.put(place, (pid, birth))
        return pid

    async def close(self) -> None:
        """Look no more."""
        await self._looking.close()


def _missed(place: Place, listing: Listing | None) -> str:
    if listing is None:
        return f"the kubelet did not answer within {WAIT_SECONDS:g} s"
    unread = f" ({listing.pods.unread} pods of its list cannot be read)" if listing.pods.unread else ""
    if place.pod in listing.pods.uids:
        return f"the kubelet lists the process's pod without its container{unread}"
    return f"the kubelet does not list the process's pod{unread}"


def _of_environment(key: str, name: str | None) -> str:
    if name is None:
        return ""
    value = os.environ.get(name, "")
    if not value:
        raise InvalidConfig([f"{key}: the environment has no {name}"])
    return value
