"""Where in a request a parameter of the task stands: what a service's author says of each route, as values.

`Action("refund:create", params={"order": path("order_id"), "cents": body("/cents")})`. Without a name the place has the
parameter's own: `params={"cents": body()}`.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sojourn.errors import InvalidInput
from sojourn.errors.oauth import ParamNotBound
from sojourn.limits import (
    GUARDED_FIELDS_MAX,
    GUARDED_MEMBERS_MAX,
    GUARDED_NAME_MAX,
    JSON_DEPTH,
    NAMES_ALIKE_MAX,
)

PATH, QUERY, HEADER, BODY, FORM, FIELD, ARGUMENT = "path", "query", "header", "body", "form", "field", "argument"
OF_HTTP: Final = frozenset({PATH, QUERY, HEADER, BODY, FORM})
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_TILDE: Final = re.compile("~(?![01])")
_NO_LETTER: Final = re.compile(r"[\W_]+")
_ASCII_NO_LETTER: Final = {each: None for each in range(128) if not chr(each).isalnum()}
_INDEX: Final = re.compile("0|[1-9][0-9]{0,8}")
EACH: Final = "*"  # the token of a pointer that stands for each element of a list


@dataclass(frozen=True, slots=True)
class ParamPlace:
    """One place. `name` is a segment's, a header's, …, or a JSON pointer (RFC 6901); '' is the parameter's own name."""

    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"

    @property
    def is_pointer(self) -> bool:
        """Whether its name is a JSON pointer."""
        return self.kind == BODY or (self.kind == ARGUMENT and self.name.startswith("/"))

    @property
    def tokens(self) -> list[str]:
        """What leads to it in JSON. Raise InvalidInput for what is no pointer."""
        return tokens_of(self.name) if self.is_pointer else [self.name]

    def of(self, param: str) -> "ParamPlace":
        """The place of a parameter, with its name. Raise InvalidInput for what is no place."""
        made = replace(self, name=self.name or (f"/{_escaped(param)}" if self.kind == BODY else param))
        if made.is_pointer:
            tokens_of(made.name)
        if made.kind == HEADER and not _HEADER.fullmatch(made.name):
            raise InvalidInput(f"{made.name[:64]!r} is not the name of a header")
        if made.kind == FIELD and not all(each.isidentifier() for each in made.name.split(".")):
            raise InvalidInput(f"{made.name[:64]!r} is not the path of a message's field, as order.id is")
        return made

    def shown(self, param: str) -> str:
        """As it is written in Python for that parameter."""
        own = not self.name or self == replace(self, name="").of(param)
        return f"{self.kind}()" if own else f"{self.kind}({self.name!r})"


def path(name: str = "") -> ParamPlace:
    """A segment of the route, by the name that it has there in braces."""
    return ParamPlace(PATH, name)


def query(name: str = "") -> ParamPlace:
    """A parameter of the query."""
    return ParamPlace(QUERY, name)


def header(name: str = "") -> ParamPlace:
    """A header, whatever the case of its name."""
    return ParamPlace(HEADER, name)


def body(pointer: str = "") -> ParamPlace:
    """A value in the JSON content, by JSON pointer (RFC 6901): `/refund/cents`; `/items/*/cents` is all of a list."""
    return ParamPlace(BODY, pointer)


def form(name: str = "") -> ParamPlace:
    """A field of a form (application/x-www-form-urlencoded)."""
    return ParamPlace(FORM, name)


def field(name: str = "") -> ParamPlace:
    """A field of a gRPC message, by its path: `order.id`. One that is repeated is all of its elements."""
    return ParamPlace(FIELD, name)


def argument(name: str = "") -> ParamPlace:
    """An argument of a tool, by its name, or by JSON pointer if it begins with a slash: `/order/id`."""
    return ParamPlace(ARGUMENT, name)


_MAKERS: Final = {each.__name__: each for each in (path, query, header, body, form)}


def parse_places(text: str) -> dict[str, object]:
    """Read `cents = body:/cents, order = path:order_id`, as it stands where there is no Python. Raise InvalidInput."""
    found: dict[str, object] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, equals, said = (each.strip() for each in part.partition("="))
        kind, _, where = (each.strip() for each in said.partition(":"))
        if not equals or not name.isidentifier() or kind not in _MAKERS or name in found:
            kinds = ", ".join(_MAKERS)
            raise InvalidInput(
                f"{part[:64]!r} is not PARAMETER = KIND:NAME, each parameter once, KIND one of {kinds}, as"
                " cents = body:/cents"
            )
        found[name] = _MAKERS[kind](where).of(name)
    return found


def placed(params: Mapping[str, object], kinds: Iterable[str]) -> dict[str, object]:
    """Parameters whose places have their names. Raise InvalidInput for a place that is of none of these kinds."""
    found: dict[str, object] = {}
    for name, value in params.items():
        found[name] = value.of(name) if isinstance(value, ParamPlace) else value
        if isinstance(value, ParamPlace) and value.kind not in kinds:
            raise InvalidInput(f"parameter {name[:64]!r} cannot stand in {value.kind} here: {', '.join(sorted(kinds))}")
    return found


def alike(name: str) -> str:
    """What two names have in common that some reader or other takes for the same.

    JSON readers of other languages mind no case, or neither case nor underscores; CGI takes a dash for an underscore,
    PHP what stands before a bracket for the name. Raise InvalidInput for a name that is long and is not ASCII.
    """
    name = name.partition("[")[0] or name
    if name.isascii():
        return name.lower().translate(_ASCII_NO_LETTER) or name
    if len(name) > GUARDED_NAME_MAX:  # to normalize one takes time by the square of its length
        raise InvalidInput(f"a name that is compared has at most {GUARDED_NAME_MAX} characters")
    plain = unicodedata.normalize("NFKC", name)
    return _NO_LETTER.sub("", plain.casefold()) or plain


def nearest(param: str, segments: Iterable[str]) -> ParamPlace | None:
    """The segment of a route that a parameter most likely is, by its name."""
    near = [each for each in segments if alike(param) in alike(each) or alike(each) in alike(param)]
    return ParamPlace(PATH, near[0]) if near else None


def tokens_of(pointer: str) -> list[str]:
    """The reference tokens of a JSON pointer, '' apart, which is the whole document. Raise InvalidInput."""
    if not pointer.startswith("/") or _BAD_TILDE.search(pointer) or pointer.count("/") > JSON_DEPTH:
        raise InvalidInput(f"{pointer[:64]!r} is not a JSON pointer, as /cents or /refund/cents are")
    return [each.replace("~1", "/").replace("~0", "~") for each in pointer[1:].split("/")]


ABSENT: Final = object()


class _Looked:
    """How much of one request is still looked through for one parameter: so that it takes some 10 ms."""

    def __init__(self) -> None:
        self._left = GUARDED_MEMBERS_MAX

    def at(self, container: Mapping[str, Any] | list[Any]) -> None:
        """Raise InvalidInput for more than may be looked through."""
        self._left -= len(container)
        if self._left < 0:
            raise InvalidInput(f"lists and objects that are compared have at most {GUARDED_MEMBERS_MAX} members in all")


def in_json(document: object, tokens: Sequence[str], looked: _Looked | None = None) -> Iterator[Any]:
    """The value at these tokens first, or ABSENT; then what others could take for it, by a name alike.

    `*` is each element of a list, and ABSENT if there is none. Raise ParamNotBound for an index into a list of several,
    or into an object that some readers take for such a list: whoever serves the request may take the others too. Raise
    InvalidInput for more than is looked through.
    """
    looked = looked or _Looked()
    if not tokens:
        yield document
        return
    first, rest = tokens[0], tokens[1:]
    if isinstance(document, Mapping | list):
        looked.at(document)
    if _INDEX.fullmatch(first) and (several := len(_elements(document))) > 1:
        raise ParamNotBound(f"a list of {several} is compared by one element: map it by {EACH!r}, as all")
    if isinstance(document, Mapping):
        yield from in_json(document[first], rest, looked) if first in document and first != EACH else (ABSENT,)
        for value in others_alike(document, first):
            yield from in_json(value, rest, looked)
    elif isinstance(document, list) and document and first == EACH:
        for element in document:
            yield from in_json(element, rest, looked)
    elif isinstance(document, list) and document and first == "0":
        yield from in_json(document[0], rest, looked)
    else:
        yield ABSENT


def times_in_json(document: object, tokens: Sequence[str], looked: _Looked | None = None) -> int:
    """How many values stand at these tokens, if each list on the way and at its end is all of its elements, and names
    that are alike are all read. Raise InvalidInput for more than is looked through.
    """
    looked = looked or _Looked()
    if isinstance(document, Mapping | list):
        looked.at(document)
    of_list = bool(tokens) and (tokens[0] == EACH or _INDEX.fullmatch(tokens[0]) is not None)
    if of_list or isinstance(document, list):
        rest = tokens[1:] if of_list else tokens
        elements = document.values() if tokens[:1] == [EACH] and isinstance(document, Mapping) else _elements(document)
        return (
            sum(times_in_json(each, rest, looked) for each in elements) if elements or isinstance(document, list) else 1
        )
    if not tokens or not isinstance(document, Mapping):
        return 1
    named = [document[tokens[0]]] if tokens[0] in document else []
    named += others_alike(document, tokens[0])
    return sum(times_in_json(each, tokens[1:], looked) for each in named) if named else 1


def _elements(document: object) -> Collection[Any]:
    """What is in a list, or in an object whose names are indices, which is a list to some (PHP, forms of Rails)."""
    if isinstance(document, list):
        return document
    return [each for name, each in document.items() if _INDEX.fullmatch(name)] if isinstance(document, Mapping) else []


def one_of_a_list(place: ParamPlace) -> bool:
    """Whether a place is a pointer with an index, which is good for a list of one alone."""
    return place.is_pointer and any(_INDEX.fullmatch(each) for each in place.tokens)


def others_alike(members: Mapping[str, Any], name: str) -> list[Any]:
    """The values of other names that are like this one. Raise InvalidInput for more than can be looked through."""
    if len(members) > GUARDED_FIELDS_MAX:
        raise InvalidInput(f"an object that is compared has at most {GUARDED_FIELDS_MAX} members")
    wanted = alike(name)
    found = [value for each, value in members.items() if each != name and alike(each) == wanted]
    if len(found) > NAMES_ALIKE_MAX:
        raise InvalidInput(f"an object that is compared has at most {NAMES_ALIKE_MAX} names that are alike")
    return found


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
