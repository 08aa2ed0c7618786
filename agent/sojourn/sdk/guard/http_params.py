"""What an HTTP request states of a parameter: in its path, query, headers and content, however often.

Of two readings of a request that some server or other may have, both must agree with the task. Content that must be
compared is read whole; it is JSON in UTF-8 or a form, as it is sent: whatever is packed, or encoded in another way, is
refused.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Final

from sojourn.errors import InvalidInput, TooLarge
from sojourn.errors.oauth import ParamNotBound
from sojourn.limits import GUARDED_FIELDS_MAX
from sojourn.sdk.guard.other_readings import fields_in, json_in, parts_in, read_json, unescaped
from sojourn.sdk.guard.param_places import (
    ABSENT,
    BODY,
    FORM,
    HEADER,
    PATH,
    QUERY,
    ParamPlace,
    alike,
    in_json,
    nearest,
    others_alike,
    times_in_json,
)
from sojourn.sdk.guard.routes import Action
from sojourn.tasktoken.checks import Exact

JSON, URLENCODED, PARTS, OTHER, UNSAID = "JSON", "a form", "parts", "other", "unsaid"
_FITTING: Final = {JSON: {BODY}, UNSAID: {BODY}, URLENCODED: {FORM}}
_CHARSET: Final = re.compile(r";\s*charset[^=;]*=\s*\"?([^\";]*)", re.IGNORECASE)  # also `charset*` (RFC 2231)
_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
Headers = Iterable[tuple[str, str]]


Field = tuple[str, str | None, str]  # its name, its value, and what its name is like; None: no text that is agreed on
Readings = Sequence[Sequence[Field]]  # the fields as some readers have them, and as others do


class HttpStated:
    """A request as a Source (see `comparing`)."""

    def __init__(
        self,
        query: str,
        headers: Headers,
        segments: Mapping[str, str],
        *,
        document: object = ABSENT,
        form: bytes = b"",
        fields: Collection[tuple[str, str | None]] = (),
        has_content: bool = False,
    ) -> None:
        """`document` or `form` is the content, as far as it was read and is one of them; `fields` what else could be
        read in it.
        """
        self.has_content = has_content
        self._query = query
        self._headers = headers
        self._segments = segments
        self._document = document
        self._form = form
        self._fields = fields

    @cached_property
    def _in_query(self) -> Readings:
        return _fields(self._query.encode("latin-1", "replace"))

    @cached_property
    def _in_form(self) -> Readings:
        return _fields(self._form)

    @cached_property
    def _in_headers(self) -> Readings:
        lines = [(name.lower(), value.strip(" \t")) for name, value in self._headers]
        return [[(name, value if value.isascii() else None, alike(name)) for name, value in lines]]

    def at(self, place: ParamPlace) -> Sequence[object]:
        """See Source."""
        if place.kind == PATH:
            return [self._segments.get(place.name, ABSENT)]
        if place.kind == QUERY:
            return _found(self._in_query, place.name)
        if place.kind == FORM:
            return _found(self._in_form, place.name)
        if place.kind == HEADER:
            return _found(self._in_headers, place.name.lower())
        if place.kind == BODY and self._document is not ABSENT:
            return [each if each is ABSENT else Exact(each) for each in in_json(self._document, place.tokens)]
        return [ABSENT]

    def times(self, place: ParamPlace) -> int:
        """See Source."""
        if place.kind == BODY:
            return times_in_json(self._document, place.tokens)
        if place.kind == HEADER:  # some servers join lines by a comma
            return sum((value or "").count(",") + 1 for _, value in _like(self._in_headers, place.name)) or 1
        readings = {QUERY: self._in_query, FORM: self._in_form}.get(place.kind, [])
        return max((_times(_like([fields], place.name)) for fields in readings), default=1)

    def named(self, name: str) -> Sequence[object]:
        """See Source. A segment of the route is what the service itself names; what else has that name must agree."""
        if name not in self._segments:
            return ()
        found: list[object] = [self._segments[name]]
        found += [value for _, value in _like((*self._in_query, *self._in_form), name)]
        found += [value for each, value in self._fields if alike(each) == alike(name)]
        for document in self._document if isinstance(self._document, list) else [self._document]:
            if isinstance(document, Mapping):
                own = [document[name]] if name in document else []
                found += [Exact(value) for value in own + others_alike(document, name)]
        return found

    def likely(self, name: str) -> ParamPlace:
        """See Source."""
        if (near := nearest(name, self._segments)) is not None:
            return near
        if _like(self._in_query, name):
            return ParamPlace(QUERY)
        return ParamPlace(FORM if kind_of(self._headers) == URLENCODED else BODY).of(name)


async def read_stated(
    query: str, headers: Headers, action: Action, names: Collection[str], content: Callable[[], Awaitable[bytes]]
) -> HttpStated:
    """Read a request as far as these parameters need it. Raise InvalidInput, TooLarge, or ParamNotBound."""
    check_charset(headers)  # some frameworks read the query by it too
    segments = action.segments
    places = {name: action.params.get(name) for name in names}
    kinds = {place.kind: name for name, place in places.items() if isinstance(place, ParamPlace)}
    kind = kind_of(headers)
    asked = kinds.keys() & {BODY, FORM}
    if asked and not asked & _FITTING.get(kind, set()):  # where one of both fits, what stands in the other is absent
        of = min(asked)
        said = {BODY: JSON, FORM: URLENCODED}[of]
        raise ParamNotBound(f"the parameter {kinds[of][:64]!r} stands in {said}, and the content's type is another")
    own = [name for name, place in places.items() if place is None and name in segments]
    if not asked and not own:
        return HttpStated(query, headers, segments)
    try:
        found = await content()
    except TooLarge as error:
        if asked:
            raise
        said = f"a route that takes more, and whose content names no {own[0]!r}, says so: params={{{own[0]!r}: path()}}"
        raise TooLarge(f"{error.public}; {said}") from error
    if not found:
        return HttpStated(query, headers, segments, has_content=True)
    check_encoding(headers)
    if kind == JSON or (kind == UNSAID and asked):
        return HttpStated(query, headers, segments, document=read_json(found), has_content=True)
    form = found if kind == URLENCODED else b""
    if not own:
        return HttpStated(query, headers, segments, form=form, has_content=True)
    fields = (parts_in if kind == PARTS else fields_in)(found, {alike(name) for name in own})
    document = json_in(found)
    return HttpStated(query, headers, segments, document=document, form=form, fields=list(fields), has_content=True)


def values_of(headers: Headers, name: str) -> list[str]:
    return [value.strip() for each, value in headers if each.lower() == name]


def kind_of(headers: Headers) -> str:
    """What the content is by its type. Raise InvalidInput for two types."""
    said = values_of(headers, "content-type")
    if len(said) > 1 or "," in "".join(said).partition(";")[0]:
        raise InvalidInput("the request has more than one Content-Type")
    kind = said[0].partition(";")[0].strip().lower() if said else ""
    if kind in {"application/json", "text/json"} or kind.endswith("+json"):
        return JSON
    if kind == "application/x-www-form-urlencoded":
        return URLENCODED
    if kind.startswith("multipart/"):
        return PARTS
    return OTHER if kind else UNSAID


def check_encoding(headers: Headers) -> None:
    if any(value.lower() not in {"", "identity"} for value in values_of(headers, "content-encoding")):
        raise InvalidInput("content that is compared is sent as it is, without a Content-Encoding")


def check_charset(headers: Headers) -> None:
    charsets = [each for value in values_of(headers, "content-type") for each in _CHARSET.findall(value)]
    if any(each.strip().lower() not in _CHARSETS for each in charsets):
        raise InvalidInput("a request that is compared is in UTF-8")


def _fields(text: bytes) -> Readings:
    """The fields of a query or a form, as those read it who end one at `&`, and as those who do at `;` as well."""
    if not text.isascii():  # two servers make two texts of it
        raise InvalidInput("what is not ASCII is escaped in a query or a form that is compared")
    readings = [text.split(b"&"), *([re.split(b"[&;]", text)] if b";" in text else [])]
    if sum(map(len, readings)) > GUARDED_FIELDS_MAX:
        raise InvalidInput(f"a query or a form that is compared has at most {GUARDED_FIELDS_MAX} fields")
    return [[_field(each) for each in parts if each] for parts in readings]


def _field(part: bytes) -> Field:
    name, _, value = part.partition(b"=")
    plain = unescaped(name)
    return plain, unescaped(value), alike(plain)


def _like(readings: Readings, name: str) -> list[tuple[str, str | None]]:
    """The fields whose names are like this one, as name and value."""
    wanted = alike(name)
    return [(each, value) for fields in readings for each, value, found in fields if found == wanted]


def _found(readings: Readings, name: str) -> list[object]:
    """The values of a name and of those that are like it; ABSENT if none has the name itself."""
    like = _like(readings, name)
    return [value for _, value in like] if any(each == name for each, _ in like) else [ABSENT]


def _times(fields: Iterable[tuple[str, str | None]]) -> int:
    """How many values a list has that is written by such names: `order`, `order[]`, or `order[0]` with its members."""
    names = Counter(name for name, _ in fields)
    by_index: dict[str, int] = {}
    single = 0
    for name, number in names.items():
        index = name.partition("[")[2].partition("]")[0]
        if index:
            by_index[index] = max(number, by_index.get(index, 0))
        else:
            single += number
    return single + sum(by_index.values()) or 1
