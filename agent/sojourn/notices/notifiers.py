"""Who takes notices to people: a command on this machine, or a webhook."""

import asyncio
import json
import os
import re
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from sojourn.config.approval_notifier import ApprovalNotifierConfig
from sojourn.errors import InvalidInput, quoted
from sojourn.files import trusted
from sojourn.limits import NOTICE_STDERR_MAX, NOTICE_TOKEN_MAX_BYTES
from sojourn.notices.outbox import Courier, NotDelivered
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import Http
from sojourn.runtime import own_programs

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750, 2.1
_READ_BYTES: Final = 65_536  # what a pipe holds


def courier_of(config: ApprovalNotifierConfig) -> Courier | None:
    """The one that the configuration names, if it does. Raise InvalidConfig if `ca` is not a file of certificates."""
    if config.command is not None:
        return Command(config.command, config.timeout.total_seconds())
    if config.webhook is None:
        return None
    from sojourn.providers.guarded_http import GuardedHttp
    from sojourn.settings.outside import OutsideTable

    table = OutsideTable(
        timeout=config.timeout,
        ca=config.ca,
        private_networks=config.private_networks,
        plain_http=True,  # to loopback addresses, which alone the configuration has as http
    )
    return Webhook(config.webhook, config.token_file, GuardedHttp(table))


class Webhook:
    """Posts each notice as JSON; an answer of 2xx says that it has arrived. No redirect is followed."""

    def __init__(self, url: str, token_file: Path | None, http: Http) -> None:
        self._url = url
        self._token_file = token_file
        self._http = http

    def check(self) -> str:
        try:
            self._headers()
        except NotDelivered as error:
            return error.public
        return ""

    async def deliver(self, message: Mapping[str, Any]) -> None:
        headers = {"idempotency-key": str(message["id"]), **await asyncio.to_thread(self._headers)}
        try:
            answer = await self._http.post_json(self._url, message, step="webhook", headers=headers)
        except ProviderUnavailable as error:
            raise NotDelivered(f"webhook: {error.public}", detail=error.detail) from error
        if not 200 <= answer.status < 300:
            raise NotDelivered(f"webhook: it answered with status {answer.status}")

    async def close(self) -> None:
        await self._http.close()

    def _headers(self) -> dict[str, str]:
        """The token is read anew each time: it may be renewed."""
        if self._token_file is None:
            return {}
        try:
            token = trusted.read(self._token_file, NOTICE_TOKEN_MAX_BYTES).strip()
        except InvalidInput as error:
            raise NotDelivered(f"token_file: {error.public}") from error
        if not _TOKEN.fullmatch(token):
            raise NotDelivered("token_file: it has no bearer token in it, and nothing else")
        return {"authorization": f"Bearer {token}"}


class Command:
    """Runs a program as the agent's user for each notice, with the JSON on its standard input and no shell; its end
    with status 0 says that the notice has arrived.
    """

    def __init__(self, argv: tuple[str, ...], seconds: float) -> None:
        self._argv = argv
        self._seconds = seconds

    def check(self) -> str:
        """Also whether somebody else could have written the program."""
        try:
            trusted.check_owner(os.stat(self._argv[0]))
        except InvalidInput as error:
            return f"command: {error.public}"
        except OSError as error:
            return f"command: {quoted(self._argv[0])} cannot be run: {error.strerror}"
        return "" if os.access(self._argv[0], os.X_OK) else f"command: {quoted(self._argv[0])} is not executable"

    async def deliver(self, message: Mapping[str, Any]) -> None:
        if fault := self.check():
            raise NotDelivered(fault)
        with _Said() as said, os.fdopen(os.memfd_create("notice", os.MFD_CLOEXEC), "w+b", 0) as content:
            content.write(json.dumps(message).encode() + b"\n")
            content.seek(0)
            status = await self._run(content.fileno(), said)
            if status:
                raise NotDelivered(f"command: it ended with status {status}{said.words}")

    async def _run(self, content: int, said: "_Said") -> int:
        """The exit status. Raise NotDelivered if there is none, with the program killed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=content,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said.writing,
                env=own_programs.environment(),
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise NotDelivered(f"command: {quoted(self._argv[0])} cannot be run: {error.strerror}") from error
        try:
            async with asyncio.timeout(self._seconds):
                return await process.wait()
        except TimeoutError:
            raise NotDelivered(f"command: it did not end in {self._seconds:g} s{said.words}") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await asyncio.shield(process.wait())

    async def close(self) -> None:
        """Nothing is kept."""


class _Said:
    """What a program says on its standard error: its beginning. What outlives the program may hold that open."""

    def __enter__(self) -> Self:
        self._kept = bytearray()
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reading, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reading, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        os.close(self.writing)

    @property
    def words(self) -> str:
        """For people, after a colon; empty if it said nothing."""
        self._hear()
        text = " ".join(self._kept.decode(errors="replace").split())
        return f": {quoted(text[:NOTICE_STDERR_MAX])}" if text else ""

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            read = os.read(self._reading, _READ_BYTES)
            self._kept += read[: max(0, 4 * NOTICE_STDERR_MAX - len(self._kept))]
