"""What somebody does who has decided on the review of an item: the decision itself changes nothing."""

from sojourn.oversight.review_items import Inventory, Item
from sojourn.oversight.review_names import CREDENTIAL, PROVIDER, TYPE
from sojourn.oversight.review_state import KEEP, RETIRE

_NAMED = 5  # entries or types that a sentence names


def next_step(inventory: Inventory, item: Item, decision: str, folder: str) -> str:
    """In a sentence, with the command; empty: nothing. `folder`: of the task types."""
    if decision == KEEP:
        return ""
    retire = decision == RETIRE
    if item.kind == TYPE:
        if retire:
            return f"move {item.name}.toml and {item.name}.cedar out of {folder}, then `sojourn policy reload`"
        return f"`sojourn policy narrow {item.name}` proposes a narrower one by what was used"
    if item.kind == PROVIDER:
        names = _some([kind.name for kind in inventory.by_provider[item.name]])
        if retire:
            return f"take it out of the task types {names}, and [providers.{item.name}] out of the configuration"
        return f"narrow the task types that name it: {names}"
    if item.kind == CREDENTIAL:
        return "take it back at the provider: `sojourn provider residuals` has what became of the agent's own tries"
    return _of_entries(inventory, item, retire=retire)


def _of_entries(inventory: Inventory, item: Item, *, retire: bool) -> str:
    entries = inventory.by_workload[item.name]
    folders = sorted({each.origin for each in entries if each.origin})
    by_hand = [each.id for each in entries if not each.origin]
    said = [f"`sojourn entry {'delete' if retire else 'update'} {_some(by_hand, ' ')}`"] if by_hand else []
    if folders:
        said.append(f"{'take it out of' if retire else 'change it in'} {', '.join(folders)}")
    return "; ".join(said)


def _some(names: list[str], separator: str = ", ") -> str:
    more = f" … ({len(names) - _NAMED} more)" if len(names) > _NAMED else ""
    return separator.join(names[:_NAMED]) + more
