"""Reads a plugin's own table of the configuration with its own model."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sojourn.errors import InvalidConfig

_Model = TypeVar("_Model", bound=BaseModel)


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
        message = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            there = f"; there are {', '.join(model.model_fields)}" if len(each["loc"]) == 1 else ""
            message = f"unknown key{there}"
        faults.append(f"{key}: {message}" if key else message)
    return faults
