"""Processes that try to get a container's identity from a real agent, which asks a real engine: none does."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.agent import ROOT, AgentProcess
from harness.callers import Caller
from harness.disguises import Ground, entering
from harness.engines import Container, Engine
from harness.inmates import Cgroups

BLUE, ROOTS = "spiffe://example.org/blue", "spiffe://example.org/root"
pytestmark = [pytest.mark.full, pytest.mark.root]


@pytest.fixture(scope="module", params=["_docker", "_podman_v2"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def agent(engine: Engine) -> Iterator[AgentProcess]:
    """An agent that knows of root, and of containers with the label that the target has."""
    sockets = {"docker": "", "podman": "", engine.kind: str(engine.socket)}
    lines = [f'{kind}_socket = "{path}"' for kind, path in sockets.items()]
    with AgentProcess(config="\n".join(["[attestors.unix]", "[attestors.docker]", *lines, ""])) as agent:
        agent.register("/blue", "docker:label:team:blue")
        agent.register("/root", "unix:uid:0")
        yield agent


@pytest.fixture(scope="module")
def target(engine: Engine, agent: AgentProcess) -> Iterator[Ground]:
    """A container that rightly has the identity, with this machine's programs in it."""
    with engine.caller(agent.socket, flags=["--name", "target", "--label", "team=blue"]) as caller:
        assert {BLUE, ROOTS} == identities(caller)
        name = engine.command("inspect", "--format", "{{.Id}}", "target")
        yield Ground.of(Container(engine, name, engine.pid_of("target")))


def identities(caller: Caller) -> set[str]:
    return {each["spiffe_id"] for each in caller.ask("x509")["svids"]}


@contextmanager
def calling(
    agent: AgentProcess, target: Ground, folders: Sequence[Path], kinds: Sequence[str], *wrapper: str
) -> Iterator[Caller]:
    """A caller from this machine, in these cgroups and namespaces of the target."""
    join = ["nsenter", *target.joining(kinds), "--"] if kinds else []
    program = [sys.executable, str(ROOT / "tests" / "harness" / "caller.py")]
    argv = ["sh", "-c", entering(folders), "sh", *join, *wrapper, *program]
    with Caller(agent.socket, argv=argv) as caller:
        yield caller


def test_all_of_it(agent: AgentProcess, target: Ground) -> None:
    """What the engine starts in a container later, in all that the container has, is the container's."""
    with calling(agent, target, target.folders, list(target.kinds)) as caller:
        assert {BLUE, ROOTS} == identities(caller)


def test_all_but_one_namespace(agent: AgentProcess, target: Ground) -> None:
    """A process in the container's cgroups and in all of its namespaces but one gets what it is without."""
    for missing in target.kinds:
        with calling(agent, target, target.folders, [kind for kind in target.kinds if kind != missing]) as caller:
            assert {ROOTS} == identities(caller), missing


def test_all_but_one_cgroup(agent: AgentProcess, target: Ground) -> None:
    """A process in all of the container's namespaces, and in its cgroups but for one hierarchy, gets no more."""
    for missing in {target.folders[0], target.folders[-1]}:
        folders = [folder for folder in target.folders if folder != missing]
        with calling(agent, target, folders, list(target.kinds)) as caller:
            assert {ROOTS} == identities(caller), missing


def test_a_namespace_of_its_own(agent: AgentProcess, target: Ground) -> None:
    """A process inside that makes itself new mounts, or a new network, counts as the container's no more."""
    for flag in ("--mount", "--net"):
        with calling(agent, target, target.folders, list(target.kinds), "unshare", flag) as caller:
            assert {ROOTS} == identities(caller), flag


def test_coming_and_going(agent: AgentProcess, target: Ground) -> None:
    """Who moves into the container's cgroup gains nothing on its connection, and who moves out of it loses what it had."""
    with calling(agent, target, [], []) as outsider:
        assert {ROOTS} == identities(outsider)
        move(outsider, target.folders)
        assert {ROOTS} == identities(outsider)
        move(outsider, Cgroups.every_root())
        assert {ROOTS} == identities(outsider)
    with calling(agent, target, target.folders, list(target.kinds)) as insider:
        assert {BLUE, ROOTS} == identities(insider)
        pid = insider_pid(target, insider)
        for root in Cgroups.every_root():
            (root / "cgroup.procs").write_text(str(pid))
        assert {ROOTS} == identities(insider)


def test_explained(agent: AgentProcess, target: Ground) -> None:
    """The operator is told why a disguised process got nothing."""
    with calling(agent, target, target.folders, []) as caller:
        text = agent.run("explain", "--pid", str(caller.pid)).stdout
        assert "the process is not in the container's namespaces" in text


def move(caller: Caller, folders: Sequence[Path]) -> None:
    for folder in folders:
        (folder / "cgroup.procs").write_text(str(caller.pid))


def insider_pid(target: Ground, caller: Caller) -> int:
    """The pid that this machine has for a process, which knows the one that it has in its own PID namespace."""
    for pid in target.container.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        if int(status.partition("\nNSpid:")[2].split("\n")[0].split()[-1]) == caller.pid:
            return pid
    raise AssertionError("it is not in the container's PID namespace")
