"""Records as the agent writes them, told one by one, and what the control map makes of them."""

from sojourn.evidence import policy_sets
from sojourn.oversight.controls.exported_types import ExportedTypes
from sojourn.oversight.controls.fold import ControlFold
from sojourn.oversight.controls.query import Journal, Replayed

A, B = "https://a.example.org", "https://b.example.org"
ONE, TWO, THREE = (f"spiffe://example.org/{each}" for each in ("one", "two", "three"))
AT_MS = 1_795_993_404_000
READ = [{"resource": A, "actions": ["doc:read"]}]
READ_WRITE = [{"resource": A, "actions": ["doc:read", "doc:write"]}]
ELSEWHERE = [{"resource": B, "actions": ["doc:read"]}]
CEDAR = '@id("all") permit (principal, action, resource);'
WHOLE = Journal(looked_at=True)


def exported(types, cases=()):
    """The files of an export that hold a set of task types, which are TOML by name, and the digest of the set."""
    import hashlib

    texts = {f"{name}.toml": text for name, text in types.items()}
    texts |= {f"{name}.cedar": CEDAR for name in types}
    texts |= {f"{name}.test.toml": "" for name in cases}
    by_digest = {hashlib.sha256(text.encode()).hexdigest(): text.encode() for text in texts.values()}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}
    digest = policy_sets.digest_of_set(digests, by_digest.__getitem__)
    files = {policy_sets.text_path_of(each): text for each, text in by_digest.items()}
    return {**files, policy_sets.path_of(digest): policy_sets.written(digests)}, digest


class Story:
    """A journal. Each record comes a second behind the one before it."""

    def __init__(self, first_seq=1, types=None, cases=()):
        files, self.set = exported(types or {"triage": 'owner = "ann"'}, cases)
        self.files = files
        self.records = []
        self.seq = first_seq - 1
        self.at_ms = AT_MS

    def tell(self, event, *, after_ms=1_000, **fields):
        """Add a record, and return its number."""
        self.seq, self.at_ms = self.seq + 1, self.at_ms + after_ms
        kept = {name: value for name, value in fields.items() if value is not None}
        self.records.append((self.seq, self.at_ms, event, kept))
        return self.seq

    def of_task(self, event, task="t1", type_="triage", workload=ONE, **fields):
        named = {"task": task, "type": type_, "type_version": "0" * 16, "spiffe_id": workload, "uid": 1000}
        return self.tell(event, **{**named, **fields})

    def begin(self, task="t1", grants=READ_WRITE, **fields):
        return self.of_task("task_begun", task, **{"grants": grants, "policy_set": self.set, **fields})

    def pending(self, task="t1", grants=READ_WRITE, **fields):
        asked = {"approval": f"apr_{task}", "digest": f"digest-{task}", "approvers": ["operator"], "count": 1}
        return self.of_task("task_pending", task, **{"grants": grants, "policy_set": self.set, **asked, **fields})

    def decide(self, task="t1", verdict="approve", **fields):
        said = {"task": task, "type": "triage", "approval": f"apr_{task}", "digest": f"digest-{task}"}
        by = {"by_uid": 0, "by_pid": 1, "by_role": "operator", "grants": READ_WRITE}
        return self.tell("approval_decided", **{**said, "verdict": verdict, **by, **fields})

    def token(self, task="t1", actions=("doc:read",), resource=A, **fields):
        expires = (self.at_ms + fields.get("after_ms", 1_000)) // 1_000 + 60
        said = {"actions": list(actions), "resource": resource, "jti": f"jti-{self.seq + 1}", "expires_at": expires}
        return self.of_task("token_issued", task, **{**said, "policy_set": self.set, **fields})

    def ticket(self, task="t1", to=TWO, grants=READ, ticket="d1", **fields):
        return self.of_task("task_delegated", task, ticket=ticket, to=to, grants=grants, **fields)

    def accept(self, task="t2", parent="t1", workload=TWO, grants=READ, line=(ONE,), **fields):
        """`line`: the workloads that had it before."""
        said = {"parent": parent, "subject": line[0], "actors": [workload, *reversed(line[1:])], "depth": len(line)}
        by = {} if "by_token" in fields else {"ticket": "d1"}
        more = {"grants": grants, "policy_set": self.set, **said, **by, **fields}
        return self.of_task("delegation_accepted", task, workload=workload, **more)

    def end(self, task="t1", reason="success", **fields):
        return self.of_task("task_ended", task, **{"state": "completed", "reason": reason, "seconds": 1.5, **fields})

    def fold(self, *names, **limits):
        """The walk along all of it."""
        fold = ControlFold(names)
        for name, value in limits.items():
            setattr(fold.tasks, name, value)
        for seq, at_ms, event, fields in self.records:
            fold.read(seq, at_ms, event, fields if fold.wants(event) else None)
        return fold

    def answer(self, name, journal=WHOLE, replayed=None, **limits):
        """What one query finds."""
        types = ExportedTypes(self.files.__getitem__)
        return self.fold(name, **limits).answers(journal, replayed or Replayed(), types)[name]

    def found(self, name, **limits):
        """The same, as (n, exceptions, their records, not judged)."""
        answer = self.answer(name, **limits)
        return answer.n, answer.exceptions, list(answer.seqs), answer.not_judged
