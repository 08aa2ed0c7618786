"""An image as one file for `docker load` and `podman load` alike: an OCI layout with Docker's manifest beside."""

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Layer:
    """`content`: a compressed tar file. `plain_digest`: of what it was before; `plain_size`: of its files."""

    content: bytes
    plain_digest: str
    plain_size: int
    about: str


def layer(root: Path, about: str, only: Iterable[str] = ("",), without: Iterable[str] = ()) -> Layer:
    """The files below `root`, all of them root's and of the same time, so that the same files are the same layer.

    `only`, `without`: paths relative to `root`, with all that is below.
    """
    plain = io.BytesIO()
    size = 0
    chosen, avoided = tuple(only), tuple(without)
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            name = str(path.relative_to(root))
            if not _within(name, chosen) or _within(name, avoided):
                continue
            entry = _entry(path, name)
            size += entry.size
            if entry.isreg():
                with path.open("rb") as file:
                    tar.addfile(entry, file)
            else:
                tar.addfile(entry)
    content = plain.getvalue()
    return Layer(_packed(content), hashlib.sha256(content).hexdigest(), size, about)


def _packed(content: bytes) -> bytes:
    """As gzip has it. `gzip.compress` writes another header in each release of Python."""
    made = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, made, mtime=0) as packed:
        packed.write(content)
    return made.getvalue()


def _within(name: str, places: tuple[str, ...]) -> bool:
    """Whether a path is one of these, below one, or a folder on the way to one that is wanted."""
    return any(not place or name == place or name.startswith(f"{place}/") for place in places)


def _entry(path: Path, name: str) -> tarfile.TarInfo:
    status = path.lstat()
    entry = tarfile.TarInfo(name)
    entry.uid = entry.gid = 0
    entry.mtime = 0
    if stat.S_ISLNK(status.st_mode):
        entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, os.readlink(path), 0o777
    elif stat.S_ISDIR(status.st_mode):
        entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
    else:
        entry.size, entry.mode = status.st_size, 0o755 if status.st_mode & 0o111 else 0o644
    return entry


def write(file: Path, name: str, config: Mapping[str, Any], layers: Iterable[Layer]) -> str:
    """Write the image; the digest of its manifest. `config`: as the OCI image specification has it, without its
    layers.
    """
    made = list(layers)
    history = [{"created": config["created"], "created_by": each.about} for each in made]
    diffs = {"type": "layers", "diff_ids": [f"sha256:{each.plain_digest}" for each in made]}
    whole = _json({**config, "rootfs": diffs, "history": history})
    blobs = {_digest(each.content): each.content for each in made} | {_digest(whole): whole}
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _described("application/vnd.oci.image.config.v1+json", whole),
            "layers": [_described("application/vnd.oci.image.layer.v1.tar+gzip", each.content) for each in made],
            "annotations": dict(config["config"]["Labels"]),
        }
    )
    blobs[_digest(manifest)] = manifest
    described = _described("application/vnd.oci.image.manifest.v1+json", manifest)
    described["annotations"] = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    }
    described["platform"] = {"architecture": config["architecture"], "os": config["os"]}
    of_docker = {
        "Config": f"blobs/sha256/{_digest(whole)}",
        "RepoTags": [name],
        "Layers": [f"blobs/sha256/{_digest(each.content)}" for each in made],
    }
    files = {f"blobs/sha256/{digest}": content for digest, content in blobs.items()}
    files["index.json"] = _json({"schemaVersion": 2, "manifests": [described]})
    files["manifest.json"] = _json([of_docker])
    files["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    with tarfile.open(file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.mtime = len(content), 0o644, 0
            tar.addfile(entry, io.BytesIO(content))
    return f"sha256:{_digest(manifest)}"


def _described(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{_digest(content)}", "size": len(content)}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
