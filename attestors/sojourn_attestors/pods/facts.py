"""The kubelet's list of pods, read, and what is said of a container by it: the selector values of `k8s`.

Pure: no I/O and no waiting. The values are as SPIRE's `k8s` attestor has them.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sojourn.limits import SELECTOR_VALUE_MAX_BYTES

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_CONTAINER: Final = re.compile(r"[a-z][a-z0-9+.-]*://([0-9a-f]{64})")  # such as containerd://HEX, cri-o://HEX
KINDS: Final = (
    *("ns", "sa", "node-name", "pod-name", "pod-uid", "pod-label", "pod-owner", "pod-owner-uid", "container-name"),
    *("container-image", "pod-image", "pod-image-count", "pod-init-image", "pod-init-image-count"),
)
_STATUSES: Final = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


class NotPods(ValueError):
    """What was answered is no list of pods."""


@dataclass(frozen=True, slots=True)
class Image:
    """By which name a container's image was asked for, and what it is: a repository digest, or an id of this node."""

    name: str
    id: str


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner of a pod, as whoever made the pod says."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod of this node. `images` and `init_images`: one for each container that the kubelet reports on."""

    uid: str
    name: str
    namespace: str
    node: str
    service_account: str  # '' for a static pod
    labels: Mapping[str, str]
    owners: tuple[Owner, ...]
    images: tuple[Image, ...]
    init_images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class PodContainer:
    """A container, regular, init or ephemeral, and its pod."""

    pod: Pod
    name: str
    image: Image


@dataclass(frozen=True, slots=True)
class Pods:
    """What a kubelet listed: containers by their 64 hex digits, and the uids of all pods.

    `claimed_twice`: containers that stand there more than once, in one pod or in several, which is never so. `unread`:
    how many pods are not as Kubernetes writes them, and were passed over.
    """

    containers: Mapping[str, PodContainer]
    uids: frozenset[str]
    claimed_twice: frozenset[str]
    unread: int


def parse_pods(body: bytes) -> Pods:
    """Read a PodList. Raise NotPods if it is none.

    Pods are decoded one by one: a list of hundreds holds up other threads no longer than one pod does.
    """
    containers: dict[str, PodContainer] = {}
    uids: set[str] = set()
    twice: set[str] = set()
    unread = 0
    try:
        for item in _items(body.decode()):
            try:
                claimed = list(_containers(item))
                uids.add(item["metadata"]["uid"])
            except (KeyError, TypeError, AttributeError, ValueError):
                unread += 1
                continue
            for number, container in claimed:
                if number in containers:
                    twice.add(number)
                containers[number] = container
    except (ValueError, IndexError, RecursionError) as error:
        raise NotPods(f"{type(error).__name__}: {error}"[:200]) from error
    return Pods(containers, frozenset(uids), frozenset(twice), unread)


def _items(text: str) -> Iterator[Any]:
    """The pods of a PodList, each decoded when it is its turn."""
    decode = json.JSONDecoder().raw_decode
    at = _past(text, 0, "{")
    seen: dict[str, Any] = {}
    while True:
        name, at = decode(text, at)
        at = _past(text, at, ":")
        if not isinstance(name, str) or name in seen:
            raise NotPods("an object with odd or repeated names")
        if name == "items" and text[at] == "[":
            seen[name] = None
            at = _past(text, at, "[")
            while text[at] != "]":
                item, at = decode(text, at)
                yield item
                at = _next(text, at, "]")
            at += 1
        else:
            seen[name], at = decode(text, at)
        at = _next(text, at, "}")
        if text[at] == "}":
            break
    if _skip(text, at + 1) != len(text) or seen.get("kind") != "PodList" or seen.get("items", "") is not None:
        raise NotPods("not a PodList")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _past(text: str, at: int, mark: str) -> int:
    """Where what follows `mark` begins."""
    at = _skip(text, at)
    if text[at] != mark:
        raise NotPods(f"no {mark!r} at {at}")
    return _skip(text, at + 1)


def _next(text: str, at: int, end: str) -> int:
    """Where the next element begins, or where `end` is."""
    at = _skip(text, at)
    if text[at] == end:
        return at
    at = _past(text, at, ",")
    if text[at] == end:
        raise NotPods(f"nothing after the comma at {at}")
    return at


def _containers(item: Any) -> Iterator[tuple[str, PodContainer]]:
    """The containers of a pod that have been made, by id. Raise KeyError, TypeError, ... if it is not a pod."""
    metadata, spec, status = item["metadata"], item["spec"], item.get("status") or {}
    statuses = [_entries(status.get(kind)) for kind in _STATUSES]
    pod = Pod(
        uid=_text(metadata["uid"]),
        name=_text(metadata["name"]),
        namespace=_text(metadata["namespace"]),
        node=_text(spec.get("nodeName", "")),
        service_account=_text(spec.get("serviceAccountName", "")),
        labels={_text(key): _text(value) for key, value in (metadata.get("labels") or {}).items()},
        owners=tuple(
            Owner(_text(each["kind"]), _text(each["name"]), _text(each["uid"]))
            for each in _entries(metadata.get("ownerReferences"))
        ),
        images=tuple(map(_image, statuses[0])),
        init_images=tuple(map(_image, statuses[1])),
    )
    if not pod.uid:
        raise ValueError("a pod without uid")
    for each in (each for group in statuses for each in group):
        made = _CONTAINER.fullmatch(_text(each.get("containerID", "")))
        if made is not None:  # one that waits has none yet
            yield made[1], PodContainer(pod, _text(each["name"]), _image(each))


def _image(status: Any) -> Image:
    return Image(_text(status.get("image", "")), _text(status.get("imageID", "")))


def _entries(value: Any) -> Sequence[Any]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise TypeError("not a list")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def selectors_of(container: PodContainer) -> tuple[frozenset[str], dict[str, str]]:
    """The selector values of a process in `container`, and which kinds are withheld, with the reason."""
    pod = container.pod
    found = _Values()
    found.add("ns", pod.namespace)
    found.add("sa", pod.service_account)
    found.add("node-name", pod.node)
    found.add("pod-name", pod.name)
    found.add("pod-uid", pod.uid)
    found.add("container-name", container.name)
    found.add_images("container-image", [container.image])
    found.add_images("pod-image", pod.images)
    found.add_images("pod-init-image", pod.init_images)
    found.add("pod-image-count", str(len(pod.images)))
    found.add("pod-init-image-count", str(len(pod.init_images)))
    for key, value in pod.labels.items():
        found.add_pair("pod-label", key, value)
    for owner in pod.owners:
        found.add_pair("pod-owner", owner.kind, owner.name)
        found.add_pair("pod-owner-uid", owner.kind, owner.uid)
    return frozenset(found.values), found.withheld


class _Values:
    """Values that can be read in one way only; the others are withheld."""

    def __init__(self) -> None:
        self.values: set[str] = set()
        self.withheld: dict[str, str] = {}

    def add(self, kind: str, text: str) -> None:
        """`KIND:TEXT`; nothing if there is no such thing."""
        if text:
            self._add(kind, f"{kind}:{text}")

    def add_images(self, kind: str, images: Iterable[Image]) -> None:
        """Both the names and what they were: a name can be moved, a digest cannot."""
        for image in images:
            self.add(kind, image.name)
            self.add(kind, image.id)

    def add_pair(self, kind: str, key: str, text: str) -> None:
        """`KIND:KEY:TEXT`, where the text may be empty but the key may not hold a colon."""
        if not key or ":" in key:
            self.withheld[kind] = f"the name {key[:100]!r} is empty or holds a colon, so it could be read in two ways"
        else:
            self._add(kind, f"{kind}:{key}:{text}")

    def _add(self, kind: str, value: str) -> None:
        try:
            long = len(value.encode()) > SELECTOR_VALUE_MAX_BYTES
        except UnicodeEncodeError:
            self.withheld[kind] = "a value of it is not Unicode"
            return
        if long or "\0" in value:
            self.withheld[kind] = "a value of it is too long for a selector, or holds NUL"
        else:
            self.values.add(value)
