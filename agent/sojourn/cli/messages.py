"""What the agent says, as JSON has it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sojourn.cli.output import moment, whole

_TIMES: Final = re.compile(
    r"since|until|auth_time|last_push|\w+_(at|after|until)"
)  # seconds since the epoch, by their names


def told(message: Any, *but: str, **renamed: str) -> dict[str, Any]:
    """All fields of a message but for some, and under other names where these are given: `task="task_id"`.

    Times are `moment`s. A message, and what is `optional`, is None where it is absent.
    """
    names = {field: name for name, field in renamed.items()}
    fields = [field for field in message.DESCRIPTOR.fields if field.name not in but]
    return {names.get(field.name, field.name): _value(message, field) for field in fields}


def _value(message: Any, field: Any) -> Any:
    from google.protobuf.json_format import MessageToDict

    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Struct":
        return whole(MessageToDict(value))
    if field.has_presence and not message.HasField(field.name):
        return None
    if isinstance(value, Mapping):
        return {name: value[name] for name in sorted(value)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [told(each) if field.message_type is not None else each for each in value]
    if field.message_type is not None:
        return told(value)
    return moment(value) if isinstance(value, int | float) and _TIMES.fullmatch(field.name) else value
