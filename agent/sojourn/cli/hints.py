"""What to do next, by an error's code; where one code has many causes, by its text too.

What only operators may run is told to others as what they may ask the operator for.
"""

from typing import Final, NamedTuple


class _Hint(NamedTuple):
    """What anybody may do or know, and what an operator's command tells; one of them may be empty."""

    own: str
    operators: str = ""

    def told(self, *, operator: bool) -> str:
        if not self.operators:
            return self.own
        asked = self.operators if operator else f"ask the operator: {self.operators}"
        return f"{self.own}; {asked}" if self.own else asked


_PERSON: Final = "`sojourn person check NAME --token-file FILE --spiffe-id ID` says which step fails and what to set"
_NEXT: Final = {
    "no_identity": _Hint("", "`sojourn explain --pid PID` says why, `sojourn entry create` registers"),
    "attestation_failed": _Hint(
        "", "`sojourn explain --pid PID` and `sojourn status` say which attestor failed and why"
    ),
    "unknown_task_type": _Hint("", "`sojourn status` lists the task types that the agent has"),
    "no_task_types": _Hint(
        "mended, they are in force at once", "`sojourn status` names the file of task types that is wrong"
    ),
    "policy_denied": _Hint("the task type, facts and switches decide", "`sojourn audit tail` has the record"),
    "action_outside_type": _Hint("the task type's ceiling is what tasks may have; `sojourn task show` is what one has"),
    "task_not_active": _Hint("begin a new task; or, if it is suspended, wait until it is resumed"),
    "binding_needed": _Hint("`sojourn task token --bound`, or with --certificate FILE"),
    "params_digest_needed": _Hint("`sojourn task digest` makes it of the request; give it to `sojourn task token`"),
    "invalid_target": _Hint("`sojourn task show` tells what a task has, its type's [[ceiling]] what it may have"),
    "approval_required": _Hint("wait for the decision: `sojourn task show TASK` has its state"),
    "review_owed": _Hint("", "`sojourn review list` shows what is owed"),
    "review_overdue": _Hint("live tasks go on", "`sojourn review list --overdue` shows what is overdue"),
    "review_not_shown": _Hint("", "`sojourn review show ITEM` shows its evidence, with the digest"),
    "review_stale": _Hint("", "`sojourn review show ITEM` shows it as it is now"),
    "own_review": _Hint("", "`sojourn review show ITEM` has who changed it"),
    "reason_needed": _Hint("give --reason TEXT, or the column `reason`"),
    "invalid_issuer": _Hint(
        "[[signals]] in the agent's configuration names the issuers", "`sojourn status` lists them"
    ),
    "invalid_key": _Hint("the issuer's JWK Set, `jwks` under [[signals]], must have the key that signed the event"),
    "invalid_audience": _Hint(
        "the event's aud must be `audience` under [[signals]]; that is tasks.issuer if it is not given"
    ),
    "bundle_not_fetched": _Hint(
        "a bundle that was there stays in force", "`sojourn federation show` tells how it fares"
    ),
    "provider_refused": _Hint(
        "", "`sojourn provider check NAME --spiffe-id ID` says which step fails and what to set there"
    ),
    "provider_unavailable": _Hint(
        "it may pass by itself", "`sojourn provider check NAME --spiffe-id ID` says which step fails"
    ),
    **dict.fromkeys(("unknown_issuer", "wrong_kind", "wrong_presenter"), _Hint("", _PERSON)),
    "too_old": _Hint("the person logs in again, or the issuer renews the token", _PERSON),
    "issuer_unavailable": _Hint("it may pass by itself", _PERSON),
    "not_on_disk": _Hint("until then a kill of the agent undoes it", "make room in its data folder, and say it again"),
    "store_full": _Hint("identities are served meanwhile", "make room in the agent's data folder"),
    "store_failed": _Hint("identities are served meanwhile", "see to the disk of the agent's data folder"),
    "invalid_config": _Hint("`sojourn config explain` has every key, `sojourn config show` prints what is in force"),
    "invalid_selector": _Hint("", "`sojourn explain --pid PID` lists the selectors that a process has"),
}
# What is not there, or is there already: how to see what is.
_LISTED: Final = (
    ("entry", _Hint("", "`sojourn entry list` shows the entries with their IDs")),
    ("federation relationship", _Hint("", "`sojourn federation list` shows which are followed")),
    ("relationship with trust domain", _Hint("", "`sojourn federation list` shows which are followed")),
    ("bundle", _Hint("", "`sojourn bundle list` shows whose bundles are here")),
    ("approval", _Hint("`sojourn approval list` shows those that wait")),
    ("review", _Hint("", "`sojourn review list` shows what is owed")),
    ("process", _Hint("give the ID of a process that runs, such as --pid $$ for this shell")),
    ("task", _Hint("", "`sojourn task list --all` shows the tasks that were of late")),
)


def hint(code: str, text: str, *, operator: bool) -> str:
    """What to do about an error with this code and this text; empty if the text says it already.

    `operator`: whoever reads it may run what operators may.
    """
    found = _found(code, text)
    return "" if found is None else found.told(operator=operator)


def _found(code: str, text: str) -> _Hint | None:
    if code in _NEXT:
        return _NEXT[code]
    if code == "already_exists" and "entry" in text:
        return _Hint("", "`sojourn entry list` shows it; change it with `sojourn entry update`")
    if "unable to find federated bundle" in text:
        return _Hint("", "`sojourn federation create` follows it, `sojourn bundle set` takes it from a file")
    if code == "not_found" and not any(told in text for told in ("`sojourn", "audit journal", "there are: ")):
        return next((cure for word, cure in _LISTED if word in text), None)
    return None
