"""Task IDs: `tsk_` and 128 random bits in base64url."""

import re
import secrets
from typing import Final

_PREFIX: Final = "tsk_"
_BYTES: Final = 16
_FORM: Final = re.compile(rf"{_PREFIX}[A-Za-z0-9_-]{{22}}")


def new_task_id() -> str:
    """An ID that no other task has, and that nobody can guess."""
    return _PREFIX + secrets.token_urlsafe(_BYTES)


def is_task_id(text: str) -> bool:
    """Whether a text has the form of a task's ID. There need be no such task."""
    return _FORM.fullmatch(text) is not None
