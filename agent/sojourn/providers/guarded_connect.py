"""Connections to providers: each address is looked at, and the address that was looked at is connected to."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpcore

from sojourn.limits import (
    PROVIDER_ADDRESSES_TRIED,
    PROVIDER_LOOKUPS_AT_ONCE,
    PROVIDER_READ_BYTES,
    PROVIDER_WIRE_MAX_BYTES,
)
from sojourn.net.addresses import Address, Network, is_loopback, may_connect, parse_address
from sojourn.net.tls_key_updates import LimitedContext
from sojourn.net.tls_versions import demand_modern_tls
from sojourn.providers.errors import ProviderUnavailable
from sojourn.runtime.single_flight import SingleFlight


def tls_context(file: Path | None, text: str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or newer, certificates by the system's authorities or by those of a PEM file, or its text, alone.

    Raise OSError, or ValueError for a text without certificates.
    """
    context = LimitedContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies, names too; create_default_context may log keys
    demand_modern_tls(context)
    if file is None and text is None:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        context.load_verify_locations(cafile=file, cadata=text)
    return context


class Lookups:
    """Names to addresses. A name that nobody answers for holds up those who ask for it, and no other provider."""

    def __init__(self, at_once: int = PROVIDER_LOOKUPS_AT_ONCE) -> None:
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


class Guarded(httpcore.AsyncNetworkBackend):
    """Connects for an HTTP client to addresses that may be connected to. `loopback`: to those of this host alone."""

    def __init__(self, lookups: Lookups, allowed: Sequence[Network], *, loopback: bool) -> None:
        self._lookups = lookups
        self._allowed = tuple(allowed)
        self._loopback = loopback
        self._tcp = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # its signature is the library's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Raise ProviderUnavailable: the name has no address, none may be connected to, or none answers."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._allowed_of(host, port)
                failed: httpcore.NetworkError | httpcore.TimeoutException | None = None
                for number, address in enumerate(addresses[:PROVIDER_ADDRESSES_TRIED], 1):
                    share = None if timeout is None else timeout / len(addresses[number - 1 : PROVIDER_ADDRESSES_TRIED])
                    try:
                        stream = await self._tcp.connect_tcp(str(address), port, share, local_address, socket_options)
                        return _Tcp(stream, host)
                    except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                        failed = error
        except TimeoutError:
            raise ProviderUnavailable(f"{host} did not accept a connection in time", at="address") from None
        raise ProviderUnavailable(f"{host} does not accept connections at port {port}", at="address") from failed

    async def _allowed_of(self, host: str, port: int) -> list[Address]:
        try:
            addresses = await self._lookups.of(host, port)
        except OSError as error:
            raise ProviderUnavailable(f"{host} has no address", at="address", detail=str(error)) from error
        fit = [each for each in addresses if self._is_fit(each)]
        if fit:
            return fit
        if self._loopback:
            told, hint = f"{host} is not on this host, and plain http goes no further", "use an https URL"
        else:
            shown = ", ".join(str(each) for each in addresses[:3]) or "none"
            told = f"{host} has an address that is not public ({shown})"
            hint = "if it is meant, name its network in private_networks of the provider's table"
        raise ProviderUnavailable(told, at="address", hint=hint)

    def _is_fit(self, address: Address) -> bool:
        return is_loopback(address) if self._loopback else may_connect(address, self._allowed)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Bounded(httpcore.AsyncNetworkStream):
    """A connection whose other end may send small pieces without end: there is an end, and all else goes on meanwhile.

    What the HTTP library skips, interim answers and the frames of chunks, counts here.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._received = 0  # since something was last sent

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  # the library's
        """Raise RemoteProtocolError for more than any answer has, and ReadError for what is no TLS (any more)."""
        await asyncio.sleep(0)  # what is there already would be read without a pause
        try:
            data = await self._stream.read(min(max_bytes, PROVIDER_READ_BYTES), timeout)
        except ssl.SSLError as error:  # which the library lets through
            raise httpcore.ReadError(str(error)) from error
        self._received += len(data)
        if self._received > PROVIDER_WIRE_MAX_BYTES:
            raise httpcore.RemoteProtocolError("more than any answer has")
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  # the library's
        """Raise WriteError for what is no TLS (any more)."""
        self._received = 0
        try:
            await self._stream.write(buffer, timeout)
        except ssl.SSLError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's
    ) -> httpcore.AsyncNetworkStream:
        return Bounded(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Tcp(Bounded):
    """A TCP connection, whose TLS says in a sentence what it does not like."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, host: str) -> None:
        super().__init__(stream)
        self._host = host

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's
    ) -> httpcore.AsyncNetworkStream:
        done = False
        try:
            stream = await super().start_tls(ssl_context, server_hostname, timeout)
            done = True
            return stream
        except httpcore.TimeoutException as error:
            raise ProviderUnavailable(f"{self._host} did not answer in TLS in time", at="tls") from error
        except httpcore.NetworkError as error:
            cause = error.__cause__
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise ProviderUnavailable(
                    f"the certificate of {self._host} is not good: {cause.verify_message}",
                    at="tls",
                    hint="for an authority of your own, name its PEM file in ca of the provider's table",
                ) from error
            raise ProviderUnavailable(
                f"{self._host} does not speak TLS 1.2 or newer at this port", at="tls", detail=str(error)
            ) from error
        finally:
            if not done:
                await self._stream.aclose()
