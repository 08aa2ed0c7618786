"""The attestor `docker` before a real engine keeps what sojourn.testing asks of anyone's."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.engineproxy import EngineProxy, Fault, on_the_wire
from harness.engines import Container, Engine
from harness.subjects import subject_of
from sojourn.testing.attestors import AttestorCase, AttestorContract
from sojourn_attestors.docker import DockerAttestor

pytestmark = [pytest.mark.full, pytest.mark.root]
KINDS = {"label", "env", "image_id", "image_config_digest", "image_digest"}
SETTINGS = {"docker_socket": "", "podman_socket": "", "env": ["FOO"], "rootless": False}


class Asked:
    """A container of an engine, and the proxy through which it is asked."""

    def __init__(self, container: Container, proxy: EngineProxy) -> None:
        self.container = container
        self.proxy = proxy

    def case(self) -> AttestorCase:
        faults: dict[str, Fault] = {
            "silent": lambda connection, _: self.proxy.hold(connection),
            "hangs up": lambda connection, _: None,
            "dies mid-answer": lambda connection, answer: connection.sendall(answer[: len(answer) // 2]),
            "garbage": lambda connection, _: connection.sendall(b"\0" * 10_000),
            "huge": lambda connection, _: connection.sendall(on_the_wire(200, b" " * 2_000_000)),
            "refuses": lambda connection, _: connection.sendall(on_the_wire(500, b"{}")),
            "says nothing": lambda connection, _: connection.sendall(on_the_wire(200, b"{}")),
        }
        return AttestorCase(
            plugin=DockerAttestor,
            kinds=KINDS,
            settings={**SETTINGS, f"{self.container.engine.kind}_socket": str(self.proxy.path)},
            known=lambda: subject_of(self.container.pid),
            expected={"label:app:web", "label:team:blue", "env:FOO=bar"},
            broken={
                "gone": self._gone,
                **{name: lambda fault=fault: self._broken(fault) for name, fault in faults.items()},
            },
            quiet=True,
        )

    @contextlib.contextmanager
    def _broken(self, fault: Fault) -> Iterator[None]:
        self.proxy.fault = fault
        try:
            yield
        finally:
            self.proxy.fault = None
            self.proxy.let_go()

    @contextlib.contextmanager
    def _gone(self) -> Iterator[None]:
        away = Path(f"{self.proxy.path}.away")
        self.proxy.path.rename(away)
        try:
            yield
        finally:
            away.rename(self.proxy.path)


@pytest.fixture
def asked(docker: Engine) -> Iterator[Asked]:
    container = docker.run(flags=["--label", "team=blue"])
    with EngineProxy(docker.folder / "contract.sock", docker.socket) as proxy:
        yield Asked(container, proxy)


def test_contract(asked):
    """The attestor `docker`, before a real engine, keeps each promise that is asked of anyone's attestor."""
    for promise in AttestorContract(asked.case()).promises:
        promise.run()
