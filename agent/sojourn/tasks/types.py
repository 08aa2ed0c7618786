"""Task types: policy-as-code, one NAME.toml with its NAME.cedar beside it."""

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sojourn import trusted
from sojourn.config import Duration, between, line_numbers
from sojourn.errors import InvalidInput, InvalidPolicy, SojournError
from sojourn.limits import (
    CONFIG_MAX_BYTES,
    PARAM_MAX_BYTES,
    PARAMS_PER_TASK,
    TASK_MAX_SECONDS,
    TASK_MIN_SECONDS,
    TASK_TYPES,
    TOKEN_TTL_HIGH_CLASS_SECONDS,
    TOKEN_TTL_MAX_SECONDS,
)
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasks.grants import Authority, Grant
from sojourn.tasks.policy import Param, Policy

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PARAM_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


class _Ceiling(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    resource: str
    actions: tuple[str, ...]


class _File(BaseModel):
    """NAME.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = ""
    allowed_workloads: Annotated[tuple[str, ...], Field(min_length=1)]
    max_duration: Annotated[
        Duration, between(timedelta(seconds=TASK_MIN_SECONDS), timedelta(seconds=TASK_MAX_SECONDS))
    ] = timedelta(minutes=15)
    token_ttl: Annotated[Duration, between(timedelta(seconds=1), timedelta(seconds=TOKEN_TTL_MAX_SECONDS))] = timedelta(
        seconds=TOKEN_TTL_MAX_SECONDS
    )
    idle_timeout: Annotated[
        Duration | None, between(timedelta(seconds=TASK_MIN_SECONDS), timedelta(seconds=TASK_MAX_SECONDS))
    ] = None
    max_tokens: Annotated[int, Field(ge=1, strict=True)] | None = None
    max_calls: Annotated[int, Field(ge=1, strict=True)] | None = None
    consequence: Literal["normal", "high"] = "normal"
    params: Mapping[str, Literal["string", "long", "boolean"]] = Field(default_factory=dict)
    ceiling: Annotated[tuple[_Ceiling, ...], Field(min_length=1)]

    @field_validator("allowed_workloads")
    @classmethod
    def _workloads(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                SpiffeId.parse(text)
            except SojournError as error:
                raise ValueError(f"{text[:100]!r} is not a SPIFFE ID: {error.public}") from None
        return value

    @field_validator("params")
    @classmethod
    def _names(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        for name in value:
            if not _PARAM_NAME.fullmatch(name):
                raise ValueError(f"{name[:64]!r} is not a parameter name of letters, digits and _")
        return value


@dataclass(frozen=True)
class TaskType:
    """One task type, checked and compiled. `digest` is SHA-256 over both files, lower-case hex."""

    name: str
    description: str
    allowed_workloads: frozenset[SpiffeId]
    max_duration: timedelta
    token_ttl: timedelta
    idle_timeout: timedelta | None
    max_tokens: int | None
    max_calls: int | None
    params: Mapping[str, str]
    ceiling: Authority
    policy: Policy
    digest: str

    def read_params(self, given: Mapping[str, str]) -> dict[str, Param]:
        """Check parameters against the type's and give each its type. Raise InvalidInput naming the first fault."""
        if len(given) > PARAMS_PER_TASK:
            raise InvalidInput(f"more than {PARAMS_PER_TASK} parameters")
        read: dict[str, Param] = {}
        for name, text in given.items():
            kind = self.params.get(name)
            if kind is None:
                raise InvalidInput(f"task type {self.name!r} has no parameter {name[:64]!r}")
            if len(text.encode()) > PARAM_MAX_BYTES:
                raise InvalidInput(f"parameter {name!r} is longer than {PARAM_MAX_BYTES} bytes")
            read[name] = _read_param(name, kind, text)
        return read


def parse(name: str, toml: str, cedar: str) -> TaskType:
    """Make a task type of its two files. Raise InvalidPolicy with all that is wrong."""
    if not _NAME.fullmatch(name):
        raise InvalidPolicy("a task type's name has lower-case letters, digits and dashes, at most 64")
    try:
        file = _File.model_validate(tomllib.loads(toml))
    except tomllib.TOMLDecodeError as error:
        raise InvalidPolicy(f"not TOML: {error}") from error
    except ValidationError as error:
        lines = line_numbers(toml)
        raise InvalidPolicy("; ".join(_fault(fault, lines) for fault in error.errors())) from None
    try:
        ceiling = Authority.of(Grant.parse(each.resource, each.actions) for each in file.ceiling)
    except InvalidInput as error:
        raise InvalidPolicy(f"ceiling: {error.public}") from error
    actions = sorted({action for grant in ceiling.grants for action in grant.actions})
    token_ttl = file.token_ttl
    if file.consequence == "high":
        token_ttl = min(token_ttl, timedelta(seconds=TOKEN_TTL_HIGH_CLASS_SECONDS))
    return TaskType(
        name=name,
        description=file.description,
        allowed_workloads=frozenset(SpiffeId.parse(text) for text in file.allowed_workloads),
        max_duration=file.max_duration,
        token_ttl=token_ttl,
        idle_timeout=file.idle_timeout,
        max_tokens=file.max_tokens,
        max_calls=file.max_calls,
        params=dict(file.params),
        ceiling=ceiling,
        policy=Policy(cedar, actions, file.params),
        digest=hashlib.sha256(f"{toml}\0{cedar}".encode()).hexdigest(),
    )


def load(folder: Path) -> dict[str, TaskType]:
    """Load every task type of a folder, whole or not at all. Raise InvalidPolicy with the faults of all files."""
    try:
        trusted.check_owner(folder.stat())
        names = sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.suffix == ".toml")
    except OSError as error:
        raise InvalidPolicy(f"{folder}: cannot be read: {error.strerror}") from error
    except InvalidInput as error:
        raise InvalidPolicy(f"{folder}: {error.public}") from error
    if len(names) > TASK_TYPES:
        raise InvalidPolicy(f"{folder}: more than {TASK_TYPES} task types")
    found: dict[str, TaskType] = {}
    faults: list[str] = []
    for name in names:
        toml, cedar = folder / f"{name}.toml", folder / f"{name}.cedar"
        try:
            if not cedar.exists():
                faults.append(f"{cedar}: there is no policy beside {toml.name}")
                continue
            found[name] = parse(name, *(trusted.read(path, CONFIG_MAX_BYTES) for path in (toml, cedar)))
        except InvalidInput as error:
            faults.append(f"{toml}: {error.public}")
    if faults:
        raise InvalidPolicy("; ".join(faults))
    return found


def _read_param(name: str, kind: str, text: str) -> Param:
    if kind == "string":
        return text
    if kind == "boolean":
        if text not in {"true", "false"}:
            raise InvalidInput(f"parameter {name!r} is not true or false")
        return text == "true"
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise InvalidInput(f"parameter {name!r} is not a whole number of at most 18 digits")
    return int(text)


def _fault(fault: object, lines: Mapping[str, int]) -> str:
    assert isinstance(fault, dict)
    key = ".".join(str(part) for part in fault["loc"])
    message = "unknown key" if fault["type"] == "extra_forbidden" else str(fault["msg"]).removeprefix("Value error, ")
    line = lines.get(key) or lines.get(str(fault["loc"][0]))
    return f"line {line}: {key}: {message}" if line else f"{key}: {message}"
