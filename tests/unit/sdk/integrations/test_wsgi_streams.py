"""Uploads and answers in parts, over WSGI: each ends with its task."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sojourn.sdk.integrations.task_over import TaskIsOver
from sojourn.sdk.integrations.wsgi_streams import answer_while_live


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
    return answer_while_live(lambda environ, start: answer, environ(), lambda *_: None, over)


def environ(content: bytes = b"") -> dict[str, Any]:
    return {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(content)}


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
        answer_while_live(app, environ(), lambda *_: written.append, lambda: "".join(ended))
    assert [b"a"] == written


def test_one_part() -> None:
    """An answer of one part is handed on as it is: its token has just been judged."""
    answer = [b"whole"]
    assert begin(answer, lambda: "the task is over") is answer


LINES = b"first\nsecond\nthird\n"
READS: list[Callable[[Any], object]] = [
    lambda content: content.read(6),
    lambda content: content.readline(),
    lambda content: content.readlines(1),
    lambda content: next(iter(content)),
]


@pytest.mark.parametrize("read", READS, ids=["read", "readline", "readlines", "iterated"])
def test_an_upload_after_its_end(read: Callable[[Any], object]) -> None:
    """Whichever way content is read, what comes after the task's end fails with the reason, and the client is told it."""
    ended: list[str] = []
    handled: list[object] = []
    said: list[Any] = []

    def app(environ: Any, _start_response: Any) -> list[bytes]:
        while found := read(environ["wsgi.input"]):
            handled.append(found)
            ended.append("the task is over: revoked")
        raise AssertionError("it was read to its end")

    [body] = answer_while_live(app, environ(LINES), lambda *given: said.append(given), lambda: "".join(ended))
    assert (1, "401 Unauthorized", True) == (len(handled), said[0][0], b"the task is over: revoked" in body)


def test_an_upload_while_it_lives() -> None:
    """Content is read whole while the task lives, and its end is its end whatever becomes of the task."""
    ended: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        content = environ["wsgi.input"]
        found = content.read()
        ended.append("the task is over")
        assert b"" == content.read()
        start_response("200 OK", [])
        return [found]

    assert [LINES] == answer_while_live(app, environ(LINES), lambda *_: None, lambda: "".join(ended))


@pytest.mark.parametrize(("status", "told"), [("500 Internal Server Error", "401"), ("207 Multi-Status", "207")])
def test_what_a_framework_makes_of_it(status: str, told: str) -> None:
    """An error that a framework has made of the failed read is the reason for the client; an answer stays one."""
    said: list[str] = []
    answer = Answer(b"oops")

    def app(environ: Any, start_response: Any) -> Answer:
        with pytest.raises(TaskIsOver):
            environ["wsgi.input"].read()
        start_response(status, [])
        return answer

    sent = answer_while_live(app, environ(LINES), lambda status, *_: said.append(status), lambda: "the task is over")
    body = b"".join(sent) if told == "401" else b""
    assert [told] == [each[:3] for each in said]
    assert (told == "401") == (b"the task is over" in body) == answer.closed
