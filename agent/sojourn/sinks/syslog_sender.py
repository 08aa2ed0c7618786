"""Kind `syslog`: messages of RFC 5424 over TLS, each with its length before it (RFC 5425; RFC 6587, 3.4.1).

Syslog has no acknowledgement: a batch counts as taken when the receiver's kernel has all of it. What a receiver loses
after that it has lost; `sojourn audit check --received` shows the gap.
"""

import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sojourn.httpclient.faults import HttpFault
from sojourn.httpclient.one_way import OneWay
from sojourn.limits import PROVIDER_CONNECT_SECONDS
from sojourn.net.urls import Url
from sojourn.providers.guarded_http import unavailable
from sojourn.sinks.http_sender import ShownSvid
from sojourn.sinks.items import Item
from sojourn.sinks.sender import Sender, SinkDown, Taken

_PRI: Final = 13 * 8 + 6  # facility 13, log audit; severity 6, informational (RFC 5424, 6.2.1)
_MSGID_MAX: Final = 32  # characters
_HOSTNAME_MAX: Final = 255


class SyslogSender(Sender):
    """Sends to one receiver."""

    def __init__(
        self,
        connection: OneWay,
        url: Url,
        host: str,
        seconds: float,
        context: ssl.SSLContext | None,
        svid: ShownSvid | None = None,
    ) -> None:
        """`url`: of the receiver, for errors. `host`: whose records these are. `seconds`: for a batch."""
        self._connection = connection
        self._url = url
        self._host = host[:_HOSTNAME_MAX] or "-"
        self._seconds = seconds
        self._context = context
        self._svid = svid

    async def send(self, items: Sequence[Item]) -> Taken:
        content = b"".join(map(self.framed, items))
        if self._svid is not None and self._context is not None and self._svid.show(self._context):
            await self._connection.close()
        try:
            async with asyncio.timeout(self._seconds):
                await self._connection.send(content, PROVIDER_CONNECT_SECONDS)
        except TimeoutError:
            raise SinkDown(f"{self._url.authority} did not take the records in {self._seconds:g} s") from None
        except HttpFault as fault:
            raise SinkDown.of(unavailable(fault, self._url), fault.detail) from fault
        return Taken()

    async def close(self) -> None:
        await self._connection.close()

    def framed(self, item: Item) -> bytes:
        """MSG-LEN SP SYSLOG-MSG (RFC 5425, 4.3). The line is ASCII, and so MSG has no byte order mark."""
        at = datetime.fromtimestamp(item.at_ms / 1000, UTC)
        when = at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"
        head = f"<{_PRI}>1 {when} {self._host} sojourn - {item.event[:_MSGID_MAX]} - "
        message = head.encode() + item.line
        return b"%d %s" % (len(message), message)
