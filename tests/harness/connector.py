"""A process that connects to a socket, hands the connection on, and then does as it is told.

Usage: connector.py SOCKET DESCRIPTOR [UID [GROUP…]]. The connection goes out over DESCRIPTOR, a Unix socket. Commands
on standard input, a line each: `exec PATH ARG…`, `user UID`, `name NAME` (as `ps` shows it), `leave` (its first thread ends, and
another lives on), `exit`. Each is answered by a line `done` before an `exec` or a `leave`, and after all else.
"""

import ctypes
import os
import socket
import sys
import threading
import time

_PR_SET_NAME = 15


def main(path: str, descriptor: int, numbers: list[int]) -> None:
    if numbers:
        os.setgroups(numbers[1:])
        os.setgid(numbers[0])
        os.setuid(numbers[0])
    libc = ctypes.CDLL(None)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    connection.set_inheritable(True)
    with socket.socket(fileno=descriptor) as out:
        socket.send_fds(out, [b"."], [connection.fileno()])
    for line in sys.stdin:
        doing, _, rest = line.rstrip("\n").partition(" ")
        match doing:
            case "exec":
                print("done", flush=True)
                os.execv(rest.split(" ")[0], rest.split(" "))
            case "user":
                os.setgid(int(rest))
                os.setuid(int(rest))
            case "name":
                libc.prctl(_PR_SET_NAME, rest.encode(), 0, 0, 0)
            case "leave":
                threading.Thread(target=time.sleep, args=(600,)).start()
                print("done", flush=True)
                libc.pthread_exit(None)
            case "exit":
                os._exit(0)
        print("done", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(text) for text in sys.argv[3:]])
