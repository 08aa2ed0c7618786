"""Names to addresses, in threads of their own: a resolver that hangs cannot be interrupted."""

import asyncio
import socket
import threading

from sojourn.net.allowed_addresses import Address, parse_address
from sojourn.runtime.single_flight import SingleFlight


class Lookups:
    """Names to addresses. A name that nobody answers for holds up those who ask for it, and no other provider."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running = SingleFlight[tuple[str, int], list[Address]]()

    async def of(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, each once. Raise OSError if it has none."""
        literal = parse_address(host)
        if literal is not None:
            return [literal]
        if (host, port) not in self._running and len(self._running) >= self._at_once:
            raise OSError("too many lookups are under way")
        return await self._running.run((host, port), lambda: self._start(host, port))

    def _start(self, host: str, port: int) -> asyncio.Future[list[Address]]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()

        def done(found: list[Address] | OSError) -> None:
            if isinstance(found, OSError):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        def look() -> None:
            try:
                found: list[Address] | OSError = _addresses(host, port)
            except OSError as error:
                found = error
            except UnicodeError:
                found = OSError("no such name")
            try:
                loop.call_soon_threadsafe(done, found)
            except RuntimeError:
                return  # the loop has ended

        # not of a pool: an interpreter that ends would wait for the resolver's own deadline
        threading.Thread(target=look, name="sojourn-lookup", daemon=True).start()
        return answer


def _addresses(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    parsed = (parse_address(str(each[4][0])) for each in found)
    return list(dict.fromkeys(address for address in parsed if address is not None))
