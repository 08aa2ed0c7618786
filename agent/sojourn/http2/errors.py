"""What can be wrong with the messages of a request. It ends that call alone, and the connection goes on.

What ends a connection is no matter of handlers, and stays in `connection.py` and `headers.py`.
"""

from typing import ClassVar

from sojourn.http2.statuses import STATUSES


class BadMessage(Exception):
    """A request cannot be read any further. Its text is for the caller.

    `Stream.message` raises one of the classes below. `status`: of gRPC, by number, with which the call should fail.
    """

    status: ClassVar[int]


class MalformedMessage(BadMessage):
    """A message is cut off, or is not packed as its call says."""

    status = STATUSES["INVALID_ARGUMENT"]


class MessageOverLimit(BadMessage):
    """A message is larger than it may be, or more is held of its caller's requests than may be."""

    status = STATUSES["RESOURCE_EXHAUSTED"]


class UnknownPacking(BadMessage):
    """A message is packed in a way that this server does not know."""

    status = STATUSES["UNIMPLEMENTED"]
