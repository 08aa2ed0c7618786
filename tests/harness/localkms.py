"""A local stand-in of AWS KMS, which makes keys and signs digests as KMS does."""

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.lacking import lacking
from harness.looking import until

REGION = "eu-west-1"
_CREDENTIALS = ("of-a-test", "of-a-test")  # an access key's ID and its secret
CREDENTIALS_FILE = "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n".format(*_CREDENTIALS)


def find_local_kms() -> Path:
    """The program. Skip the test if there is none, but fail it in CI."""
    found = shutil.which("local-kms")
    if found is None and shutil.which("go") is not None:
        path = subprocess.run(["go", "env", "GOPATH"], capture_output=True, text=True, check=True).stdout.strip()
        found = shutil.which("local-kms", path=f"{path}/bin")
    return Path(found) if found is not None else lacking("needs local-kms: .ci/local-kms builds it")


class LocalKms:
    """One, whose keys outlive its end."""

    def __init__(self, port: int, folder: Path) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"
        self._port = port
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        if importlib.util.find_spec("botocore") is None:
            lacking("needs botocore: install the package's extra kms")
        from botocore.session import Session

        made = Session()
        made.set_credentials(*_CREDENTIALS)
        self.client: Any = made.create_client("kms", region_name=REGION, endpoint_url=self.endpoint)

    def start(self) -> None:
        environment = {
            "PORT": str(self._port),
            "KMS_REGION": REGION,
            "KMS_ACCOUNT_ID": "111122223333",
            "KMS_DATA_PATH": str(self._folder),
            "PATH": os.environ["PATH"],
        }
        self._process = subprocess.Popen(
            [find_local_kms()], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers, "the stand-in of KMS answers", 30)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def aliases(self) -> list[str]:
        return sorted(each["AliasName"] for each in self.client.list_aliases()["Aliases"])

    def keys(self) -> int:
        return len(self.client.list_keys()["Keys"])

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False


@contextmanager
def local_kms(port: int) -> Iterator[LocalKms]:
    with tempfile.TemporaryDirectory() as folder:
        made = LocalKms(port, Path(folder))
        made.start()
        try:
            yield made
        finally:
            made.stop()
