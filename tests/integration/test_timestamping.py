"""A real agent whose checkpoints a time-stamp authority stamps, as an auditor and openssl check it offline."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from harness.agent import AgentProcess
from harness.auditing import check, codes, export, key_of
from harness.lacking import lacking_program
from harness.looking import until
from harness.tsaplace import TsaKeys, TsaPlace

pytestmark = pytest.mark.forked


def test_a_checkpoint_is_stamped(tmp_path: Path) -> None:
    """A stamp is in force soon after the start; check and openssl both verify it offline by the authority's root."""
    lacking_program("openssl")
    keys = TsaKeys(tmp_path / "tsa")
    with TsaPlace(keys) as place:
        config = f'trust_domain = "example.org"\n[audit.timestamps]\nurl = "{place.url}"\ntsa_ca = "{keys.roots}"\n'
        with AgentProcess(config=config) as agent:
            until(lambda: agent.json("status")["audit_timestamps"]["size"], seconds=90)
            assert "has stamped records up to" in agent.run("status").stdout
            folder, key = export(agent, "out"), key_of(agent)
            agent.stop()
            found = check(agent, folder, "--tsa-ca", str(keys.roots), key=key)
            assert ([], 1) == (found["faults"], len(found["timestamps"]))
            assert abs(found["timestamps"][0]["at"] - time.time()) < 600
            [note] = folder.glob("logs/*/stamp-*.note")
            argv = ["openssl", "ts", "-verify", "-data", note, "-in", note.with_suffix(".tsr"), "-CAfile", keys.roots]
            done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, timeout=60, check=False)
            assert "Verification: OK" in done.stdout, done.stderr
            assert 1 == len(place.queries)


@pytest.mark.forked
def test_an_authority_of_others(tmp_path: Path) -> None:
    """A stamp that leads to none of the roots is said to be none, in status, doctor and log; the journal is signed on."""
    lacking_program("openssl")
    keys, others = TsaKeys(tmp_path / "tsa"), TsaKeys(tmp_path / "others")
    with TsaPlace(others) as place:
        config = f'[audit.timestamps]\nurl = "{place.url}"\ntsa_ca = "{keys.roots}"\n'
        with AgentProcess(config=config) as agent:
            until(lambda: agent.json("status")["audit_timestamps"]["fault"], seconds=90)
            assert "stamps NOTHING since" in agent.run("status").stdout
            doctor = json.loads(agent.run("doctor", "--output", "json", check=False).stdout)
            assert ["warn"] == [each["verdict"] for each in doctor["checks"] if each["id"] == "audit-timestamps"]
            folder = export(agent, "out")
            assert {"timestamp_missing"} == codes(check(agent, folder, "--tsa-ca", str(keys.roots)))
            assert "audit_timestamp_failing" in {each["what"] for each in agent.failures()}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('url = "https://tsa.example.org"', "go together"),
        ('url = "http://tsa.example.org"\ntsa_ca = "roots.pem"', "loopback addresses alone"),
        ('url = "https://tsa.example.org"\ntsa_ca = "nothing.pem"', "cannot be read"),
    ],
)
def test_a_configuration_that_is_none(tmp_path: Path, lines: str, said: str) -> None:
    """An authority without roots, over plain http, or with roots that are not there, keeps the agent from starting."""
    agent = AgentProcess(config=f"[audit.timestamps]\n{lines}\n", folder=tmp_path)
    with pytest.raises(RuntimeError, match=said):
        agent.start()
