"""What a container engine's answer about a container says, as selector values. Pure; the answer is not trusted.

Docker Engine's API, which Podman speaks too: `GET /containers/ID/json` and `GET /images/ID/json`.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sojourn.attestation.selectors import Selector
from sojourn.errors import AttestationFailed, InvalidSelector
from sojourn.limits import CONTAINER_WITHHELD, SELECTORS_PER_CALLER

KINDS: Final = ("label", "image_id", "image_config_digest", "image_digest")
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_REPOSITORY: Final = re.compile(r"[a-z0-9]([a-z0-9._:/-]*[a-z0-9])?")
_PID_MAX: Final = 2**22  # Linux has no higher ones


@dataclass(frozen=True, slots=True)
class Found:
    """Selector values, and for what is not among them the reason."""

    values: frozenset[str] = frozenset()
    withheld: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Container:
    """A running container. `pid`: its first process, as the engine's PID namespace has it."""

    id: str
    pid: int
    image: str  # its id, sha256:HEX
    manifest: str  # the digest of its platform's manifest, or ''
    found: Found


def parse_container(answer: Any, container_id: str, environment: bool | Collection[str]) -> Container:
    """Read what the engine says of a container. `environment`: whether variables are given; or the names of those.

    Raise AttestationFailed if it is about another container or one that does not run, or is not what engines say.
    """
    container = _object(answer, "container")
    if container.get("Id") != container_id:
        # engines take names for ids, and a container may have another one's id for a name
        raise AttestationFailed("the container engine answered about another container")
    state = _object(container.get("State"), "State")
    pid = state.get("Pid")
    if state.get("Running") is not True or not isinstance(pid, int) or isinstance(pid, bool) or pid == 0:
        raise AttestationFailed("the container engine says that the container does not run")
    if not 0 < pid <= _PID_MAX:
        raise _unreadable("State.Pid")
    image = container.get("Image")
    if not isinstance(image, str) or not _DIGEST.fullmatch(image):
        raise _unreadable("Image")
    values: set[str] = set()
    withheld: dict[str, str] = {}
    config = _object(container.get("Config"), "Config")
    _check_count(config.get("Labels"), config.get("Env") if environment is True else None)
    _image_name(config.get("Image"), values, withheld)
    _labels(config.get("Labels"), values, withheld)
    if environment:
        _environment(config.get("Env"), environment, values, withheld)
    manifest = container.get("ImageManifestDescriptor")
    digest = manifest.get("digest") if isinstance(manifest, dict) else ""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        digest = ""
    return Container(container_id, pid, image, digest, Found(frozenset(values), withheld))


def parse_image(answer: Any, container: Container) -> Found:
    """Read what the engine says of the container's image.

    Raise AttestationFailed if it is about another one, or is not what engines say.
    """
    image = container.image
    about = _object(answer, "image")
    if about.get("Id") != image and f"sha256:{about.get('Id')}" != image:
        raise AttestationFailed("the container engine answered about another image")
    values: set[str] = set()
    withheld: dict[str, str] = {}
    descriptor = about.get("Descriptor")
    if isinstance(descriptor, dict) and descriptor.get("digest") == image:
        # containerd's image store: there an image's id is the digest of its manifest or index
        values.update(f"image_digest:{digest}" for digest in (image, container.manifest) if digest)
        withheld["image_config_digest"] = "this engine's image store (containerd) does not tell: ask for image_digest"
    else:
        values.add(f"image_config_digest:{image}")
    _check_count(about.get("RepoDigests"))
    for text in _strings(about.get("RepoDigests"), "RepoDigests"):
        repository, at, digest = text.rpartition("@")
        if not at or not _DIGEST.fullmatch(digest):
            raise _unreadable("RepoDigests")
        values.add(f"image_digest:{digest}")
        if _REPOSITORY.fullmatch(repository):  # `<none>`: it has none any more
            _give("image_digest", f"image_digest:{repository}@{digest}", values, withheld)
    if not any(value.startswith("image_digest:") for value in values):
        withheld["image_digest"] = "the image came from no registry: the engine knows no repository digest of it"
    return Found(frozenset(values), withheld)


def _check_count(*told: Any) -> None:
    """Raise AttestationFailed if there would be more values than anybody may have: each takes its time to read."""
    if sum(len(each) for each in told if isinstance(each, dict | list)) > SELECTORS_PER_CALLER:
        raise AttestationFailed(f"the container engine told of more than {SELECTORS_PER_CALLER} labels, or the like")


def _image_name(name: Any, values: set[str], withheld: dict[str, str]) -> None:
    if not isinstance(name, str):
        raise _unreadable("Config.Image")
    if name:
        _give("image_id", f"image_id:{name}", values, withheld)
    else:
        withheld["image_id"] = "the engine does not tell the name by which the image was asked for"


def _labels(labels: Any, values: set[str], withheld: dict[str, str]) -> None:
    if labels is None:
        return
    for key, value in _object(labels, "Config.Labels").items():
        if not isinstance(value, str):
            raise _unreadable("Config.Labels")
        if ":" in key:
            _withhold(f"label:{key}", "its key holds a colon, so it could be read as another label", withheld)
        else:
            _give(f"label:{key}", f"label:{key}:{value}", values, withheld)


def _environment(variables: Any, wanted: bool | Collection[str], values: set[str], withheld: dict[str, str]) -> None:
    pairs = [text.partition("=") for text in _strings(variables, "Config.Env")]
    times = Counter(name for name, _, _ in pairs)
    for name, equals, value in pairs:
        if not equals or (not isinstance(wanted, bool) and name not in wanted):
            continue
        if times[name] > 1:
            _withhold(f"env:{name}", "it is there more than once", withheld)
        else:
            _give(f"env:{name}", f"env:{name}={value}", values, withheld)


def _give(kind: str, value: str, values: set[str], withheld: dict[str, str]) -> None:
    """Add a value, or why no selector can hold it."""
    try:
        value.encode()
        Selector.from_parts("docker", value)
    except UnicodeEncodeError:
        _withhold(kind, "it is not UTF-8", withheld)
    except InvalidSelector as error:
        _withhold(kind, error.public, withheld)
    else:
        values.add(value)


def _withhold(kind: str, reason: str, withheld: dict[str, str]) -> None:
    if len(withheld) < CONTAINER_WITHHELD:
        withheld[kind.encode(errors="backslashreplace").decode().replace("\0", r"\x00")[:300]] = reason


def _strings(value: Any, what: str) -> Iterator[str]:
    if value is None:
        return
    if not isinstance(value, list):
        raise _unreadable(what)
    for each in value:
        if not isinstance(each, str):
            raise _unreadable(what)
        yield each


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _unreadable(what)
    return value


def _unreadable(what: str) -> AttestationFailed:
    return AttestationFailed("the container engine gave an answer that cannot be read", detail=what)
