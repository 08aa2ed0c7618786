"""The two drivers of a flow: one that blocks, and one that awaits. What holds of one holds of the other."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from sojourn.sdk.request.flow import Call, Flow, drive, drive_async


def answer(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value


async def answer_later(value: Any) -> Any:
    await asyncio.sleep(0)
    return answer(value)


class Blocking:
    """A program without an event loop."""

    call = staticmethod(partial(partial, answer))
    run = staticmethod(drive)


class Asynchronous:
    """A program with one."""

    call = staticmethod(partial(partial, answer_later))

    @staticmethod
    def run(flow: Flow[Call, Any]) -> Any:
        return asyncio.run(drive_async(flow))


Ask = Callable[[Any], Call]


@pytest.fixture(params=[Blocking, Asynchronous])
def program(request: pytest.FixtureRequest) -> Any:
    return request.param


class TestBoth:
    """Either driver."""

    def test_answers(self, program: Any) -> None:
        """A flow is sent the answer of each call in turn, and what it returns is returned."""

        def flow(ask: Ask) -> Flow[Call, list[int]]:
            return [(yield ask(1)), (yield ask(2))]

        assert [1, 2] == program.run(flow(program.call))

    def test_asks_nothing(self, program: Any) -> None:
        """A flow that asks for nothing returns at once."""

        def flow() -> Flow[Call, str]:
            return "done"
            yield

        assert "done" == program.run(flow())

    def test_a_failure_is_the_flows(self, program: Any) -> None:
        """The exception by which a call failed is thrown into the flow where it asked, and the flow may go on."""

        def flow(ask: Ask) -> Flow[Call, tuple[str, int]]:
            try:
                yield ask(LookupError("gone"))
            except LookupError as error:
                return str(error), (yield ask(2))
            return "", 0

        assert ("gone", 2) == program.run(flow(program.call))

    def test_a_failure_that_the_flow_does_not_know(self, program: Any) -> None:
        """An exception that the flow does not catch is raised as it is, after the flow's own `finally`."""
        left: list[str] = []
        failure = OSError("no way")

        def flow(ask: Ask) -> Flow[Call, None]:
            try:
                yield ask(failure)
            finally:
                left.append("left")

        with pytest.raises(OSError, match="no way") as caught:
            program.run(flow(program.call))
        assert (failure, ["left"]) == (caught.value, left)

    def test_an_answer_is_asked_for_after_a_failure(self, program: Any) -> None:
        """A flow that fails may ask for something first, as for a connection to be closed."""
        asked: list[str] = []

        def note(what: str) -> Any:
            asked.append(what)
            return program.call(None)()

        def flow() -> Flow[Call, None]:
            try:
                yield program.call(OSError())
            except OSError:
                yield partial(note, "close")
                raise

        with pytest.raises(OSError):
            program.run(flow())
        assert ["close"] == asked

    def test_the_flow_fails(self, program: Any) -> None:
        """What the flow itself raises is raised."""

        def flow(ask: Ask) -> Flow[Call, None]:
            yield ask(1)
            raise ValueError("mine")

        with pytest.raises(ValueError, match="mine"):
            program.run(flow(program.call))

    def test_one_in_another(self, program: Any) -> None:
        """A flow may be a part of another."""

        def part(ask: Ask) -> Flow[Call, int]:
            return 1 + (yield ask(1))

        def flow(ask: Ask) -> Flow[Call, int]:
            return (yield from part(ask)) + (yield ask(3))

        assert 5 == program.run(flow(program.call))


class TestInterruptions:
    """What ends a program's wait ends the flow."""

    def test_interrupt(self) -> None:
        """An interrupt of the thread ends the flow, and what it leaves is put right before the driver returns."""
        left: list[type[BaseException]] = []

        def flow() -> Flow[Call, None]:
            try:
                yield partial(answer, KeyboardInterrupt())
            except BaseException as error:
                left.append(type(error))
                raise

        with pytest.raises(KeyboardInterrupt):
            drive(flow())
        assert [KeyboardInterrupt] == left

    async def test_cancellation(self) -> None:
        """A cancellation ends the flow where it waits, and the waiting itself."""
        left: list[type[BaseException]] = []
        waits = asyncio.Event()

        async def wait() -> None:
            waits.set()
            await asyncio.Event().wait()

        def flow() -> Flow[Call, None]:
            try:
                yield wait
            except BaseException as error:
                left.append(type(error))
                raise

        running = asyncio.create_task(drive_async(flow()))
        await waits.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert running.cancelled()
        assert [asyncio.CancelledError] == left

    async def test_closed(self) -> None:
        """A driver that is dropped while it waits closes its flow."""
        left: list[str] = []

        def flow() -> Flow[Call, None]:
            try:
                yield partial(asyncio.sleep, 60)
            finally:
                left.append("left")

        running: Coroutine[Any, Any, None] = drive_async(flow())
        running.send(None)
        running.close()
        assert ["left"] == left
