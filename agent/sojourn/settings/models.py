"""Reads a plugin's own table of the configuration with its own model."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from sojourn.errors import InvalidConfig

_Model = TypeVar("_Model", bound=BaseModel)
# What pydantic says of these is about Python.
_PLAIN: Final = {
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "string_type": "must be text, in quotes",
    "missing": "is missing",
}


def read_settings(model: type[_Model], settings: Mapping[str, Any]) -> _Model:
    """What an operator wrote, as `model` reads it. Raise InvalidConfig with all its faults."""
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        raise InvalidConfig(faults_of(error, model)) from error


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """What is wrong, one line each, beginning with the key. Values are not shown: they might be secret."""
    faults = []
    for each in error.errors(include_url=False, include_context=False, include_input=False):
        key = ".".join(str(part) for part in each["loc"])
        message = plain(each["type"], each["msg"])
        if each["type"] == "extra_forbidden":
            there = f"; there are {', '.join(model.model_fields)}" if len(each["loc"]) == 1 else ""
            message = f"unknown key{there}"
        faults.append(f"{key}: {message}" if key else message)
    return faults


def plain(kind: str, message: str) -> str:
    """What pydantic says of a fault of that kind, for somebody who has written TOML."""
    return _PLAIN.get(kind, message.removeprefix("Value error, "))
