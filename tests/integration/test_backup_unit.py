"""The units that make a backup each day, under a systemd that was booted for it, as they are in deploy/systemd."""

import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.agent import ROOT
from harness.lacking import lacking
from harness.looking import until
from harness.nspawn import Machine, booted

pytestmark = [pytest.mark.full, pytest.mark.root]
UNITS = ROOT / "deploy" / "systemd"
PACKAGED, PROGRAM = "/usr/lib/sojourn/bin/sojourn", "/opt/sojourn/sojourn"
PYTHON = f"/usr/bin/python3.{sys.version_info.minor}"
BACKUPS, SECRET = "/var/backups/sojourn", "/etc/sojourn/backup-passphrase"
_PROGRAM = f"""#!/bin/sh
export PYTHONPATH=/opt/sojourn/agent:/opt/sojourn/attestors:/opt/sojourn/packages
exec {PYTHON} -B -m sojourn "$@"
"""
_AGENT = f"""[Service]
User=sojourn
StateDirectory=sojourn sojourn-mark
StateDirectoryMode=0700
RuntimeDirectory=sojourn
ExecStart={PROGRAM} agent run --data-dir /var/lib/sojourn --socket /run/sojourn/agent.sock \\
  --admin-socket /run/sojourn/admin.sock
"""


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A machine on which an agent of a user of its own runs, with a mark, and on which the units are installed."""
    if not Path(PYTHON).exists():
        lacking(f"needs Debian's own Python of the version that runs the tests, {PYTHON}")
    with booted() as made:
        made.run("mkdir", "-p", "/opt/sojourn/packages", "/etc/sojourn")
        made.run("cp", "-r", "--preserve=timestamps", str(ROOT / "agent"), str(ROOT / "attestors"), "/opt/sojourn")
        made.run("mount", "--bind", sysconfig.get_path("purelib"), "/opt/sojourn/packages")
        made.write(PROGRAM, _PROGRAM)
        made.run("chmod", "755", PROGRAM)
        made.run("sh", "-c", "echo sojourn:x:990:990::/nonexistent:/usr/sbin/nologin >>/etc/passwd")
        made.run("sh", "-c", "echo sojourn:x:990: >>/etc/group")
        made.write("/etc/systemd/system/agent.service", _AGENT)
        made.write(SECRET, "correct horse battery staple\n")
        made.run("chmod", "600", SECRET)
        for name in ("sojourn-backup.service", "sojourn-backup.timer"):
            text = (UNITS / name).read_text()
            assert text.count(PACKAGED) == (1 if name.endswith("service") else 0)
            made.write(f"/etc/systemd/system/{name}", text.replace(PACKAGED, PROGRAM))
        made.run("systemctl", "daemon-reload")
        made.run("systemctl", "start", "agent.service")
        until(lambda: made.run("sh", "-c", "test -S /run/sojourn/admin.sock && echo yes", check=False), "it answers")
        yield made


def sojourn(machine: Machine, *arguments: str) -> dict[str, object]:
    """What root's command says, as JSON."""
    said = machine.run(PROGRAM, *arguments, "--output", "json", seconds=120)
    found: dict[str, object] = json.loads(said)
    return found


def made_by(machine: Machine) -> list[str]:
    return machine.run("sh", "-c", f"ls {BACKUPS} || true").split()


def test_the_service(machine: Machine) -> None:
    """The service makes a backup of the agent that runs, as the agent's user, and root opens it."""
    before = made_by(machine)
    machine.run("systemctl", "start", "sojourn-backup.service")
    [name] = set(made_by(machine)) - set(before)
    assert "600 sojourn" == machine.run("stat", "-c", "%a %U", f"{BACKUPS}/{name}").strip()
    checked = sojourn(machine, "backup", "check", f"{BACKUPS}/{name}", "--passphrase-file", SECRET)
    assert (True, True) == (checked["opened"], checked["restorable"])
    assert "sojourn" == machine.run("sh", "-c", "stat -c %U /var/lib/sojourn/* | sort -u").strip()


def test_sealed_keys(machine: Machine) -> None:
    """With the drop-in `sealed-keys` the service opens keys that the agent has sealed, and seals them by the passphrase."""
    made = "head -c 32 /dev/urandom | systemd-creds encrypt --with-key=tpm2-absent --name=seal-key - /etc/sojourn/seal-key.cred"
    machine.run("sh", "-c", made)
    drop_in = (UNITS / "drop-ins" / "sealed-keys.conf").read_text()
    places = [f"/etc/systemd/system/{each}.service.d/sealed-keys.conf" for each in ("agent", "sojourn-backup")]

    def restarted(config: str, *units: str) -> None:
        machine.write("/etc/sojourn/agent.toml", config)
        for each in places:
            machine.write(each, drop_in if each in units else "")
        machine.write(places[0].replace("sealed-keys", "configuration"), "[Service]\nConfigurationDirectory=sojourn\n")
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", "agent.service")
        until(lambda: "version" in machine.run(PROGRAM, "status", "--output", "json", check=False), "it is up", 60)

    sealed = '[keys]\nmanager = "sealed"\nseal_key = "credential:seal-key"\n'
    restarted(sealed, places[0])
    assert "SOJOURN SEALED KEY" in machine.run("cat", "/var/lib/sojourn/keys/root.pem")
    before = made_by(machine)
    machine.run("systemctl", "start", "sojourn-backup.service", check=False)
    assert "failed" == machine.run("systemctl", "is-failed", "sojourn-backup.service", check=False).strip()
    assert before == made_by(machine)
    restarted(sealed, *places)
    machine.run("systemctl", "start", "sojourn-backup.service")
    [name] = set(made_by(machine)) - set(before)
    assert sojourn(machine, "backup", "check", f"{BACKUPS}/{name}", "--passphrase-file", SECRET)["opened"]
    restarted('[keys]\nseal_key = "credential:seal-key"\n', *places)
    assert "SOJOURN SEALED KEY" not in machine.run("cat", "/var/lib/sojourn/keys/root.pem")
    machine.run("rm", "-r", "/etc/sojourn/agent.toml", *(each.rpartition("/")[0] for each in places))
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "agent.service")


def test_without_a_passphrase(machine: Machine) -> None:
    """Without the file of the passphrase the service fails, which systemd says, and makes nothing."""
    before = made_by(machine)
    machine.run("mv", SECRET, f"{SECRET}.away")
    try:
        machine.run("systemctl", "start", "sojourn-backup.service", check=False)
        assert "failed" == machine.run("systemctl", "is-failed", "sojourn-backup.service", check=False).strip()
        assert before == made_by(machine)
    finally:
        machine.run("mv", f"{SECRET}.away", SECRET)


def test_the_timer(machine: Machine) -> None:
    """The timer is active once it is enabled, and starts the service each day."""
    machine.run("systemctl", "enable", "--now", "sojourn-backup.timer")
    assert "active" == machine.run("systemctl", "is-active", "sojourn-backup.timer").strip()
    assert "sojourn-backup.service" in machine.run("systemctl", "show", "--property=Unit", "sojourn-backup.timer")


def test_a_restore_by_root(machine: Machine) -> None:
    """Root stops the agent, restores a backup and starts the agent, whose files stay its user's; and the mark of the
    machine, which is there by default, tells of it.
    """
    machine.run("systemctl", "start", "sojourn-backup.service")
    name = sorted(made_by(machine))[-1]
    machine.run("systemctl", "stop", "agent.service")
    file = f"{BACKUPS}/{name}"
    sojourn(machine, "restore", file, "--passphrase-file", SECRET, "--accept-loss")
    assert "sojourn" == machine.run("sh", "-c", "stat -c %U $(find /var/lib/sojourn) | sort -u").strip()
    machine.run("systemctl", "start", "agent.service")
    until(lambda: machine.run("sh", "-c", "test -S /run/sojourn/admin.sock && echo yes", check=False), "it answers")
    folder = sojourn(machine, "status")["data_folder"]
    assert isinstance(folder, dict)
    assert (file, "/var/lib/sojourn-mark/mark") == (folder["restored"]["file"], folder["mark"]["file"])
