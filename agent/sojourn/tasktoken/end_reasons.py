"""Why tasks end, lose authority and are suspended: the words of their records, of the feed, and of holders.

A suspension has a cause beside its reason: by that it is taken away again. An operator's reason is their own text. What
an operator says of an end stands beside the reason, in brackets where both are told.
"""

from sojourn.limits import AUDITED_TEXT

SUCCESS, FAILURE, CANCELLED = "success", "failure", "cancelled"  # the holder completed it; cancelled: while pending
HOLDER = "holder"  # the holder gave something up
DEADLINE, IDLE, BUDGET = "deadline", "idle", "budget"
HOLDER_EXITED, HOLDER_DISCONNECTED = "holder_exited", "holder_disconnected"
ATTESTATION_CHANGED = "attestation_changed"  # the holder, or the entry that it had its identity by
POLICY_CHANGED, CONTEXT_CHANGED = "policy_changed", "context_changed"  # context: the facts
IDENTITY_REVOKED = "identity_revoked"  # an operator revoked the SVIDs of its workload
ADMIN = "admin"  # an operator ended it
BLOCKED = "blocked"  # an operator switched its type or workload off
APPROVAL_DENIED, APPROVAL_EXPIRED = "approval_denied", "approval_expired"
PARENT_ENDED, PARENT_SUSPENDED, PARENT_NARROWED = "parent_ended", "parent_suspended", "parent_narrowed"
AGENT_STOPPED, AGENT_RESTART = "agent_stopped", "agent_restart"
JOURNAL_DAMAGED = "journal_damaged"
TOKEN_REVOKED = "token_revoked"  # noqa: S105  # it was for that token, or came of it
NO_TOKEN = "no_token"  # noqa: S105  # it was for one, which it did not get
NOT_WRITTEN = "not_written"  # it never began: its record could not be written

# Causes of suspension.
OPERATOR, FACTS = "operator", "facts"
PARENT = "parent"  # the task that handed it on is not active
HANDOVER = "handover"  # its holder is gone, and it is not known yet whether its heir may have it
RESTART = AGENT_RESTART  # its holder has not come back yet

ASKER_ENDED = "the process that asked for the token has ended; was it curl in a pipe? docs/tokens.md#curl"


def with_explanation(reason: str, explanation: str) -> str:
    """Why a task is over, in one text."""
    return f"{reason} ({explanation})" if explanation else reason


def explanation_of(text: str) -> str:
    """An operator's text as it is told to others: cut at AUDITED_TEXT characters, and nothing that a terminal obeys."""
    cut = text.strip()[:AUDITED_TEXT]
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in cut)
