"""witnesses.py of the settings: which tables of witnesses and of time stamps can be used, and what is said of others."""

import pytest
from fakes.configs import faults
from fakes.growinglog import GrowingLog
from sojourn.config.load import load

KEY = GrowingLog("witness.example/w1").signer.key.cosigner
WITNESS = f'[[audit.witnesses]]\nname = "w1"\nurl = "https://witness.example/log/"\nkey = "{KEY}"\n'
STAMPS = '[audit.timestamps]\nurl = "https://tsa.example/"\ntsa_ca = "roots.pem"\n'


def test_good(write, tmp_path):
    """A witness needs name, address and key; a time-stamp authority its address and roots; all else has defaults."""
    other = GrowingLog("witness.example/w2").signer.key
    second = WITNESS.replace('"w1"', '"w2"').replace(KEY, str(other))
    audit = load(write(WITNESS + 'ca = "ca.pem"\n' + second + STAMPS), {}, {}).config.audit
    one, two = audit.witnesses
    assert ("https://witness.example/log", 10.0, tmp_path / "ca.pem") == (one.url, one.every.total_seconds(), one.ca)
    assert str(other) == two.key
    assert (tmp_path / "roots.pem", 1) == (audit.timestamps.tsa_ca, audit.timestamps.every.days)
    none = load(write(""), {}, {}).config.audit
    assert ((), None) == (none.witnesses, none.timestamps.url)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (WITNESS.replace("w1", "W 1", 1), "name"),
        (WITNESS.replace("https://", "http://"), "loopback addresses alone"),
        (WITNESS.replace("/log/", "/log?x=1"), "has a query"),
        (WITNESS.replace(KEY, "x"), "no verifier key"),
        (WITNESS.replace(KEY, KEY[:-4] + "AAAA"), "another key's"),
        (WITNESS + 'every = "10ms"', "the least is"),
        (WITNESS + WITNESS, "is there twice"),
        (WITNESS + WITNESS.replace('"w1"', '"w2"'), "is there twice"),
        (WITNESS + "token = 3", "token"),
        (STAMPS.replace("tsa_ca", "ca"), "go together"),
        (STAMPS.replace("https://", "http://"), "loopback addresses alone"),
        (STAMPS + 'every = "1s"', "the least is"),
    ],
)  # fmt: skip
def test_what_is_none(write, text, said):
    """A table that cannot be used is said with what is wrong."""
    found = faults(write(text))
    assert found
    assert any(said in each for each in found), found
