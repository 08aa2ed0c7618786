"""Which of a task's outside resources the endpoints are for. An SDK looks in one place for one."""

from collections.abc import Iterable, Sequence
from typing import Final

from sojourn.errors import InvalidInput
from sojourn.sdk.task.values import Outside

AWS, GCP, ENTRA, VAULT = "aws", "gcp", "entra", "vault"
KINDS: Final = (AWS, GCP, ENTRA, VAULT)
_TOKEN: Final = "token"  # noqa: S105  # what a provider of kind vault gives; or a secret, for which there is no endpoint


def choose(outside: Iterable[Outside], named: Sequence[str] = ()) -> dict[str, tuple[Outside, ...]]:
    """The resources by kind: one each, or of kind entra one for each scope.

    `named`: which ones, where there are several. Raise InvalidInput for a name that is none of them, and where it is
    not clear which of several is meant.
    """
    usable = [each for each in outside if is_usable(each)]
    for name in named:
        if name not in {each.resource for each in usable}:
            has = ", ".join(each.resource for each in usable) or "none"
            raise InvalidInput(f"the task has no resource of a cloud {name[:200]!r}: it has {has}")
    chosen = {}
    for kind in KINDS:
        of_kind = [each for each in usable if each.kind == kind]
        picked = tuple(each for each in of_kind if each.resource in named) or tuple(of_kind)
        for at, each in enumerate(picked):
            for other in picked[:at]:
                if kind != ENTRA or _same_place(each, other):
                    raise InvalidInput(
                        f"the task has two resources of kind {kind}, {other.resource} and {each.resource}, and an SDK"
                        " looks for one: name the one that is meant (--cloud RESOURCE)"
                    )
        if picked:
            chosen[kind] = picked
    return chosen


def _same_place(one: Outside, other: Outside) -> bool:
    """Whether Azure's SDKs could not tell two apart: at the endpoint the scope says which, and not of files."""
    files = "assertion" in {one.details.get("gives"), other.details.get("gives")}
    return files or one.details.get("scope") == other.details.get("scope")


def is_usable(outside: Outside) -> bool:
    """Whether there is an endpoint for it. Others: `sojourn task token`, the SDK, the egress proxy."""
    if outside.kind == VAULT:
        return outside.details.get("gives", _TOKEN) == _TOKEN
    return outside.kind in KINDS
