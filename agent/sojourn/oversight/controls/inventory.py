"""Queries on what there is: entries and their SVIDs, task types and their owners, and the sets that decided."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from sojourn.operating_limits import CONTROL_NAMED, CONTROL_NAMES
from sojourn.oversight.controls.live_tasks import LiveTasks, is_number
from sojourn.oversight.controls.query import Query, Seen, Whole, spread
from sojourn.oversight.histogram import Histogram

_ISSUED = frozenset({"x509_svid_issued", "jwt_svid_issued", "wit_svid_issued"})


class EntriesEnd(Query):
    name = "entries_end"
    assertion = "no SVID of an entry is issued after the entry was deleted"
    events = _ISSUED | {"entry_deleted", "entry_created"}

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._gone: OrderedDict[str, int] = OrderedDict()  # entry -> when

    def read(self, seen: Seen) -> None:
        entry = seen.fields["entry_id"]
        if seen.event == "entry_deleted":
            self.n += 1
            self._gone[entry] = seen.at_ms
            if len(self._gone) > CONTROL_NAMED:
                self._gone.popitem(last=False)
                self.not_judged += 1
        elif seen.event == "entry_created":
            self._gone.pop(entry, None)
        elif (gone := self._gone.get(entry)) is not None and seen.when_ms > gone:
            self.exceptions.add(seen.seq)


class SvidsExpire(Query):
    name = "svids_expire"
    assertion = "each SVID that a workload is issued by its entry names the entry and a SPIFFE ID, and expires"
    events = _ISSUED

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._lives = Histogram()

    def read(self, seen: Seen) -> None:
        fields = seen.fields
        if not is_number(fields["expires_at"]):
            self.judge(False, seen.seq)
            return
        life = fields["expires_at"] - seen.at_ms // 1_000
        self._lives.add(life)
        self.judge(bool(fields.get("entry_id") and fields.get("spiffe_id")) and life > 0, seen.seq)

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        return spread("seconds", self._lives)


class EntriesOwned(Query):
    name = "entries_owned"
    assertion = (
        "each entry that records tell of, and that is there at their end, has an owner; records that do not begin with"
        " the journal's first show nothing"
    )
    events = frozenset({"entry_created", "entry_updated", "entry_deleted"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._entries: dict[str, tuple[int, bool]] = {}

    def read(self, seen: Seen) -> None:
        entry = seen.fields["entry_id"]
        if seen.event == "entry_deleted":
            self._entries.pop(entry, None)
        elif entry in self._entries or len(self._entries) < CONTROL_NAMED:
            self._entries[entry] = (seen.seq, bool(str(seen.fields.get("owner") or "").strip()))
        else:
            self.not_judged += 1

    def finish(self, whole: Whole) -> Mapping[str, Any]:  # noqa: ARG002  # nothing of it is needed
        for seq, owned in self._entries.values():
            if owned and self.tasks.first_seq != 1:  # it is not shown by a part: others were registered before
                self.not_judged += 1
                continue
            self.judge(owned, seq)
        return {}


class TypesOwned(Query):
    name = "types_owned"
    assertion = "each task type of the last set that records name has an owner"
    events = frozenset()

    def read(self, seen: Seen) -> None:
        """No record by itself says it."""

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        last = max(whole.sets, key=lambda digest: whole.sets[digest][1], default=None)
        types = None if last is None else whole.types.of(last)
        if last is None or types is None:
            self.not_judged += last is not None
            return {}
        without = [name for name in sorted(types) if not types[name].get("owner", "").strip()]
        self.n = len(types)
        if without:
            self.exceptions.add(whole.sets[last][0], len(without))
        return {"policy_set": last, "without_owner": without[:CONTROL_NAMES]}


class PolicySets(Query):
    name = "policy_sets_kept"
    assertion = "each set of task types by which something was decided is kept with its texts, under its digest"
    events = frozenset({"policy_loaded", "policy_last_good", "policy_refused"})

    def __init__(self, tasks: LiveTasks) -> None:
        super().__init__(tasks)
        self._by_operator = self._loaded = self._refused = 0

    def read(self, seen: Seen) -> None:
        if seen.event == "policy_refused":
            self._refused += 1
        else:
            self._loaded += 1
            self._by_operator += "by_uid" in seen.fields

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        types = cases = 0
        self.not_judged += whole.sets_left_out
        for digest, (first, _) in whole.sets.items():
            found = whole.types.of(digest)
            self.judge(found is not None, first)
            if found is not None:
                types, cases = types + len(found), cases + whole.types.cases(digest)
        figures = {"loaded": self._loaded, "loaded_by_operator": self._by_operator, "refused": self._refused}
        return {**figures, "types": types, "types_with_tests": cases} if self.n else {}


class DecisionsReplayed(Query):
    name = "decisions_replayed"
    assertion = "what each decision was made on is what its record's digest is of, made again from the records"
    events = frozenset()

    def read(self, seen: Seen) -> None:
        """Whoever reads the records replays them, too."""

    def finish(self, whole: Whole) -> Mapping[str, Any]:
        found = whole.replayed
        self.n, self.not_judged = found.good + found.wrong, found.unknown
        self.exceptions.count, self.exceptions.seqs = found.wrong, [*found.seqs]
        self.exceptions.left_out = found.wrong - len(found.seqs)
        return {"replayed": found.good}
