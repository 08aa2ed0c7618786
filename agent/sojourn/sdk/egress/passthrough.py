"""What an egress proxy lets through as it is: requests to origins that are not the task's, without a token of it."""

import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from sojourn.errors import InvalidInput
from sojourn.limits import PROXY_ANSWER_SECONDS, PROXY_CHUNK_BYTES, PROXY_CONNECT_SECONDS, PROXY_PASSES
from sojourn.sdk.client.extras import extra
from sojourn.sdk.egress.http1 import BROKEN, Wire
from sojourn.sdk.request import grant_match
from sojourn.tasktoken.grants import Grant

with extra("http"):
    import anyio
    import anyio.abc

_ENDED: Final = (anyio.EndOfStream, *BROKEN)


@dataclass(frozen=True, slots=True)
class Passes:
    """The origins, each as `SCHEME://HOST[:PORT]`."""

    origins: tuple[str, ...] = ()

    @classmethod
    def of(cls, urls: Iterable[str], grants: Iterable[Grant]) -> Self:
        """Raise InvalidInput for what is no origin, for too many, and for one where the task has something itself."""
        origins = tuple(dict.fromkeys(grant_match.origin_of(url) for url in urls))
        if len(origins) > PROXY_PASSES:
            raise InvalidInput(f"a proxy lets no more than {PROXY_PASSES} origins through")
        held = tuple(grants)
        for origin in origins:
            place = grant_match.UrlPlace.parse(origin)
            if place is not None and place.endpoint in grant_match.endpoints(held, place.scheme):
                raise InvalidInput(f"{origin} is within the task: what goes there has the task's token")
        return cls(origins)

    @property
    def tls(self) -> bool:
        """Whether there is TLS that the command itself verifies."""
        return any(each.startswith("https:") for each in self.origins)

    def has(self, scheme: str, endpoint: str) -> bool:
        """Whether this HOST:PORT is let through."""
        places = (grant_match.UrlPlace.parse(origin) for origin in self.origins)
        return any(each is not None and (each.scheme, each.endpoint) == (scheme, endpoint.lower()) for each in places)


def trusted_without_proxy(file: str | None) -> bytes:
    """The certificates of the authorities in `file` and of those that the system trusts, as PEM. Raise InvalidInput."""
    places = ssl.get_default_verify_paths()
    found = [Path(file)] if file is not None else []
    if places.cafile:
        found.append(Path(places.cafile))
    elif places.capath:
        found += sorted(Path(places.capath).glob("*.[0-9]"))
    try:
        return b"".join(b"\n" + each.read_bytes() for each in found)
    except OSError as error:
        raise InvalidInput(f"the authorities that the system trusts cannot be read: {error.strerror}") from error


async def tunnel(wire: Wire, endpoint: str) -> None:
    """Carry the bytes of a CONNECT to HOST:PORT and back until both sides have ended. Raise OSError or TimeoutError if
    nobody is there, before the command is told anything.
    """
    host, port = grant_match.split_port(endpoint)
    with anyio.fail_after(PROXY_CONNECT_SECONDS):
        upstream = await anyio.connect_tcp(host.strip("[]"), int(port))
    async with upstream:
        await wire.connected()
        await _both_ways(wire.stream, upstream)


async def _both_ways(command: anyio.abc.ByteStream, service: anyio.abc.ByteStream) -> None:
    async with anyio.create_task_group() as group:
        group.cancel_scope.deadline = anyio.current_time() + PROXY_ANSWER_SECONDS
        group.start_soon(_carry, command, service, group.cancel_scope)
        group.start_soon(_carry, service, command, group.cancel_scope)


async def _carry(source: anyio.abc.ByteStream, target: anyio.abc.ByteStream, both: anyio.CancelScope) -> None:
    """One direction. Its end is told to the target; both directions end together where that fails, or for silence."""
    try:
        while True:
            data = await source.receive(PROXY_CHUNK_BYTES)
            both.deadline = anyio.current_time() + PROXY_ANSWER_SECONDS
            await target.send(data)
    except anyio.EndOfStream:
        try:
            await target.send_eof()
        except _ENDED:
            both.cancel()
    except BROKEN:
        both.cancel()
