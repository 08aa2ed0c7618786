"""systemd.py: of which unit a process is. The bus is a fake one on a real socket; the processes are real.

tests/integration/test_systemd.py does it with a real systemd.
"""

import asyncio
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
from fakes.children import child, holder_of
from fakes.systembus import BUS, HANG_UP, SILENT, SYSTEMD_NAME, Error, FakeSystemBus
from harness.looking import until
from sojourn.contracts.attestors import AttestorCase, AttestorContract
from sojourn.contracts.attestors import child as contract_child
from sojourn.contracts.promises import promises_of
from sojourn.errors import AttestationFailed, InvalidConfig
from sojourn_attestors import systemd as module
from sojourn_attestors.systemd import SystemdAttestor

CGROUP = "/system.slice/web.service"
VALUES = {
    "id:web.service",
    "fragment_path:/etc/systemd/system/web.service",
    "slice:system.slice",
    "invocation_id:000102030405060708090a0b0c0d0e0f",
    "manager:system",
}
UNITS = {"id", "fragment_path", "slice", "invocation_id", "template", "instance", "manager"}


@pytest.fixture
def bus(tmp_path):
    with FakeSystemBus(tmp_path) as bus:
        yield bus


@pytest.fixture
def process():
    with child() as process:
        pinned = holder_of(process)
        yield pinned
        pinned.close()


@pytest.fixture
async def attestor(bus, cgroups):
    attestor = made(bus, cgroups)
    yield attestor
    await attestor.close()


@pytest.fixture
def cgroups(tmp_path):
    return Folders(tmp_path / "cgroups")


class Folders:
    """Folders as cgroups have them, below one of the test's, and the users who own some."""

    def __init__(self, root):
        self._root = root
        self.visible = True

    def folder(self, cgroup):
        if not self.visible:
            return None
        return str(self.make(cgroup.path))

    def make(self, path):
        names = [name for name in path.split("/") if name]
        for length in range(len(names) + 1):
            folder = self._root.joinpath(*names[:length])
            if not folder.exists():
                folder.mkdir(mode=0o755)
                (folder / "cgroup.procs").touch(0o644)
                self._give(folder, 0)
        return folder

    def give(self, path, uid):
        self._give(self.make(path), uid)

    @staticmethod
    def _give(folder, uid):
        if os.geteuid() == 0:
            for each in (folder, folder / "cgroup.procs"):
                os.chown(each, uid, uid)


def made(bus, cgroups, **settings):
    attestor = SystemdAttestor({"socket": bus.socket, **settings}, ThreadPoolExecutor(1))
    attestor._folders = cgroups
    return attestor


def subject(process, cgroup=f"0::{CGROUP}\n"):
    return SimpleNamespace(pid=process.pid, pidfd=process.pidfd, cgroup=cgroup, uid=0, gid=0, groups=frozenset())


async def values_of(bus, cgroups, process, cgroup=f"0::{CGROUP}\n", **settings):
    attestor = made(bus, cgroups, **settings)
    try:
        return await attestor.attest(subject(process, cgroup))
    finally:
        await attestor.close()


async def reason_of(attestor, process, cgroup=f"0::{CGROUP}\n"):
    with pytest.raises(AttestationFailed) as refused:
        await attestor.attest(subject(process, cgroup))
    return refused.value.public.removeprefix("workload attestation failed: ")


@pytest.mark.root
class TestUnits:
    async def test_by_the_kernels_handle(self, attestor, bus, process):
        """Systemd 254 and newer is asked by pidfd, which names no other process than this one."""
        bus.unit("web.service", process.pid, CGROUP)
        answer = await attestor.attest(subject(process))
        assert (VALUES, {"template", "instance"}) == (answer.values, set(answer.withheld))
        assert ("GetUnitByPIDFD" in bus.asked, "GetUnitByPID" in bus.asked) == (True, False)

    async def test_by_number_where_there_is_no_other_way(self, attestor, bus, process):
        """An older systemd is asked by number, and that it is an older one is found out once."""
        bus.takes_pidfd = False
        bus.unit("web.service", process.pid, CGROUP)
        for _ in range(3):
            assert (await attestor.attest(subject(process))).values == VALUES
        assert (1, 3) == (bus.asked.count("GetUnitByPIDFD"), bus.asked.count("GetUnitByPID"))

    async def test_a_refusal_by_handle_is_no_older_systemd(self, attestor, bus, process):
        """Only a method that is not there is done without; any other error is one."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers["GetUnitByPIDFD"] = refuse(f"{BUS}.Error.AccessDenied")
        assert f"systemd answered '{BUS}.Error.AccessDenied'" == await reason_of(attestor, process)
        assert "GetUnitByPID" not in bus.asked

    async def test_numbers_of_another_namespace(self, attestor, bus, process):
        """Where the bus knows this agent by another number, numbers are not what systemd is asked by."""
        bus.takes_pidfd, bus.pid_of_caller = False, os.getpid() + 1
        bus.unit("web.service", process.pid, CGROUP)
        assert "other process numbers" in await reason_of(attestor, process)

    async def test_none(self, attestor, process):
        """A process that is in no unit has no selectors, and it is said why."""
        answer = await attestor.attest(subject(process, "0::/elsewhere\n"))
        assert (frozenset(), UNITS) == (answer.values, set(answer.withheld))
        assert "in no unit" in answer.withheld["id"]

    async def test_a_slice_is_no_unit_of_a_process(self, attestor, bus, process):
        """A process that was put into a slice itself is in no unit."""
        bus.unit("system.slice", process.pid, "/system.slice")
        answer = await attestor.attest(subject(process, "0::/system.slice/x\n"))
        assert frozenset() == answer.values

    async def test_instances(self, attestor, bus, process):
        """An instance of a template has the template and its own part of the name as selectors."""
        bus.unit(r"web@a\x2d1.service", process.pid, CGROUP)
        answer = await attestor.attest(subject(process))
        assert {r"id:web@a\x2d1.service", "template:web@.service", r"instance:a\x2d1"} <= answer.values

    @pytest.mark.parametrize("changes", [{"KillMode": ("s", "process")}, {"SendSIGKILL": ("b", False)}])
    async def test_whose_processes_outlive_a_start(self, attestor, bus, process, changes):
        """A unit that leaves processes behind has no invocation that they are all of."""
        bus.unit("web.service", process.pid, CGROUP, **changes)
        answer = await attestor.attest(subject(process))
        assert {"id:web.service"} < answer.values
        assert not [each for each in answer.values if each.startswith("invocation_id:")]
        assert "earlier run" in answer.withheld["invocation_id"]

    @pytest.mark.parametrize(
        ("changes", "kind"),
        [
            ({"FragmentPath": ("s", "")}, "fragment_path"),
            ({"FragmentPath": ("s", "/" + "x" * 4_090)}, "fragment_path"),
            ({"Slice": ("s", "")}, "slice"),
            ({"InvocationID": ("ay", b"")}, "invocation_id"),
        ],
    )
    async def test_that_lack_something(self, attestor, bus, process, changes, kind):
        """What a unit does not have is no selector, and it is said so."""
        bus.unit("web.service", process.pid, CGROUP, **changes)
        answer = await attestor.attest(subject(process))
        assert ({each for each in VALUES if not each.startswith(f"{kind}:")}, True) == (
            answer.values,
            bool(answer.withheld[kind]),
        )


def refuse(name):
    def answer(*_):
        raise Error(name)

    return answer


@pytest.mark.root
class TestTheKernelsWord:
    @pytest.mark.parametrize(
        "cgroup",
        [
            f"0::{CGROUP}\n",
            f"0::{CGROUP}/child/deeper\n",
            f"3:cpu:/\n1:name=systemd:{CGROUP}\n0::{CGROUP}\n",
            f"3:cpu:/x\n1:name=systemd:{CGROUP}\n0::/\n",
            f"1:name=systemd:{CGROUP}\n",
        ],
    )
    async def test_of_the_units_cgroup(self, attestor, bus, process, cgroup):
        """The process is in the unit's cgroup or below it, in the hierarchy that systemd keeps."""
        bus.unit("web.service", process.pid, CGROUP)
        assert VALUES == (await attestor.attest(subject(process, cgroup))).values

    @pytest.mark.parametrize(
        "cgroup",
        [
            "0::/\n",
            "0::/system.slice\n",
            f"0::{CGROUP}x\n",
            f"0::/..{CGROUP}\n",
            f"0::{CGROUP} (deleted)\n",
            f"0::/other{CGROUP}\n",
            f"1:name=systemd:{CGROUP}\n0::/other\n",
            f"1:cpu:{CGROUP}\n0::/\n",
            f"1:name=other:{CGROUP}\n0::/\n",
            "",
        ],
    )
    async def test_of_another_cgroup(self, attestor, bus, process, cgroup):
        """A process that is elsewhere than its unit's processes are has nothing of that unit."""
        bus.unit("web.service", process.pid, CGROUP)
        answer = await attestor.attest(subject(process, cgroup))
        assert (frozenset(), UNITS) == (answer.values, set(answer.withheld))
        assert "not in the cgroup of its unit" in answer.withheld["id"]

    @pytest.mark.parametrize("unit", ["", "/"])
    async def test_a_unit_without_cgroup(self, attestor, bus, process, unit):
        """No process is in a unit that has no cgroup, or in one that has all of them."""
        bus.unit("web.service", process.pid, unit)
        assert frozenset() == (await attestor.attest(subject(process))).values

    @pytest.mark.parametrize("given", ["/system.slice/web.service", "/system.slice"])
    async def test_cgroups_of_users(self, bus, cgroups, process, given):
        """A unit whose cgroup, or one above it, is a user's says nothing, unless that is set to count."""
        cgroups.give(given, 4711)
        bus.unit("web.service", process.pid, CGROUP)
        answer = await values_of(bus, cgroups, process)
        assert (frozenset(), UNITS) == (answer.values, set(answer.withheld))
        assert "handed to user 4711" in answer.withheld["id"]
        assert VALUES == (await values_of(bus, cgroups, process, delegated=True)).values

    async def test_users_below_a_unit(self, bus, cgroups, process):
        """In the unified hierarchy a user's cgroup below the unit lets nobody in; in a named one it does."""
        below = f"{CGROUP}/child"
        cgroups.give(below, 4711)
        bus.unit("web.service", process.pid, CGROUP)
        assert VALUES == (await values_of(bus, cgroups, process, f"0::{below}\n")).values
        assert frozenset() == (await values_of(bus, cgroups, process, f"1:name=systemd:{below}\n0::/\n")).values

    async def test_cgroups_that_all_may_write(self, attestor, bus, cgroups, process):
        """A cgroup that others than its owner may write to says nothing."""
        (cgroups.make(CGROUP) / "cgroup.procs").chmod(0o666)
        bus.unit("web.service", process.pid, CGROUP)
        assert "others than its owner may write" in await reason_of(attestor, process)

    async def test_cgroups_out_of_sight(self, attestor, bus, cgroups, process):
        """An agent that cannot see who owns the cgroups cannot tell."""
        cgroups.visible = False
        bus.unit("web.service", process.pid, CGROUP)
        assert "does not see the cgroups" in await reason_of(attestor, process)

    async def test_a_process_that_has_gone(self, attestor, bus):
        """An ended process is none of any unit, whatever systemd says of its number."""
        with child() as running:
            process = holder_of(running)
            bus.unit("web.service", process.pid, CGROUP)
        try:
            assert "the process has gone" == await reason_of(attestor, process)
        finally:
            process.close()

    async def test_a_process_that_goes_meanwhile(self, attestor, bus):
        """What is heard of a process that has ended since is thrown away."""
        with child() as running:
            process = holder_of(running)
            bus.unit("web.service", process.pid, CGROUP)

            def kill(_connection, method):
                if method == "Get" and running.returncode is None:
                    running.kill()
                    running.wait()

            bus.before = kill
            try:
                assert "the process has gone" == await reason_of(attestor, process)
            finally:
                process.close()


@pytest.mark.root
class TestUsersOwnUnits:
    UNIT = "/user.slice/user-4711.slice/user@4711.service"
    VALUES: ClassVar = {
        "id:user@4711.service",
        "template:user@.service",
        "instance:4711",
        "manager:user:4711",
        "slice:user-4711.slice",
    }

    @pytest.fixture
    def of_user(self, bus, cgroups, process):
        cgroups.give(self.UNIT, 4711)
        bus.unit("user@4711.service", process.pid, self.UNIT, Slice=("s", "user-4711.slice"))

    async def test_are_not_told_unless_that_is_set(self, of_user, bus, cgroups, process):
        """What a user calls a unit is no selector: only whose systemd it is."""
        answer = await values_of(bus, cgroups, process, f"0::{self.UNIT}/app.slice/web.service\n")
        assert self.VALUES <= answer.values
        assert not [each for each in answer.values if "web.service" in each]
        assert "user_units" in answer.withheld["user:4711"]

    async def test_are_told_as_the_users_word(self, of_user, bus, cgroups, process):
        """If it is set, what a user calls a unit is a selector that begins with whose word it is."""
        path = f"0::{self.UNIT}/app.slice/web.service/child\n"
        answer = await values_of(bus, cgroups, process, path, user_units=True)
        assert {*self.VALUES, "user:4711:id:web.service", "user:4711:slice:app.slice"} <= answer.values
        assert not {"id:web.service", "slice:app.slice", "manager:system"} & answer.values

    async def test_of_no_unit(self, of_user, bus, cgroups, process):
        """A cgroup that a user made by hand is of no unit."""
        answer = await values_of(bus, cgroups, process, f"0::{self.UNIT}/anything\n", user_units=True)
        assert not [each for each in answer.values if each.startswith("user:")]
        assert "in no unit of user 4711" in answer.withheld["user:4711"]

    async def test_with_the_cgroup_of_another_user(self, bus, cgroups, process):
        """A user's systemd whose cgroup another user has is not that user's."""
        cgroups.give(self.UNIT, 4712)
        bus.unit("user@4711.service", process.pid, self.UNIT)
        answer = await values_of(bus, cgroups, process, f"0::{self.UNIT}/x.service\n", user_units=True)
        assert frozenset() == answer.values

    async def test_of_root(self, bus, cgroups, process):
        """Root's own systemd is a user's too."""
        unit = "/user.slice/user-0.slice/user@0.service"
        bus.unit("user@0.service", process.pid, unit)
        answer = await values_of(bus, cgroups, process, f"0::{unit}/init.scope\n", user_units=True)
        assert {"manager:user:0", "user:0:id:init.scope"} <= answer.values


@pytest.mark.root
class TestTheBus:
    async def test_a_check(self, bus, attestor, cgroups, tmp_path):
        """A check is fine with a bus and a systemd on it, and says at which socket there is none."""
        await attestor.check()
        missing = SystemdAttestor({"socket": str(tmp_path / "none")}, None)
        with pytest.raises(AttestationFailed, match=str(tmp_path / "none")):
            await missing.check()

    async def test_is_not_there(self, bus, cgroups, process, tmp_path):
        """Without a bus nothing can be told, which is no empty answer."""
        attestor = made(bus, cgroups, socket=str(tmp_path / "nobody"))
        told = await reason_of(attestor, process)
        assert f"the system bus cannot be reached: there is no socket at {tmp_path}/nobody" == told

    async def test_has_no_systemd(self, attestor, bus, process):
        """A bus without systemd is waited for a moment, and then nothing can be told."""
        bus.owner = None
        assert "systemd is not on the system bus" == await reason_of(attestor, process)
        assert bus.asked.count("GetNameOwner") > 2

    async def test_has_a_systemd_that_is_away_for_a_moment(self, attestor, bus, process):
        """Systemd leaves its bus while it executes itself anew: that is waited for."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.owner = None
        attesting = asyncio.ensure_future(attestor.attest(subject(process)))
        while bus.asked.count("GetNameOwner") < 2:
            await asyncio.sleep(0.01)
        bus.owner = SYSTEMD_NAME
        assert VALUES == (await attesting).values

    async def test_lets_one_connection_wait_for_few_answers(self, attestor, bus, process):
        """However many ask at once of a systemd that is slow, no more answers are waited for than a bus allows (128)."""
        bus.unit("web.service", process.pid, CGROUP)
        most, slow = [0], bus.answers["Get"]

        def get(*arguments):
            most[0] = max(most[0], len(attestor._manager._bus._waiting))
            return slow(*arguments)

        bus.answers["Get"] = get
        answers = await asyncio.gather(*(attestor.attest(subject(process)) for _ in range(60)))
        assert [VALUES] * 60 == [answer.values for answer in answers]
        assert 7 < most[0] <= 128

    async def test_has_a_systemd_of_a_users(self, attestor, bus, process):
        """What has systemd's name on the bus must be root's."""
        bus.uid = 4711
        bus.unit("web.service", process.pid, CGROUP)
        assert "is not root's" in await reason_of(attestor, process)

    async def test_is_used_again(self, attestor, bus, process):
        """One connection serves all, at once or one after another."""
        bus.unit("web.service", process.pid, CGROUP)
        for _ in range(3):
            answers = await asyncio.gather(*(attestor.attest(subject(process)) for _ in range(20)))
            assert [VALUES] * 20 == [each.values for each in answers]
        assert 1 == bus.connections

    async def test_starts_anew(self, attestor, bus, process):
        """A connection that was lost is made again, without an attestation that fails for it."""
        bus.unit("web.service", process.pid, CGROUP)
        await attestor.attest(subject(process))
        bus.hang_up()
        assert VALUES == (await attestor.attest(subject(process))).values

    async def test_has_another_systemd_than_before(self, attestor, bus, process):
        """Systemd that came back under another name is found again."""
        bus.unit("web.service", process.pid, CGROUP)
        await attestor.attest(subject(process))
        lookups = bus.asked.count("GetNameOwner")
        known = bus.answers["GetUnitByPIDFD"]
        gone = [f"{BUS}.Error.ServiceUnknown"]

        def answer(pidfd):
            if gone:
                raise Error(gone.pop())
            return known(pidfd)

        bus.answers["GetUnitByPIDFD"] = answer
        assert VALUES == (await attestor.attest(subject(process))).values
        assert lookups + 1 == bus.asked.count("GetNameOwner")

    @pytest.mark.parametrize("method", ["Hello", "GetNameOwner", "GetUnitByPIDFD", "Get"])
    async def test_hangs_up(self, attestor, bus, process, method):
        """A bus that breaks the connection in between cannot tell, and is not asked for ever."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers[method] = lambda *_: HANG_UP
        assert "the connection to the system bus was lost" == await reason_of(attestor, process)
        assert bus.connections <= 2

    @pytest.mark.parametrize("method", ["Hello", "GetNameOwner", "GetUnitByPIDFD", "Get"])
    async def test_is_silent(self, attestor, bus, process, method, monkeypatch):
        """A bus or systemd that does not answer fails in time, and the next attestation has a new connection."""
        monkeypatch.setattr(module, "SYSTEM_BUS_SECONDS", 0.3)
        bus.unit("web.service", process.pid, CGROUP)
        known = bus.answers[method]
        bus.answers[method] = lambda *_: SILENT
        assert "systemd did not answer within 0.3 s" == await reason_of(attestor, process)
        bus.answers[method] = known
        monkeypatch.undo()
        assert VALUES == (await attestor.attest(subject(process))).values

    async def test_does_not_even_authenticate(self, attestor, bus, process, monkeypatch):
        """A bus that says nothing at all fails in time, and the next attestation has a new connection."""
        monkeypatch.setattr(module, "SYSTEM_BUS_SECONDS", 0.3)
        bus.authentication = (b"", b"")
        assert "systemd did not answer within 0.3 s" == await reason_of(attestor, process)

    async def test_is_left_by_callers(self, attestor, bus, process):
        """A cancelled attestation leaves the connection good for others."""
        bus.unit("web.service", process.pid, CGROUP)
        await attestor.attest(subject(process))
        for turns in range(12):
            attesting = asyncio.ensure_future(attestor.attest(subject(process)))
            for _ in range(turns):
                await asyncio.sleep(0)
            attesting.cancel()
            await asyncio.gather(attesting, return_exceptions=True)
        assert VALUES == (await attestor.attest(subject(process))).values
        assert 1 == bus.connections

    async def test_no_answer_is_heard_from_others(self, attestor, bus, process, monkeypatch):
        """An answer in another's name than that of the one who was asked is none."""
        monkeypatch.setattr(module, "SYSTEM_BUS_SECONDS", 0.3)
        bus.sender = ":1.66"
        bus.unit("web.service", process.pid, CGROUP)
        assert "systemd did not answer within 0.3 s" == await reason_of(attestor, process)

    async def test_lets_go(self, attestor, bus, process):
        """A closed attestor has no connection left, and makes one again if it is asked."""
        bus.unit("web.service", process.pid, CGROUP)
        await attestor.attest(subject(process))
        before = len(os.listdir("/proc/self/fd"))
        await attestor.close()
        until(lambda: len(os.listdir("/proc/self/fd")) <= before - 2, "both ends are closed")
        assert VALUES == (await attestor.attest(subject(process))).values


@pytest.mark.root
class TestWhatCannotBeSo:
    @pytest.mark.parametrize(
        "changes",
        [
            {"Id": ("s", "other.service")},
            {"Id": ("u", 1)},
            {"FragmentPath": ("s", "etc/x")},
            {"FragmentPath": ("s", "/x\0y")},
            {"FragmentPath": ("as", ["/x"])},
            {"InvocationID": ("ay", b"short")},
            {"InvocationID": ("s", "0" * 16)},
            {"Slice": ("s", "web.service")},
            {"Slice": ("s", "../x.slice")},
            {"ControlGroup": ("s", "system.slice/web.service")},
            {"ControlGroup": ("b", True)},
            {"KillMode": ("u", 7)},
        ],
    )
    async def test_of_a_unit(self, attestor, bus, process, changes):
        """What no unit has is not given on, and the attestation fails."""
        bus.unit("web.service", process.pid, CGROUP, **changes)
        assert "systemd told of a unit what cannot be so" == await reason_of(attestor, process)

    @pytest.mark.parametrize(
        "path",
        [
            "/",
            "/org/freedesktop/systemd1/job/7",
            "/org/freedesktop/systemd1/unit/web_2etimer",
            "/org/freedesktop/systemd1/unit/_2e_2e_2fx_2eservice",
        ],
    )
    async def test_of_a_path(self, attestor, bus, process, path):
        """A path that is no unit's, or that of one without processes, is not asked about."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers["GetUnitByPIDFD"] = lambda _: ("osay", (path, "web.service", b""))
        assert "a name that none has" in await reason_of(attestor, process)
        assert "Get" not in bus.asked

    @pytest.mark.parametrize("body", [("", ()), ("u", (7,)), ("ss", ("a", "b"))])
    @pytest.mark.parametrize("method", ["Hello", "GetNameOwner", "GetUnitByPIDFD", "Get"])
    async def test_of_other_types(self, attestor, bus, process, method, body):
        """An answer of another shape than the method has fails as any that cannot be so."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers[method] = lambda *_: body
        with pytest.raises(AttestationFailed):
            await attestor.attest(subject(process))


class Contract:
    """The bus that the contract's attestor asks, and the cgroups that it sees."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="sojourn-bus-"))
        self.bus = FakeSystemBus(self.folder)

    @contextmanager
    def known(self):
        with self.bus, contract_child() as subject:
            self.bus.unit("web.service", subject.pid, CGROUP)
            yield replace(subject, cgroup=f"0::{CGROUP}\n")

    @contextmanager
    def broken(self, **changes):
        before = {name: getattr(self.bus, name) for name in changes}
        for name, value in changes.items():
            setattr(self.bus, name, value)
        yield
        for name, value in before.items():
            setattr(self.bus, name, value)

    @contextmanager
    def stopped(self):
        self.bus.stop()
        yield
        self.bus.start()

    def attestor(self, settings, pool):
        attestor = SystemdAttestor(settings, pool)
        attestor._folders = Folders(self.folder / "cgroups")
        return attestor

    @property
    def promises(self):
        silent = {**self.bus.answers, "Get": lambda *_: SILENT}
        broken = {
            "no bus": self.stopped,
            "a bus without systemd": partial(self.broken, owner=None),
            "a user for systemd": partial(self.broken, uid=4711),
            "a systemd that is silent": partial(self.broken, answers=silent),
            "a bus that takes nobody": partial(self.broken, authentication=(b"REJECTED EXTERNAL\r\n",)),
        }
        settings = {"socket": self.bus.socket, "user_units": True, "delegated": False}
        kinds = {*UNITS, "user"}
        case = AttestorCase(
            plugin=self.attestor,
            kinds=kinds,
            settings=settings,
            known=self.known,
            expected=VALUES,
            broken=broken,
        )
        return AttestorContract(case).promises


@pytest.fixture
def contract():
    contract = Contract()
    yield {str(each): each for each in contract.promises}
    shutil.rmtree(contract.folder)


@pytest.mark.root
@pytest.mark.parametrize("name", [str(each) for each in promises_of(AttestorContract(None))])
def test_contract(contract, name):
    """The attestor `systemd` keeps what every attestor keeps."""
    contract[name].run()


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "key"),
        [
            ({"socket": "relative"}, "socket"),
            ({"socket": ""}, "socket"),
            ({"socket": "/" + "x" * 108}, "socket"),
            ({"socket": 7}, "socket"),
            ({"user_units": "yes"}, "user_units"),
            ({"delegated": 1}, "delegated"),
            ({"bus": "x"}, "bus"),
        ],
    )
    def test_wrong_ones(self, settings, key):
        """A setting that is wrong is named."""
        with ThreadPoolExecutor(1) as pool, pytest.raises(InvalidConfig) as refused:
            SystemdAttestor(settings, pool)
        assert refused.value.faults[0].startswith(f"{key}: ")

    def test_none(self):
        """The attestor `systemd` takes no settings."""
        with ThreadPoolExecutor(1) as pool:
            assert isinstance(SystemdAttestor({}, pool), SystemdAttestor)
