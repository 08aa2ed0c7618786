"""tasktoken/end_reasons.py: why a task is over, and an operator's words to that."""

from sojourn.limits import AUDITED_TEXT
from sojourn.tasktoken.end_reasons import explanation_of, with_explanation


def test_with_an_explanation() -> None:
    """An operator's words stand behind the reason, and where there are none the reason stands alone."""
    assert ("revoked (it leaks)", "revoked") == (
        with_explanation("revoked", "it leaks"),
        with_explanation("revoked", ""),
    )


def test_an_explanation_is_told_as_it_is() -> None:
    """What an operator says is told as it is, in any script, without the spaces around it."""
    assert "é 漢字, and no more" == explanation_of("  é 漢字, and no more\n")


def test_nothing_that_a_terminal_obeys() -> None:
    """What cannot be printed is told as its escape."""
    assert "a\\x1b[2Jb\\u202ec\\nd" == explanation_of("a\x1b[2Jb\u202ec\nd")


def test_a_long_explanation() -> None:
    """Of a text without end so much is told as a record may have."""
    assert "x" * AUDITED_TEXT == explanation_of("x" * 100_000)
