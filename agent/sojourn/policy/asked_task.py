"""What a question says of its task: what that has done so far.

Which attributes it may say, and as what, stands beside each field of `Principal`. Cases say them in a table, the API
and the command as texts, by the names that explanations show: `tokens_issued`, `uses[refund:create]`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetPydanticSchema, ValidationError, create_model

from sojourn.errors import InvalidInput
from sojourn.policy.cedar_schema import ATTRIBUTES, UNSAID
from sojourn.policy.task_type_tables import renamed

_SAID: type[BaseModel] = create_model(
    "AskedTask",
    __config__=ConfigDict(frozen=True, extra="forbid"),
    calls=(Annotated[Any, renamed("reported_calls")], None),
    **{name: (attribute.said, attribute.unsaid) for name, attribute in ATTRIBUTES if name in UNSAID},  # type: ignore[call-overload]
)
TaskTable = Annotated[Any, GetPydanticSchema(lambda _source, handler: handler.generate_schema(_SAID))]


def attributes_of(table: Any) -> dict[str, Any]:
    """The attributes that a table which was read says, or that a task has where it says nothing."""
    return {name: getattr(table, name) for name in UNSAID} if table is not None else dict(UNSAID)


def read_texts(texts: Mapping[str, str]) -> dict[str, Any]:
    """The attributes that texts say, or that a task has where they say nothing. Raise InvalidInput."""
    said: dict[str, Any] = {}
    for name, text in texts.items():
        attribute, of_one, part = name.partition("[")
        if of_one and part.endswith("]") and isinstance(said.setdefault(attribute, {}), dict):
            said[attribute][part[:-1]] = text
        else:
            said[name] = text
    try:
        return attributes_of(_SAID.model_validate_strings(said))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"attribute {where[:64]!r} of a task: {first['msg']}") from None
