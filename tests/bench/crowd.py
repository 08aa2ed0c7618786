"""Many users' processes, a connection of each, and the load client that holds a stream on every one of them.

Usage: crowd.py CLIENT FIRST_UID COUNT SOCKET, as root. It makes a process for each user, which connects, hands its
connection over and does nothing more: the connection stays that process's, and so does what is attested over it. Then it
becomes CLIENT.
"""

import array
import contextlib
import os
import socket
import sys


def member(uid, path, handed, start, stay):
    """One user's process."""
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
    os.read(start, 1)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    handed.sendmsg([b"."], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [connection.fileno()]))])
    connection.close()
    os.read(stay, 1)  # until the client has ended


def main(client, first_uid, count, path):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    start, started = os.pipe()
    stay, staying = os.pipe()
    for number in range(count):
        if os.fork() == 0:
            for descriptor in (started, staying, ours.fileno()):
                os.close(descriptor)
            with contextlib.suppress(BaseException):
                member(first_uid + number, path, theirs, start, stay)
            os._exit(0)
    theirs.close()
    os.close(started)  # all connect now: a connection that says nothing for long would be closed
    descriptors = []
    for _ in range(count):
        _, received, _, _ = socket.recv_fds(ours, 1, 1)
        if not received:
            sys.exit("crowd: a process could not connect")
        descriptors += received
    for descriptor in (*descriptors, staying):
        os.set_inheritable(descriptor, True)
    os.execv(client, [client, "hold", "-descriptors", ",".join(map(str, descriptors))])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
