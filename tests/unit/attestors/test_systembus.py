"""systembus.py: calls over the system bus, whatever else arrives there. The bus is a fake one on a real socket."""

import array
import asyncio
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from fakes.systembus import BUS, Error, FakeSystemBus, signal_of
from harness.looking import WAIT_SECONDS, OpenFiles
from jeepney import DBusAddress, HeaderFields, new_error, new_method_return, new_signal
from sojourn.errors import AttestationFailed
from sojourn.limits import BUS_ANSWER_MAX_BYTES
from sojourn.net.sockets import take_no_descriptors
from sojourn_attestors.asking.systembus import Call, ErrorAnswer, SystemBus

SECONDS = 10.0
NOBODY = DBusAddress("/", bus_name=":1.66", interface="a.b")


@pytest.fixture
def bus(tmp_path):
    with FakeSystemBus(tmp_path) as bus:
        bus.answers["Echo"] = lambda text: ("s", (text,))
        yield bus


@pytest.fixture
async def connection(bus):
    connection = await SystemBus.connect(bus.socket)
    yield connection
    connection.close()


async def echo(connection, text="x"):
    async with asyncio.timeout(SECONDS):
        return await connection.ask("s", "Echo", text)


async def refused(connection, *arguments):
    with pytest.raises(AttestationFailed) as error:
        await echo(connection, *arguments)
    return error.value.public.removeprefix("workload attestation failed: ")


def sending(*messages):
    """Have the bus send these before its next answer."""
    left = list(messages)

    def before(connection, _method):
        while left:
            connection.sendall(left.pop(0))

    return before


class TestAnswers:
    async def test_to_many_calls(self, connection):
        """Each of many calls at once has the answer to itself."""
        texts = [f"{number}" * 100 for number in range(200)]
        assert texts == await asyncio.gather(*(echo(connection, text) for text in texts))

    async def test_that_are_errors(self, bus, connection):
        """An error is raised with its name; the connection stays good."""
        bus.answers["Fail"] = fail
        with pytest.raises(ErrorAnswer) as error:
            await connection.ask("s", "Fail")
        assert f"{BUS}.Error.Any" == error.value.name
        assert "x" == await echo(connection)

    async def test_of_which_one_is_an_error(self, bus, connection):
        """Where calls are made together the first error counts, and no other is left over."""
        bus.answers["Fail"] = fail
        to = DBusAddress("/", bus_name=BUS, interface=BUS)
        with pytest.raises(ErrorAnswer):
            await connection.calls(Call(to, "Fail", "s"), Call(to, "Echo", "s", "s", ("x",)), Call(to, "Fail", "s"))
        assert "x" == await echo(connection)

    async def test_in_pieces(self, bus, connection):
        """An answer may come one byte at a time."""

        def before(sender, _method):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            for byte in signal_of(50):
                sender.sendall(bytes([byte]))

        bus.before = before
        assert "x" * 5_000 == await echo(connection, "x" * 5_000)

    async def test_to_calls_larger_than_the_sockets_buffer(self, connection):
        """A call is sent as far as there is room, and then the rest."""
        text = "x" * (BUS_ANSWER_MAX_BYTES - 1_000)
        assert [text] * 50 == await asyncio.gather(*(echo(connection, text) for _ in range(50)))


def fail(*_):
    raise Error(f"{BUS}.Error.Any")


class TestWhatNobodyAskedFor:
    @pytest.mark.parametrize("size", [0, 1, 70_000, 8_000_000])
    async def test_signals(self, bus, connection, size):
        """Signals of any size are thrown away, and the answer behind them is heard."""
        bus.before = sending(*[signal_of(size)] * 3)
        assert "x" == await echo(connection)

    async def test_is_not_kept(self, bus, connection):
        """Nothing of a large signal is kept while it arrives."""
        bus.before = sending(signal_of(8_000_000)[:-1])  # its last byte never comes
        bus.answers["Echo"] = lambda _: b""
        asking = asyncio.ensure_future(echo(connection))
        while connection._skip == 0 or connection._skip > 1_000_000:
            await asyncio.sleep(0.01)
        assert len(connection._buffer) < 200_000
        asking.cancel()

    async def test_leaves_the_event_loop_to_others(self, bus, connection):
        """While signals are poured in, others have their turns."""
        poured, ending = [], threading.Event()

        def pour(sender, _method):
            ends = time.monotonic() + WAIT_SECONDS
            while time.monotonic() < ends and not ending.is_set():
                sender.sendall(signal_of(100) * 600)
                poured.append(600)

        bus.before = pour
        asking = asyncio.ensure_future(echo(connection))
        for _ in range(50):
            before = len(poured)
            while before == len(poured) and not asking.done():
                await asyncio.sleep(0)
        assert not asking.done()
        ending.set()
        assert "x" == await asking

    async def test_open_files(self, bus, connection):
        """Open files that are sent along are not taken in: where the kernel knows how to, it lets nobody send them."""
        message = new_signal(NOBODY, "c").serialise(serial=1)
        refused = []

        def before(sender, _method):
            for _ in range(20):
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 16))]
                try:
                    sender.sendmsg([message], ancillary)
                except PermissionError:
                    refused.append(True)

        await echo(connection)
        count = OpenFiles()
        bus.before = before
        assert "x" == await echo(connection)
        assert [] == count.opened_since()
        with socket.socket(socket.AF_UNIX) as probe:
            assert [True] * 20 * take_no_descriptors(probe) == refused

    async def test_answers_of_others(self, bus, connection):
        """An answer in another's name, or to no call, is thrown away."""
        forged = []
        for serial in range(1, 20):
            for make in (
                lambda to: new_method_return(to, "s", ("forged",)),
                lambda to: new_error(to, "a.b.Forged", "s", ("x",)),
            ):
                answer = make(new_signal(NOBODY, "c"))
                answer.header.fields[HeaderFields.reply_serial] = serial
                answer.header.fields[HeaderFields.sender] = ":1.66"
                forged.append(answer.serialise(serial=1))
        bus.before = sending(*forged)
        assert "x" == await echo(connection)


class TestABusThatErrs:
    @pytest.mark.parametrize(
        "sent",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\0" * 64,
            b"l\x02\0\x01" + struct.pack("<III", 2**32 - 1, 1, 2**32 - 1),
            b"l\x02\0\x01" + struct.pack("<III", 0, 1, 8) + b"\xff" * 8,
            b"l\x02\0\x01" + struct.pack("<III", 0, 1, 14) + b"\x08\x03a()\0" + b"\xff\xff\xff\x00" + b"\0" * 8,
            b"B\x02\0\x01" + struct.pack(">III", 0, 1, 0) + b"l" * 16,
            b"l\x07\0\x01" + struct.pack("<III", 2**30, 1, 0),
        ],
    )
    async def test_sends_what_is_no_message(self, bus, connection, sent):
        """Whatever is no message ends the connection; who waits is told, and nothing else is raised."""
        bus.before = sending(sent)
        assert "the system bus sent what is no message" == await refused(connection)
        assert connection.closed

    async def test_answers_hugely(self, bus, connection):
        """A huge answer is not read to its end."""
        bus.answers["Echo"] = lambda _: ("s", ("x" * BUS_ANSWER_MAX_BYTES,))
        assert f"systemd answered more than {BUS_ANSWER_MAX_BYTES} bytes" == await refused(connection)

    async def test_answers_what_it_does_not_give(self, bus, connection):
        """An answer of another type than the method's is refused; the connection stays good."""
        known = bus.answers["Echo"]
        bus.answers["Echo"] = lambda text: ("as", ([text],))
        assert "systemd answered Echo with what it does not give" == await refused(connection)
        bus.answers["Echo"] = known
        assert "x" == await echo(connection)

    @pytest.mark.parametrize(
        "lines",
        [
            (b"REJECTED EXTERNAL\r\n",),
            (b"OK x\r\n", b"ERROR no files\r\n"),
            (b"OK x\r\nmore",),
            (b"x" * 20_000,),
            (b"",),
        ],
    )
    async def test_takes_nobody(self, bus, lines):
        """A bus that does not let this agent in, or sends it no files, is not used."""
        bus.authentication = lines
        if lines == (b"",):
            asyncio.get_running_loop().call_later(0.1, bus.hang_up)
        with pytest.raises(AttestationFailed, match="the system bus cannot be reached"):
            async with asyncio.timeout(SECONDS):
                await SystemBus.connect(bus.socket, files=True)

    @pytest.mark.root
    async def test_of_another_user(self, tmp_path):
        """A bus that a user runs in the place of root's is not asked."""
        tmp_path.chmod(0o755)
        path = str(tmp_path / "bus")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            command = [sys.executable, "-c", _LISTEN, str(listener.fileno())]
            with subprocess.Popen(command, pass_fds=[listener.fileno()], stdout=subprocess.PIPE) as process:
                process.stdout.readline()
                with pytest.raises(AttestationFailed, match="that of user 4711"):
                    async with asyncio.timeout(SECONDS):
                        await SystemBus.connect(path)
                process.kill()

    async def test_with_a_full_queue(self, tmp_path):
        """Where many others connect, this agent waits for its turn, and leaves the event loop to others."""
        path = str(tmp_path / "bus")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(0)
            with socket.socket(socket.AF_UNIX) as first:
                first.connect(path)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await SystemBus.connect(path)


_LISTEN = """
import os, socket, sys, time
listener = socket.socket(fileno=int(sys.argv[1]))
os.setuid(4711)  # whoever calls listen() is the owner
listener.listen(8)
print(flush=True)
time.sleep(60)
"""


class TestItsEnd:
    async def test_tells_those_who_wait(self, bus, connection):
        """Whoever waits for an answer when it is closed is told at once."""
        bus.answers["Echo"] = lambda _: b""
        asking = asyncio.ensure_future(echo(connection))
        while "Echo" not in bus.asked:
            await asyncio.sleep(0.01)
        connection.close("so it is")
        with pytest.raises(AttestationFailed, match="so it is"):
            await asking

    async def test_is_for_good(self, connection):
        """A closed connection takes no calls, and may be closed again."""
        connection.close()
        connection.close()
        assert "the connection to the system bus was lost" == await refused(connection)

    async def test_of_one_who_waits_to_write(self, bus, connection):
        """Whoever waits for room to send is told too."""
        ending = threading.Event()
        bus.before = lambda *_: ending.wait(SECONDS)  # reads nothing from then on
        text = "x" * 60_000
        asking = [asyncio.ensure_future(echo(connection, text)) for _ in range(50)]
        while connection._may_write is None:
            await asyncio.sleep(0.01)
        connection.close("so it is")
        done = await asyncio.gather(*asking, return_exceptions=True)
        ending.set()
        assert {"AttestationFailed"} == {type(each).__name__ for each in done}

    async def test_of_a_caller_in_the_middle_of_sending(self, bus, connection):
        """A call that is cut off half sent ends the connection, as nothing sensible can follow it."""
        ending = threading.Event()
        bus.before = lambda *_: ending.wait(SECONDS)
        asking = [asyncio.ensure_future(echo(connection, "x" * 60_000)) for _ in range(50)]
        while connection._may_write is None:
            await asyncio.sleep(0.01)
        asking_now = next(each for each in asking if not each.done())
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        ending.set()
        assert (True, True) == (asking_now.done(), connection.closed)
