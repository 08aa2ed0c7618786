"""At which address a SPIRE server is asked: one of all that its names have, and the same for as long as it answers."""

import asyncio
import random
from collections.abc import Sequence
from typing import Protocol

from sojourn.errors import InvalidInput, UpstreamUnavailable
from sojourn.limits import UPSTREAM_LOOKUP_SECONDS
from sojourn.net.allowed_addresses import Address


class Resolver(Protocol):
    """Names to addresses."""

    async def of(self, host: str, port: int, /) -> list[Address]:
        """Raise OSError if there is none."""


class ServerAddresses:
    """Addresses in an order of chance, so that nodes spread over the servers; names are looked up again when no
    address is left that has not failed.
    """

    def __init__(self, names: Sequence[str], resolver: Resolver) -> None:
        """`names`: each HOST:PORT. Raise InvalidInput if there is none, or one is not."""
        if not names:
            raise InvalidInput("no SPIRE server is named")
        self._names = [_parts(each) for each in names]
        self._resolver = resolver
        self._left: list[str] = []

    @property
    def present(self) -> str:
        """The address that is asked; empty: none was looked up yet, or all have failed."""
        return self._left[0] if self._left else ""

    @property
    def others(self) -> int:
        """How many more there are that have not failed."""
        return max(0, len(self._left) - 1)

    async def get(self) -> str:
        """HOST:PORT of the one to ask, HOST an IP address. Raise UpstreamUnavailable if no name has any."""
        if not self._left:
            self._left = await self._looked_up()
        return self._left[0]

    def failed(self, address: str) -> None:
        """It does not answer: the next one is asked."""
        if address in self._left:
            self._left.remove(address)

    async def _looked_up(self) -> list[str]:
        answers = await asyncio.gather(*(self._addresses_of(*each) for each in self._names))
        order = list(dict.fromkeys(each for addresses, _ in answers for each in addresses))
        if not order:
            raise UpstreamUnavailable(f"no SPIRE server has an address: {'; '.join(why for _, why in answers)}")
        random.shuffle(order)
        return order

    async def _addresses_of(self, host: str, port: int) -> tuple[list[str], str]:
        """The addresses of a name, or why there is none."""
        try:
            async with asyncio.timeout(UPSTREAM_LOOKUP_SECONDS):
                found = await self._resolver.of(host, port)
        except TimeoutError:
            return [], f"{host!r}: the resolver does not answer"
        except OSError as error:
            return [], f"{host!r}: {error.strerror or error}"
        return [f"[{each}]:{port}" if each.version == 6 else f"{each}:{port}" for each in found], f"{host!r}: none"


def _parts(name: str) -> tuple[str, int]:
    host, _, port = name.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()) or not 0 < int(port) <= 65_535:
        raise InvalidInput(f"{name!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
