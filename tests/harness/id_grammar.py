"""The grammar of SPIFFE IDs against go-spiffe's: texts around the borders of the grammar, and both verdicts on each.

`python -m harness.id_grammar COUNT [SEED]` compares COUNT texts (`make fuzz`); without a seed it takes a fresh one.
"""

import contextlib
import random
import secrets
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sojourn.errors import InvalidSpiffeId
from sojourn.limits import SPIFFE_ID_MAX_BYTES, TRUST_DOMAIN_MAX_BYTES
from sojourn.spiffe.ids import SpiffeId, TrustDomain

from harness import clients

HOST = (string.ascii_lowercase + string.digits + ".-_").encode()
SEGMENT = HOST + string.ascii_uppercase.encode()
SCHEME = b"spiffe://"
BATCH = 50_000
COMPARE_SECONDS = 120.0

# What may stand in the way of a parser: other schemes, all parts of a URI, what looks like a letter or a slash.
SCHEMES = (
    *(b"", b"SPIFFE://", b"Spiffe://", b"spiffe:/", b"spiffe:", b"spiffe:///", b"//", b"http://", b"spiffe:\\\\"),
    *(b" spiffe://", b"\xef\xbb\xbfspiffe://", b"spiffe://spiffe://", b"sp\xef\xac\x80e://", b"spiffe%3a//"),
)
PIECES = (
    *(b"/", b"//", b"/.", b"/..", b"/./", b"/../", b"...", b"/...", b".", b"..", b"\\", b":/", b"://", b"spiffe://"),
    *(b"%2f", b"%2F", b"%2e%2e", b"%41", b"%", b"%00", b":80", b":", b"u@", b"u:p@", b"?", b"?a=b", b"#", b"#f"),
    *(b"[::1]", b"[", b"*", b"~", b"+", b"!", b"$", b"&", b"'", b"(", b")", b",", b";", b"=", b" ", b"\t", b"\n"),
    *(b"\r\n", b"\0", b"\x7f", b"`", b"{", b"@", b"[", b"^", b"/spire", b"A", b"Z", b"a", b"z", b"0", b"9", b"-", b"_"),
    *(each.encode() for each in "\u212a\u0130\u017f\u0430\uff41\uff0e\u00ad\u200b\u202e\u2028\u0085\u0661é\U0001f600"),
    *("e\u0301".encode(), b"\xff", b"\x80", b"\xc3", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82"),
)


def texts(seed: str, count: int) -> Iterator[bytes]:
    """The same texts for the same seed: good IDs and names, most of them changed a little."""
    chance = random.Random(seed)
    for _ in range(count):
        text = _good(chance)
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            text = chance.choice(_CHANGES)(chance, text)
        yield text


def _good(chance: random.Random) -> bytes:
    name = _of(chance, HOST, chance.randint(1, 24))
    if chance.random() < 0.02:
        name = _of(chance, HOST, TRUST_DOMAIN_MAX_BYTES + chance.randint(-2, 2))
    if chance.random() < 0.2:
        return name
    path = b"".join(b"/" + _of(chance, SEGMENT, chance.randint(1, 8)) for _ in range(chance.randint(0, 5)))
    if chance.random() < 0.02:
        length = SPIFFE_ID_MAX_BYTES + chance.randint(-2, 2) - len(SCHEME) - len(name) - len(path)
        path += b"/" + _of(chance, SEGMENT, length - 1)
    return SCHEME + name + path


def _of(chance: random.Random, alphabet: bytes, length: int) -> bytes:
    return bytes(chance.choices(alphabet, k=length))


def _place(chance: random.Random, text: bytes) -> int:
    return chance.randint(0, len(text))


def _insert(chance: random.Random, text: bytes) -> bytes:
    at = _place(chance, text)
    return text[:at] + chance.choice(PIECES) + text[at:]


def _append(chance: random.Random, text: bytes) -> bytes:
    return text + chance.choice(PIECES)


def _replace(chance: random.Random, text: bytes) -> bytes:
    at = _place(chance, text)
    return text[:at] + chance.choice(PIECES) + text[at + 1 :]


def _any_byte(chance: random.Random, text: bytes) -> bytes:
    at = _place(chance, text)
    return text[:at] + bytes([chance.randrange(256)]) + text[at + 1 :]


def _flip_bit(chance: random.Random, text: bytes) -> bytes:
    at = _place(chance, text)
    return text[:at] + bytes([each ^ 1 << chance.randrange(8) for each in text[at : at + 1]]) + text[at + 1 :]


def _cut(chance: random.Random, text: bytes) -> bytes:
    start, end = sorted((_place(chance, text), _place(chance, text)))
    return text[:start] + text[end:]


def _repeat(chance: random.Random, text: bytes) -> bytes:
    start, end = sorted((_place(chance, text), _place(chance, text)))
    return text[:end] + text[start:]


def _upper(chance: random.Random, text: bytes) -> bytes:
    start, end = sorted((_place(chance, text), _place(chance, text)))
    return text[:start] + text[start:end].upper() + text[end:]


def _other_scheme(chance: random.Random, text: bytes) -> bytes:
    return chance.choice(SCHEMES) + text.removeprefix(SCHEME)


def _dots(chance: random.Random, text: bytes) -> bytes:
    """Make a segment of dots, or one that begins or ends with them."""
    parts = text.split(b"/")
    at = chance.randrange(len(parts))
    dots = b"." * chance.randint(0, 3)
    parts[at] = chance.choice((dots, dots + parts[at], parts[at] + dots))
    return b"/".join(parts)


_CHANGES: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *(_insert, _append, _replace, _any_byte, _flip_bit, _cut, _repeat, _upper, _other_scheme, _dots),
)

Parts = tuple[bytes, bytes] | None
"""A trust domain and a path, or nothing where the text is refused."""


@dataclass(frozen=True)
class Verdicts:
    """What a parser of IDs and one of trust domains make of a text."""

    as_id: Parts
    as_trust_domain: Parts


def ours(text: bytes) -> Verdicts:
    readable = text.decode("utf-8", "surrogateescape")  # what is no UTF-8 stays something that is in no ID
    as_id: Parts = None
    as_trust_domain: Parts = None
    with contextlib.suppress(InvalidSpiffeId):
        parsed = SpiffeId.parse(readable)
        as_id = parsed.trust_domain.name.encode(), parsed.path.encode()
    with contextlib.suppress(InvalidSpiffeId):
        as_trust_domain = TrustDomain.parse(readable).name.encode(), b""
    return Verdicts(as_id, as_trust_domain)


def theirs(asked: list[bytes]) -> list[Verdicts]:
    """go-spiffe's verdicts, by the Go client's `ids`."""
    lines = "".join(f"{text.hex()}\n" for text in asked).encode()
    done = subprocess.run(
        [clients.built("go"), "ids"], input=lines, capture_output=True, check=True, timeout=COMPARE_SECONDS
    )
    answers = [line.split(" ") for line in done.stdout.decode().splitlines()]
    return [Verdicts(*map(_parts, answer)) for answer in answers]


def _parts(answer: str) -> Parts:
    if answer == "-":
        return None
    name, path = answer.split(":")
    return bytes.fromhex(name), bytes.fromhex(path)


# Where ours is stricter, by SPIFFE-ID.md 2.3: go-spiffe knows no longest text.
STRICTER: dict[str, Callable[[bytes, bytes], bool]] = {
    "a trust domain has 255 bytes at most": lambda text, name: len(name) > TRUST_DOMAIN_MAX_BYTES,
    "an ID has 2048 bytes at most": lambda text, name: text.startswith(SCHEME) and len(text) > SPIFFE_ID_MAX_BYTES,
}


@dataclass
class Comparison:
    """What a comparison has shown."""

    differences: list[tuple[bytes, Verdicts, Verdicts]]
    """Text, expected and actual, where ours is another than go-spiffe's with our stricter rules on top."""
    counted: Counter[str]
    """How often texts were accepted and refused by both, and how often each stricter rule decided."""


def compare(seed: str, count: int) -> Comparison:
    found = Comparison([], Counter())
    asked = list(texts(seed, count))
    for text, their in zip(asked, theirs(asked), strict=True):
        expected = Verdicts(
            _by_our_rules(text, their.as_id, found.counted), _by_our_rules(text, their.as_trust_domain, found.counted)
        )
        actual = ours(text)
        if expected != actual:
            found.differences.append((text, expected, actual))
        found.counted["IDs accepted" if actual.as_id else "IDs refused"] += 1
        found.counted["trust domains accepted" if actual.as_trust_domain else "trust domains refused"] += 1
    return found


def _by_our_rules(text: bytes, their: Parts, counted: Counter[str]) -> Parts:
    if their is not None:
        for rule, breaks in STRICTER.items():
            if breaks(text, their[0]):
                counted[rule] += 1
                return None
    return their


def main() -> None:
    count = int(sys.argv[1])
    seed = sys.argv[2] if len(sys.argv) > 2 else secrets.token_hex(4)
    print(f"seed {seed}", flush=True)
    total: Counter[str] = Counter()
    for start in range(0, count, BATCH):
        found = compare(f"{seed}:{start}", min(BATCH, count - start))
        total += found.counted
        for text, expected, actual in found.differences:
            print(f"{text!r}\n  expected {expected}\n  actual   {actual}")
        if found.differences:
            sys.exit(f"{len(found.differences)} differences: seed {seed}, batch {start}")
    for what, times in sorted(total.items()):
        print(f"{times:9} {what}")
    print(f"{count} texts, no difference")


if __name__ == "__main__":
    main()
