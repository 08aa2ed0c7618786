"""Writing an answer in one piece: uvicorn writes its head and its body apart, and each write wakes whoever asked."""

import asyncio
from typing import Any, TypeAlias

Data: TypeAlias = "bytes | bytearray | memoryview[Any]"


class WholeWrites(asyncio.Transport):
    """A transport on which two writes of one round of the loop go out together; no more than one is held, and none for
    longer. It has what uvicorn and we ask of one.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._held: Data = b""

    def write(self, data: Data) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(b"".join((held, data)))
        elif data:
            self._held = data
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        self._held = b""
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
