"""Messages of `sojourn.v1.Validation.WatchTasks`, and tokens that fit them."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from sojourn._pb.sojourn.v1 import validation_pb2 as pb
from sojourn.jose.jws import SigningKey
from sojourn.spiffe.ids import SpiffeId
from sojourn.tasktoken import tokens
from sojourn.tasktoken.grants import Grant
from sojourn.tasktoken.task_claim import TaskClaim

ISSUER = "https://agent.example.org"
AUDIENCE = "https://tickets.example.org"
HOLDER = SpiffeId.parse("spiffe://example.org/agent/triage")


def signing_key(kid: str = "k1") -> SigningKey:
    return SigningKey.from_private(kid, ec.generate_private_key(ec.SECP256R1()))


def token(
    key: SigningKey,
    task_id: str = "t1",
    version: int = 5,
    *,
    actions: Sequence[str] = ("ticket:read",),
    audience: str = AUDIENCE,
    seconds: int = 60,
    task_class: str = "normal",
    params: Mapping[str, str | int | bool] | None = None,
    bind: Mapping[str, tuple[str, ...]] | None = None,
    asks: Sequence[str] = (),
    steady: float | None = None,
) -> str:
    now = datetime.now(UTC)
    return tokens.issue(
        key,
        issuer=ISSUER,
        spiffe_id=HOLDER,
        grant=Grant.parse(audience, actions),
        task=TaskClaim(task_id, "triage-ticket", version, task_class, bind or {}, tuple(asks)),
        issued_at=now,
        expires_at=now + timedelta(seconds=seconds),
        params=params,
        steady=steady,
    ).token


def live(task_id: str = "t1", version: int = 5) -> pb.TaskState:
    return pb.TaskState(id=task_id, version=version, live=True)


def over(task_id: str = "t1", version: int = 6, reason: str = "holder is gone") -> pb.TaskState:
    return pb.TaskState(id=task_id, version=version, live=False, reason=reason)


def jwks(*keys: SigningKey) -> bytes:
    return json.dumps({"keys": [dict(key.public.jwk) for key in keys]}).encode()


def snapshot(
    keys: Sequence[SigningKey], *tasks: pb.TaskState, epoch: int = 1, more: bool = False, steady: float = 0
) -> pb.TaskFeed:
    said = pb.Snapshot(tasks=tasks, more=more)
    return pb.TaskFeed(snapshot=said, epoch=epoch, issuer=ISSUER, keys=jwks(*keys), steady_seconds=steady)


def part(*tasks: pb.TaskState, epoch: int = 1, more: bool = False) -> pb.TaskFeed:
    """One of a snapshot's that is not its first."""
    return pb.TaskFeed(snapshot=pb.Snapshot(tasks=tasks, more=more), epoch=epoch)


def delta(*tasks: pb.TaskState, epoch: int = 1, keys: Sequence[SigningKey] = ()) -> pb.TaskFeed:
    return pb.TaskFeed(delta=pb.Delta(tasks=tasks), epoch=epoch, keys=jwks(*keys) if keys else b"")


def heartbeat(epoch: int = 1, steady: float = 0) -> pb.TaskFeed:
    return pb.TaskFeed(heartbeat=pb.Heartbeat(sent_at_ms=1), epoch=epoch, steady_seconds=steady)


class Boot:
    """A boot clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds
