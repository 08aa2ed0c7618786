"""What whoever registers an entry should know: it is registered, and does perhaps not what it seems to do."""

import re
from collections.abc import Collection, Iterable

from sojourn.attestation.selectors import Selector
from sojourn.identity.entries import Registration
from sojourn.identity.selector_spelling import OURS, misspelled, unknown_kind

_UNMAPPED = re.compile(r"(uid|gid|supplementary_gid):65534|user:nobody|(group|supplementary_group):(nogroup|nobody)")
_IMAGE_NAMES = {
    "docker": re.compile(r"(rootless:[0-9]+:)?image_id:(?P<image>.+)", re.DOTALL),
    "k8s": re.compile(r"(container-image|pod-image|pod-init-image):(?P<image>.+)", re.DOTALL),
}
_BY_DIGEST = {"docker": "docker:image_digest or docker:image_config_digest", "k8s": "the image by its digest"}
_SCRIPTS = ("script_path:", "script_sha256:")


def of_selectors(entry: Registration, types: Collection[str]) -> list[str]:
    """What its selectors alone tell. `types`: those that this agent's attestors give."""
    asked = {each.type for each in entry.selectors} | {each.type for each in entry.placeholders}
    found = [_of_type(each) for each in sorted(asked.difference(types))]
    for placeholder in sorted(set(entry.placeholders), key=str):
        unknown = unknown_kind(placeholder.type, placeholder.key.partition(":")[0])
        found += [f"{placeholder}: {unknown}"] if unknown else []
    for selector in sorted(entry.selectors):
        wrong = misspelled(selector.type, selector.value)
        found += [f"{selector}: {wrong}"] if wrong else []
        if selector.type == "unix":
            found += _of_unix(selector.value)
        pattern = _IMAGE_NAMES.get(selector.type)
        named = pattern.fullmatch(selector.value) if pattern is not None else None
        if named is not None and not by_digest(named["image"]):
            found.append(
                f"{selector} is a name that can be moved to another image: ask for {_BY_DIGEST[selector.type]}"
            )
    return found


def of_expiry(entry: Registration, now: float) -> list[str]:
    """What its own end tells. `now`: seconds since the epoch."""
    if not 0 < entry.expires_at <= now:
        return []
    return ["it has expired already, so no process gets it: expires_at is in seconds since the epoch"]


def by_digest(image: str) -> bool:
    """Whether an image is named by what it is: whoever may push to its repository cannot put another there."""
    return bool(re.fullmatch(r"(.+@)?sha256:[0-9a-f]{64}", image, re.DOTALL))


def of_program_alone(selectors: Iterable[Selector]) -> bool:
    """Whether nothing but the program is asked for, so that any user who can run it has the identity."""
    return all(each.type == "unix" and each.value.startswith(("path:", "sha256:")) for each in selectors)


def _of_type(type_: str) -> str:
    said = f"no attestor of this agent gives selectors of type {type_!r}"
    if type_ in OURS:
        return f"{said}: until its configuration has [attestors.{type_}] no process matches"
    return f"{said}, so no process matches: Sojourn's own are {', '.join(OURS)}; another's package has to be installed"


def _of_unix(value: str) -> list[str]:
    if _UNMAPPED.fullmatch(value):
        return [f"unix:{value}: 65534 is shown for every id that cannot be mapped, and unrelated programs share it"]
    if value.startswith(_SCRIPTS):
        return [f"unix:{value}: the kernel vouches for no script that an interpreter runs, so no process matches"]
    return []
