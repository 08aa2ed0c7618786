"""Asking the attestor `docker` about real processes."""

from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from sojourn.attestation.attestor import Answer
from sojourn_attestors.docker import DockerAttestor

from harness.engines import Engine
from harness.subjects import subject_of


def attestor(engine: Engine, pool: Executor, *, path: Path | None = None, **settings: Any) -> DockerAttestor:
    """One that asks this engine alone, or what listens at `path` in its place."""
    sockets = {"docker_socket": "", "podman_socket": "", f"{engine.kind}_socket": str(path or engine.socket)}
    return DockerAttestor({**sockets, **settings}, pool)


async def ask(attestor: DockerAttestor, pid: int) -> Answer:
    with subject_of(pid) as subject:
        return await attestor.attest(subject)
