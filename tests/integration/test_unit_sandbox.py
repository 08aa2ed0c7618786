"""The sandbox of the agent's unit under a real systemd: that each line of it holds, and takes no selector away."""

import itertools
import re
import subprocess
from collections.abc import Iterator

import pytest
from harness.agent import ROOT
from harness.nspawn import Helper, Machine, booted
from harness.unitinstall import PYTHON, SERVICE, UNITS, UnitAgent, directives

pytestmark = [pytest.mark.full, pytest.mark.root]
NUMBERS = itertools.count(1)
EXPOSURE = 2.0
TWO = 1 << 2 | 1 << 19  # CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE
# Lines that say how it is started, restarted and named: the tests of test_service_unit.py are about them.
RUN = {
    *("ExecStart", "ExecReload", "Type", "NotifyAccess", "WatchdogSec", "TimeoutStartSec", "TimeoutStopSec"),
    *("Restart", "RestartSec", "KillMode", "Sockets", "SyslogIdentifier"),
    *("StateDirectory", "StateDirectoryMode", "ConfigurationDirectory", "ConfigurationDirectoryMode"),
    *("User", "Group", "AmbientCapabilities", "CapabilityBoundingSet"),
}
# What each line forbids, by the name of what tries it in harness/sandboxed.py.
FORBIDS = {
    "NoNewPrivileges": "gain_privileges",
    "UMask": "be_readable",
    "ProtectSystem": "write_etc",
    "ProtectHome": "read_home",
    "PrivateTmp": "see_tmp",
    "PrivateDevices": "open_device",
    "ProtectKernelTunables": "set_kernel",
    "ProtectControlGroups": "make_cgroup",
    "ProtectHostname": "set_hostname",
    "RestrictNamespaces": "make_namespace",
    "RestrictRealtime": "be_real_time",
    "RestrictSUIDSGID": "make_setuid",
    "LockPersonality": "be_another_machine",
    "MemoryDenyWriteExecute": "write_and_execute",
    "RestrictAddressFamilies": "talk_to_the_kernel",
}
# Those whose filters are there, since what they forbid is forbidden in this machine anyway.
FILTERS = ("ProtectKernelModules", "ProtectKernelLogs", "ProtectClock", "SystemCallArchitectures")
# Those that this machine cannot show at work: it may load no BPF, set no OOM score below its own, use no keyring.
SET = {
    "IPAddressDeny": ("IPAddressDeny", "0.0.0.0/0 ::/0"),
    "IPAddressAllow": ("IPAddressAllow", "127.0.0.0/8 ::1/128"),
    "DevicePolicy": ("DevicePolicy", "closed"),
    "OOMScoreAdjust": ("OOMScoreAdjust", "-900"),
    "LimitNOFILE": ("LimitNOFILE", "65536"),
    "KeyringMode": ("KeyringMode", "private"),
    "SystemCallErrorNumber": ("SystemCallErrorNumber", "1"),
}
ELSEWHERE = {"SystemCallFilter", "PrivateMounts", "RemoveIPC"}  # tests of their own below
LOOKING = """
import os
from sojourn.attestation.attestor import Answer
class Looking:
    def __init__(self, settings, pool):
        pass
    async def attest(self, subject):
        return Answer(frozenset({"runs:" + os.readlink(f"/proc/{subject.pid}/exe")}))
"""
# Each takes away what callers are seen by.
NEVER = ("PrivateUsers", "ProtectProc", "ProcSubset", "PrivatePIDs")


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        machine.run("mkdir", "-p", "/root/probe")
        machine.run("touch", "/tmp/sojourn-probe", "/run/sojourn-owned")
        machine.run("chown", "1", "/run/sojourn-owned")
        machine.run("sh", "-c", "test -c /dev/net/tun || { mkdir -p /dev/net; mknod /dev/net/tun c 10 200; }")
        yield machine


@pytest.fixture(scope="module")
def unit(machine: Machine) -> UnitAgent:
    made = UnitAgent(machine)
    made.install()
    made.systemctl("start", SERVICE)
    return made


def tried(machine: Machine, what: str, lines: list[tuple[str, str]]) -> str:
    """What sandboxed.py says as a unit of root's with these lines."""
    name = f"probe{next(NUMBERS)}"
    said = f"/run/{name}.out"
    run = f"ExecStart={PYTHON} -I -B /opt/sojourn/sandboxed.py {what}\nType=oneshot\nStandardOutput=file:{said}\n"
    text = "".join(f"{key}={value}\n" for key, value in lines)
    machine.write("/opt/sojourn/sandboxed.py", (ROOT / "tests" / "harness" / "sandboxed.py").read_text())
    machine.write(f"/run/systemd/system/{name}.service", f"[Service]\n{run}{text}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", name, check=False)
    return machine.run("cat", said).strip()


def status_of(machine: Machine, process: str) -> dict[str, str]:
    """What the kernel says of a process, or of one of its threads."""
    lines = machine.run("cat", f"/proc/{process}/status").splitlines()
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def only(*keys: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in directives() if key in keys]


def sandbox() -> list[tuple[str, str]]:
    """All of it, but for the user: what root is refused, nobody else can do."""
    return [(key, value) for key, value in directives() if key not in RUN]


def test_every_line_has_a_test() -> None:
    """Each line of the unit is one of those that these tests, or those of the unit's life, are about."""
    told = RUN | FORBIDS.keys() | set(FILTERS) | SET.keys() | ELSEWHERE
    assert {key for key, _ in directives()} == told
    assert not {key for key, _ in directives()} & set(NEVER)


def test_exposure() -> None:
    """systemd's own judgement of the sandbox stays at what it is."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / SERVICE)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (exposure,) = re.findall(r"Overall exposure level for sojourn.service: ([0-9.]+)", done.stdout)
    assert float(exposure) <= EXPOSURE


class TestEachLine:
    @pytest.mark.parametrize("key", FORBIDS)
    def test_it_forbids(self, machine: Machine, key: str) -> None:
        """Root can do a thing without the line, and cannot with it, be it alone or within the whole sandbox."""
        what = FORBIDS[key]
        assert "done" == tried(machine, what, [])
        assert tried(machine, what, only(key)).startswith("refused:")
        assert tried(machine, what, sandbox()).startswith("refused:")

    @pytest.mark.parametrize("key", FILTERS)
    def test_it_filters(self, machine: Machine, key: str) -> None:
        """The line has the kernel filter system calls."""
        without = int(tried(machine, "have_filters", []).split()[1])
        assert int(tried(machine, "have_filters", only(key)).split()[1]) > without

    @pytest.mark.parametrize("what", ["own_a_file", "change_priority", "mount", "read_memory", "write_memory", "trace"])
    def test_system_calls(self, machine: Machine, what: str) -> None:
        """System calls that change owners, priorities and mounts, or reach into another process, are refused, and the
        process lives on.
        """
        assert "done" == tried(machine, what, [])
        assert "refused: Operation not permitted" == tried(
            machine, what, only("SystemCallFilter", "SystemCallErrorNumber")
        )

    def test_mounts(self, machine: Machine) -> None:
        """A mount that the unit makes is not one of the machine's."""
        assert "done" == tried(machine, "mount_for_others", [])
        assert "tmpfs" in machine.run("findmnt", "/mnt")
        machine.run("umount", "/mnt")
        assert "done" == tried(machine, "mount_for_others", only("PrivateMounts"))
        assert not machine.run("findmnt", "/mnt", check=False)

    @pytest.mark.parametrize(("property_", "value"), SET.values(), ids=SET.keys())
    def test_it_is_set(self, unit: UnitAgent, property_: str, value: str) -> None:
        """systemd has taken the line as it is meant."""
        assert set(value.split()) <= set(unit.shown(property_).split())


class TestTheAgent:
    def test_two_capabilities(self, machine: Machine, unit: UnitAgent) -> None:
        """The agent has two capabilities, can have no other, gains none by a program, and is filtered; none of its
        threads hands them to what it starts.
        """
        threads = machine.run("ls", f"/proc/{unit.pid}/task").split()
        for thread in threads:
            status = status_of(machine, f"{unit.pid}/task/{thread}")
            held = [int(status[f"Cap{each}"], 16) for each in ("Eff", "Prm", "Bnd", "Amb")]
            assert [TWO, TWO, TWO, 0] == held
            assert ("1", "2") == (status["NoNewPrivs"], status["Seccomp"])
        assert len(threads) > 1

    def test_an_attestor_of_the_operators(self, machine: Machine, unit: UnitAgent) -> None:
        """An attestor of the operator's own works in the sandbox, in its own process: it sees what programs others run,
        by the agent's capabilities.
        """
        machine.write("/opt/sojourn/lib/attestors/looking.py", LOOKING)
        about = "/opt/sojourn/lib/attestors/looking-1.dist-info"
        machine.run("mkdir", "-p", about)
        machine.write(f"{about}/METADATA", "Metadata-Version: 2.1\nName: looking\nVersion: 1\n")
        machine.write(f"{about}/entry_points.txt", "[sojourn.attestors]\nlooking = looking:Looking\n")
        machine.write("/etc/sojourn/agent.toml", "[attestors.looking]\n")
        unit.systemctl("restart", SERVICE)
        machine.account(4732)
        pid = machine.unit("seen", "/bin/sleep", "1000", user="4732")
        program = machine.run("readlink", f"/proc/{pid}/exe").strip()
        given = unit.json("explain", "--pid", str(pid))["selectors"]
        assert f"looking:runs:{program}" in {
            f"{each['type']}:{each['value']}" if isinstance(each, dict) else each for each in given
        }
        (own,) = machine.run("pgrep", "--full", "attestor:looking").split()
        held = status_of(machine, own)
        assert [TWO, TWO] == [int(held[each], 16) for each in ("CapEff", "CapBnd")]
        machine.run("rm", "-r", "/etc/sojourn/agent.toml", "/opt/sojourn/lib/attestors/looking.py", about)
        unit.systemctl("restart", SERVICE)

    def test_nothing_is_missing(self, unit: UnitAgent) -> None:
        """In the sandbox the agent lacks nothing: it tells of no limitation."""
        assert [] == unit.json("status")["limitations"]

    def test_no_selector_is_lost(self, machine: Machine, unit: UnitAgent) -> None:
        """The agent in its sandbox tells of a process what root's attestors tell that no sandbox holds: of one in a home
        folder, one in /tmp, and one that is itself shut in.
        """
        machine.write("/etc/sojourn/agent.toml", "[attestors.unix]\n[attestors.systemd]\n")
        unit.systemctl("restart", SERVICE)
        machine.account(4731)
        for place in ("/home/shop", "/tmp/shop"):
            machine.run("mkdir", "-p", place)
            machine.run("cp", "/bin/sleep", f"{place}/serve")
        pids = [
            machine.unit("shop-home", "/home/shop/serve", "1000", user="4731"),
            machine.unit("shop-tmp", "/tmp/shop/serve", "1000", user="4731"),
            machine.unit("shop-shut-in", user="4731", ProtectSystem="strict", PrivateTmp="yes", ProtectHome="yes"),
        ]
        for pid in pids:
            given = {
                f"{each['type']}:{each['value']}" if isinstance(each, dict) else each
                for each in unit.json("explain", "--pid", str(pid))["selectors"]
            }
            expected: set[str] = set()
            for name in ("unix", "systemd"):
                with Helper(machine, "attesting.py", name) as attesting:
                    expected |= {f"{name}:{value}" for value in attesting.ask(pid=pid)["values"]}
            assert expected == given
            kinds = {":".join(each.split(":")[:2]) for each in given}
            assert {"unix:sha256", "unix:uid", "systemd:id"} <= kinds
            assert ("unix:path" in kinds) == (pid != pids[-1])  # it shows its caller another tree
        machine.run("rm", "/etc/sojourn/agent.toml")
        unit.systemctl("restart", SERVICE)

    def test_no_queues_are_left(self, machine: Machine, unit: UnitAgent) -> None:
        """Shared memory of the agent's user is gone when the agent is."""
        assert "RemoveIPC=yes" in machine.run("systemctl", "show", "--property=RemoveIPC", SERVICE)
        machine.run("setpriv", "--reuid=sojourn", "--regid=sojourn", "--clear-groups", "ipcmk", "--shmem", "4096")
        assert "sojourn" in machine.run("ipcs", "--shmems")
        unit.systemctl("stop", SERVICE)
        assert "sojourn" not in machine.run("ipcs", "--shmems")
        unit.systemctl("start", SERVICE)
