"""Sends everybody on the system bus a socket whose closing waits, and lets go of it. Usage: buslinger.py UID.

Whoever closes the last reference to a TCP socket with SO_LINGER and data that nobody takes waits for that long. Prints
a line with how many messages were sent, and then waits for its standard input to end.
"""

import array
import contextlib
import json
import os
import socket
import struct
import sys
import time

from busflood import Connection, to
from jeepney import DBusAddress, HeaderFields, new_signal

SIGNAL = DBusAddress("/", interface="a.b")
SECONDS = 100_000


def linger(listener, connection, name):
    """In a process of its own, which may have to wait itself: send the socket, and let go of it at once."""
    if os.fork():
        return
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    made.connect(listener.getsockname())
    listener.close()  # the parent alone has it: with that all waiting ends
    made.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            made.send(bytes(65536))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, SECONDS))
    # What comes before it keeps its reader busy: then the bus has let go of the socket first.
    before = to(name, lambda: new_signal(SIGNAL, "c", "ay", (bytes(500_000),))).serialise(999)
    connection.socket.sendall(before * 2)
    message = to(name, lambda: new_signal(SIGNAL, "c", "hay", (0, bytes(1000))))
    message.header.fields[HeaderFields.unix_fds] = 1
    data = message.serialise(1000, array.array("i"))
    # The bus has the socket with the first byte, and gives it on with the last one: then nobody else has it any more.
    connection.socket.sendmsg([data[:100]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [made.fileno()]))])
    made.close()
    connection.socket.sendall(data[100:])
    os._exit(0)


def main(uid):
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)  # nobody is accepted, and so nothing is taken
    sent = 0
    connection = Connection()
    for name in connection.ask("ListNames"):
        if name.startswith(":") and name != connection.name:
            linger(listener, connection, name)
            sent += 1
            time.sleep(0.1)
    print(json.dumps({"sent": sent}), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(int(sys.argv[1]))
