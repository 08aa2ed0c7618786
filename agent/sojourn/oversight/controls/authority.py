"""Queries on what tasks hold: it never grows, none is used by a task that is not live, and none lasts."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from sojourn.limits import TOKEN_TTL_MAX_SECONDS
from sojourn.operating_limits import CONTROL_GRACE_MS, CONTROL_KEYS, CONTROL_NAMED
from sojourn.oversight.controls.live_tasks import BEGINNINGS, Held, LiveTasks, is_number
from sojourn.oversight.controls.query import Exceptions, Query, Seen, Whole, spread
from sojourn.oversight.histogram import Histogram

TAKEN = frozenset({"token_issued", "external_credential_issued"})
CLOCK_MS = 2_000  # the time of a token is in whole seconds, and its record is made behind it


class AuthorityNeverGrows(Query):
    name = "authority_never_grows"
    assertion = (
        "what a task has at its beginning contains each token and outside credential of it, and what is left when it is"
        " narrowed, resumed or handed on; what begins after an approval is what was asked"
    )
    events = TAKEN | BEGINNINGS | {"task_narrowed", "task_resumed", "task_delegated"}

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._by_event: Counter[str] = Counter()

    def read(self, seen: Seen) -> None:
        task = seen.task
        if task is None:
            self.unknown_task(seen)
            return
        if seen.event in BEGINNINGS and task.seq == seen.seq:
            return
        before, after = task.held_at(seen.when_ms), self._after(seen)
        if before is None or after is None:
            self.not_judged += 1
            return
        self._by_event[seen.event] += 1
        self.judge(after <= before, seen.seq)

    def _after(self, seen: Seen) -> Held | None:
        """What the record gives, or leaves; None: it does not say."""
        fields = seen.fields
        if seen.event in TAKEN:
            return frozenset((fields["resource"], each) for each in fields["actions"])
        if seen.event == "task_resumed":  # of what policy was asked; the record of a further cause has none
            asked = fields.get("asked")
            return None if asked is None else frozenset((at, each) for at, actions in asked.items() for each in actions)
        return self.tasks.held(fields["grants"]) if "grants" in fields else None

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return {event: self._by_event[event] for event in sorted(self._by_event)}


class TokensOfLiveTasks(Query):
    name = "tokens_of_live_tasks"
    assertion = "each token and outside credential is of a task that is live then: begun, not suspended, not over"
    events = TAKEN

    def read(self, seen: Seen) -> None:
        if seen.task is None:
            self.unknown_task(seen)
        else:
            self.judge(seen.task.active_at(seen.when_ms), seen.seq)


class EndedByAttestation(Query):
    name = "ended_by_attestation"
    assertion = "a task that ended because its holder is no longer what was attested has no token made after that"
    events = TAKEN | {"task_ended"}

    def read(self, seen: Seen) -> None:
        task = seen.task
        if seen.event == "task_ended":
            self.n += seen.fields.get("reason") == "attestation_changed"
        elif task is None:  # it may be one that ended so, long ago
            self.not_judged += 1
        elif task.end_reason == "attestation_changed" and not task.active_at(seen.when_ms):
            self.exceptions.add(seen.seq)


class HighConsequence(Query):
    name = "high_consequence_bound"
    assertion = (
        "each token for an action of high consequence is bound to its sender (cnf) and for one request (params_digest)"
    )
    events = frozenset({"token_issued"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._kinds: dict[tuple[str, str, tuple[str, ...], bool], Exceptions] = {}

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        good = bool(fields.get("cnf") and fields.get("params_digest"))
        key = (fields["policy_set"], fields["type"], tuple(fields["actions"]), good)
        found = self._kinds.get(key)
        if found is None:
            if len(self._kinds) >= CONTROL_KEYS:
                self.not_judged += 1
                return
            found = self._kinds[key] = Exceptions()
        found.add(seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        for (policy_set, type_name, actions, good), found in self._kinds.items():
            kind = (whole.types.of(policy_set) or {}).get(type_name)
            if kind is None:
                self.not_judged += found.count
                continue
            if not any(is_high(kind, each) for each in actions):
                continue
            self.n += found.count
            if not good:
                self.exceptions.take(found)
        return {}


def is_high(kind: Mapping[str, Any], action: str) -> bool:
    """Whether an action of a type is of high consequence."""
    return bool(kind.get("consequence_of", {}).get(action, kind.get("consequence", "normal")) == "high")


class ShortLived(Query):
    name = "short_lived"
    assertion = f"each token expires within {TOKEN_TTL_MAX_SECONDS} s of its record"
    events = frozenset({"token_issued", "task_ended"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._tokens, self._lives = Histogram(), Histogram()

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        if seen.event == "task_ended":
            lived = round(fields.get("seconds", 0) * 1_000)
            if "seconds" in fields and is_number(lived):
                self._lives.add(lived)
            return
        if not is_number(fields["expires_at"]):
            self.judge(False, seen.seq)
            return
        life = fields["expires_at"] * 1_000 - seen.at_ms
        self._tokens.add(life)
        self.judge(life <= TOKEN_TTL_MAX_SECONDS * 1_000 + CLOCK_MS, seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return {**spread("token_seconds", self._tokens, 1_000), **spread("task_seconds", self._lives, 1_000)}


_ISSUED: Final = "external_credential_issued"
_ENDED: Final = "external_credential_ended"
_LEFT: Final = frozenset({"external_credential_open", "external_credential_lost", "external_credential_damaged"})


class OutsideCredentials(Query):
    name = "outside_credentials_end"
    assertion = (
        "no credential of a provider outside is left open when its task is over: it was taken back, or it expired"
    )
    events = frozenset({_ISSUED, _ENDED, *_LEFT})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._open: dict[str, tuple[int, str, int | None]] = {}  # -> the record, the task, and until when, in seconds

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        if seen.event in _LEFT:  # good until it expires, or nobody knows whether there is one
            self.exceptions.add(seen.seq)
        if seen.event != _ISSUED:
            self._open.pop(fields.get("credential", ""), None)
            return
        self.n += 1
        if len(self._open) >= CONTROL_NAMED:
            self.not_judged += 1
            return
        until = fields.get("expires_at")
        self._open[fields["credential"]] = (seen.seq, fields["task"], until if is_number(until) else None)

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        for seq, task_id, until in self._open.values():
            task = self.tasks.find(task_id)
            if until is not None and until * 1_000 <= whole.last_ms:
                continue
            if task is None and self.tasks.may_have_begun(task_id):
                self.not_judged += 1
            elif task is None or (task.ended_ms is not None and whole.last_ms - task.ended_ms > CONTROL_GRACE_MS):
                self.exceptions.add(seq)
        return {}
