"""Units of a real systemd, in namespaces of its own: what is attested of their processes, and an agent that goes by it."""

import itertools
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from harness.looking import until
from harness.nspawn import PYTHON, WORK, Helper, Machine, booted

pytestmark = [pytest.mark.full, pytest.mark.root]
NUMBERS = itertools.count(1)
USERS = itertools.count(4701)
TEMPLATE = "[Service]\nExecStart=/bin/sleep 1000\n"
MOVED = 'mkdir -p "$1" && echo "$2" >"$1/cgroup.procs"'


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        yield machine


@pytest.fixture(scope="module")
def attesting(machine: Machine) -> Iterator[Helper]:
    with Helper(machine, "attesting.py", "systemd") as attesting:
        yield attesting


@pytest.fixture(scope="module")
def believing(machine: Machine) -> Iterator[Helper]:
    """An attestor for which users' word counts, as what it is."""
    with Helper(machine, "attesting.py", "systemd", json.dumps({"user_units": True})) as attesting:
        yield attesting


@pytest.fixture
def name() -> str:
    return f"test{next(NUMBERS)}"


def values(attesting: Helper, pid: int) -> set[str]:
    answer = attesting.ask(pid=pid)
    assert "values" in answer, answer
    return set(answer["values"])


def of_kind(found: set[str], kind: str) -> list[str]:
    return sorted(each.removeprefix(f"{kind}:") for each in found if each.startswith(f"{kind}:"))


def shown(machine: Machine, unit: str, property_: str) -> str:
    return machine.run("systemctl", "show", f"--property={property_}", "--value", unit).strip()


class TestUnits:
    def test_services(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A service's process has its unit, its file, its slice and its invocation, as systemctl shows them."""
        pid = machine.unit(name)
        expected = {
            f"id:{name}.service",
            f"fragment_path:/run/systemd/transient/{name}.service",
            "slice:system.slice",
            f"invocation_id:{shown(machine, name, 'InvocationID')}",
            "manager:system",
        }
        assert expected == values(attesting, pid)

    def test_instances_of_a_template(self, machine: Machine, attesting: Helper, name: str) -> None:
        """Instances have the template's file and name in common, and each an instance."""
        machine.write(f"/etc/systemd/system/{name}@.service", TEMPLATE)
        machine.run("systemctl", "daemon-reload")
        for instance in ("1", r"a\x2db"):
            machine.run("systemctl", "start", f"{name}@{instance}.service")
            found = values(attesting, machine.main_pid(f"{name}@{instance}.service"))
            assert {
                f"id:{name}@{instance}.service",
                f"template:{name}@.service",
                f"instance:{instance}",
                f"fragment_path:/etc/systemd/system/{name}@.service",
            } <= found

    def test_names_with_escapes(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A name is as systemd has it, escapes and all, also where its cgroup is named otherwise."""
        for odd in (rf"{name}\x2db\x20c", f"{name}:a.b_c-d", f"cpu.{name}", f"_{name}"):
            assert f"id:{odd}.service" in values(attesting, machine.unit(odd))

    def test_slices(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A unit's own slice is told, and not those above it."""
        pid = machine.unit(name, Slice=f"{name}-inner.slice")
        assert [f"{name}-inner.slice"] == of_kind(values(attesting, pid), "slice")

    def test_scopes(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A process that somebody else started is of the scope that root put it into."""
        command = machine.entered("systemd-run", "--quiet", "--scope", f"--unit={name}", "sleep", "1000")
        with subprocess.Popen(command) as running:
            procs = f"/sys/fs/cgroup/system.slice/{name}.scope/cgroup.procs"
            pid = until(lambda: machine.run("cat", procs, check=False).split(), "the scope has a process")[0]
            found = until(lambda: values(attesting, int(pid)), "it is told")
            machine.run("systemctl", "stop", f"{name}.scope")
            running.wait()
        assert {f"id:{name}.scope", "manager:system"} <= found

    def test_systemd_itself(self, attesting: Helper) -> None:
        """Process 1 has the selectors of its unit, `init.scope`."""
        assert {"id:init.scope", "manager:system", "slice:-.slice"} == values(attesting, 1)

    def test_in_namespaces(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A unit that systemd shuts in is the same unit."""
        shut_in = {"PrivateTmp": "yes", "ProtectSystem": "strict", "PrivateNetwork": "yes", "PrivateUsers": "yes"}
        pid = machine.unit(name, **shut_in, DynamicUser="yes", ProtectProc="invisible")
        assert f"id:{name}.service" in values(attesting, pid)

    def test_in_cgroups_of_their_own(self, machine: Machine, attesting: Helper, name: str) -> None:
        """What a unit of root's puts into cgroups below its own is still of that unit."""
        pid = machine.unit(name, Delegate="yes")
        folder = f"/sys/fs/cgroup/system.slice/{name}.service/{name}-2.service/deeper"
        machine.run("sh", "-c", MOVED, "sh", folder, str(pid))
        assert [f"{name}.service"] == of_kind(values(attesting, pid), "id")

    def test_that_a_process_was_moved_out_of(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A main process that is elsewhere is of its unit no more, though systemd still watches it."""
        pid = machine.unit(name)
        machine.run("sh", "-c", MOVED, "sh", f"/sys/fs/cgroup/{name}-elsewhere", str(pid))
        answer = attesting.ask(pid=pid)
        assert ([], f"the process is not in the cgroup of its unit, {name}.service") == (
            answer["values"],
            answer["withheld"]["id"],
        )

    def test_none(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A process that root keeps outside of all units has no selector, and it is said why."""
        with subprocess.Popen(machine.entered("sh", "-c", "echo $$; exec sleep 1000"), stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            pid = child.stdout.readline().decode().strip()
            machine.run("sh", "-c", MOVED, "sh", f"/sys/fs/cgroup/{name}", pid)
            answer = attesting.ask(pid=int(pid))
            machine.run("kill", pid)
        assert ([], "the process is in no unit of systemd") == (answer["values"], answer["withheld"]["id"])


class TestRuns:
    def test_have_an_invocation_each(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A unit that is started again is the same unit in another invocation."""
        machine.write(f"/etc/systemd/system/{name}.service", TEMPLATE)
        machine.run("systemctl", "daemon-reload")
        runs = []
        for _ in range(2):
            machine.run("systemctl", "restart", name)
            runs.append(values(attesting, machine.main_pid(name)))
        (one,), (another,) = (of_kind(each, "invocation_id") for each in runs)
        assert (True, 1) == (one != another, len({frozenset(of_kind(each, "id")) for each in runs}))

    def test_that_leave_processes_behind(self, machine: Machine, attesting: Helper, name: str) -> None:
        """Where a unit's stop kills its main process alone, nobody is told to be of an invocation."""
        script = "/bin/sh -c 'sleep 1000 & exec sleep 1000'"
        machine.write(f"/etc/systemd/system/{name}.service", f"[Service]\nExecStart={script}\nKillMode=process\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "start", name)
        procs = f"/sys/fs/cgroup/system.slice/{name}.service/cgroup.procs"
        first = until(lambda: len(found := machine.run("cat", procs).split()) == 2 and found, "both run")
        machine.run("systemctl", "restart", name)
        (left,) = set(first) & set(machine.run("cat", procs).split())
        answer = attesting.ask(pid=int(left))
        assert (True, False) == (
            f"id:{name}.service" in answer["values"],
            f"invocation_id:{shown(machine, name, 'InvocationID')}" in answer["values"],
        )
        assert "earlier run" in answer["withheld"]["invocation_id"]


class TestUnitsOfUsers:
    def test_are_the_users_word(self, machine: Machine, attesting: Helper, believing: Helper, name: str) -> None:
        """A unit of a user's own systemd is told as that user's word if that is set, and never as the system's."""
        uid = next(USERS)
        manager = machine.user(uid)
        machine.as_user(uid, "systemd-run", "--quiet", "--user", f"--unit={name}", "sleep", "1000")
        shows = ("systemctl", "--user", "show", "--property=MainPID", "--value", name)
        pid = int(machine.as_user(uid, *shows))
        machine.unit(name)  # the system has one of the same name
        found = values(attesting, pid)
        assert {f"id:{manager}", f"manager:user:{uid}", "template:user@.service", f"instance:{uid}"} <= found
        assert f"{name}.service" not in str(found)
        theirs = {f"user:{uid}:id:{name}.service", f"user:{uid}:slice:app.slice"}
        assert theirs == values(believing, pid) - found
        assert f"user:{uid}:id:init.scope" in values(believing, machine.main_pid(manager))


class TestSystemdThatIsAway:
    def test_executes_itself_anew(self, machine: Machine, attesting: Helper, name: str) -> None:
        """An update of systemd does not show."""
        pid = machine.unit(name)
        before = values(attesting, pid)
        for verb in ("daemon-reload", "daemon-reexec"):
            machine.run("systemctl", verb)
            assert before == values(attesting, pid)

    def test_has_another_bus(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A bus that is started again is connected to again; one that is not there is a failure, and no empty answer."""
        pid = machine.unit(name)
        before = values(attesting, pid)
        machine.run("systemctl", "stop", "dbus.socket", "dbus.service")
        answer = attesting.ask(pid=pid)
        machine.run("systemctl", "start", "dbus.socket", "dbus.service")
        assert answer["error"].startswith("workload attestation failed: the system bus cannot be reached: ")
        until(lambda: "values" in attesting.ask(pid=pid), "systemd is on the bus again")
        assert before == values(attesting, pid)

    def test_stands_still(self, machine: Machine, attesting: Helper, name: str) -> None:
        """A systemd that does not answer fails within the deadline."""
        pid = machine.unit(name)
        values(attesting, pid)
        bus = machine.main_pid("dbus.service")
        machine.run("kill", "-STOP", str(bus))
        try:
            answer = attesting.ask(pid=pid)
        finally:
            machine.run("kill", "-CONT", str(bus))
        assert "workload attestation failed: systemd did not answer within 4 s" == answer["error"]
        assert answer["seconds"] < 4.9
        assert f"id:{name}.service" in values(attesting, pid)


@pytest.fixture(scope="module")
def agent(machine: Machine) -> "Inside":
    return Inside(machine)


CONFIG = """[attestors.unix]
[attestors.systemd]
"""
FETCH = (PYTHON, "-m", "sojourn", "svid", "x509", "--output", "json")


class TestAnAgent:
    """The agent is a service of the machine, and its workloads are others."""

    def test_registers_units(self, machine: Machine, agent: "Inside", name: str) -> None:
        """A registration for a unit is that unit's, whoever runs it, and nobody else's."""
        agent.register(f"/{name}", f"systemd:id:{name}.service")
        assert [f"spiffe://example.org/{name}"] == agent.fetched_by(name)
        assert [f"spiffe://example.org/{name}"] == agent.fetched_by(name, user="daemon")
        assert [] == agent.fetched_by(f"{name}-other")

    def test_registers_what_units_have_in_common(self, machine: Machine, agent: "Inside", name: str) -> None:
        """Registrations go by slice and by template as well."""
        agent.register(f"/{name}/slice", f"systemd:slice:{name}.slice")
        agent.register(f"/{name}/fleet", f"systemd:template:{name}@.service", "systemd:manager:system")
        assert [f"spiffe://example.org/{name}/slice"] == agent.fetched_by(f"{name}-a", Slice=f"{name}.slice")
        for instance in range(2):
            assert [f"spiffe://example.org/{name}/fleet"] == agent.fetched_by(f"{name}@{instance}")

    def test_explains_it(self, machine: Machine, agent: "Inside", name: str) -> None:
        """Explain shows what systemd says of a process."""
        pid = machine.unit(name)
        found = agent.json("explain", "--pid", str(pid))
        assert {f"systemd:id:{name}.service", "systemd:manager:system", "unix:uid:0"} <= set(found["selectors"])


class Inside:
    """A real agent as a service of the machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        (machine.folder / "agent.toml").write_text(CONFIG)
        self._environment = {
            "SPIFFE_ENDPOINT_SOCKET": "unix:/run/sojourn/agent.sock",
            "SOJOURN_ADMIN_SOCKET": "/run/sojourn/admin.sock",
        }
        command = (
            PYTHON,
            "-m",
            "sojourn",
            "agent",
            "run",
            "--config",
            f"{WORK}/agent.toml",
            "--trust-domain",
            "example.org",
        )
        machine.unit("sojourn", *command)
        until(lambda: "ready" in machine.run("journalctl", "--unit=sojourn", "--output=cat"), "the agent is ready")

    def json(self, *arguments: str) -> Any:
        settings = [f"{name}={value}" for name, value in self._environment.items()]
        command = ("env", *settings, PYTHON, "-m", "sojourn", *arguments, "--output", "json")
        return json.loads(self._machine.run(*command))

    def register(self, path: str, *selectors: str) -> None:
        asked = [part for each in selectors for part in ("--selector", each)]
        self.json("entry", "create", "--spiffe-id", f"spiffe://example.org{path}", *asked)

    def fetched_by(self, unit: str, user: str = "", **properties: str) -> list[str]:
        """The SPIFFE IDs that a service of that name is given."""
        settings = [f"--setenv={name}={value}" for name, value in self._environment.items()]
        settings += [f"--property={key}={value}" for key, value in properties.items()]
        settings += [f"--uid={user}"] if user else []
        run = ("systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--unit={unit}", *settings, *FETCH)
        said = self._machine.run(*run, check=False)
        return sorted(each["spiffe_id"] for each in json.loads(said)["svids"]) if said.startswith("{") else []
