"""What to do next, by an error's code; where one code has many causes, by its text too."""

from typing import Final

_NEXT: Final = {
    "no_identity": "see why with `sojourn explain --pid PID`; register with `sojourn entry create`",
    "attestation_failed": "`sojourn explain --pid PID` and `sojourn status` say which attestor failed and why",
    "unknown_task_type": "`sojourn status` lists the task types that the agent has",
    "no_task_types": "the operator's `sojourn status` names the file that is wrong; mended, it is in force at once",
    "policy_denied": "the task type, facts and switches decide: `sojourn audit tail` has the record",
    "action_outside_type": "the task type's ceiling is what tasks may have; `sojourn task show` is what one has",
    "task_not_active": "begin a new task; or, if it is suspended, wait until it is resumed",
    "binding_needed": "`sojourn task token --bound`, or with --certificate FILE",
    "params_digest_needed": "`sojourn task digest` makes it of the request; give it to `sojourn task token`",
    "invalid_target": "`sojourn task show` tells what a task has, its type's [[ceiling]] what it may have",
    "approval_required": "wait for the decision: `sojourn task show TASK` has its state",
    "review_owed": "`sojourn review list` shows what is owed",
    "invalid_issuer": "[[signals]] in the agent's configuration names the issuers; `sojourn status` lists them",
    "invalid_key": "the issuer's JWK Set, `jwks` under [[signals]], must have the key that signed the event",
    "invalid_audience": "the event's aud must be `audience` under [[signals]]; that is tasks.issuer if it is not given",
    "bundle_not_fetched": "a bundle that was there stays in force; `sojourn federation show` tells how it fares",
    "provider_refused": "`sojourn provider check NAME --spiffe-id ID` says which step fails and what to set there",
    "provider_unavailable": "`sojourn provider check NAME --spiffe-id ID` says which step fails; it may pass by itself",
    "store_full": "make room in the agent's data folder; identities are served meanwhile",
    "invalid_config": "docs/reference.md has every key; `sojourn config show` prints what is in force",
    "invalid_selector": "`sojourn explain --pid PID` lists the selectors that a process has",
}
# What is not there, or is there already: how to see what is.
_LISTED: Final = (
    ("entry", "`sojourn entry list` shows the entries with their IDs"),
    ("federation relationship", "`sojourn federation list` shows which are followed"),
    ("relationship with trust domain", "`sojourn federation list` shows which are followed"),
    ("bundle", "`sojourn bundle list` shows whose bundles are here"),
    ("approval", "`sojourn approval list` shows those that wait"),
    ("review", "`sojourn review list` shows what is owed"),
    ("process", "give the ID of a process that runs, such as --pid $$ for this shell"),
    ("task", "`sojourn task list --all` shows the tasks that were of late (operator)"),
)


def hint(code: str, text: str) -> str:
    """What to do about an error with this code and this text; empty if the text says it already."""
    if code in _NEXT:
        return _NEXT[code]
    if code == "already_exists" and "entry" in text:
        return "`sojourn entry list` shows it; change it with `sojourn entry update`"
    if "unable to find federated bundle" in text:
        return "`sojourn federation create` follows it, `sojourn bundle set` takes it from a file"
    if code == "not_found" and not any(told in text for told in ("`sojourn", "audit journal", "there are: ")):
        return next((cure for word, cure in _LISTED if word in text), "")
    return ""
