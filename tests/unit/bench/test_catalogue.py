"""bench.py, catalogue.py and peers.py: every line is measured, and what breaks or is missing stops no other."""

import subprocess
from pathlib import Path

import peers
import pytest
from bench import measured, reason
from catalogue import BY_NUMBER, GROUPS, catalogue
from figures import Figure, Growth, Missing
from ground import QUICK, Bench
from held import HELD

GROWTH = Growth("g", "ms", "tasks", {"": [(1, [1.0])]})


def found(measure):
    return measured("a group", (1, "a title", measure), Bench(QUICK))


def test_each_line_is_in_one_group():
    """No number is given twice, and none is forgotten."""
    numbers = [number for group in GROUPS.values() for number in group]
    assert sorted(BY_NUMBER) == sorted(numbers)
    assert len(catalogue()) == len(numbers)


def test_numbers_are_given_once():
    """Two modules cannot hide each other's line."""
    import catalogue as module

    assert len(module._ALL) == len(BY_NUMBER)


def test_a_line_with_all():
    """Figures, growths and notes are kept apart."""
    line = found(lambda _: iter([Figure.of("x", "ms", [1.0]), "a note", GROWTH]))
    assert (1, "a title", "a group", ("a note",), (GROWTH,)) == (
        line.number, line.title, line.group, line.notes, line.growths,
    )  # fmt: skip
    assert ("", "", "x") == (line.failure, line.missing, line.figures[0].name)


@pytest.mark.parametrize(
    ("raised", "failure", "missing"),
    [(Missing("there is no X"), "", "there is no X"), (ValueError("broke"), "ValueError: broke", "")],
)
def test_what_came_before_is_kept(raised, failure, missing):
    """A line that breaks has failed; one that lacks a part has not."""

    def measure(_):
        yield Figure.of("x", "ms", [1.0])
        raise raised

    line = found(measure)
    assert (1, failure, missing) == (len(line.figures), line.failure, line.missing)


def test_two_figures_of_one_name():
    """A line of the bench with two figures of one name has failed: they would hide each other."""
    line = found(lambda _: iter([Figure.of("x", "ms", [1.0]), Figure.of("x", "s", [1.0])]))
    assert "more than one figure" in line.failure


def test_reason_of_a_program_that_failed():
    """What a program that failed has said is in the sentence."""
    assert "no such thing" in reason(subprocess.CalledProcessError(1, "x", stderr=b"no such thing\n"))
    assert "no such thing" in reason(subprocess.CalledProcessError(1, "x", stderr="no such thing\n"))


def test_a_peer_that_is_not_here(monkeypatch):
    """A line whose peer is not on the machine says how to get it."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Missing, match=r"there is no SPIRE on this machine: `make bench-peers` gets it"):
        peers.SPIRE.there()


def test_what_getting_a_peer_needs(monkeypatch, capsys):
    """What is to be installed is said, the others are got, and the exit status tells."""
    got = []
    there = (Path("/x"),)
    lacking = peers.Peer("X", lambda: None, lambda: got.append("X"), lambda _: "1", {"no-such-program": "a compiler"})
    other = peers.Peer("Y", lambda: there, lambda: got.append("Y"), lambda _: "2")
    monkeypatch.setattr(peers, "PEERS", (lacking, other))
    assert 1 == peers.main()
    said = capsys.readouterr()
    assert "X: it can not be got: install a compiler" in said.err
    assert "Y: 2" in said.out
    assert ["Y"] == got


def test_versions_name_what_is_not_here(monkeypatch):
    """Nobody takes a run without a peer for one with it."""
    monkeypatch.setattr(peers, "PEERS", (peers.Peer("X", lambda: None, lambda: None, lambda _: "1"),))
    assert {"X": "not here"} == peers.versions()


def test_the_client_is_another_when_its_sources_change(monkeypatch, tmp_path):
    """The cache never serves an old build."""
    (tmp_path / "go").mkdir()
    (tmp_path / "go" / "main.go").write_text("package main\n")
    monkeypatch.setattr(peers, "HERE", tmp_path)
    before = peers._client("go")
    (tmp_path / "go" / "main.go").write_text("package main\n\n")
    assert before != peers._client("go")


def test_a_rate_says_for_how_long_it_is_held():
    """A line that measures a rate says for how long it was held, and fails if nobody has written that down."""
    rate = Figure.of("x", "/s", [1.0])
    unheard = found(lambda _: iter([rate]))
    assert "line 1 measures a rate" in unheard.failure
    line = measured("a group", (55, "a title", lambda _: iter([rate])), Bench(QUICK))
    assert ("", (HELD[55],)) == (line.failure, line.notes)
    assert set(HELD) <= set(BY_NUMBER)
