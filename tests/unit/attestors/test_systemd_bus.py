"""systemd.py: a bus and a systemd that are away, slow, silent or another's, or that say what cannot be so."""

import asyncio
import os

import pytest
from fakes.systembus import BUS, HANG_UP, SILENT, SYSTEMD_NAME, Error
from fakes.systemd_room import (  # noqa: F401 - fixtures
    CGROUP,
    VALUES,
    attestor_fixture,
    bus_fixture,
    cgroups_fixture,
    made,
    process_fixture,
    reason_of,
    subject,
)
from harness.looking import OpenFiles
from sojourn.errors import AttestationFailed
from sojourn_attestors import systemd as module
from sojourn_attestors.systemd import SystemdAttestor


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
        known = bus.answers["GetUnitByPID"]
        gone = [f"{BUS}.Error.ServiceUnknown"]

        def answer(pid):
            if gone:
                raise Error(gone.pop())
            return known(pid)

        bus.answers["GetUnitByPID"] = answer
        assert VALUES == (await attestor.attest(subject(process))).values
        assert lookups + 1 == bus.asked.count("GetNameOwner")

    @pytest.mark.parametrize("method", ["Hello", "GetNameOwner", "GetUnitByPID", "Get"])
    async def test_hangs_up(self, attestor, bus, process, method):
        """A bus that breaks the connection in between cannot tell, and is not asked for ever."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers[method] = lambda *_: HANG_UP
        assert "the connection to the system bus was lost" == await reason_of(attestor, process)
        assert bus.connections <= 2

    @pytest.mark.parametrize("method", ["Hello", "GetNameOwner", "GetUnitByPID", "Get"])
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
        before = OpenFiles()
        await attestor.attest(subject(process))
        assert before.opened_since("socket:")
        await attestor.close()
        before.await_closed("socket:")
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
        bus.answers["GetUnitByPID"] = lambda _: ("o", (path,))
        bus.answers["GetUnitByPIDFD"] = lambda _: ("osay", (path, "web.service", b""))
        for number in (os.getpid(), os.getpid() + 1):
            bus.pid_of_caller = number
            assert "a name that none has" in await reason_of(attestor, process)
            await attestor.close()
        assert "Get" not in bus.asked

    @pytest.mark.parametrize("body", [("", ()), ("u", (7,)), ("ss", ("a", "b"))])
    @pytest.mark.parametrize("method", ["Hello", "GetNameOwner", "GetUnitByPID", "Get"])
    async def test_of_other_types(self, attestor, bus, process, method, body):
        """An answer of another shape than the method has fails as any that cannot be so."""
        bus.unit("web.service", process.pid, CGROUP)
        bus.answers[method] = lambda *_: body
        with pytest.raises(AttestationFailed):
            await attestor.attest(subject(process))
