"""The table [approval_notifier] of the configuration: who is told that a task waits for someone to agree."""

from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from sojourn.limits import NOTICE_COMMAND_WORDS, NOTICE_DEADLINE_MAX_SECONDS, NOTICE_DEADLINE_SECONDS
from sojourn.net.allowed_addresses import is_loopback, parse_address
from sojourn.net.urls import parse_url
from sojourn.settings.outside import Networks
from sojourn.settings.tables import Duration, FilePath, Table, between


class ApprovalNotifierConfig(Table):
    """Off unless there is a `command`, which gets each notice on its standard input, or a `webhook`, to which it is
    posted.
    """

    command: (
        Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1, max_length=NOTICE_COMMAND_WORDS)]
        | None
    ) = None
    webhook: str | None = None
    token_file: FilePath | None = None  # with the bearer token that the webhook is shown
    ca: FilePath | None = None  # a PEM file: who may have signed the webhook's certificate; default: the system's
    private_networks: Networks = ()  # not public, and may be connected to
    timeout: Annotated[Duration, between(timedelta(seconds=0.1), timedelta(seconds=NOTICE_DEADLINE_MAX_SECONDS))] = (
        timedelta(seconds=NOTICE_DEADLINE_SECONDS)
    )

    @field_validator("command")
    @classmethod
    def _program(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and not value[0].startswith("/"):
            raise ValueError("begins with the absolute path of a program: no shell looks for it")
        if value is not None and any("\0" in each for each in value):
            raise ValueError("has a NUL character, which no argument can have")
        return value

    @field_validator("webhook")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = parse_url(value)  # its ValueError says what is wrong
        address = parse_address(url.host)
        if url.scheme != "https" and url.host != "localhost" and (address is None or not is_loopback(address)):
            raise ValueError("is not an https URL: plain http is for loopback addresses alone")
        return value

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.command is not None and self.webhook is not None:
            raise ValueError("has a command and a webhook: it is one of them")
        if self.webhook is None:
            for key in ("token_file", "ca", "private_networks"):
                if getattr(self, key):
                    raise ValueError(f"{key} is for a webhook, and there is none")
        return self
