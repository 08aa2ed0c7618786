"""A program that asks an agent for all it might give: `knocker.py SOCKET HOW`. Prints what each door answered, as JSON.

HOW it does so is an escape: as an orphan, in a session of its own, in other namespaces, … The answer is then written by
whoever it has become.
"""

import ctypes
import http.client
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

CLONE_PARENT, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNS = 0x8000, 0x10000000, 0x20000000, 0x20000
_CLONE = {"x86_64": 56}.get(os.uname().machine, 220)
_AUDIENCE = b"\x0a\x01x"  # field 1, "x"
_TYPE = b"\x0a\x0cread-tickets"
CALLS = {
    "x509": ("/SpiffeWorkloadAPI/FetchX509SVID", b""),
    "jwt": ("/SpiffeWorkloadAPI/FetchJWTSVID", _AUDIENCE),
    "begin": ("/sojourn.v1.Tasks/BeginTask", _TYPE),
    "run": ("/sojourn.v1.Tasks/RunTask", b"\x0a" + bytes([len(_TYPE)]) + _TYPE),
    "sds": ("/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets", b""),
}


class _Unix(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self.host)


def by_http(path: str) -> dict[str, object]:
    """The bare exchange by which curl gets a token."""
    connection = _Unix(path)
    form = "grant_type=client_credentials&resource=https%3A%2F%2Fx.example"
    connection.request(
        "POST", "/token", form, {"Content-Type": "application/x-www-form-urlencoded", "Host": "localhost"}
    )
    answer = connection.getresponse()
    return {"http": [answer.status, json.loads(answer.read()).get("code")]}


def by_grpc(path: str) -> dict[str, object]:
    """Every call that gives an identity or a task."""
    import grpc

    def asked(channel: grpc.Channel, method: str, request: bytes) -> list[object]:
        call = channel.unary_stream(method)(request, metadata=[("workload.spiffe.io", "true")], timeout=60)
        try:
            next(call)
        except grpc.RpcError as error:
            code = dict(error.trailing_metadata() or ()).get("sojourn-code")  # type: ignore[attr-defined]
            return [error.code().name, code]  # type: ignore[attr-defined]
        call.cancel()
        return ["OK", None]

    with grpc.insecure_channel(f"unix:{path}") as channel:
        return {name: asked(channel, *call) for name, call in CALLS.items()}


def in_child(then: Callable[[], None], flags: int = 0) -> None:
    """Do it in a child made by clone(2), and wait for that."""
    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    pid = libc.syscall(_CLONE, flags | signal.SIGCHLD, 0, 0, 0, 0)
    assert pid >= 0, os.strerror(ctypes.get_errno())
    if not pid:
        os.close(reading)
        _and_exit(then)
    os.close(writing)
    select.select([reading], [], [])  # until it has gone, whoever its parent is


def as_orphan(then: Callable[[], None]) -> None:
    """Do it in a grandchild in a session of its own, once its parent has gone."""
    reading, writing = os.pipe()
    if not os.fork():
        before = os.getpid()
        os.setsid()
        if not os.fork():
            while os.getppid() == before:
                time.sleep(0.001)
            _and_exit(then)
        os._exit(0)
    os.close(writing)
    os.wait()
    select.select([reading], [], [])


def after_the_runner(then: Callable[[], None]) -> None:
    """Say that it is ready, and do it once the process that ran this one has been killed by another."""
    runner = os.getppid()
    print("ready", flush=True)
    while os.getppid() == runner:
        time.sleep(0.001)
    then()


def in_namespaces(then: Callable[[], None]) -> None:
    """Do it as the first process of a new process namespace, as root of a new user namespace."""
    in_child(then, CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS)


def anew(then: Callable[[], None]) -> None:
    """Do it in another program."""
    del then
    os.execv(sys.executable, [sys.executable, *sys.argv[:2], "plain"])


def _and_exit(then: Callable[[], None]) -> None:
    try:
        then()
        sys.stdout.flush()
    finally:
        os._exit(0)


WAYS: dict[str, Callable[[Callable[[], None]], None]] = {
    "all": lambda then: then(),  # at every door; the others at one
    "plain": lambda then: then(),
    "orphan": as_orphan,
    "sibling": lambda then: in_child(then, CLONE_PARENT),
    "namespaces": in_namespaces,
    "exec": anew,
    "after": after_the_runner,
}

if __name__ == "__main__":
    path, how = sys.argv[1:3]

    def knock() -> None:
        print(json.dumps({**by_http(path), **(by_grpc(path) if how == "all" else {})}), flush=True)

    WAYS[how](knock)
