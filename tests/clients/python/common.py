"""What the Python clients share: their lines, their flags, and becoming another user."""

import argparse
import concurrent.futures.thread  # noqa: F401  # before the user changes: it may not be able to read it then
import encodings.idna  # noqa: F401
import json
import os
import re


def emit(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def emit_error(error: BaseException, code: str | None = None) -> None:
    emit("error", message=str(error), **({"code": code} if code else {}))


def duration(text: str) -> float:
    """`10s` or `100ms` in seconds."""
    found = re.fullmatch(r"([0-9]+)(ms|s)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration")
    return int(found[1]) / (1000 if found[2] == "ms" else 1)


def add_uid(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-uid", type=int, help="become this user, who may not be able to read the interpreter's files")


def become(uid: int | None) -> None:
    if uid is not None:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
