"""What a task type's `ask` says by action, for providers whose credentials are narrowed by what they are asked with."""

from collections.abc import Mapping
from typing import Any

from sojourn.errors import InvalidInput, joined, quoted
from sojourn.providers.errors import ProviderRefused


def of_actions(told: Mapping[str, Any], actions: tuple[str, ...], key: str) -> None:
    """See that an ask's table by action has each of the resource's actions and no other. Raise InvalidInput."""
    missing, unknown = sorted(set(actions) - set(told)), sorted(set(told) - set(actions))
    faults = [f"ask.{key}: says nothing of action {each!r}" for each in missing]
    faults += [f"ask.{key}: {quoted(each)} is not an action of this resource" for each in unknown]
    if faults:
        raise InvalidInput(joined(faults))


def by_action(
    told: Mapping[str, str], one: str | None, actions: tuple[str, ...], key: str, one_key: str
) -> Mapping[str, str]:
    """What to ask with for each action: as the ask's table says, or `one` for all. Raise InvalidInput."""
    if told:
        of_actions(told, actions, key)
        return told
    if one is None:
        raise InvalidInput(f"ask.{one_key}: is missing, and the provider has none")
    return dict.fromkeys(actions, one)


def chosen(told: Mapping[str, str], whole: tuple[str, ...], asked: tuple[str, ...], key: str, what: str) -> str:
    """What to ask with for the actions `asked`, where the provider cannot narrow: the one that has them and no more.

    `told`: by action, what it is asked with; those of the same value come together. Raise ProviderRefused if what is
    asked for is more than one of them, or less: the task would get more than it asked for.
    """
    values = {told[action] for action in asked if action in told}
    if len(values) == 1:
        (value,) = values
        together = sorted(action for action in whole if told[action] == value)
        if together == sorted(asked):
            return value
        hint = f"ask for {', '.join(together)} at once, or give each action {what} of its own under ask.{key}"
        raise ProviderRefused("the provider gives these actions together with others alone", step="ask", hint=hint)
    hint = f"ask for them one by one, or give them the same {what} under ask.{key}"
    raise ProviderRefused("the provider gives these actions one by one alone", step="ask", hint=hint)
