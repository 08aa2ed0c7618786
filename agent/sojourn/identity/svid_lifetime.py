"""Why an SVID has the lifetime that it has."""

from datetime import datetime, timedelta

from sojourn.identity.entries import Entry
from sojourn.limits import NOT_BEFORE_SLACK_SECONDS
from sojourn.settings.durations import duration_text
from sojourn.spiffe.x509svid import X509Svid


def reason(entry: Entry, default_ttl: timedelta | None, svid: X509Svid) -> str:
    """Say which rule set the end of an entry's X.509-SVID: the entry, the agent's default, or its issuer's own end.
    No default: a server has signed it.
    """
    if default_ttl is None:
        return f"the server's, {duration_text(svid.not_after - _issued(svid))}"
    asked = timedelta(seconds=entry.x509_svid_ttl) or default_ttl
    rule = "the entry's x509_svid_ttl" if entry.x509_svid_ttl else "the agent's default x509_svid_ttl"
    issuers_end = min((each.not_valid_after_utc for each in svid.chain[1:]), default=None)
    if issuers_end is not None and svid.not_after >= issuers_end and _issued(svid) + asked > issuers_end:
        return f"{duration_text(asked)} asked by {rule}; the issuer ends earlier, at {_moment(issuers_end)}"
    return f"{rule}, {duration_text(asked)}"


def _issued(svid: X509Svid) -> datetime:
    return svid.leaf.not_valid_before_utc + timedelta(seconds=NOT_BEFORE_SLACK_SECONDS)


def _moment(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
