"""One request over a Unix socket, of a process of its own that has nothing but Python's own library.

Usage: overunix.py SOCKET PATH [--uid UID] [NAME=VALUE…]. GET, or POST of a form. The answer's body goes to standard output; the status is 7
if there is nobody to ask, as curl's. With `--uid` it becomes that user once all is loaded: the interpreter may lie where only root can enter.
"""

import http.client
import os
import socket
import sys
from urllib.parse import urlencode

SCRIPT = __file__
NOBODY_THERE = 7


def main(path: str, target: str, *more: str) -> int:
    if more[:1] == ("--uid",):
        os.setgroups([])
        os.setgid(int(more[1]))
        os.setuid(int(more[1]))
        more = more[2:]
    connection = http.client.HTTPConnection("localhost", timeout=15)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.connect(path)
    except OSError:
        return NOBODY_THERE
    if more:
        form = urlencode([each.partition("=")[::2] for each in more])
        connection.request("POST", target, form, {"Content-Type": "application/x-www-form-urlencoded"})
    else:
        connection.request("GET", target)
    sys.stdout.buffer.write(connection.getresponse().read())
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
