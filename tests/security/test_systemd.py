"""Processes that want to pass for a unit's, with a real systemd in namespaces of its own (C2 25, as it is for units)."""

import itertools
import json
import subprocess
import threading
from collections.abc import Iterator

import pytest
from harness.agent import ROOT
from harness.looking import until
from harness.nspawn import PYTHON, Helper, Machine, booted

pytestmark = [pytest.mark.full, pytest.mark.root]
ROUNDS = 300
USERS = itertools.count(4801)
CGROUPS = "/sys/fs/cgroup"
GOOD = "good.service"
ATTACH = (
    *("busctl", "--system", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
    *("org.freedesktop.systemd1.Manager", "AttachProcessesToUnit", "ssau"),
)
BEGIN_UNIT = (
    *("busctl", "--system", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1"),
    *("org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))"),
)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        machine.unit(GOOD)
        yield machine


@pytest.fixture(scope="module")
def attesting(machine: Machine) -> Iterator[Helper]:
    """As though users' word counted, so that it is seen what it counts for."""
    with Helper(machine, "attesting.py", "systemd", json.dumps({"user_units": True})) as attesting:
        yield attesting


@pytest.fixture
def uid() -> int:
    return next(USERS)


class Attacker:
    """A process of a user's, in a unit `attacker-UID.service` that root started for them."""

    def __init__(self, machine: Machine, uid: int, **properties: str) -> None:
        self._machine, self._uid = machine, uid
        machine.account(uid)
        self.unit = f"attacker-{uid}.service"
        self.pid = machine.unit(self.unit, user=str(uid), **properties)

    def run(self, *command: str) -> bool:
        """Run something as that user. Return whether it succeeded."""
        run_as = ("setpriv", f"--reuid={self._uid}", f"--regid={self._uid}", "--clear-groups")
        done = subprocess.run(
            self._machine.entered(*run_as, *command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        return done.returncode == 0

    def join(self, folder: str) -> bool:
        return self.run("sh", "-c", f"echo {self.pid} >{CGROUPS}{folder}/cgroup.procs")


def values(attesting: Helper, pid: int) -> set[str]:
    answer = attesting.ask(pid=pid)
    assert "values" in answer, answer
    return set(answer["values"])


def ids(attesting: Helper, pid: int) -> list[str]:
    return sorted(each for each in values(attesting, pid) if each.startswith("id:"))


class TestAUserWhoWantsIntoAUnit:
    def test_by_its_cgroup(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """The kernel lets nobody into a unit's cgroup but root."""
        attacker = Attacker(machine, uid)
        assert [False] * 3 == [attacker.join(f"/system.slice/{each}") for each in (GOOD, "", attacker.unit)]
        assert [f"id:{attacker.unit}"] == ids(attesting, attacker.pid)

    def test_by_systemd(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """Systemd puts no user's process into a unit that is not theirs, and starts no unit for them."""
        attacker = Attacker(machine, uid)
        pid = str(attacker.pid)
        scope = ("evil.scope", "fail", "1", "PIDs", "au", "1", pid, "0")
        tries = [(*ATTACH, GOOD, "", "1", pid), (*ATTACH, attacker.unit, "", "1", pid), (*BEGIN_UNIT, *scope)]
        tries.append(("systemd-run", "--no-ask-password", "--scope", "--unit=evil2", "true"))
        assert [False] * len(tries) == [attacker.run(*each) for each in tries]
        assert [f"id:{attacker.unit}"] == ids(attesting, attacker.pid)

    def test_that_was_handed_to_them(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """Into a unit whose cgroup is theirs a user can bring any process of theirs: such a unit says nothing."""
        attacker = Attacker(machine, uid)
        theirs = f"theirs-{uid}.service"
        machine.unit(theirs, user=str(uid), Delegate="yes")
        assert attacker.run(*ATTACH, theirs, "/", "1", str(attacker.pid))
        assert f"/{theirs}" in machine.run("cat", f"/proc/{attacker.pid}/cgroup")
        for pid in (attacker.pid, machine.main_pid(theirs)):
            answer = attesting.ask(pid=pid)
            assert ([], True) == (answer["values"], f"handed to user {uid}" in answer["withheld"]["id"])

    def test_by_their_own_systemd(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """Whatever a user has their own systemd run, and however they name it, is their word."""
        manager = machine.user(uid)
        run = ("systemd-run", "--quiet", "--user", "--property=Delegate=yes", "--slice=system.slice", f"--unit={GOOD}")
        machine.as_user(uid, *run, "sleep", "1000")
        pid = int(machine.as_user(uid, "systemctl", "--user", "show", "--property=MainPID", "--value", GOOD))
        expected = {f"user:{uid}:id:{GOOD}", f"user:{uid}:slice:system.slice", f"manager:user:{uid}"}
        found = values(attesting, pid)
        assert ([f"id:{manager}"], expected) == (ids(attesting, pid), expected & found)
        assert not {"manager:system", "slice:system.slice"} & found

    def test_by_cgroups_of_their_own(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """A user's cgroups are below those of their own systemd, whatever their names."""
        manager = machine.user(uid)
        machine.as_user(
            uid, "systemd-run", "--quiet", "--user", "--property=Delegate=yes", "--unit=mine", "sleep", "1000"
        )
        pid = int(machine.as_user(uid, "systemctl", "--user", "show", "--property=MainPID", "--value", "mine"))
        base = f"{CGROUPS}/user.slice/user-{uid}.slice/{manager}"
        for name in (
            GOOD,
            f"system.slice/{GOOD}",
            f"user@0.service/{GOOD}",
            f"../{GOOD}",
            "a:b.service",
            "x\ny.service",
        ):
            move = 'mkdir -p "$1" && echo "$2" >"$1/cgroup.procs"'
            moved = machine.as_user(
                uid, "sh", "-c", f"{move} && echo moved", "sh", f"{base}/{name}", str(pid), check=False
            )
            answer = attesting.ask(pid=pid)
            found = set(answer.get("values", ()))
            assert found == {each for each in found if each.startswith(f"user:{uid}:")} | (
                found & {f"id:{manager}", "template:user@.service", f"instance:{uid}", f"manager:user:{uid}"}
            ) | {each for each in found if each.startswith(("invocation_id:", "slice:user-", "fragment_path:/"))}, moved
            assert f"id:{GOOD}" not in found

    def test_by_namespaces(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """A process with a user, mount, cgroup and process namespace of its own is of the unit that it is of."""
        unit = f"shut-{uid}"
        machine.account(uid)
        script = "mount --bind /etc/hostname /proc/self/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec sleep 1000"
        command = ("unshare", "--user", "--map-root-user", "--mount", "--cgroup", "--pid", "--fork", "sh", "-c", script)
        machine.unit(unit, *command, user=str(uid))
        procs = f"{CGROUPS}/system.slice/{unit}.service/cgroup.procs"
        inner = until(lambda: machine.run("cat", procs).split()[1:], "it runs")[0]
        assert [f"id:{unit}.service"] == ids(attesting, int(inner))

    def test_by_the_bus(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """Signals, open files and forged answers poured over the bus neither change an answer nor are kept."""
        pid = machine.main_pid(GOOD)
        before = attesting.ask(pid=pid)
        script = str(ROOT / "tests" / "harness" / "busflood.py")
        machine.account(uid)
        flooding = machine.entered("timeout", "20", PYTHON, script, str(uid), "2")
        with subprocess.Popen(flooding, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as flood:
            assert flood.stdout is not None
            flood.stdout.readline()
            answers = []
            while flood.poll() is None:
                answers.append(attesting.ask(pid=pid))
            sent = json.loads(flood.stdout.readline())
        after = until(lambda: (found := attesting.ask(pid=pid)) and "values" in found and found, "it is told again")
        heard = [each for each in answers if "values" in each]
        assert [before["values"]] * len(heard) == [each["values"] for each in heard]
        assert (before["descriptors"], True, True) == (after["descriptors"], sent["signals"] > 20, len(heard) > 0)

    def test_by_a_descriptor_that_lingers(self, machine: Machine, attesting: Helper, uid: int) -> None:
        """A socket whose closing waits, sent over the bus, does not hold up whoever attests: the bus has to keep it, and
        if that is held up by it, it is said that systemd does not answer."""
        pid = machine.main_pid(GOOD)
        assert "values" in attesting.ask(pid=pid)
        script = str(ROOT / "tests" / "harness" / "buslinger.py")
        machine.account(uid)
        lingering = machine.entered("timeout", "60", PYTHON, script, str(uid))
        with subprocess.Popen(lingering, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
            assert sender.stdout is not None
            try:
                assert json.loads(sender.stdout.readline())["sent"] > 1
                answer = attesting.ask(pid=pid)
                assert "values" in answer or "systemd did not answer" in answer["error"]
            finally:
                sender.communicate()
        assert "values" in until(
            lambda: (found := attesting.ask(pid=pid)) and "values" in found and found, "it is told"
        )


class TestARace:
    def test_of_moves(self, machine: Machine, attesting: Helper) -> None:
        """Of a process that is moved from unit to unit all that is told is of one of them, at every moment."""
        script = "while :; do for each in one two; do echo $1 >/sys/fs/cgroup/system.slice/$each.service/cgroup.procs; done; done"
        each = {f"{name}.service": machine.unit(name, Delegate="yes") for name in ("one", "two")}
        truths = [values(attesting, pid) for pid in each.values()]
        pid = machine.unit("moved")
        truths.append(values(attesting, pid))
        machine.unit("mover", "bash", "-c", script.replace("$1", str(pid)))
        found = [attesting.ask(pid=pid) for _ in range(ROUNDS)]
        machine.run("systemctl", "stop", "mover")
        wrong = [answer for answer in found if answer.get("values") and set(answer["values"]) not in truths]
        told = {tuple(of_kind) for answer in found if (of_kind := answer.get("values"))}
        assert ([], True) == (wrong, len(told) > 1)

    def test_of_starts(self, machine: Machine, attesting: Helper) -> None:
        """Of processes of a unit that is started over and over nothing is told that is another unit's."""
        machine.write("/etc/systemd/system/again.service", "[Service]\nExecStart=/bin/sleep 1000\nStartLimitBurst=0\n")
        machine.run("systemctl", "daemon-reload")
        ending = threading.Event()

        def restart() -> None:
            while not ending.is_set():
                machine.run("systemctl", "restart", "again", check=False)

        restarting = threading.Thread(target=restart)
        restarting.start()
        try:
            found = [attesting.ask(pid=machine.main_pid("again") or 1) for _ in range(60)]
        finally:
            ending.set()
            restarting.join()
        named = {each for answer in found for each in answer.get("values", ()) if each.startswith("id:")}
        assert {"id:again.service"} == named - {"id:init.scope"}
