"""A process in a container that fetches once, when it is told: incontainer.py SOCKET FOLDER.

It waits for the file `go` in FOLDER, connects, sends the content of the file `call`, and writes into a file of its own
when it connected and when it had an answer of the size of an SVID (seconds on the monotonic clock, which all share).
"""

import os
import socket
import sys
import time

path, folder = sys.argv[1:]
with open(f"{folder}/call", "rb") as file:
    call = file.read()
open(f"{folder}/ready-{os.uname().nodename}", "w").close()
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.01)
begun = time.monotonic()
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.sendall(call)
got = b""
while len(got) < 800 and (part := connection.recv(65536)):
    got += part
name = f"{folder}/done-{os.uname().nodename}"
with open(f"{name}.new", "w") as out:
    out.write(f"{begun} {time.monotonic()} {int(b'spiffe://' in got)}")
os.rename(f"{name}.new", name)
time.sleep(600)
