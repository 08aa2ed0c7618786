"""A process of another user that takes an agent's place at its socket. Arguments: its user, and the path.

Says `there`, then `called` at each connection, and ends with its standard input.
"""

import os
import select
import socket
import sys

uid, path = int(sys.argv[1]), sys.argv[2]
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    os.chmod(path, 0o777)
    listener.listen()
    print("there", flush=True)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        with listener.accept()[0]:
            print("called", flush=True)
os.unlink(path)
