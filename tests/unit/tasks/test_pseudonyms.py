"""pseudonyms.py: what records call people."""

import stat

import pytest
from fakes.persons import CORP, person
from sojourn.errors import CannotStart
from sojourn.tasks.pseudonyms import Pseudonyms


def test_one_person_one_name(tmp_path):
    """A person is called the same by each run with the same key, whatever else their tokens say, and nobody else is."""
    one, other = Pseudonyms.at(tmp_path / "people.key"), Pseudonyms.at(tmp_path / "people.key")
    assert one.of(person()) == other.of(person(session="", groups=())) == one.named(CORP, "alice")
    names = {one.of(person()), one.of(person("bob")), one.named(CORP + "/", "alice"), one.named("", CORP + "alice")}
    assert 4 == len(names)
    assert one.named("a", "bc") != one.named("ab", "c")


def test_nobody_reads_it(tmp_path):
    """A pseudonym tells neither subject nor issuer, and without the key it is that of nobody."""
    name = Pseudonyms.at(tmp_path / "people.key").of(person())
    assert "alice" not in name
    (tmp_path / "people.key").unlink()
    assert name != Pseudonyms.at(tmp_path / "people.key").of(person())


def test_plain(tmp_path):
    """Audit records name the people of an issuer as they are, if its configuration says so, and those of no other; the
    pseudonym is what it was.
    """
    names = Pseudonyms.at(tmp_path / "people.key", ["corp"])
    assert "corp|alice" == names.of(person()) == names.of(person(), "psn_known")
    assert names.of(person(issuer="partner")).startswith("psn_")
    assert "psn_known" == names.of(person(issuer="partner"), "psn_known")
    assert names.named(CORP, "alice") == Pseudonyms.at(tmp_path / "people.key").of(person())


def test_its_key(tmp_path):
    """The key is made once, for the agent's user alone."""
    Pseudonyms.at(tmp_path / "people.key")
    assert 0o600 == stat.S_IMODE((tmp_path / "people.key").stat().st_mode)
    (tmp_path / "people.key").write_bytes(b"short")
    (tmp_path / "people.key").chmod(0o600)
    with pytest.raises(CannotStart, match="damaged"):
        Pseudonyms.at(tmp_path / "people.key")


def test_where_it_cannot_be_written(tmp_path):
    """An agent that cannot keep the key does not start."""
    with pytest.raises(CannotStart, match="cannot be written"):
        Pseudonyms.at(tmp_path / "missing" / "people.key")
