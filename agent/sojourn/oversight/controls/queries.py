"""Every query by its name: data files name them, and can make none."""

from collections.abc import Mapping
from typing import Final

from sojourn.oversight.controls import authority, families, inventory, journal, oversight, reviews
from sojourn.oversight.controls.query import Query

_ALL: Final[tuple[type[Query], ...]] = (
    authority.AuthorityNeverGrows,
    authority.TokensOfLiveTasks,
    authority.EndedByAttestation,
    authority.HighConsequence,
    authority.ShortLived,
    authority.OutsideCredentials,
    families.HandOvers,
    families.Cascade,
    families.FanOut,
    oversight.Approvals,
    oversight.ApprovalWhereRequired,
    oversight.KillSwitch,
    oversight.Drills,
    reviews.BreakGlass,
    reviews.Reviews,
    oversight.ActsNamed,
    inventory.EntriesEnd,
    inventory.SvidsExpire,
    inventory.EntriesOwned,
    inventory.TypesOwned,
    inventory.PolicySets,
    inventory.DecisionsReplayed,
    journal.JournalWhole,
    journal.NothingLost,
    journal.Sinks,
    journal.Refusals,
)
QUERIES: Final[Mapping[str, type[Query]]] = {each.name: each for each in _ALL}
