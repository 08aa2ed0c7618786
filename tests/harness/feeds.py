"""WatchTasks streams of other users than the one that runs the tests."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import grpc
from sojourn._pb.sojourn.v1 import validation_pb2 as pb

from harness.agent import clean_environment
from harness.strangers import preloaded
from harness.taskcalls import Feed


class Ended(grpc.RpcError):
    """How another user's stream ended."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self._code, self._details = grpc.StatusCode[code], details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class FeedOf(Feed):
    """The stream of a process of the user `uid`."""

    def __init__(self, socket: str, uid: int, audiences: Iterable[str]) -> None:
        script = str(Path(__file__).with_name("watcher.py"))
        argv = [*preloaded(sys.executable, script), socket, str(uid), *audiences]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=clean_environment())
        self._follow()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            self._heard.put(
                pb.TaskFeed.FromString(bytes.fromhex(said["message"])) if "message" in said else Ended(**said)
            )

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(timeout=15)
        if self._process.stdout is not None:
            self._process.stdout.close()
