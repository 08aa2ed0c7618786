"""Finding the registrations whose template makes a SPIFFE ID, without looking at all of them."""

from dataclasses import dataclass, field

from sojourn.identity.entries import Registration
from sojourn.identity.templates import IdTemplate, Segment
from sojourn.spiffe.ids import SpiffeId


@dataclass(slots=True)
class _Node:
    """What follows after some segments. Of segments with a placeholder only what stands around it counts."""

    plain: dict[str, "_Node"] = field(default_factory=dict)
    open: dict[tuple[str, str], "_Node"] = field(default_factory=dict)
    here: dict[IdTemplate, dict[str, Registration]] = field(default_factory=dict)

    def next(self, segment: Segment) -> "_Node":
        if segment.placeholder is None:
            return self.plain.setdefault(segment.prefix, _Node())
        return self.open.setdefault((segment.prefix, segment.suffix), _Node())

    def drop(self, segment: Segment) -> None:
        if segment.placeholder is None:
            del self.plain[segment.prefix]
        else:
            del self.open[segment.prefix, segment.suffix]

    @property
    def empty(self) -> bool:
        return not (self.plain or self.open or self.here)


class IdShapes:
    """Registrations with a template, by the segments of its path."""

    def __init__(self) -> None:
        self._root = _Node()

    def add(self, registration: Registration, template: IdTemplate) -> None:
        node = self._root
        for segment in template.segments:
            node = node.next(segment)
        node.here.setdefault(template, {})[registration.id] = registration

    def remove(self, registration: Registration, template: IdTemplate) -> None:
        """Take it out, if it is there."""
        way = [self._root]
        for segment in template.segments:
            way.append(way[-1].next(segment))
        of_template = way[-1].here.get(template, {})
        if of_template.pop(registration.id, None) is not None and not of_template:
            del way[-1].here[template]
        for parent, segment in zip(reversed(way[:-1]), reversed(template.segments), strict=True):
            if parent.next(segment).empty:
                parent.drop(segment)

    def find(self, spiffe_id: SpiffeId) -> list[Registration]:
        """The registrations that make this ID."""
        nodes = [self._root]
        for text in spiffe_id.path[1:].split("/"):
            nodes = [after for node in nodes for after in _after(node, text)]
        return [
            each
            for node in nodes
            for template, registrations in node.here.items()
            if template.makes(spiffe_id)
            for each in registrations.values()
        ]


def _after(node: _Node, text: str) -> list[_Node]:
    found = [node.plain[text]] if text in node.plain else []
    return found + [
        after
        for (prefix, suffix), after in node.open.items()
        if len(text) > len(prefix) + len(suffix) and text.startswith(prefix) and text.endswith(suffix)
    ]
