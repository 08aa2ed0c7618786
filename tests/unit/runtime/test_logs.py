"""logs.py: one JSON object a line, and never a secret. In a process of its own: logging is the process's."""

import json
import subprocess
import sys

import pytest

SECRET = "eyJhbGciOiJFUzI1NiJ9.c2VjcmV0.c2lnbmF0dXJl"
START = """
import logging, sys
import structlog
from sojourn.runtime import logs
logs.configure(LEVEL)
log = structlog.get_logger()
"""


def logged(code, level="info"):
    """What a process that runs `code` logs, line by line."""
    done = subprocess.run(
        [sys.executable, "-c", f"LEVEL = {level!r}\n{START}\n{code}"], capture_output=True, text=True, timeout=60
    )
    assert (0, "") == (done.returncode, done.stdout), done.stderr
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_one_object_a_line():
    """An event is one line of JSON with name, level and time."""
    (line,) = logged('log.info("happened", count=3, nothing=None)')
    assert ("happened", "info", 3) == (line["event"], line["level"], line["count"])
    assert line["timestamp"].endswith("Z")
    assert "nothing" not in line


def test_every_line_is_heard():
    """Who listens to the log hears every line with its method, also those that the level drops."""
    code = """
structlog.reset_defaults()
heard = []
logs.configure("error", lambda method, event: heard.append([method, event["event"]]))
log = structlog.get_logger()
log.info("quiet"); log.warning("louder", x=1)
log.error("said", heard=heard)
"""
    [line] = logged(code)
    assert [["info", "quiet"], ["warning", "louder"], ["error", "said"]] == line["heard"]


@pytest.mark.parametrize("text", ["a\nb", "\x1b[2J", "\r", "\x00", "\u2028", "\x9b31m", '"}\n{"event": "forged'])
def test_control_characters_are_escaped(text):
    """Whatever a field holds, the line stays one line, in ASCII."""
    done = subprocess.run(
        [sys.executable, "-c", f'LEVEL = "info"\n{START}\nlog.info("x", field={text!r})'],
        capture_output=True,
        timeout=60,
    )
    assert 1 == done.stderr.count(b"\n")
    assert done.stderr.rstrip(b"\n").decode("ascii").isprintable()
    assert text == json.loads(done.stderr)["field"]


@pytest.mark.parametrize("how", ['log.exception("failed")', 'logging.getLogger("asyncio").exception("failed")'])
def test_local_variables_never_reach_the_log(how):
    """An exception is logged with its frames and without their variables: a token in one is not in the log."""
    code = f"""
def inner(token):
    copies = [token, {{"token": token}}]
    raise ValueError("broken")
try:
    inner({SECRET!r})
except ValueError:
    {how}
"""
    (line,) = logged(code)
    assert "ValueError" in json.dumps(line)
    assert "inner" in json.dumps(line)
    assert SECRET not in json.dumps(line)
    assert "c2VjcmV0" not in json.dumps(line)


def test_chained_exceptions():
    """Causes are logged, without variables too."""
    code = f"""
def inner(token):
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error
try:
    inner({SECRET!r})
except ValueError:
    log.exception("failed")
"""
    (line,) = logged(code)
    assert "KeyError" in json.dumps(line)
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level, expected):
    """Nothing below the level is logged."""
    code = "\n".join(f'log.{name}("{name}")' for name in ("debug", "info", "warning", "error"))
    assert expected == [line["event"] for line in logged(code, level)]


def test_libraries_speak_the_same_form():
    """What libraries log comes in the same form, from warnings on, cut to a length."""
    lines = logged('logging.getLogger("lib").info("no"); logging.getLogger("lib").warning("x%s", "y" * 5000)', "debug")
    assert [("library_message", "lib", 2000)] == [
        (line["event"], line["logger"], len(line["message"])) for line in lines
    ]


def test_critical_messages_of_libraries():
    """The highest level of a library's message is logged too."""
    (line,) = logged('logging.getLogger("lib").critical("x")')
    assert "x" == line["message"]


@pytest.mark.parametrize("call", ['warning("%d", "not a number")', 'log(35, "a level of its own")'])
def test_a_library_s_mistake_harms_nobody(call):
    """A library that logs badly does not get an exception for it."""
    assert isinstance(logged(f'logging.getLogger("lib").{call}'), list)
