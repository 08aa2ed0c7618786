"""Reads what an operator wrote for a provider in a task type, `ask`, and the addresses in its table."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from sojourn.errors import InvalidInput
from sojourn.net.urls import parse_url
from sojourn.settings.models import faults_of

_Ask = TypeVar("_Ask", bound=BaseModel)


def _endpoint(value: str) -> str:
    parse_url(value)  # its ValueError says what is wrong
    return value


Endpoint = Annotated[str, AfterValidator(_endpoint)]  # an absolute http or https URL; http is for loopback alone


def read_ask(model: type[_Ask], ask: Mapping[str, Any]) -> _Ask:
    """What a task type asks a provider with. Raise InvalidInput that names every key that is wrong."""
    try:
        return model.model_validate(dict(ask))
    except ValidationError as error:
        raise InvalidInput("; ".join(f"ask.{fault}" for fault in faults_of(error, model))) from error
