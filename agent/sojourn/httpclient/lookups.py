"""Names to addresses, in threads of their own: a resolver that hangs cannot be interrupted."""

import asyncio
import socket
import threading

from sojourn.net.addresses import Address, parse_address


class Lookups:
    """Names to addresses. A name that nobody answers for holds up those who ask for it, and no other provider."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._running: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def of(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, each once. Raise OSError if it has none."""
        literal = parse_address(host)
        if literal is not None:
            return [literal]
        running = self._running.get((host, port))
        if running is None:
            if len(self._running) >= self._at_once:
                raise OSError("too many lookups are under way")
            running = self._start(host, port)
        return await asyncio.shield(running)

    def _start(self, host: str, port: int) -> asyncio.Future[list[Address]]:
        loop = asyncio.get_running_loop()
        answer = self._running[host, port] = loop.create_future()

        def done(found: list[Address] | OSError) -> None:
            self._running.pop((host, port), None)
            if isinstance(found, OSError):
                answer.set_exception(found)
                answer.exception()  # whoever asked may have gone
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
