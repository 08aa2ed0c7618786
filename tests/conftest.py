"""What holds for all tests, and what they share in more than one room."""

import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack

import pytest
from harness import agent as agents
from harness import examples, forks
from harness.brokenpromises import pytest_runtest_makereport, pytest_terminal_summary  # noqa: F401 - hooks
from harness.clients import BUILD_SECONDS, TOOLS, missing
from harness.dockerd import Dockerd
from harness.engineproxy import EngineProxy
from harness.engines import Engine
from harness.inmates import Cgroups
from harness.keeper import end_with_failures
from harness.lacking import PROGRAMS, lacking, lacking_program
from harness.podman import Podman
from harness.testrun import (  # noqa: F401 - hooks
    pytest_collectreport,
    pytest_runtest_logreport,
    pytest_sessionfinish,
)
from sojourn_attestors.containers.place import Containers

if os.environ.get("SOJOURN_TEST_UNIT"):  # before anybody has the names: the agent of these tests is the machine's unit
    from harness import unitagent
    from harness.unitinstall import PROGRAM

    forks.PROGRAM = PROGRAM
    agents.COMMAND = [PROGRAM]
    agents.AgentProcess = unitagent.UnitProcess  # type: ignore[misc]
examples.by_default()
end_with_failures()
os.environ.pop("PYTHONUNBUFFERED", None)  # an image may set it; a user has none, and output waits in buffers
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it runs in the background ignore it
os.umask(0o022)  # other users look at what tests lay out


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The first test with a built client builds it; whoever has Go's client needs Go."""
    for item in items:
        if "go_client" in getattr(item, "fixturenames", ()):
            item.add_marker("go")
        if any(item.get_closest_marker(language) for language in TOOLS):
            item.add_marker(pytest.mark.timeout(BUILD_SECONDS))


def pytest_collection_finish() -> None:
    """What collecting has made stays to the end: no search for garbage is to go through a million objects of it again."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests that need root, a program, or the toolchain of a language, are skipped without it, but never in CI."""
    forks.begin_test(programs=bool(item.get_closest_marker("full")) and not item.get_closest_marker("forked"))
    if item.get_closest_marker("root") and os.geteuid() != 0:
        lacking("needs root: acts as other users or in namespaces")
    for program in PROGRAMS:
        if item.get_closest_marker(program):
            lacking_program(program)
    for language in TOOLS:
        if item.get_closest_marker(language) and (advice := missing(language)):
            lacking(f"needs {advice}")


@pytest.fixture(scope="session")
def _docker() -> Iterator[Dockerd]:
    with Dockerd() as engine:
        yield engine


@pytest.fixture(scope="session")
def _docker_v2() -> Iterator[Dockerd]:
    with Dockerd(v2=True) as engine:
        yield engine


@pytest.fixture(scope="session")
def _podman() -> Iterator[Podman]:
    with Podman() as engine:
        yield engine


@pytest.fixture(scope="session")
def _podman_v2() -> Iterator[Podman]:
    with Podman(v2=True) as engine:
        yield engine


def _lent(engine: Engine) -> Iterator[Engine]:
    """For one test, whose containers are removed after it."""
    yield engine
    if engine.process is None:
        engine.start()
    engine.remove_containers()


@pytest.fixture
def docker(_docker: Dockerd) -> Iterator[Engine]:
    """A real Docker Engine on this machine's cgroups."""
    yield from _lent(_docker)


@pytest.fixture
def docker_v2(_docker_v2: Dockerd) -> Iterator[Engine]:
    """A real Docker Engine where there is cgroup v2 alone."""
    yield from _lent(_docker_v2)


@pytest.fixture
def podman(_podman: Podman) -> Iterator[Engine]:
    """A real Podman on this machine's cgroups."""
    yield from _lent(_podman)


@pytest.fixture
def podman_v2(_podman_v2: Podman) -> Iterator[Engine]:
    """A real Podman where there is cgroup v2 alone."""
    yield from _lent(_podman_v2)


@pytest.fixture(params=["_docker", "_docker_v2", "_podman", "_podman_v2"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Each of the four."""
    yield from _lent(request.getfixturevalue(request.param))


@pytest.fixture
def docker_proxy(docker: Engine) -> Iterator[EngineProxy]:
    with EngineProxy(docker.folder / "proxy.sock", docker.socket) as proxy:
        yield proxy


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    with Cgroups() as cgroups:
        yield cgroups


@pytest.fixture
def containers() -> Iterator[Containers]:
    with ThreadPoolExecutor(2) as pool:
        yield Containers(pool)


@pytest.fixture
def pool() -> Iterator[Executor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack
