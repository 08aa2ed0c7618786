"""Whether a selector is spelled as the attestors that come with Sojourn spell theirs: no process matches another."""

import re
from typing import Final

_COUNT: Final = ("(0|[1-9][0-9]*)", "NUMBER")
_ID: Final = ("(0|[1-9][0-9]{0,9})", "NUMBER")
_ANY: Final = (".+", "NAME")
_PATH: Final = ("/.*", "/ABSOLUTE/PATH")
_KEY_VALUE: Final = ("[^:]+:.*", "KEY:VALUE")
_DIGEST: Final = "sha256:[0-9a-f]{64}"
_DOCKER: Final = {
    "label": _KEY_VALUE,
    "env": ("[^=]+=.*", "NAME=VALUE"),
    "image_id": _ANY,
    "image_digest": (f"(.+@)?{_DIGEST}", "sha256:HEX or REPOSITORY@sha256:HEX"),
    "image_config_digest": (_DIGEST, "sha256:HEX"),
}
# Type and kind -> what follows, as a pattern and as people read it. As docs/attestors.md has them.
_SPELLED: Final = {
    "unix": {
        "uid": _ID,
        "gid": _ID,
        "supplementary_gid": _ID,
        "user": _ANY,
        "group": _ANY,
        "supplementary_group": _ANY,
        "path": _PATH,
        "sha256": ("[0-9a-f]{64}", "HEX, 64 digits in lower case"),
        "cgroup": ("([^/]+:)?/.+", "/PATH or CONTROLLER:/PATH"),
        "script_path": _ANY,  # what of these is to be said, `cautions` says
        "script_sha256": _ANY,
    },
    "systemd": {
        "id": (r".*[^@]\.(service|scope|socket|mount|swap)", "UNIT whole, such as web.service or web@1.service"),
        "fragment_path": _PATH,
        "slice": (r".+\.slice", "NAME.slice"),
        "invocation_id": ("[0-9a-f]{32}", "HEX, 32 digits in lower case"),
        "template": (r".+@\.[a-z]+", "NAME@.KIND, such as web@.service"),
        "instance": _ANY,
        "manager": ("system|user:(0|[1-9][0-9]*)", "system or user:UID"),
        "user": ("(0|[1-9][0-9]*):(id|slice):.+", "UID:id:UNIT or UID:slice:SLICE"),
    },
    "docker": {
        **_DOCKER,
        "rootless": (
            f"(0|[1-9][0-9]*):({'|'.join(f'{kind}:({pattern})' for kind, (pattern, _) in _DOCKER.items())})",
            "UID: and another selector's value, such as 1000:label:KEY:VALUE",
        ),
    },
    "k8s": {
        "ns": _ANY,
        "sa": _ANY,
        "pod-name": _ANY,
        "pod-uid": _ANY,
        "pod-label": _KEY_VALUE,
        "pod-owner": ("[^:]+:.+", "KIND:NAME"),
        "pod-owner-uid": ("[^:]+:.+", "KIND:UID"),
        "container-name": _ANY,
        "container-image": _ANY,
        "pod-image": _ANY,
        "pod-image-count": _COUNT,
        "pod-init-image": _ANY,
        "pod-init-image-count": _COUNT,
        "node-name": _ANY,
    },
}
OURS: Final = tuple(sorted(_SPELLED))
_PATTERNS: Final = {
    type_: {kind: re.compile(pattern, re.DOTALL) for kind, (pattern, _) in kinds.items()}
    for type_, kinds in _SPELLED.items()
}


def kinds_of(type_: str) -> tuple[str, ...]:
    """The kinds of selectors of one of our attestors; none if it is not ours."""
    return tuple(_SPELLED.get(type_, ()))


def misspelled(type_: str, value: str) -> str:
    """Why no process has the selector `type_:value`; '' if one could, or the attestor is not ours."""
    kind, _, rest = value.partition(":")
    unknown = unknown_kind(type_, kind)
    if unknown or type_ not in _SPELLED or _PATTERNS[type_][kind].fullmatch(rest):
        return unknown
    return f"no process matches, as such a selector is {type_}:{kind}: and {_SPELLED[type_][kind][1]}"


def unknown_kind(type_: str, kind: str) -> str:
    """Why no process has a selector of this kind; '' if one could, or the attestor is not ours."""
    kinds = kinds_of(type_)
    if not kinds or kind in kinds:
        return ""
    return f"no process matches, as attestor {type_} gives {', '.join(kinds)} and no other kind"
