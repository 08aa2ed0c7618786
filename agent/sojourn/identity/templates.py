"""Texts with placeholders for what is attested, such as `spiffe://example.org/ns/{k8s.ns}/sa/{k8s.sa}`.

`{TYPE.KEY}` stands for the rest of the one selector of type TYPE whose value begins with `KEY:`. Whatever a process can
bring about that is attested of it, it stays within its place: a value is made of characters that need no escaping
anywhere, and between two placeholders stands one that no value can have, so that different values never make the same
text.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from sojourn.attestation.selectors import Selector
from sojourn.errors import InvalidInput, InvalidSpiffeId, quoted
from sojourn.limits import SPIFFE_ID_MAX_BYTES, TEMPLATE_PLACEHOLDERS
from sojourn.spiffe.ids import SCHEME, SpiffeId, TrustDomain, check_path

_TOKEN = re.compile(r"\{([^{}]*)\}")
_TYPE = re.compile(r"[A-Za-z0-9_-]+")
_KEY = re.compile(r"[!-z|~]+")  # printable ASCII but for the space and braces
_VALUE = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, order=True)
class Placeholder:
    """`{TYPE.KEY}`."""

    type: str
    key: str

    @classmethod
    def parse(cls, inner: str) -> Self:
        """Parse what stands between the braces. Raise InvalidInput."""
        kind, dot, key = inner.partition(".")
        if not dot or not _TYPE.fullmatch(kind) or not _KEY.fullmatch(key) or key[0] == ":" or key[-1] == ":":
            raise InvalidInput(f"{quoted('{' + inner + '}')} is not a placeholder such as {{k8s.ns}}")
        return cls(kind, key)

    @classmethod
    def filled_by(cls, selector: Selector) -> Self:
        """The one that this selector can fill: no value has a colon."""
        return cls(selector.type, selector.value.rpartition(":")[0])

    @property
    def kind(self) -> str:
        """The kind of the selectors that it stands for, such as `k8s:ns`."""
        return f"{self.type}:{self.key.partition(':')[0]}"

    def within(self, kinds: Collection[str]) -> bool:
        """Whether those are of one of these types, or kinds of a type."""
        return self.type in kinds or self.kind in kinds

    def __str__(self) -> str:
        return f"{{{self.type}.{self.key}}}"


Values = Mapping[Placeholder, str]


@dataclass(frozen=True, slots=True)
class Unfilled:
    """Why placeholders cannot be filled."""

    reason: str


def values_of(
    placeholders: Iterable[Placeholder], selectors: frozenset[Selector], untold: frozenset[str] = frozenset()
) -> Values | Unfilled:
    """What each placeholder stands for, of a process with these selectors.

    It may have other selectors of the types and kinds `untold`: the one that is known need not be the only one.
    """
    found: dict[Placeholder, str] = {}
    for each in placeholders:
        if each in found:
            continue
        value = _value_of(each, selectors)
        if isinstance(value, Unfilled):
            return value
        if each.within(untold):
            return Unfilled(f"{each}: which selectors {each.type}:{each.key}:… there are could not be told")
        if value is None:
            return Unfilled(f"{each}: no selector {each.type}:{each.key}:… is attested")
        found[each] = value
    return found


def fillable(placeholders: Iterable[Placeholder], selectors: frozenset[Selector], untold: frozenset[str]) -> bool:
    """Whether all could be filled if what is `untold` were known: what is known does not stand against it."""
    values = ((each, _value_of(each, selectors)) for each in placeholders)
    return all(each.within(untold) if value is None else isinstance(value, str) for each, value in values)


def _value_of(placeholder: Placeholder, selectors: frozenset[Selector]) -> str | Unfilled | None:
    """What one stands for, or why it can stand for nothing; None if there is no such selector."""
    each, begin = placeholder, f"{placeholder.key}:"
    rests = [one.value[len(begin) :] for one in selectors if one.type == each.type and one.value.startswith(begin)]
    if not rests:
        return None
    if len(rests) > 1:
        return Unfilled(f"{each}: {len(rests)} selectors {each.type}:{begin}… are attested, and one is wanted")
    if rests[0] in {".", ".."}:
        return Unfilled(f"{each}: {quoted(rests[0])} is a dot segment")
    if not _VALUE.fullmatch(rests[0]):
        return Unfilled(f"{each}: {quoted(rests[0][:100])} has other characters than A-Z, a-z, 0-9, '.', '_', '-'")
    return rests[0]


@dataclass(frozen=True, slots=True)
class Template:
    """A text: literal texts and placeholders by turns, between two of which stands what no value can have."""

    parts: tuple[str | Placeholder, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raise InvalidInput if a brace is no placeholder's, or the values of two placeholders could run together."""
        literals, inner = _TOKEN.split(text)[::2], _TOKEN.findall(text)
        if any("{" in each or "}" in each for each in literals):
            raise InvalidInput("has a brace that is no placeholder's")
        if len(inner) > TEMPLATE_PLACEHOLDERS:
            raise InvalidInput(f"has more than {TEMPLATE_PLACEHOLDERS} placeholders")
        for between in literals[1:-1]:
            if not between or _VALUE.fullmatch(between):
                raise InvalidInput(
                    f"between two placeholders stands {quoted(between)}: a value could have that too"
                    if between
                    else "has two placeholders with nothing between them"
                )
        parts: list[str | Placeholder] = [literals[0]]
        for each, literal in zip(inner, literals[1:], strict=True):
            parts += [Placeholder.parse(each), literal]
        return cls(tuple(part for part in parts if part != ""))

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return tuple(part for part in self.parts if isinstance(part, Placeholder))

    def fill(self, values: Values) -> str:
        """The text with a value for each placeholder."""
        return "".join(values[part] if isinstance(part, Placeholder) else part for part in self.parts)


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of a path; without a placeholder it is its prefix."""

    prefix: str
    placeholder: Placeholder | None = None
    suffix: str = ""

    def value_in(self, text: str) -> str | None:
        """What stands in the placeholder's place in a segment of this shape; None if it is not of this shape."""
        end = len(text) - len(self.suffix)
        if end > len(self.prefix) and text.startswith(self.prefix) and text.endswith(self.suffix):
            return text[len(self.prefix) : end]
        return None


@dataclass(frozen=True, slots=True)
class IdTemplate:
    """A SPIFFE ID with placeholders in its path. It is no SPIFFE ID: only what is made of it by `fill` is."""

    trust_domain: TrustDomain
    path: str
    _template: Template = field(repr=False, compare=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `spiffe://trust-domain/path` with placeholders. Raise InvalidSpiffeId with the rule that it breaks."""
        if not text.startswith(SCHEME):
            raise InvalidSpiffeId("scheme is missing or invalid")
        name, slash, rest = text[len(SCHEME) :].partition("/")
        trust_domain = SpiffeId.parse(f"{SCHEME}{name}").trust_domain
        if len(text.encode(errors="replace")) > SPIFFE_ID_MAX_BYTES:
            raise InvalidSpiffeId(f"longer than {SPIFFE_ID_MAX_BYTES} bytes")
        try:
            template = Template.parse(slash + rest)
        except InvalidInput as error:
            raise InvalidSpiffeId(f"path {error.public}") from error
        # With values of the plainest kind, what stands around them must be a path.
        check_path(template.fill(dict.fromkeys(template.placeholders, "x")))
        return cls(trust_domain, slash + rest, template)

    @classmethod
    def from_parts(cls, trust_domain: str, path: str) -> Self:
        """Parse a trust domain's name and a path with its leading slash. Raise InvalidSpiffeId."""
        own = SpiffeId.from_parts(trust_domain, "")
        if not path.startswith("/"):
            raise InvalidSpiffeId("path must have a leading slash")
        return cls.parse(f"{own}{path}")

    @property
    def placeholders(self) -> tuple[Placeholder, ...]:
        return self._template.placeholders

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Each has one placeholder at most: a slash stands between two."""
        made = [Segment("")]
        for part in self._template.parts:
            if isinstance(part, Placeholder):
                made[-1] = Segment(made[-1].prefix, part)
                continue
            first, *others = part.split("/")
            last = made[-1]
            made[-1] = replace(last, suffix=first) if last.placeholder else Segment(last.prefix + first)
            made += map(Segment, others)
        return tuple(made[1:])  # before the leading slash there is nothing

    def check_workload_of(self, trust_domain: TrustDomain) -> None:
        """Raise InvalidSpiffeId unless workloads of `trust_domain` may have such IDs."""
        plain = self._template.fill(dict.fromkeys(self.placeholders, "x"))
        SpiffeId(self.trust_domain, plain).check_workload_of(trust_domain)

    def fill(self, values: Values) -> SpiffeId | Unfilled:
        """The SPIFFE ID, parsed as any other, that a workload may have; or why there is none."""
        try:
            made = SpiffeId.parse(f"{SCHEME}{self.trust_domain}{self._template.fill(values)}")
            made.check_workload_of(self.trust_domain)
        except InvalidSpiffeId as error:
            return Unfilled(f"the SPIFFE ID would not be one: {error.public}")
        return made

    def makes(self, spiffe_id: SpiffeId) -> bool:
        """Whether there are values of which `fill` makes this ID."""
        texts = spiffe_id.path[1:].split("/")
        segments = self.segments
        if spiffe_id.trust_domain != self.trust_domain or len(texts) != len(segments):
            return False
        values: dict[Placeholder, str] = {}
        for segment, text in zip(segments, texts, strict=True):
            if segment.placeholder is not None:
                values.setdefault(segment.placeholder, segment.value_in(text) or "")
        return all(values.values()) and self.fill(values) == spiffe_id

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain.name}{self.path}"


def parse_id(text: str) -> SpiffeId | IdTemplate:
    """A SPIFFE ID, or a template of one if there is a brace in it. Raise InvalidSpiffeId."""
    return IdTemplate.parse(text) if "{" in text or "}" in text else SpiffeId.parse(text)
