"""Why tasks end, lose authority and are suspended: the words of their records, of the feed, and of holders.

A suspension has a cause beside its reason: by that it is taken away again. An operator's reason is their own text. What
an operator says of an end stands beside the reason, in brackets where both are told.
"""

from typing import Final

from sojourn.limits import AUDITED_TEXT

SUCCESS, FAILURE, CANCELLED = "success", "failure", "cancelled"
HOLDER = "holder"
DEADLINE, IDLE, BUDGET = "deadline", "idle", "budget"
HOLDER_EXITED, HOLDER_DISCONNECTED = "holder_exited", "holder_disconnected"
ATTESTATION_CHANGED = "attestation_changed"
POLICY_CHANGED, CONTEXT_CHANGED = "policy_changed", "context_changed"
IDENTITY_REVOKED = "identity_revoked"
ADMIN = "admin"
BLOCKED = "blocked"
PERSON_EXPIRED = "person_expired"
SESSION_ENDED = "session_ended"
PERSON_UNCHECKED = "person_unchecked"
APPROVAL_DENIED, APPROVAL_EXPIRED = "approval_denied", "approval_expired"
PARENT_ENDED, PARENT_SUSPENDED, PARENT_NARROWED = "parent_ended", "parent_suspended", "parent_narrowed"
AGENT_STOPPED, AGENT_RESTART = "agent_stopped", "agent_restart"
JOURNAL_DAMAGED = "journal_damaged"
TOKEN_REVOKED = "token_revoked"  # noqa: S105
NO_TOKEN = "no_token"  # noqa: S105
NOT_WRITTEN = "not_written"

# Causes of suspension.
OPERATOR, FACTS = "operator", "facts"
PARENT = "parent"
HANDOVER = "handover"
RECHECK = "recheck"
RESTART = AGENT_RESTART

# Each reason with what happened. A suspension that an operator wants has the operator's own text instead.
REASONS: Final = {
    SUCCESS: "The holder completed the task, and says that it succeeded.",
    FAILURE: "The holder completed the task, and says that it failed.",
    CANCELLED: "The holder gave the task up while it waited for approval, or its client revoked the whole of it.",
    HOLDER: "The holder gave some of the task's authority up.",
    DEADLINE: "The task's time is up.",
    IDLE: "The task was not used for as long as its type allows.",
    BUDGET: "Services have reported all the calls that the task's type allows.",
    HOLDER_EXITED: "The process that held the task has exited; while an heir may still have the task, it waits.",
    HOLDER_DISCONNECTED: "The connection that held the task was closed, or its caller went before it had begun.",
    ATTESTATION_CHANGED: "The holder is no longer what was attested, or the entry that it had its identity by is gone.",
    POLICY_CHANGED: "With the task types and issuers of people in force now, the task may not go on, or may do less.",
    CONTEXT_CHANGED: "With the facts as they are now, policy does not allow the task, or allows less.",
    IDENTITY_REVOKED: "An operator revoked the SVIDs of the task's workload.",
    ADMIN: "An operator ended the task.",
    BLOCKED: "An operator switched the task's type or workload off, or blocked the person whom it was for.",
    PERSON_EXPIRED: "The token of the person whom the task was for has expired, and no newer one was brought.",
    SESSION_ENDED: "The person whom the task was for has logged out, their issuer says that their token is not active"
    " any more, or an operator ended what is done for them.",
    PERSON_UNCHECKED: "The issuer of the person whom the task is for has not said for too long whether their token is"
    " still active, or cannot be asked since the agent started again.",
    APPROVAL_DENIED: "Someone who was asked to approve the task denied it.",
    APPROVAL_EXPIRED: "Nobody approved the task in time.",
    PARENT_ENDED: "The task that handed this one on has ended.",
    PARENT_SUSPENDED: "The task that handed this one on is suspended.",
    PARENT_NARROWED: "The task that handed this one on has lost authority, and this one loses it too.",
    AGENT_STOPPED: "The agent stopped, and a task that is for one token, or waits for approval, does not outlive it.",
    AGENT_RESTART: "The agent started again: the holder did not come back, or the task waits for it.",
    JOURNAL_DAMAGED: "The task's record in the database could not be read when the agent started.",
    TOKEN_REVOKED: "The task was for a token that its client revoked, or was handed on under that token.",
    NO_TOKEN: "The task was made for a token, and the token was not given.",
    NOT_WRITTEN: "The task never began, since its record could not be written.",
}

# Each cause of a suspension with what it waits for.
CAUSES: Final = {
    OPERATOR: "An operator suspended the task, and an operator resumes it.",
    FACTS: "Facts do not allow the task now; it is resumed when they do again.",
    PARENT: "The task that handed this one on is not active; this one is resumed with it.",
    HANDOVER: "The holder is gone, and it is not known yet whether its heir may have the task.",
    RECHECK: "The issuer does not say whether the person's token is still active; the task is resumed when it does, or"
    " when the holder brings a token of theirs again.",
    RESTART: "The agent started again, and the holder has not come back yet.",
}

ASKER_ENDED = "the process that asked for the token has ended; was it curl in a pipe? docs/tokens.md#curl"


def with_explanation(reason: str, explanation: str) -> str:
    """Why a task is over, in one text."""
    return f"{reason} ({explanation})" if explanation else reason


def explanation_of(text: str) -> str:
    """An operator's text as it is told to others: cut at AUDITED_TEXT characters, and nothing that a terminal obeys."""
    cut = text.strip()[:AUDITED_TEXT]
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
