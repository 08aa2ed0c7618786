"""cli/review_csv.py: what others have written is no formula in a spreadsheet, and is read back as it was."""

import contextlib
import csv
import io
import json
import resource
import signal

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.cli import remote
from sojourn.cli.options import Output
from sojourn.cli.review_csv import _read, escaped, export, import_, unescaped
from sojourn.errors import InvalidInput, Unreachable
from sojourn.jose.canonical_json import canonical
from sojourn.operating_limits import REVIEW_CALL

WIDE = "\uff1d\uff0b\uff0d\uff20"
HEAD = "item,digest,decision,reason\n"


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r\nab1 ,;\"" + WIDE), max_size=8))
def test_there_and_back(text):
    """Whatever stands in a cell is read back as it was, and never begins as a formula does."""
    assert text == unescaped(escaped(text))
    assert escaped(text)[:1] not in tuple("=+-@\t\r\n" + WIDE)


@pytest.mark.parametrize("text", ["'tis fine", "a=1", "2026-01-01", "'", "plain"])
def test_what_is_none_is_left_alone(text):
    """A text that no spreadsheet takes for a formula has nothing before it, and loses nothing."""
    assert text == escaped(text) == unescaped(text)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_as_spreadsheets_save(tmp_path, separator, start):
    """Columns in another order, others between them, another separator and a mark at the beginning are understood."""
    made = io.StringIO()
    rows = csv.writer(made, delimiter=separator)
    rows.writerow(["reason", "item", "mine", "decision", "digest"])
    rows.writerow(["two\nlines", "type:a", "x", " KEEP ", "AB"])
    rows.writerow(["", "type:b", "x", "", "CD"])
    rows.writerow([])
    file = tmp_path / "review.csv"
    file.write_bytes((start + made.getvalue()).encode())
    row = {"item": "type:a", "digest": "ab", "decision": "keep", "reason": "two\nlines"}
    assert ([(2, row)], 1, []) == _read(file)


def stream_of(monkeypatch, answer):
    """Have an agent answer so."""
    monkeypatch.setattr(remote, "admin_stream", lambda _socket, _request, each: answer(each))


def evidence(item):
    """Of a type, as the agent sends it."""
    text = canonical(
        {
            "item": item,
            "since_ms": 1,
            "until_ms": 2,
            "used": True,
            "tasks": 1,
            "last_ms": 0,
            "blind": {},
            **dict.fromkeys(("granted", "taken", "called", "denied"), 1),
            "actions": {"rows": [], "left_out": 0},
            "ceiling": {"rows": [["tickets", "read"]], "left_out": 0},
        }
    )
    shown = pb.ShownReviewItem(item=pb.ReviewItem(item=item), digest="d" * 64, shown_at=5, evidence=text)
    return pb.ShowReviewItemsResponse(shown=[shown])


def exported(file):
    export(file, overdue=False, owner="", admin_socket=None, output=Output.PRETTY)


def test_a_file_that_is_there(tmp_path, monkeypatch):
    """A file that is there is not written over, and an export that is whole is read back."""
    stream_of(monkeypatch, lambda each: each(evidence("type:a")))
    file = tmp_path / "review.csv"
    exported(file)
    with pytest.raises(InvalidInput, match="there already"):
        exported(file)
    assert ([], 1, []) == _read(file)
    assert [file] == [*tmp_path.iterdir()]


@pytest.mark.parametrize("error", [Unreachable("gone"), KeyboardInterrupt()])
def test_an_export_that_ends_early(tmp_path, monkeypatch, error):
    """Of an export that is not whole nothing is left: half of it would look like all."""

    def answer(each):
        each(evidence("type:a"))
        raise error

    stream_of(monkeypatch, answer)
    with pytest.raises(type(error)):
        exported(tmp_path / "review.csv")
    assert [] == [*tmp_path.iterdir()]


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    """A disk that fills up during an export is told, and nothing is left."""

    def answer(each):
        for number in range(2_000):
            each(evidence(f"type:a{number}"))

    stream_of(monkeypatch, answer)
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(InvalidInput, match="cannot be written: File too large"):
            exported(tmp_path / "review.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [] == [*tmp_path.iterdir()]


class Agent:
    """Decides on what it is asked for, but on items that are wrong; those of `later` become so as it decides."""

    def __init__(self, monkeypatch, *, wrong=(), later=()):
        self.wrong, self.later, self.calls, self.decided = {*wrong}, {*later}, 0, []
        monkeypatch.setattr(remote, "admin", self)

    def __call__(self, _socket, request):
        self.calls += 1
        wrong = self.wrong if request.dry_run else self.wrong | self.later
        answer = pb.DecideReviewsResponse()
        for place, each in enumerate(request.decisions):
            if each.item in wrong:
                answer.faults.add(place=place, code="not_found", reason="there is none")
        if not answer.faults and not request.dry_run:
            self.decided += [each.item for each in request.decisions]
            answer.decided = len(request.decisions)
        assert len(request.SerializeToString()) + answer.ByteSize() < 1 << 20
        return answer


def filled(tmp_path, items):
    file = tmp_path / "review.csv"
    file.write_text(HEAD + "".join(f"{item},{'d' * 64},keep,why\n" for item in items))
    return file


def imported(file, capsys):
    with contextlib.suppress(typer.Exit):
        import_(file, dry_run=False, admin_socket=None, output=Output.JSON)
    return json.loads(capsys.readouterr().out)


ITEMS = [f"workload:spiffe://example.org/{number}" for number in range(2 * REVIEW_CALL + 1)]


def test_very_many(tmp_path, monkeypatch, capsys):
    """A spreadsheet of thousands is decided in calls that are small, after all rows were looked at."""
    agent = Agent(monkeypatch)
    found = imported(filled(tmp_path, ITEMS), capsys)
    assert (len(ITEMS), []) == (found["decided"], found["faults"])
    assert (ITEMS, 6) == (agent.decided, agent.calls)


def test_a_fault_in_the_last_row(tmp_path, monkeypatch, capsys):
    """With a fault in the last of thousands nothing is decided, and an item that is there twice is one, however far."""
    agent = Agent(monkeypatch, wrong=ITEMS[-1:])
    found = imported(filled(tmp_path, [*ITEMS, ITEMS[0]]), capsys)
    faults = [(len(ITEMS) + 1, "not_found"), (len(ITEMS) + 2, "invalid_input")]
    assert faults == [(each["row"], each["code"]) for each in found["faults"]]
    assert ([], 0) == (agent.decided, found["decided"])


def test_a_change_meanwhile(tmp_path, monkeypatch, capsys):
    """What is changed while thousands are decided is told, with how many were made before."""
    agent = Agent(monkeypatch, later=ITEMS[-1:])
    found = imported(filled(tmp_path, ITEMS), capsys)
    assert (2 * REVIEW_CALL, [len(ITEMS) + 1]) == (found["decided"], [each["row"] for each in found["faults"]])
    assert 2 * REVIEW_CALL == len(agent.decided)


def test_a_reason_alone(tmp_path):
    """A row with a reason and no decision is a fault: somebody meant something."""
    file = tmp_path / "review.csv"
    file.write_text(HEAD + "type:a,ab,,why\n")
    found, left, faults = _read(file)
    assert ([], 1, [(2, "type:a", "invalid_input")]) == (found, left, [each[:3] for each in faults])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"item;digest;decision\n", "no column reason"),
        (b"", "no column item, digest, decision, reason"),
        (HEAD.encode() + b'type:a,ab,keep,"open\n', "not CSV"),
        (HEAD.encode() + "type:a,ab,keep,schön\n".encode("latin-1"), "not UTF-8"),
        (b'"item"x,digest,decision,reason\n', "not CSV: .* in line 1"),
        (b"item,digest,decision,reason," + b"z" * 140_000 + b"\n", "not CSV: .* in line 1"),
        (b"item,digest,decision,reason,decision\ntype:a,ab,retire,why,keep\n", "column decision twice"),
    ],
)
def test_no_spreadsheet(tmp_path, content, says):
    """A file that is none of ours is refused, and it is said why."""
    file = tmp_path / "review.csv"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match=says):
        _read(file)
    with pytest.raises(InvalidInput, match="not a regular file"):
        _read(tmp_path / "nothing.csv")
