"""Answers in parts, over WSGI: each ends with its task."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sojourn.sdk.integrations.wsgi_streams import TaskIsOver, answer_while_live


class Answer:
    """Parts of an answer, as a generator of Flask's is: it is closed by who reads it."""

    def __init__(self, *parts: bytes) -> None:
        self._parts = parts
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._parts)

    def close(self) -> None:
        self.closed = True


def begin(answer: Any, over: Callable[[], str]) -> Any:
    return answer_while_live(lambda environ, start: answer, {}, lambda *_: None, over)


def test_parts_while_it_lives() -> None:
    """An answer goes out whole while its task lives, and is closed as the server says."""
    answer = Answer(b"a", b"b", b"c")
    sent = begin(answer, lambda: "")
    assert [b"a", b"b", b"c"] == list(sent)
    sent.close()
    assert answer.closed


def test_parts_after_its_end() -> None:
    """Nothing more is sent once the task is over; what was sent stays, and the answer can be closed."""
    answer = Answer(b"a", b"b", b"c")
    ended: list[str] = []
    sent = begin(answer, lambda: "".join(ended))
    parts = iter(sent)
    assert (b"a", b"b") == (next(parts), next(parts))
    ended.append("the task is over: completed")
    with pytest.raises(TaskIsOver, match="completed"):
        next(parts)
    sent.close()
    assert answer.closed


def test_written_parts() -> None:
    """What an application writes by the server's `write` ends with the task too."""
    written: list[bytes] = []
    ended: list[str] = []

    def app(_environ: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"a")
        ended.append("the task is over")
        write(b"b")
        return []

    with pytest.raises(TaskIsOver):
        answer_while_live(app, {}, lambda *_: written.append, lambda: "".join(ended))
    assert [b"a"] == written


def test_one_part() -> None:
    """An answer of one part is handed on as it is: its token has just been judged."""
    answer = [b"whole"]
    assert begin(answer, lambda: "the task is over") is answer
