"""An operator's intermediate authority in files signs a real agent's intermediate, and is replaced under load."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from harness import pagelines
from harness.agent import ROOT, AgentProcess
from harness.backups import back_up, done
from harness.companyca import CompanyFiles, company
from harness.looking import until
from harness.mesh import mesh, root_id
from harness.raw import Admin, Wire
from harness.spirecli import binary

ME = f"unix:uid:{os.getuid()}"
SHORT = '[authority]\nissuer_ttl = "1m"\n[identity]\nx509_svid_ttl = "15s"\n'
LEAD_SECONDS = 3


def configured(files: CompanyFiles, more: str = "") -> str:
    return SHORT + files.table + f'lead = "{LEAD_SECONDS}s"\nlook_every = "1s"\n{more}'


def roots(agent: AgentProcess) -> dict[str, dict]:
    return {each["authority_id"]: each for each in agent.json("authority", "show")["roots"]}


@pytest.fixture
def files(tmp_path: Path) -> CompanyFiles:
    return CompanyFiles(tmp_path / "company")


def test_signs(files: CompanyFiles) -> None:
    """SVIDs chain over the company's authority to its root, which alone is in the bundle, and the command tells all of it."""
    root, issuing = company()
    files.put(root, issuing)
    with AgentProcess(config=configured(files)) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        with mesh(agent.socket, 2) as workloads:
            until(lambda: workloads.ready and workloads.fetched > 3 and workloads.checked > 20)
            chain, bundle = workloads.now
            assert (3, issuing.certificate) == (len(chain), chain[-1])
            assert (root.certificate,) == bundle
        shown = agent.json("authority", "show")
        assert ["intermediate", "upstream", "root"] == [each["role"] for each in shown["chain"]]
        assert str(agent.data_dir / "keys" / "intermediates.pem") == shown["chain"][0]["key"]
        assert ("disk", "", None) == tuple(shown["upstream"][key] for key in ("kind", "fault", "since"))
        assert str(files.path("key")) == shown["upstream"]["place"]["key"]
        assert ["unused"] == [each["status"] for each in shown["keys"] if each["kind"] == "x509"]
        told = agent.run("authority", "show").stdout
        assert "company root" not in told
        assert root_id(root.certificate) in told
        assert "upstream       disk" in told
        assert "below disk: answered at" in agent.run("status").stdout
        refused = agent.run("authority", "rotate", "x509", check=False)
        assert (1, True) == (refused.returncode, "below an upstream authority" in refused.stderr)


@pytest.mark.full
@pytest.mark.forked
@pytest.mark.parametrize("order", [("roots", "certificate", "key"), ("key", "certificate", "roots")], ids="-".join)
def test_replaced_under_load(files: CompanyFiles, order: tuple[str, ...]) -> None:
    """The files are replaced by another authority's, root and all, one after the other, while workloads verify each other at
    each moment by what they were pushed, and new ones come: nobody notices. The new root is in the bundle before anything
    is below it, and the old one leaves when nothing is any more.
    """
    old, new = company("old"), company("new")
    before, after = (root_id(each[0].certificate) for each in (old, new))
    files.put(*old)
    with AgentProcess(config=configured(files)) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        with mesh(agent.socket) as workloads:
            until(lambda: workloads.ready and workloads.fetched > 3)
            contents = files.contents(*new)
            for name in order[:2]:
                files.write(name, contents[name])
                until(lambda: "what was read before counts on" in agent.json("authority", "show")["upstream"]["fault"])
            assert {before} == set(roots(agent))
            files.write(order[2], contents[order[2]])
            until(lambda: {before, after} == set(roots(agent)))
            published = time.monotonic()
            until(lambda: [before, after] == workloads.roots_seen, seconds=40)
            assert time.monotonic() - published > LEAD_SECONDS - 2
            until(lambda: {after} == set(roots(agent)), seconds=120)
            until(lambda: frozenset({after}) == workloads.bundles[-1])
        assert [{before}, {before, after}, {after}] == list(map(set, workloads.bundles))


@pytest.mark.full
@pytest.mark.forked
def test_tainted_and_revoked(files: CompanyFiles) -> None:
    """A root of before is tainted and revoked as docs/operate/upstream-authority.md has it typed, and so by spire-server's own
    command: nobody notices, and it does not come back, though the files name it still. The one that signs is refused.
    """
    old, new = company("old"), company("new")
    before, after = (root_id(each[0].certificate) for each in (old, new))
    files.put(*old)
    with AgentProcess(config=configured(files)) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        with mesh(agent.socket) as workloads:
            until(lambda: workloads.ready and workloads.fetched > 3)
            said = agent.run("authority", "taint", before, check=False)
            assert (1, True) == (said.returncode, "signs still" in said.stderr)
            for name, content in files.contents(*new).items():
                files.write(name, content)
            with files.path("roots").open("ab") as both:
                both.write(old[0].certificate.public_bytes(Encoding.PEM))
            until(lambda: after == workloads.roots_seen[-1], seconds=60)
            typed = pagelines.sections("operate/upstream-authority.md")["Taint and revoke a root"]
            environment = {**agent.environment, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
            pagelines.run(typed.splitlines()[0], ROOT, {**environment, "ROOT_ID": before})
            assert {before, after} == set(roots(agent))
            assert [True, False] == [roots(agent)[each]["tainted"] for each in (before, after)]
            assert ", tainted" in agent.run("authority", "show").stdout
            revoked = [binary("spire-server"), "upstreamauthority", "revoke", "-socketPath", agent.admin_socket]
            subprocess.run([*revoked, "-subjectKeyID", before], check=True, capture_output=True, timeout=60)
            assert {after} == set(roots(agent))
            said = pagelines.run(typed.splitlines()[1] + " || true", ROOT, {**environment, "ROOT_ID": before})
            time.sleep(3)  # it is looked at the files meanwhile
            assert {after} == set(roots(agent))
            until(lambda: frozenset({after}) == workloads.bundles[-1])
        events = agent.json("audit", "tail", "--lines", "1000")["records"]
        done = [each["event"] for each in events if each["fields"].get("kind") == "upstream"]
        assert ["authority_tainted", "authority_revoked"] == done


@pytest.mark.full
@pytest.mark.forked
def test_from_an_own_root_and_back(files: CompanyFiles, tmp_path: Path) -> None:
    """From a root of the agent's own to the company's and back, by two restarts of the agent: the workloads are the same
    processes all along, and verify each other at each moment.
    """
    root, issuing = company()
    files.put(root, issuing)
    with AgentProcess(config=SHORT) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        [own] = roots(agent)
        with mesh(agent.socket) as workloads:
            until(lambda: workloads.ready and workloads.fetched > 3)
            for config, expected in ((configured(files), root_id(root.certificate)), (SHORT, own)):
                workloads.may_be_down = True
                agent.stop()
                agent.config.write_text(config)
                agent.start()
                workloads.may_be_down = False
                until(lambda: {own, root_id(root.certificate)} == set(roots(agent)))
                until(lambda expected=expected: expected == workloads.roots_seen[-1], seconds=60)
        assert [own, root_id(root.certificate), own] == workloads.roots_seen


@pytest.mark.full
@pytest.mark.forked
def test_unusable_files(files: CompanyFiles) -> None:
    """An agent whose files are not there starts, and says what is missing: JWT-SVIDs are issued, X.509-SVIDs as soon as the
    files are there. Its service is not ready meanwhile.
    """
    with AgentProcess(config=configured(files)) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        with Wire(agent.socket) as wire:
            assert wire.jwt("a").svids[0].svid
        refused = agent.run("svid", "x509", check=False)
        assert (1, True) == (refused.returncode, "no valid intermediate" in refused.stderr), refused.stderr
        assert "No such file" in agent.json("authority", "show")["upstream"]["fault"]
        assert "FAILS since" in agent.run("status").stdout
        assert "NOT READY" in agent.run("status").stdout
        files.put(*company())
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, seconds=60)
        until(lambda: "NOT READY" not in agent.run("status").stdout)


@pytest.mark.full
@pytest.mark.forked
def test_restored(files: CompanyFiles) -> None:
    """A backup has the roots of the bundle, and no intermediate: after a restore another one is asked for, below the same root,
    and a root of the agent's own comes into nobody's bundle.
    """
    root, issuing = company()
    files.put(root, issuing)
    with AgentProcess(config=configured(files)) as agent, Admin(agent.admin_socket) as admin:
        admin.register("/me", ME)
        before = agent.json("authority", "show")["chain"][0]["authority_id"]
        made = back_up(agent)
        agent.stop()
        shutil.rmtree(agent.data_dir)
        done(agent, "restore", str(made))
        keys = {each.name for each in (agent.data_dir / "keys").iterdir()}
        assert ("upstream.json" in keys, "intermediates.pem" in keys) == (True, False)
        agent.start()
        until(lambda: agent.run("svid", "x509", check=False).returncode == 0, seconds=30)
        assert before != agent.json("authority", "show")["chain"][0]["authority_id"]
        assert {root_id(root.certificate)} == set(roots(agent))


class TestConfiguration:
    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({'issuer_ttl = "1m"': 'issuer_ttl = "29s"'}, "issuer_ttl"),
            ({'x509_svid_ttl = "15s"': 'x509_svid_ttl = "21s"'}, "least is three times identity.x509_svid_ttl, 63s"),
            ({'lead = "3s"': 'lead = "16s"'}, "the most is a quarter of issuer_ttl, 15s"),
            ({"roots = ": "#"}, "needs roots"),
            ({'kind = "disk"': 'kind = "disk"\nmount = "pki"'}, "mount is not of an upstream authority of kind disk"),
            ({'kind = "disk"': 'kind = "floppy"'}, "kind"),
            ({'kind = "disk"': 'kind = "openbao"'}, "needs address"),
        ],
        ids=lambda each: each[:30] if isinstance(each, str) else "",
    )
    def test_cannot_work(self, files: CompanyFiles, change: dict[str, str], told: str) -> None:
        """A configuration that cannot work is refused at the start, with the key and what is possible."""
        config = configured(files)
        for one, other in change.items():
            assert one in config
            config = config.replace(one, other)
        with pytest.raises(RuntimeError) as caught, AgentProcess(config=config):
            pass
        assert told in str(caught.value)
