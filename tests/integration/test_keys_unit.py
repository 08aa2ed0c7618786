"""The key process as the unit that is shipped, on a booted machine: another user than the agent has the keys of roots."""

import re
import subprocess
from collections.abc import Iterator

import pytest
from harness.agent import ROOT
from harness.lacking import lacking_program
from harness.looking import until
from harness.nspawn import Machine, booted
from harness.unitinstall import SERVICE, SOCKET, UNITS, UnitAgent, rendered

pytestmark = [pytest.mark.full, pytest.mark.root, pytest.mark.timeout(300)]
KEYS = "sojourn-keys.service"
ID = "spiffe://example.org/me"
STATE = "/var/lib/private/sojourn-keys"


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with booted() as machine:
        yield machine


def typed_on_the_page() -> list[str]:
    """The lines of docs/operate/keys.md about a key process of its own."""
    text = (ROOT / "docs" / "operate" / "keys.md").read_text().partition("## A key process of its own")[2]
    lines = [line.strip() for line in re.findall(r"^    .*$", text.partition("\n## ")[0], re.MULTILINE)]
    assert 2 == len(lines)
    return lines


def test_the_page(machine: Machine) -> None:
    """What the page has an operator do gives the agent a root whose key only the other user can read; either may be
    restarted.
    """
    unit = UnitAgent(machine)
    unit.install()
    machine.write(f"/etc/systemd/system/{KEYS}", rendered(KEYS))
    machine.run("cp", "-r", str(UNITS / "drop-ins"), "/opt/drop-ins")
    machine.write(
        "/etc/sojourn/agent.toml",
        'trust_domain = "example.org"\nnode_name = "n1"\n[keys]\nsocket = "/run/sojourn-keys/keys.sock"\n',
    )
    for line in typed_on_the_page():
        machine.run("sh", "-c", line.replace("/usr/share/doc/sojourn", "/opt"))
    until(lambda: unit.json("status")["state"] == "ready", "it is ready", 90)
    unit.run("entry", "create", "--spiffe-id", ID, "--selector", "unix:uid:0")
    assert ID in unit.run("svid", "x509", "--socket", SOCKET)
    [key] = machine.run("ls", STATE).split()
    assert "PRIVATE KEY" in machine.run("cat", f"{STATE}/{key}")
    owner, mode = machine.run("stat", "--format=%u %a", f"{STATE}/{key}").split()
    assert owner not in {"0", machine.run("id", "-u", "sojourn").strip()}
    assert "600" == mode
    assert "PRIVATE KEY" not in machine.run("cat", "/var/lib/sojourn/keys/root.pem")
    as_agent = f"setpriv --reuid=sojourn --regid=sojourn --clear-groups cat {STATE}/{key} 2>&1 || true"
    assert "Permission denied" in machine.run("sh", "-c", as_agent)
    for each in (KEYS, SERVICE, KEYS):
        unit.systemctl("restart", each)
        until(lambda: unit.json("status")["state"] == "ready", "it is ready", 90)
        until(lambda: " ms" in unit.run("authority", "test", check=False), "the root's key signs", 90)
    unit.run("authority", "rotate", "x509", "--overlap", "1s")
    assert ID in unit.run("svid", "x509", "--socket", SOCKET)
    assert 2 == len(machine.run("ls", STATE).split())
    said = machine.run("journalctl", "--unit", KEYS, "--output=cat", "--no-pager")
    assert "root_key_used" in said


def test_exposure() -> None:
    """What the unit could reach is little by systemd's own measure."""
    lacking_program("systemd-analyze")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(UNITS / KEYS)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    (exposure,) = re.findall(r"Overall exposure level for sojourn-keys.service: ([0-9.]+)", done.stdout)
    assert float(exposure) <= 0.6
