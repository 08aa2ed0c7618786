"""Nodes: the agents for which entries are registered, by their names, and what is to be said of those of others."""

from collections.abc import Mapping

from sojourn.spiffe.ids import SpiffeId


def name_of(node: SpiffeId) -> str:
    """A node's name: the last segment of its ID."""
    return node.path.rpartition("/")[2]


def folder_of(node: SpiffeId) -> str:
    """The path of a node's ID without its name."""
    return node.path.rpartition("/")[0]


def other_nodes_told(counts: Mapping[str, int], here: str) -> str:
    """What is to be said of entries that are for other nodes, so many for each by its name. `here`: this node's."""
    several = len(counts) > 1
    said = ", ".join(
        f"{count} {'entry is' if count == 1 else 'entries are'} for node `{name}`" for name, count in counts.items()
    )
    adopt = f"sojourn entry adopt{' --from NODE' if several else ''}"
    return f"{said}; this is `{here}`: set node_aliases or run `{adopt}`"
