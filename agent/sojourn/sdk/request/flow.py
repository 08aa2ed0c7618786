"""One flow for code with an event loop and for code without: written once, and run by either of two drivers.

A flow is a generator. It yields what it asks for, and is sent the answer, or thrown the exception by which the asking
failed. What becomes of an answer stands in the flow alone; whether it is waited for by `await` is the driver's matter.
"""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

Asked = TypeVar("Asked")
Result = TypeVar("Result")
Flow = Generator[Asked, Any, Result]
# What a driver is asked for: a function without arguments that returns the answer, or for `drive_async` an awaitable.
Call = Callable[[], Any]


def drive(flow: Flow[Call, Result]) -> Result:
    """Make each call of a flow in this thread. Return what the flow returns, or raise what it raises."""
    try:
        call = next(flow)
        while True:
            try:
                answer = call()
            except BaseException as error:  # noqa: BLE001  the flow raises it again, or knows better
                call = flow.throw(error)
            else:
                call = flow.send(answer)
    except StopIteration as end:
        returned: Result = end.value
        return returned


async def drive_async(flow: Flow[Call, Result]) -> Result:
    """The same with each answer awaited. A cancellation is thrown into the flow as any other exception is."""
    try:
        call = next(flow)
        while True:
            try:
                answer = await call()
            except BaseException as error:  # noqa: BLE001  the flow raises it again, or knows better
                call = flow.throw(error)
            else:
                call = flow.send(answer)
    except StopIteration as end:
        returned: Result = end.value
        return returned
