"""The agent as the unit of deploy/systemd under a real systemd: its start, its end, its restarts, and what it is told."""

import json
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.agent import ROOT
from harness.lacking import lacking
from harness.looking import until
from harness.nspawn import Helper, Machine, booted
from harness.tlsplace import TlsPlace
from harness.unitinstall import ADMIN_SOCKET, PROGRAM, PYTHON, SERVICE, SOCKET, UNITS, UnitAgent

pytestmark = [pytest.mark.full, pytest.mark.root]
CONFIG = "/etc/sojourn/agent.toml"
CHANGES = "/etc/systemd/system/sojourn*.d"
ID = "spiffe://example.org/root"
STREAMS = 200
WATCHDOG = 2
# Ends the loop's turns for good, at a signal, as a fault in the code would. Found by Python as it starts.


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        yield machine


@pytest.fixture(scope="module")
def installed(machine: Machine) -> UnitAgent:
    """The unit, of which this test's user is a workload."""
    made = UnitAgent(machine)
    made.install()
    made.systemctl("start", SERVICE)
    made.run("entry", "create", "--spiffe-id", ID, "--selector", "unix:uid:0")
    return made


@pytest.fixture
def unit(installed: UnitAgent) -> Iterator[UnitAgent]:
    """The unit as it runs by itself; whatever a test has changed is undone."""
    yield installed
    machine = installed.machine
    changed = machine.run("sh", "-c", f"ls -d {CONFIG} {CHANGES} 2>/dev/null", check=False)
    if not changed and installed.shown("ActiveState") == "active":
        return
    machine.run("sh", "-c", f"rm -rf {CONFIG} {CHANGES} /var/lib/sojourn-mark /var/lib/sojourn/marked")
    installed.systemctl("daemon-reload")
    if "socket" in changed:
        installed.systemctl("stop", SERVICE, "sojourn-agent.socket", "sojourn-admin.socket")
    installed.systemctl("reset-failed", check=False)
    installed.systemctl("restart", SERVICE)


class TestReady:
    def test_start_means_ready(self, unit: UnitAgent) -> None:
        """`systemctl start` returns when the agent answers, and `systemctl status` says how it is."""
        unit.systemctl("restart", SERVICE)
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)
        assert unit.shown("StatusText").startswith("1 entry, 0 tasks, root until 20")
        assert ("active", "running") == (unit.shown("ActiveState"), unit.shown("SubState"))

    def test_the_status_follows(self, unit: UnitAgent) -> None:
        """What `systemctl status` says is no older than some seconds."""
        made = unit.json("entry", "create", "--spiffe-id", "spiffe://example.org/two", "--selector", "unix:uid:2")
        until(lambda: unit.shown("StatusText").startswith("2 entries,"), "the status is that of now", 30)
        unit.run("entry", "delete", made["id"])

    def test_the_socket_starts_it(self, unit: UnitAgent) -> None:
        """A caller who finds the agent stopped and its sockets held starts it, and is answered."""
        unit.systemctl("stop", SERVICE)
        assert not unit.pid
        until(lambda: ID in unit.run("svid", "x509", "--socket", SOCKET, check=False), "it is answered", 60)
        assert unit.pid

    def test_its_own_user(self, unit: UnitAgent) -> None:
        """It runs as a user of its own; its data are that user's alone, its sockets and their folder root's."""
        owners = unit.machine.run("stat", "-c", "%U %a", "/var/lib/sojourn", "/run/sojourn", SOCKET, ADMIN_SOCKET)
        assert ["sojourn 700", "root 755", "root 777", "root 600"] == owners.splitlines()
        assert "sojourn" == unit.machine.run("ps", "-o", "user=", "-p", str(unit.pid)).strip()


class TestConfiguration:
    def test_it_is_read(self, unit: UnitAgent) -> None:
        """/etc/sojourn/agent.toml is read without being named anywhere."""
        unit.machine.write(CONFIG, '[identity]\nx509_svid_ttl = "7m"\n')
        unit.systemctl("restart", SERVICE)
        values = unit.run("config", "show")
        assert f"{CONFIG}:2" in values
        unit.systemctl("stop", SERVICE)

    def test_a_fault_ends_the_start(self, unit: UnitAgent) -> None:
        """One that has a fault ends the start; `systemctl status` and the journal say what is wrong and where."""
        unit.machine.write(CONFIG, "[identity]\nx509_svid_tll = 5\n")
        unit.systemctl("restart", SERVICE, check=False)
        assert unit.shown("ActiveState") != "active"
        until(lambda: f"{CONFIG}:2: identity.x509_svid_tll: unknown key" in unit.shown("StatusText"), "it is told")
        said = unit.journal("--priority=err")
        assert any(f"{CONFIG}:2: identity.x509_svid_tll" in line for line in said), said

    def test_one_that_cannot_be_read(self, unit: UnitAgent) -> None:
        """One that the agent's user may not read ends the start, and is not passed over."""
        unit.machine.write(CONFIG, 'trust_domain = "other.example"\n')
        unit.machine.run("chmod", "600", CONFIG)
        unit.drop_in("caps", "[Service]\nAmbientCapabilities=\nCapabilityBoundingSet=\n")
        unit.systemctl("restart", SERVICE, check=False)
        until(lambda: "cannot be read: Permission denied" in unit.shown("StatusText"), "it is told")

    def test_reload(self, unit: UnitAgent) -> None:
        """`systemctl reload` has it read again, and has returned when that is done: the process is the same."""
        pid = unit.pid
        unit.machine.write(CONFIG, '[log]\nlevel = "debug"\n')
        unit.systemctl("reload", SERVICE)
        until(lambda: unit.shown("ActiveState") == "active", "it is ready again")
        assert "config_reloaded" in "\n".join(unit.journal())
        assert pid == unit.pid

    def test_reload_of_what_is_wrong(self, unit: UnitAgent) -> None:
        """A reload that is refused leaves the agent as it was, and the status says so."""
        pid = unit.pid
        unit.machine.write(CONFIG, "[log]\nlevel = 7\n")
        unit.systemctl("reload", SERVICE)
        until(lambda: "configuration refused" in unit.shown("StatusText"), "the status has it", 30)
        assert pid == unit.pid
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)


class TestJournal:
    def test_warnings_alone(self, unit: UnitAgent) -> None:
        """`journalctl -p warning` has the agent's warnings, as JSON, and none of its news."""
        unit.machine.write("/etc/sojourn/task-types/broken.toml", "nonsense")
        unit.systemctl("restart", SERVICE)
        told = [json.loads(line) for line in unit.journal("--priority=warning") if line.startswith("{")]
        unit.machine.run("rm", "-r", "/etc/sojourn/task-types")
        assert told
        assert {"warning", "error"} >= {line["level"] for line in told}
        everything = [json.loads(line) for line in unit.journal() if line.startswith("{")]
        assert "info" in {line["level"] for line in everything}


@contextmanager
def knocking(unit: UnitAgent, streams: int = STREAMS) -> Iterator[Helper]:
    with Helper(unit.machine, "gapclient.py", SOCKET, str(streams)) as client:
        assert client.hear() == {"event": "up"}
        yield client


class TestRestarts:
    def test_restart(self, unit: UnitAgent) -> None:
        """`systemctl restart` refuses no connection: each is answered, and all streams that were held come back."""
        with knocking(unit) as client:
            pid = unit.pid
            unit.systemctl("restart", SERVICE)
            assert unit.pid not in {0, pid}
            found = client.ask(anew=True)
        assert (0, 0) == (found["refused"], found["silent"]), found
        assert found["answered"] > 10

    def test_kill(self, unit: UnitAgent) -> None:
        """An agent that is killed refuses no connection: systemd starts another, which answers those who came meanwhile."""
        with knocking(unit) as client:
            pid = unit.pid
            unit.machine.run("kill", "-KILL", str(pid))
            unit.wait_for(pid)
            found = client.ask(anew=True)
        assert (0, 0) == (found["refused"], found["silent"]), found
        assert found["answered"] > 10

    def test_commands_meanwhile(self, unit: UnitAgent) -> None:
        """Commands that read, three at once and one after the other, are all answered while the agent is restarted thrice."""
        ask = f"while kill -0 $1 2>/dev/null; do {PROGRAM} entry count >/dev/null || exit 1; done"
        script = f"""
            for _ in 1 2 3; do systemctl restart {SERVICE}; done & restarts=$!
            asking=
            for _ in 1 2 3; do sh -c '{ask}' sh $restarts & asking="$asking $!"; done
            for each in $asking; do wait $each || exit 1; done; wait $restarts
        """
        before = unit.pid
        unit.machine.run("sh", "-c", script, seconds=120)
        assert before != unit.pid

    def test_the_sockets_stay(self, unit: UnitAgent) -> None:
        """The sockets are the same files before and after: a container that has mounted one still reaches the agent."""
        before = unit.machine.run("stat", "-c", "%i", SOCKET, ADMIN_SOCKET)
        unit.systemctl("restart", SERVICE)
        unit.systemctl("stop", SERVICE)
        unit.systemctl("start", SERVICE)
        assert before == unit.machine.run("stat", "-c", "%i", SOCKET, ADMIN_SOCKET)

    def test_a_start_that_fails_for_good(self, unit: UnitAgent) -> None:
        """An agent that cannot start is not tried without end: the unit has failed, doctor says what to run, and a
        mended one starts again by the page's two lines.
        """
        assert ("1min", "20") == (unit.shown("StartLimitIntervalUSec"), unit.shown("StartLimitBurst"))
        unit.drop_in("limit", "[Unit]\nStartLimitIntervalSec=600\nStartLimitBurst=4\n")
        unit.machine.write(CONFIG, "nonsense")
        unit.systemctl("restart", SERVICE, check=False)
        until(lambda: unit.shown("ActiveState") == "failed", "systemd gives up", 120)
        assert "do: `systemctl start sojourn`, as root; `journalctl -u sojourn`" in unit.run("doctor", check=False)
        unit.machine.run("rm", CONFIG)
        page = (ROOT / "docs" / "operate" / "service.md").read_text()
        again, start = re.findall(r"^ {4}# (systemctl (?:reset-failed|start) .+)$", page, re.MULTILINE)
        unit.machine.run(*start.split(), check=False)
        assert "failed" == unit.shown("ActiveState")
        unit.machine.run(*again.split())
        unit.machine.run(*start.split())
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)


class TestWatchdog:
    @pytest.fixture
    def watched(self, unit: UnitAgent) -> UnitAgent:
        """With a shorter watchdog than the unit's, so that the test is."""
        assert "20s" == unit.shown("WatchdogUSec")
        unit.hang_on_usr2(WATCHDOG)
        return unit

    def test_one_that_is_well_stays(self, watched: UnitAgent) -> None:
        """An agent that answers is left alone for much longer than the watchdog's time."""
        pid = watched.pid
        time.sleep(2.5 * WATCHDOG)
        assert pid == watched.pid
        assert "watchdog" != watched.shown("Result")

    @pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGUSR2])
    def test_one_that_hangs_is_replaced(self, watched: UnitAgent, how: signal.Signals) -> None:
        """An agent that is stopped, or whose loop turns no more, is replaced, and who asks meanwhile is answered."""
        pid = watched.pid
        watched.machine.run("kill", f"-{how.name.removeprefix('SIG')}", str(pid))
        until(lambda: ID in watched.run("svid", "x509", "--socket", SOCKET, check=False), "it is answered", 60)
        assert watched.wait_for(pid) != pid
        assert any("atchdog" in line for line in watched.machine.run("journalctl", "-b", "-u", SERVICE).splitlines())


class TestHeldSockets:
    @pytest.mark.parametrize(
        ("name", "lines", "why"),
        [
            ("agent", "SocketMode=0770", "SocketMode=0777"),
            ("admin", "SocketMode=0666", "SocketMode=0600"),
            ("agent", "FileDescriptorName=public", "FileDescriptorName="),
            ("agent", "ListenStream=\nListenDatagram=/run/sojourn/agent.sock", "ListenStream="),
            ("admin", "ListenStream=\nListenStream=127.0.0.1:4711", "has no path"),
            ("agent", "SocketUser=nobody", "SocketUser="),
        ],
    )
    def test_what_is_wrong(self, unit: UnitAgent, name: str, lines: str, why: str) -> None:
        """A socket of another mode, name, kind or owner ends the start with the line that its unit needs."""
        unit.systemctl("stop", SERVICE, "sojourn-agent.socket", "sojourn-admin.socket")
        unit.machine.write(f"/etc/systemd/system/sojourn-{name}.socket.d/x.conf", f"[Socket]\n{lines}\n")
        unit.systemctl("daemon-reload")
        unit.systemctl("start", SERVICE, check=False)
        until(lambda: why in unit.shown("StatusText"), "it is told")

    def test_a_socket_of_the_agents_user(self, unit: UnitAgent) -> None:
        """One that belongs to the agent's user is good as well."""
        unit.systemctl("stop", SERVICE, "sojourn-agent.socket", "sojourn-admin.socket")
        unit.machine.write("/etc/systemd/system/sojourn-admin.socket.d/x.conf", "[Socket]\nSocketUser=sojourn\n")
        unit.systemctl("daemon-reload")
        unit.systemctl("start", SERVICE)
        assert unit.json("status")["trust_domain"] == "example.org"

    def test_another_path(self, unit: UnitAgent) -> None:
        """A configuration that names another path than systemd's ends the start: callers would look in vain."""
        unit.machine.write(CONFIG, 'socket = "/run/sojourn/other.sock"\n')
        unit.systemctl("restart", SERVICE, check=False)
        until(lambda: "systemctl edit sojourn-agent.socket" in unit.shown("StatusText"), "it is told")

    def test_a_path_of_the_operators(self, unit: UnitAgent) -> None:
        """The path in the socket's unit is the agent's, without a line in its configuration."""
        unit.systemctl("stop", SERVICE, "sojourn-agent.socket", "sojourn-admin.socket")
        lines = "[Socket]\nListenStream=\nListenStream=/run/spire/agent.sock\n"
        unit.machine.write("/etc/systemd/system/sojourn-agent.socket.d/x.conf", lines)
        unit.systemctl("daemon-reload")
        unit.systemctl("start", SERVICE)
        assert ID in unit.run("svid", "x509", "--socket", "/run/spire/agent.sock")


class TestDropIns:
    def with_drop_in(self, unit: UnitAgent, name: str) -> UnitAgent:
        unit.drop_in(name, (UNITS / "drop-ins" / f"{name}.conf").read_text())
        return unit

    def groups(self, unit: UnitAgent) -> list[str]:
        status = unit.machine.run("cat", f"/proc/{unit.pid}/status")
        return status.partition("Groups:\t")[2].partition("\n")[0].split()

    def test_all_are_tried(self) -> None:
        """Each drop-in that is shipped has a test here."""
        shipped = {each.stem for each in (UNITS / "drop-ins").iterdir()}
        assert {
            "docker",
            "listeners",
            "ldap-names",
            "device",
            "credentials",
            "mark",
            "restart-steps",
            "sealed-keys",
            "key-service",
            "token-keys",
        } == shipped

    def test_listeners(self, unit: UnitAgent) -> None:
        """With `listeners` no address is refused any more."""
        assert unit.shown("IPAddressDeny")
        self.with_drop_in(unit, "listeners").systemctl("restart", SERVICE)
        assert ("", "") == (unit.shown("IPAddressDeny"), unit.shown("IPAddressAllow"))

    def test_docker(self, unit: UnitAgent) -> None:
        """With `docker` the agent is in Docker's group, and in no other but its own."""
        unit.machine.run("groupadd", "--force", "--gid", "4777", "docker")
        self.with_drop_in(unit, "docker").systemctl("restart", SERVICE)
        assert "4777" in self.groups(unit)

    def test_ldap_names(self, unit: UnitAgent) -> None:
        """With `ldap-names` the directory's address is let through beside loopback, and nothing else."""
        self.with_drop_in(unit, "ldap-names").systemctl("restart", SERVICE)
        assert "192.0.2.10/32" in unit.shown("IPAddressAllow")
        assert "::/0" in unit.shown("IPAddressDeny")
        assert {"AF_INET", "AF_INET6", "AF_NETLINK", "AF_UNIX"} == set(unit.shown("RestrictAddressFamilies").split())

    def test_device(self, unit: UnitAgent) -> None:
        """With `device` that device alone is added to those that every process has."""
        unit.machine.run("groupadd", "--force", "--gid", "4778", "tss")
        self.with_drop_in(unit, "device").systemctl("restart", SERVICE)
        assert ("no", "closed") == (unit.shown("PrivateDevices"), unit.shown("DevicePolicy"))
        assert "/dev/tpmrm0 rw" in unit.shown("DeviceAllow")
        assert "4778" in self.groups(unit)

    def test_credentials(self, unit: UnitAgent, tmp_path: Path) -> None:
        """With `credentials` the agent shows the certificate that root keeps, by a key that its user cannot write."""
        place = TlsPlace(tmp_path)
        unit.machine.write("/etc/sojourn/secrets/https.pem", place.chain.read_text())
        unit.machine.write("/etc/sojourn/secrets/https.key", place.key.read_text())
        unit.machine.run("chmod", "-R", "go-rwx", "/etc/sojourn/secrets")
        named = 'https_certificate = "credential:https-certificate"\nhttps_key = "credential:https-key"\n'
        unit.machine.write(CONFIG, f'[listen]\nhttps = "127.0.0.1:8443"\n{named}')
        self.with_drop_in(unit, "credentials").systemctl("restart", SERVICE)
        asks = "import ssl; print(ssl.get_server_certificate(('127.0.0.1', 8443)))"
        assert place.chain.read_text().startswith(unit.machine.run(PYTHON, "-c", asks).strip())
        unit.machine.run("rm", "-r", "/etc/sojourn/secrets")

    def typed_on_the_page(self) -> list[str]:
        """The lines of docs/operate/keys.md about sealed keys, for a machine without a disk for systemd's own key."""
        text = (ROOT / "docs" / "operate" / "keys.md").read_text().partition("## Keys that lie on disk sealed")[2]
        text = text.partition("\n## ")[0]
        lines = [line.strip() for line in re.findall(r"^    .*$", text, re.MULTILINE)]
        assert 5 == len(lines)
        encrypt = "systemd-creds encrypt --with-key=tpm2-absent "
        lines = [
            line.replace("systemd-creds encrypt ", encrypt).replace("| sojourn ", f"| {PROGRAM} ") for line in lines
        ]
        return [line.replace("/usr/share/doc/sojourn", "/opt/sojourn/doc") for line in lines]

    def test_sealed_keys(self, unit: UnitAgent) -> None:
        """With `sealed-keys` keys lie on disk sealed by one that systemd opens for the unit alone; and in clear again."""
        unit.machine.run("mkdir", "-p", "/opt/sojourn/doc", "/var/backups/sojourn")
        unit.machine.run("cp", "-r", str(UNITS / "drop-ins"), "/opt/sojourn/doc")
        *first, backup = self.typed_on_the_page()
        unit.machine.write(CONFIG, '[keys]\nmanager = "sealed"\nseal_key = "credential:seal-key"\n')
        for line in first:
            unit.machine.run("sh", "-c", line)
        root = "/var/lib/sojourn/keys/root.pem"
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)
        kept = unit.machine.run("cat", root)
        assert ("SOJOURN SEALED KEY" in kept, "PRIVATE KEY" in kept) == (True, False)
        unit.systemctl("restart", SERVICE)
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)
        unit.machine.write("/etc/sojourn/backup-passphrase", "correct horse battery staple")
        unit.machine.run("chmod", "600", "/etc/sojourn/backup-passphrase")
        unit.machine.run("sh", "-c", backup)
        assert unit.machine.run("ls", "/var/backups/sojourn").strip()
        unit.machine.write(CONFIG, '[keys]\nseal_key = "credential:seal-key"\n')
        unit.systemctl("restart", SERVICE)
        assert "PRIVATE KEY" in unit.machine.run("cat", root)

    def test_token_keys(self, unit: UnitAgent) -> None:
        """With `token-keys` the PIN is the unit's alone, and the key process makes a root and signs in its sandbox."""
        if "libsofthsm2.so" not in unit.machine.run("sh", "-c", "ls /usr/lib/softhsm || true"):
            lacking("needs SoftHSM: install the package softhsm2")
        unit.systemctl("stop", SERVICE)
        unit.machine.run("cp", "-a", "/var/lib/sojourn", "/var/lib/before")
        tokens = "/var/lib/sojourn/tokens"
        unit.machine.write(
            "/etc/sojourn/softhsm2.conf", f"directories.tokendir = {tokens}\nobjectstore.backend = file\n"
        )
        creds = "systemd-creds encrypt --with-key=tpm2-absent --name=pin - /etc/sojourn/pin.cred"
        init = "softhsm2-util --init-token --free --label unit --pin 1357 --so-pin 2468"
        for line in (
            f"mkdir -p {tokens} && SOFTHSM2_CONF=/etc/sojourn/softhsm2.conf {init} && chown -R sojourn {tokens}",
            f"printf 1357 | {creds}",
        ):
            unit.machine.run("sh", "-c", line)
        unit.machine.write(
            CONFIG,
            '[keys]\nmanager = "pkcs11"\nmodule = "/usr/lib/softhsm/libsofthsm2.so"\ntoken = "unit"\n'
            'pin_file = "credential:pin"\nenvironment = { SOFTHSM2_CONF = "/etc/sojourn/softhsm2.conf" }\n',
        )
        self.with_drop_in(unit, "token-keys").systemctl("restart", SERVICE)
        unit.run("authority", "rotate", "x509", "--overlap", "1s")
        assert "pkcs11:token=unit;" in unit.machine.run("cat", "/var/lib/sojourn/keys/root.pem")
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)
        unit.systemctl("restart", SERVICE)
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)
        pid = unit.machine.run("pgrep", "-f", "sojourn-keys").split()[0]
        looked = f"setpriv --reuid=sojourn --clear-groups cat /proc/{pid}/environ 2>&1 || true"
        assert "Permission denied" in unit.machine.run("sh", "-c", looked)
        # The next test's root is a file again.
        unit.systemctl("stop", SERVICE)
        unit.machine.run("sh", "-c", "rm -rf /var/lib/sojourn && mv /var/lib/before /var/lib/sojourn")

    def test_mark(self, unit: UnitAgent) -> None:
        """With `mark` there is a folder for it beside that of the data, which stays where it was."""
        self.with_drop_in(unit, "mark").systemctl("restart", SERVICE)
        assert unit.machine.run("ls", "/var/lib/sojourn-mark").strip()
        assert "sojourn 700" == unit.machine.run("stat", "-c", "%U %a", "/var/lib/sojourn-mark").strip()
        assert ID in unit.run("svid", "x509", "--socket", SOCKET)

    def test_restart_steps(self, unit: UnitAgent) -> None:
        """With `restart-steps` the unit starts on every systemd; an older one says that it does not know the lines."""
        self.with_drop_in(unit, "restart-steps").systemctl("restart", SERVICE)
        assert unit.shown("ActiveState") == "active"
        version = int(unit.machine.run("systemctl", "--version").split()[1])
        assert version < 254 or unit.shown("RestartSteps") == "5"
