"""A task with resources of clouds, whose credentials and whose end the test sets. As the endpoints of the SDK see one."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sojourn.errors import SojournError, TaskOver
from sojourn.sdk.task.values import AWS_CREDENTIALS, VAULT_TOKEN, AccessToken, Outside, TaskStatus
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken.grants import Grant

S3, SHEETS, KEYS, SECRETS = (f"https://{name}.example.org" for name in ("s3", "sheets", "keys", "secrets"))
AWS = Outside(S3, "aws-prod", "aws", {"kind": "aws", "role_arn": "arn:aws:iam::1:role/r", "region": "eu-west-1"})
GCP = Outside(
    SHEETS, "google", "gcp", {"kind": "gcp", "audience": "//iam.googleapis.com/x", "project_id": "my-project"}
)
ENTRA = Outside(
    KEYS, "corp", "entra", {"kind": "entra", "scope": "https://vault.azure.net/.default", "client_id": "c-1"}
)
VAULT = Outside(SECRETS, "vault", "vault", {"kind": "vault", "address": "http://127.0.0.1:1", "gives": "token"})
KEY = {"AccessKeyId": "AKIDTASK", "SecretAccessKey": "secret-of-aws", "Token": "session-of-aws"}


def token(outside: Outside, seconds: float = 900, text: str = "") -> AccessToken:
    """What the agent gives for a resource."""
    until = datetime.now(UTC) + timedelta(seconds=seconds)
    kind, issued, text = {
        "aws": ("N_A", AWS_CREDENTIALS, text or json.dumps({**KEY, "Expiration": "2099-01-01T00:00:00Z"})),
        "vault": ("N_A", VAULT_TOKEN, text or "hvs.token-of-vault"),
    }.get(outside.kind, ("Bearer", "", text or f"token-of-{outside.kind}"))
    return AccessToken(text, outside.resource, ("use",), until, kind, issued, outside.provider, "none")


class CloudTask:
    """`given` is what the agent gives for a resource, or what it raises; `asked` what it was asked for."""

    def __init__(self, *outside: Outside) -> None:
        now = datetime.now(UTC)
        grants = tuple(Grant.parse(each.resource, ["use"]) for each in outside)
        spiffe_id = SpiffeId.parse("spiffe://example.org/agent/triage")
        later = now + timedelta(hours=1)
        self.status = TaskStatus(
            "t1", "use-clouds", spiffe_id, "active", "", 1, grants, now, later, {}, outside=tuple(outside)
        )
        self.given: dict[str, AccessToken | SojournError] = {each.resource: token(each) for each in outside}
        self.asked: list[str] = []
        self._over = asyncio.Event()

    def change(self, **changes: Any) -> None:
        self.status = replace(self.status, version=self.status.version + 1, **changes)

    def end(self, state: str, reason: str) -> None:
        self.change(state=state, reason=reason)
        self._over.set()

    async def wait_ended(self) -> None:
        await self._over.wait()

    async def token(self, resource: str = "") -> AccessToken:
        self.asked.append(resource)
        if self._over.is_set():
            raise TaskOver(f"task is {self.status.state}: {self.status.reason}")
        given = self.given[resource]
        if isinstance(given, SojournError):
            raise given
        return given
