"""docs/glossary.md: every word of the pages that is not everybody's is there, once, and none that no page uses."""

import re
from pathlib import Path

import pytest
from sojourn.cli import root
from sojourn.config.model import Config

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GLOSSARY = DOCS / "glossary.md"
ROWS = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", GLOSSARY.read_text("utf-8"), re.MULTILINE)
WORDS = [word for words, _ in ROWS for word in words.split(", ")]
# Evidence for reviewers, who know the standards by their own words.
EVIDENCE = {
    "performance.md",
    "conformance.md",
    "standards.md",
    "standards-people.md",
    "security-cases.md",
    "guarantees.md",
    "codes.md",
}
PAGES = [
    ROOT / "README.md",
    *(path for path in sorted(DOCS.rglob("*.md")) if path.name not in EVIDENCE and path != GLOSSARY),
]
# What whoever runs a machine knows, or a page explains where it says it: units, HTTP, files, signals, makers' names.
_EVERYBODYS = (
    "AI API APIs ASCII AWS CI CLI DER DNS EKS GCP GET HEAD HTTP HTTPS IAM ID IDs IP IPv4 IPv6 JSON KiB GiB MiB LDAP POST PUT RFC RSA SDKs"
    " SHA SIGALRM SIGHUP SIGINT SIGKILL SIGTERM SQL SSH TCP TLS TOML URI URL URLs UTF YAML EC SVIDs STS CONNECT FUSE NFC"
    " JSON-RPC CSV CRI-O OpenAPI HCL HSM TPM SQLite CPU RAM NTP VM VMs CA CAs UTC MB GB NFS KMS RHEL"
)
EVERYBODYS = frozenset(_EVERYBODYS.split())
# A word that is written as code, or in capitals to stand for a value, is explained where it stands.
_CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`]*`|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
_ACRONYM = re.compile(r"\b(?<![./_-])(?:[A-Z][a-z]?[A-Z][A-Za-z0-9]*(?:-[A-Z]+)?)(?![/_(.\w])")
_VALUES = (
    "ADDRESS CMD DIR FILE HOST NAME NET PATH PID PORT TASK TYPE VALUE KEY UID USER TD SEQ URI TRUST DOMAIN NODE README LICENSE ISSUER SUBJECT NAMESPACE"
    " VERSION CHANGELOG CONTRIBUTING AADSTS700024 NACK UNAVAILABLE PS256 ES384"
)
_PLACEHOLDERS = frozenset(_VALUES.split())


def undefined(text: str) -> set[str]:
    """The abbreviations of a page that are in no glossary of anybody's."""
    known = {part for word in WORDS for part in (word, *re.split("[ -]", word))} | EVERYBODYS | _PLACEHOLDERS
    found = set(_ACRONYM.findall(_CODE.sub(" ", text)))
    return {each for each in found if each not in known and each.removesuffix("s") not in known}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_abbreviation_is_undefined(page: Path) -> None:
    """Every abbreviation that a page uses is in the glossary, unless everybody has it."""
    assert set() == undefined(page.read_text("utf-8"))


def test_what_is_found() -> None:
    """An abbreviation that nobody has explained is found, and one in code is not."""
    assert {"QZX"} == undefined("The SVID and the QZX of `ABC`, over HTTP.\n\n    XYZ\n")


def test_what_is_typed_is_there() -> None:
    """Every noun of the command, and every table of the configuration, is a word of the glossary."""
    words = {word.casefold() for word in WORDS}
    nouns = {*root.NOUNS} - {"config"} | {"configuration"}
    assert set() == {each for each in nouns if each not in words and f"{each} journal" not in words}
    tables = {"tasks", "signals", "listen", "services", "providers", "federation", "attestors", "authority", "identity"}
    assert tables < set(Config.model_fields)
    ours = {"listen": "listener", "signals": "signals"}
    assert set() == {each for each in tables if ours.get(each, each.removesuffix("s")) not in words | {"service"}}


def test_the_words_of_the_concepts_are_there() -> None:
    """What concepts.md sets in bold is a word of the glossary."""
    text = (DOCS / "concepts.md").read_text("utf-8")
    bold = {each.casefold() for each in re.findall(r"\*\*([^*]+)\*\*", text)}
    words = {word.casefold() for word in WORDS}
    assert len(bold) > 10
    assert set() == {each for each in bold if not {each, each.removesuffix("s"), re.sub("ies$", "y", each)} & words}


def test_each_is_used() -> None:
    """The glossary has no word that no page uses, and each one once, in order."""
    used = "\n".join(page.read_text("utf-8") for page in (*PAGES, *(DOCS / name for name in EVIDENCE))).casefold()
    assert [] == [word for word in WORDS if word.casefold() not in used]
    assert sorted(WORDS, key=str.casefold) == sorted({*WORDS}, key=str.casefold)
    assert [words for words, _ in ROWS] == sorted((words for words, _ in ROWS), key=str.casefold)
