"""What the command says next to an error, and how it prints what is in force."""

from pathlib import Path

import pytest
from sojourn.cli import hints, output
from sojourn.cli.config import show
from sojourn.cli.output import show_error
from sojourn.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidConfig,
    NoIdentity,
    NotFound,
    PolicyDenied,
    SojournError,
    TaskOver,
)
from sojourn.errors.people import PersonRefused
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable

# Commands that ask the admin socket.
OPERATORS = (
    "audit",
    "explain",
    "status",
    "entry",
    "review",
    "federation",
    "bundle",
    "provider",
    "task list",
    "task why",
)


def hint(error: SojournError, capsys: pytest.CaptureFixture[str]) -> str:
    show_error(error, as_json=False)
    lines = capsys.readouterr().err.splitlines()
    return lines[1].removeprefix("next:  ") if len(lines) > 1 else ""


class TestHints:
    @pytest.mark.parametrize(
        "code", ["unknown_issuer", "wrong_kind", "wrong_presenter", "too_old", "issuer_unavailable"]
    )
    def test_a_persons_token(self, code: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Why a person's token is not taken is tried by an operator, whom others are told to ask."""
        assert "ask the operator: `sojourn person check NAME" in hint(PersonRefused(code, "no"), capsys)

    def test_entries_and_others(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Of what exists already only an entry is looked up among the entries."""
        assert "`sojourn entry list`" in hint(AlreadyExists("similar entry already exists"), capsys)
        assert not hint(AlreadyExists("the same person or workload has agreed already"), capsys)

    @pytest.mark.parametrize(
        ("text", "command"),
        [
            ("entry not found", "sojourn entry list"),
            ("failed to update entry", "sojourn entry list"),
            ("bundle not found", "sojourn bundle list"),
            ("federation relationship does not exist", "sojourn federation list"),
            ('no relationship with trust domain "b.example"', "sojourn federation list"),
            ("there is no such approval request", "sojourn approval list"),
            ("no review of such a task is owed", "sojourn review list"),
            ("there is no such task", "sojourn task list --all"),
        ],
    )
    def test_what_is_not_there(self, text: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Whoever names what is not there is told the command that lists what is."""
        assert f"`{command}`" in hint(NotFound(text), capsys)

    def test_no_hint_twice(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Where the error itself says what to do, nothing is added."""
        assert not hint(NotFound("process 7 has no identity: see `sojourn explain --pid 7`"), capsys)

    def test_each_fault_of_a_configuration_has_the_code(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Of many faults each is a line of its own with the stable code, and the next step stands once."""
        show_error(InvalidConfig(["a: unknown key", "b: is missing"]), as_json=False)
        *faults, cure = capsys.readouterr().err.splitlines()
        assert ["error: a: unknown key [invalid_config]", "error: b: is missing [invalid_config]"] == faults
        assert "`sojourn config explain`" in cure

    def test_suspended(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Whoever holds a suspended task is not only told to begin another."""
        assert "wait until it is resumed" in hint(TaskOver("the task is suspended: the shop is closed"), capsys)

    def test_denied(self, capsys: pytest.CaptureFixture[str]) -> None:
        """A denial may come of a fact, a switch or the type's own rules; the journal says which."""
        assert "`sojourn audit tail`" in hint(PolicyDenied("no task type takes this fact"), capsys)

    def test_who_is_no_operator(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Nobody is told to run what only operators may: others are told what to ask them for, and what they can do."""
        monkeypatch.setattr(output, "operates", lambda: False)
        denied = PolicyDenied("policy says no")
        workloads = "the task type, facts and switches decide; ask the operator: `sojourn audit tail` has the record"
        assert workloads == hint(denied, capsys)
        assert "ask the operator: `sojourn explain --pid PID`" in hint(NoIdentity("no identity issued"), capsys)
        assert "begin a new task" in hint(TaskOver("the task is over"), capsys)
        assert "ask the operator: `sojourn task list --all`" in hint(NotFound("there is no such task"), capsys)
        for code in hints._NEXT:
            told = hints.hint(code, "", operator=False)
            before, _, asked = told.partition("ask the operator: ")
            assert not [each for each in OPERATORS if f"`sojourn {each}" in before], told
            assert hints.hint(code, "", operator=True) == before + asked

    def test_who_is(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Whoever may connect to the admin socket, or did so for this answer, is told the command itself."""
        theirs = "the task type, facts and switches decide; `sojourn audit tail` has the record"
        monkeypatch.setattr(output, "operates", lambda: True)
        assert theirs == hint(PolicyDenied("policy says no"), capsys)
        monkeypatch.setattr(output, "operates", lambda: False)
        denied = PolicyDenied("policy says no")
        denied.by_operator = True
        assert theirs == hint(denied, capsys)

    def test_providers(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Where a provider outside fails, the next step is the command that finds out why."""
        for error in (ProviderRefused("no such client"), ProviderUnavailable("it does not answer")):
            assert "`sojourn provider check NAME" in hint(error, capsys)

    def test_foreign_bundles(self, capsys: pytest.CaptureFixture[str]) -> None:
        """An entry that wants a bundle that is not there: both ways to get one are named."""
        missing = FailedPrecondition('failed to create entry: unable to find federated bundle "spiffe://b.example"')
        assert "`sojourn federation create`" in hint(missing, capsys)
        assert not hint(FailedPrecondition("not now"), capsys)


def test_lists_in_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lists are printed as their members, and of issuers of signals who they are."""
    file = tmp_path / "agent.toml"
    file.write_text(
        'node_aliases = ["spiffe://example.org/a", "spiffe://example.org/b"]\n'
        '[[signals]]\nissuer = "https://idp.example.net/"\njwks = "keys.json"\n'
    )
    for key, value in (
        ("node_aliases", "spiffe://example.org/a, spiffe://example.org/b"),
        ("signals", "https://idp.example.net/"),
        ("metrics.listen", ""),
    ):
        show(key, config=file)
        assert f"{value}\n" == capsys.readouterr().out
