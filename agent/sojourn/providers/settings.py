"""Reads what an operator wrote for a provider: its table of the configuration, and a task type's `ask`."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from sojourn.errors import InvalidConfig, InvalidInput
from sojourn.providers.provider import ProviderTable
from sojourn.providers.urls import parse_url

_Table = TypeVar("_Table", bound=ProviderTable)
_Ask = TypeVar("_Ask", bound=BaseModel)


def _endpoint(value: str) -> str:
    parse_url(value)  # its ValueError says what is wrong
    return value


Endpoint = Annotated[str, AfterValidator(_endpoint)]  # an absolute http or https URL; http is for loopback alone


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


def read_table(model: type[_Table], settings: Mapping[str, Any]) -> _Table:
    """The table of a provider as its kind reads it. Raise InvalidConfig with all its faults."""
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        raise InvalidConfig(faults_of(error, model)) from error


def read_ask(model: type[_Ask], ask: Mapping[str, Any]) -> _Ask:
    """What a task type asks a provider with. Raise InvalidInput that names every key that is wrong."""
    try:
        return model.model_validate(dict(ask))
    except ValidationError as error:
        raise InvalidInput("; ".join(f"ask.{fault}" for fault in faults_of(error, model))) from error
