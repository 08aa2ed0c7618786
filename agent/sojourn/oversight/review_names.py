"""How items that are reviewed are named: a kind and a name, with a colon between them."""

from typing import Final

TYPE: Final = "type"
WORKLOAD: Final = "workload"
PROVIDER: Final = "provider"
CREDENTIAL: Final = "credential"
KINDS: Final = (TYPE, WORKLOAD, PROVIDER, CREDENTIAL)


def split(text: str) -> tuple[str, str]:
    """The kind and the name of an item by its ID; the kind is '' if it is none."""
    kind, colon, name = text.partition(":")
    return (kind, name) if colon and kind in KINDS and name else ("", text)
