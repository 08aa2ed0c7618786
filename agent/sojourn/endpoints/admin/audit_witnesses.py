"""What operators are told of who vouches for the signed journal."""

from sojourn._pb.sojourn.v1 import admin_pb2 as pb
from sojourn.audit.signed_log import SignedLog
from sojourn.witness.witnesses import Witnesses


def stamp_message(witnesses: Witnesses, signed: SignedLog) -> pb.AuditTimestamps | None:
    """The time-stamp authority; None if there is none."""
    found = witnesses.stamping
    if found is None:
        return None
    return pb.AuditTimestamps(
        to=found.to,
        size=found.size,
        until_seq=signed.state.first_seq + found.size - 1 if found.size else 0,
        stamped_at=found.stamped_at,
        fault=found.fault,
        failing_since=int(found.failing_since),
    )


def witness_messages(witnesses: Witnesses, signed: SignedLog) -> list[pb.AuditWitness]:
    """All witnesses, in the order of the configuration."""
    first = signed.state.first_seq
    return [
        pb.AuditWitness(
            name=each.about.name,
            to=each.about.to,
            vkey=each.about.key.cosigner,
            size=each.size,
            until_seq=first + each.size - 1 if each.size else 0,
            cosigned_at=each.cosigned_at,
            age_seconds=each.age_seconds,
            fault=each.fault,
            failing_since=int(each.failing_since),
            forked=each.forked,
        )
        for each in witnesses.all
    ]
