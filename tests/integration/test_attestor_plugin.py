"""docs/examples/attestor: an attestor of somebody's own, installed beside a real agent."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import COMMAND, ROOT, AgentProcess, clean_environment
from harness.cgroups import cgroup, removed
from harness.exampleplugins import install, run_own_tests
from harness.looking import gone, until
from harness.plugins import host_of

pytestmark = pytest.mark.full

EXAMPLE = ROOT / "docs" / "examples" / "attestor"
SCOPE = "/system.slice/slurmstepd.scope"
ID = "spiffe://example.org/jobs/train"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, as pip installs it."""
    return install(EXAMPLE, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def job() -> Iterator[Path]:
    """A cgroup as Slurm makes one for a step of job 4711."""
    with cgroup("slurm") as made, contextlib.ExitStack() as stack:
        folder = made.folder
        for name in ("job_4711", "step_0"):
            folder /= name
            folder.mkdir()
            stack.callback(lambda path=folder: until(lambda: removed(path), "the cgroup is empty"))
        yield folder


@pytest.fixture(scope="module")
def scope(job: Path) -> str:
    """Where the kernel says that the jobs are."""
    shown = inside(job, "cat", "/proc/self/cgroup").stdout
    (path,) = {line.split(":", 2)[2] for line in shown.splitlines() if "/job_4711/" in line}
    return path.partition("/job_4711/")[0]


def config_of(scope: str) -> str:
    """The sample, with another place for the jobs."""
    sample = (EXAMPLE / "agent.toml").read_text()
    assert SCOPE in sample
    return sample.replace(SCOPE, scope)


def inside(job: Path, *command: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command in the cgroup of the job."""
    script = f'echo $$ > {job}/cgroup.procs && exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", *command],
        env={**clean_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def agent(installed: Path, scope: str) -> Iterator[AgentProcess]:
    agent = AgentProcess(config=config_of(scope))
    agent.extra_environment["PYTHONPATH"] = str(installed)
    with agent:
        agent.register("/jobs/train", "slurm:job:4711", f"unix:uid:{os.getuid()}")
        yield agent


@pytest.mark.root
class TestBesideAnAgent:
    def test_an_identity_by_it(self, agent: AgentProcess, job: Path) -> None:
        """A process of the job has the identity of an entry that asks for the job; one that is of no job has not."""
        fetch = [*COMMAND, "svid", "x509"]
        done = inside(job, *fetch, **agent.environment)
        assert (0, True) == (done.returncode, ID in done.stdout), done.stderr
        done = subprocess.run(fetch, env=agent.environment, capture_output=True, text=True, timeout=60)
        assert (1, False) == (done.returncode, ID in done.stdout)

    def test_it_is_killed(self, agent: AgentProcess, job: Path) -> None:
        """If its process is killed it is started again, and the status of the agent tells of it."""
        before = host_of(agent)
        os.kill(before, signal.SIGKILL)
        host_of(agent, other_than=before)
        fetch = [*COMMAND, "svid", "x509"]
        until(lambda: ID in inside(job, *fetch, **agent.environment).stdout, "it answers again")
        failures = agent.json("status")["failures"]
        told = [each for each in failures if each["what"] == "attestor_ended"]
        assert [("attestor slurm", "it was killed by SIGKILL")] == [(each["subject"], each["reason"]) for each in told]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_it_ends_with_the_agent(self, installed: Path, number: int) -> None:
        """An attestor's process ends with the agent, however that ends."""
        other = AgentProcess(config=config_of(SCOPE))
        other.extra_environment["PYTHONPATH"] = str(installed)
        with other:
            process = host_of(other)
            other.stop(number)
            until(lambda: gone(process), "the attestor's process is gone")


def test_settings_that_are_wrong(installed: Path) -> None:
    """What is wrong with its table keeps the agent from starting, told by its key."""
    agent = AgentProcess(config='[attestors.unix]\n[attestors.slurm]\nscope = "/x"\ncolour = 1\n')
    agent.extra_environment["PYTHONPATH"] = str(installed)
    with pytest.raises(RuntimeError, match=r"attestors\.slurm\.colour: unknown key; there are scope"), agent:
        pass


def test_its_own_test(installed: Path) -> None:
    """The test that comes with the example passes, as its author would run it."""
    run_own_tests(EXAMPLE, "test_slurm.py", installed)


def test_it_is_short() -> None:
    """The attestor itself, without its imports and what it says of itself, is no more than thirty lines."""
    code = (EXAMPLE / "sojourn_slurm.py").read_text().partition("\n\n\n")[2]
    assert 10 < len([line for line in code.splitlines() if line.strip()]) <= 30
