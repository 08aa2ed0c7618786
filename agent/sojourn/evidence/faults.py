"""What can be wrong with evidence. Values; docs/oversight.md has each."""

from dataclasses import dataclass, field
from typing import Any, Final

FAULTS: Final = {
    "manifest_not_signed": "The manifest is not signed by a key that was given, or one that follows on it.",
    "manifest_changed": "The manifest is not what was signed.",
    "manifest_unreadable": "The manifest, or its signature, cannot be read.",
    "file_missing": "A file that the manifest names is not there.",
    "file_changed": "A file is not what the manifest says.",
    "key_missing": "No key of a log was given.",
    "checkpoint_unreadable": "The checkpoint of a log cannot be read, or is another's than the manifest says.",
    "checkpoint_not_signed": "The checkpoint is not signed by a key that was given, or one that follows on it.",
    "checkpoint_not_timed": "The checkpoint has no cosignature that says when it was made.",
    "rotation_unproved": "A change of the log's key is not proved.",
    "tile_missing": "A part of the log's tree is not there.",
    "tree_changed": "The log's tree is not the one that was signed.",
    "record_unreadable": "A line is no record.",
    "record_missing": "A record is missing.",
    "record_changed": "A record does not follow on the one before it: one of the two was changed.",
    "received_twice": "A receiver has two records of this number: the database was put back, or one was changed.",
    "record_not_signed": "A record is not the one that is in the signed log.",
    "record_in_no_log": "A record is in none of the logs of the folder.",
    "inputs_differ": "What a decision was made on is not what its record's digest is of.",
    "inputs_unreadable": "The record of a decision does not say what the decision was made on.",
    "policy_set_wrong": "The files of a set of task types are not those whose digest records name.",
    "proof_unreadable": "The proof cannot be read.",
    "proof_wrong": "The proof does not lead from the record to the checkpoint.",
    "after_unreadable": "The older checkpoint cannot be read.",
    "after_not_signed": "The older checkpoint is not signed by a key that was given, or one that follows on it.",
    "log_restarted": "The older checkpoint is of another log than the one that is signed now.",
    "head_behind": "The log is shorter than the older checkpoint says.",
    "head_forked": "The log does not begin with what the older checkpoint has.",
    "head_unproved": "What the older checkpoint ends in was pruned, so that it cannot be compared.",
    "witness_missing": "A witness that was given has not cosigned the log.",
    "witness_wrong": "What a witness has cosigned is not how the log begins, or its cosignature is not good.",
    "witness_ahead": "A witness has cosigned more of the log than there is: records are lost, or left out.",
    "witness_unproved": "What a witness has cosigned was pruned, so that it cannot be compared.",
    "timestamp_missing": "No checkpoint of a log is time-stamped.",
    "timestamp_wrong": "A time stamp is not good, or what it is of is not how the log begins.",
    "timestamp_unproved": "What a time stamp is of was pruned, so that it cannot be compared.",
}
_KEPT: Final = 100


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. `seq`: of the record that it is about, 0 if it is about none."""

    code: str
    reason: str
    seq: int = 0


@dataclass(slots=True)
class Faults:
    """What was found: the first of them, and how many in all."""

    found: list[Fault] = field(default_factory=list)
    count: int = 0
    first_bad_seq: int = 0

    def add(self, code: str, reason: str = "", seq: int = 0) -> None:
        """`reason`: in place of what its code says, where there is more to say."""
        self.count += 1
        if seq and (not self.first_bad_seq or seq < self.first_bad_seq):
            self.first_bad_seq = seq
        if len(self.found) < _KEPT:
            said = FAULTS[code].removesuffix(".")
            self.found.append(Fault(code, reason or said[0].lower() + said[1:], seq))

    def summary(self) -> dict[str, Any]:
        """What was found, as it is printed in JSON."""
        found = [{"code": each.code, "reason": each.reason, "seq": each.seq or None} for each in self.found]
        return {
            "first_bad_seq": self.first_bad_seq or None,
            "faults": found,
            "faults_left_out": self.count - len(found),
        }
