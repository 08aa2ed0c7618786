"""A system bus with a systemd on it, on a real socket, which answers as a test has it: also as none would."""

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jeepney import DBusAddress, HeaderFields, new_error, new_method_return, new_signal
from jeepney.low_level import Message, Parser

BUS = "org.freedesktop.DBus"
SYSTEMD = "org.freedesktop.systemd1"
SYSTEMD_NAME = ":1.7"  # its unique name here
CALLER_NAME = ":1.99"
UNIT_PATHS = "/org/freedesktop/systemd1/unit/"
SILENT = object()  # no answer at all
HANG_UP = object()


class Error(Exception):
    """Answer with this D-Bus error."""


def path_of(name: str) -> str:
    return UNIT_PATHS + "".join(each if each.isascii() and each.isalnum() else f"_{ord(each):02x}" for each in name)


class FakeSystemBus:
    """Use as a context manager. `answers`: what each method gives, as (signature, body), SILENT, HANG_UP or bytes.

    A method's answer is made by a function of its arguments; `asked` counts calls by method.
    """

    def __init__(self, folder: Path) -> None:
        self.socket = str(folder / "bus")
        self.units: dict[str, dict[str, Any]] = {}  # by name: its properties, as (signature, value)
        self.of_pid: dict[int, str] = {}
        self.takes_pidfd = True
        self.uid = 0  # of the process that systemd is
        self.sender = SYSTEMD_NAME  # as whom systemd answers
        self.pid_of_caller = os.getpid()
        self.owner: str | None = SYSTEMD_NAME
        self.answers: dict[str, Callable[..., Any]] = {
            "Hello": lambda: ("s", (CALLER_NAME,)),
            "GetNameOwner": self._owner_of,
            "GetConnectionUnixUser": lambda _: ("u", (self.uid,)),
            "GetConnectionUnixProcessID": lambda _: ("u", (self.pid_of_caller,)),
            "GetUnitByPIDFD": self._by_pidfd,
            "GetUnitByPID": self._by_pid,
            "Get": self._property,
        }
        self.asked: list[str] = []
        self.before: Callable[[socket.socket, str], None] = lambda _connection, _method: None
        self.authentication = (b"OK 0123456789abcdef0123456789abcdef\r\n", b"AGREE_UNIX_FD\r\n")
        self.agreed_to_files: list[bool] = []  # whether each connection takes open files
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def unit(self, name: str, pid: int, cgroup: str, **changes: Any) -> None:
        """Let there be a unit that a process is of."""
        self.of_pid[pid] = name
        self.units[name] = {
            "Id": ("s", name),
            "FragmentPath": ("s", f"/etc/systemd/system/{name}"),
            "InvocationID": ("ay", bytes(range(16))),
            "Slice": ("s", "system.slice"),
            "ControlGroup": ("s", cgroup),
            "KillMode": ("s", "control-group"),
            "SendSIGKILL": ("b", True),
            **changes,
        }

    # --- what it answers ---

    def _owner_of(self, name: str) -> Any:
        if name != SYSTEMD or self.owner is None:
            raise Error(f"{BUS}.Error.NameHasNoOwner")
        return "s", (self.owner,)

    def _by_pidfd(self, pidfd: int) -> Any:
        if not self.takes_pidfd:
            raise Error(f"{BUS}.Error.UnknownMethod")
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
        pid = next(int(line[4:]) for line in lines if line.startswith("Pid:"))
        (path,) = self._by_pid(pid)[1]
        return "osay", (path, self.of_pid[pid], bytes(16))

    def _by_pid(self, pid: int) -> Any:
        if pid not in self.of_pid:
            raise Error(f"{SYSTEMD}.NoUnitForPID")
        return "o", (path_of(self.of_pid[pid]),)

    def _property(self, path: str, _interface: str, name: str) -> Any:
        unit = next((found for each, found in self.units.items() if path_of(each) == path), None)
        if unit is None:
            raise Error(f"{BUS}.Error.UnknownObject")
        return "v", (unit[name],)

    # --- life ---

    def __enter__(self) -> "FakeSystemBus":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.socket)
        self._listener.listen(64)
        self._start(self._accept)

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.unlink(self.socket)
        self.hang_up()
        for thread in self._threads:
            thread.join(timeout=10)
        self._threads.clear()

    def hang_up(self) -> None:
        """Break every connection."""
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    @property
    def connections(self) -> int:
        return len(self._open)

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._authenticate(connection)
                self._converse(connection)
            except (OSError, EOFError):
                return

    def _authenticate(self, connection: socket.socket) -> None:
        lines = []
        for answer in self.authentication:  # the last one to whoever takes and gives open files
            lines.append(_line(connection))
            if lines[-1] == b"BEGIN\r\n":
                break
            connection.sendall(answer)
        else:
            assert _line(connection) == b"BEGIN\r\n"
        self.agreed_to_files.append(b"NEGOTIATE_UNIX_FD\r\n" in lines)

    def _converse(self, connection: socket.socket) -> None:
        parser = Parser()
        taken: list[int] = []
        try:
            while True:
                data, descriptors, _, _ = socket.recv_fds(connection, parser.bytes_desired(), 16)
                taken += descriptors
                if not data:
                    return
                parser.add_data(data, descriptors)
                if (message := parser.get_next_message()) is not None:
                    self._answer(connection, message)
                    while taken:
                        os.close(taken.pop())
        finally:
            for each in taken:
                os.close(each)

    def _answer(self, connection: socket.socket, message: Message) -> None:
        method = message.header.fields[HeaderFields.member]
        self.asked.append(method)
        self.before(connection, method)
        try:
            path = (message.header.fields[HeaderFields.path],) if method == "Get" else ()
            said = self.answers[method](*path, *message.body)
        except Error as error:
            answer = new_error(message, str(error), "s", ("()",))  # its text is no matter
        else:
            if said is SILENT:
                return
            if said is HANG_UP:
                raise EOFError
            if isinstance(said, bytes):
                connection.sendall(said)
                return
            answer = new_method_return(message, *said)
        asked = message.header.fields[HeaderFields.destination]
        answer.header.fields[HeaderFields.sender] = BUS if asked == BUS else self.sender
        connection.sendall(answer.serialise(serial=1))


def _line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\r\n"):
        if not (byte := connection.recv(1)):
            raise EOFError
        line += byte
    return line


def signal_of(size: int) -> bytes:
    """A signal whose body is of so many bytes: what any user of a real bus may send to anybody."""
    message = new_signal(DBusAddress("/", interface="a.b"), "c", "ay", (bytes(size),))
    return message.serialise(serial=1)
