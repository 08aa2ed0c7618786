"""systemd.py: of which unit a process is. The bus is a fake one on a real socket; the processes are real.

tests/integration/test_systemd.py does it with a real systemd.
"""

import os
from typing import ClassVar

import pytest
from fakes.children import child, holder_of
from fakes.systembus import BUS, Error
from fakes.systemd_room import (  # noqa: F401 - fixtures
    CGROUP,
    UNITS,
    VALUES,
    attestor_fixture,
    bus_fixture,
    cgroups_fixture,
    process_fixture,
    reason_of,
    subject,
    values_of,
)
from sojourn_attestors.units.cgroups import slice_of


@pytest.mark.root
class TestUnits:
    async def test_by_number(self, attestor, bus, process):
        """Where the bus knows this agent by its own number, systemd is asked by number; no files are agreed upon with
        the bus, which so gives none of those on that others send."""
        bus.unit("web.service", process.pid, CGROUP)
        answer = await attestor.attest(subject(process))
        assert (VALUES, {"template", "instance"}) == (answer.values, set(answer.withheld))
        assert ("GetUnitByPIDFD" in bus.asked, "GetUnitByPID" in bus.asked) == (False, True)
        assert [False] == bus.agreed_to_files

    async def test_by_the_kernels_handle(self, attestor, bus, process):
        """Where the numbers are others, systemd 254 and newer is asked by pidfd, which is no other process's."""
        bus.pid_of_caller = os.getpid() + 1
        bus.unit("web.service", process.pid, CGROUP)
        for _ in range(3):
            assert (await attestor.attest(subject(process))).values == VALUES
        assert (3, 0) == (bus.asked.count("GetUnitByPIDFD"), bus.asked.count("GetUnitByPID"))
        assert [False, True] == bus.agreed_to_files

    async def test_a_refusal_by_handle_is_no_older_systemd(self, attestor, bus, process):
        """Only of a method that is not there it is said that systemd is too old."""
        bus.pid_of_caller = os.getpid() + 1
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers["GetUnitByPIDFD"] = refuse(f"{BUS}.Error.AccessDenied")
        assert f"systemd answered '{BUS}.Error.AccessDenied'" == await reason_of(attestor, process)
        assert "GetUnitByPID" not in bus.asked

    async def test_numbers_of_another_namespace(self, attestor, bus, process):
        """Where the bus knows this agent by another number, numbers are not what systemd is asked by."""
        bus.takes_pidfd, bus.pid_of_caller = False, os.getpid() + 1
        bus.unit("web.service", process.pid, CGROUP)
        assert "other process numbers" in await reason_of(attestor, process)
        assert "GetUnitByPID" not in bus.asked

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
            ({"Slice": ("s", "other.slice")}, "slice"),
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


@pytest.mark.parametrize(
    ("cgroup", "expected"),
    [
        ("/system.slice/web.service", "system.slice"),
        ("/a.slice/a-b.slice/x.service", "a-b.slice"),
        ("/_cpu.slice/x.service", "cpu.slice"),
        ("/init.scope", "-.slice"),
        ("", "-.slice"),
    ],
)
def test_slice_of(cgroup, expected):
    """The innermost slice that a unit's cgroup is in; at the top it is the root's."""
    assert expected == slice_of(cgroup)


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
