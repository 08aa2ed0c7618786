"""people.py: the tables of those who sign people's tokens, and of who may bring them."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from fakes.configs import faults
from sojourn.config.load import load
from sojourn.config.reload import values_of

Write = Callable[[str], Path]
HEAD = '[people.corp]\nissuer = "https://idp.example.net/realms/corp"\n'
PRESENTER = '[[people.corp.presenters]]\nworkloads = ["spiffe://example.org/chat"]\nid_token_audiences = ["chat-app"]\n'


def test_good(write: Write, tmp_path: Path) -> None:
    """An issuer needs its URL and one who may bring its tokens; the rest has defaults, and a file is beside this one."""
    config = load(write(f'{HEAD}jwks = "keys.json"\n{PRESENTER}'), {}, {}).config
    table = config.people["corp"]
    assert (tmp_path / "keys.json", ("ES256", "RS256", "PS256"), timedelta(hours=1), timedelta(minutes=10), "groups", ()) == (
        table.jwks, table.algorithms, table.longest, table.fresh, table.groups, table.claims
    )  # fmt: skip
    assert (("chat-app",), (), (), ()) == (
        table.presenters[0].id_token_audiences,
        table.presenters[0].access_token_audiences,
        table.presenters[0].authorized_parties,
        table.presenters[0].id_jag_clients,
    )
    assert {"people.corp"} == {name for name in values_of(config) if name.startswith("people")}


@pytest.mark.parametrize(
    "line",
    [
        "algorithms = []",
        'algorithms = ["none"]',
        'algorithms = ["HS256"]',
        'longest = "0s"',
        'longest = "2d"',
        'fresh = "1s"',
        'groups = ""',
        'groups = "sub"',
        'claims = ["sub"]',
        'claims = ["a", "a"]',
        'claims = ["groups"]',
        'claims = [""]',
        "scopes = {}",
        'scopes = {"orders.read" = []}',
        'scopes = {"orders read" = ["order:read"]}',
        'scopes = {"" = ["order:read"]}',
        'scopes = {"orders.read" = ["order read"]}',
        'scopes = {"orders.read" = "order:read"}',
        'scopes = ["orders.read"]',
        'audit = "hidden"',
        "audit = true",
        'private_networks = ["x"]',
        'plain_http = "yes"',
        'ends = "session"',
        'ends = "never"',
        'session_longest = "1s"',
        'recheck = "1s"',
        'recheck = "1h"',
        'recheck_grace = "30s"',
        'client_id = "sojourn"',
        'client_auth = "jwt-spiffe"',
        'recheck = "30s"\nclient_auth = "none"',
        'recheck = "30s"\nrecheck_grace = "1s"',
        'jwks = "x.json"\nrecheck = "30s"',
        "unknown = 1",
        'jwks = "x.json"\nca = "ca.pem"',
        'jwks = "x.json"\ntimeout = "3s"',
    ],
)
def test_refused(write: Write, line: str) -> None:
    """A key that cannot work is one fault, and so is one that would do nothing."""
    (fault,) = faults(write(f"{HEAD}{line}\n{PRESENTER}"))
    assert "people.corp" in fault


@pytest.mark.parametrize(
    "issuer",
    [
        "",
        "idp.example.net",
        "https://",
        "https://a/#f",
        "https://a/?x=1",
        "https://u@a/",
        "ftp://a",
        "http://a.example",
    ],
)
def test_issuers(write: Write, issuer: str) -> None:
    """What is no URL that the issuer could be asked at is refused; plain http must be allowed by name."""
    text = HEAD.replace("https://idp.example.net/realms/corp", issuer)
    assert 1 == len(faults(write(text + PRESENTER)))


@pytest.mark.parametrize("issuer", ["https://tenant.example.com/", "https://a.example:8443/x"])
def test_issuers_as_they_are(write: Write, issuer: str) -> None:
    """An issuer is kept byte for byte, also with a slash at its end."""
    text = HEAD.replace("https://idp.example.net/realms/corp", issuer)
    assert issuer == load(write(text + PRESENTER), {}, {}).config.people["corp"].issuer


@pytest.mark.parametrize(
    "presenters",
    [
        "",
        "[[people.corp.presenters]]\nworkloads = []\n" + 'id_token_audiences = ["a"]',
        '[[people.corp.presenters]]\nworkloads = ["spiffe://example.org/chat"]',
        PRESENTER + 'access_token_audiences = ["https://a"]',
        PRESENTER + 'authorized_parties = ["a"]',
        PRESENTER + 'id_jag_clients = [""]',
        PRESENTER + 'id_jag_clients = ["spiffe://example.org/other"]',
        PRESENTER.replace("spiffe://example.org/chat", "operator"),
        PRESENTER.replace("spiffe://example.org/chat", "spiffe://other.example/chat"),
        PRESENTER.replace('"chat-app"', '""'),
    ],
)
def test_presenters(write: Write, presenters: str) -> None:
    """Who may bring tokens is a workload of this trust domain, with an audience of its own, and a client of theirs."""
    assert 1 == len(faults(write(HEAD + presenters)))


@pytest.mark.parametrize("client", ["f53f191f9311af35", "spiffe://example.org/chat"])
def test_id_jags_alone(write: Write, client: str) -> None:
    """A workload may bring ID-JAGs and nothing else; in them its SPIFFE ID is the name of nobody else."""
    text = HEAD + PRESENTER.replace('id_token_audiences = ["chat-app"]', f'id_jag_clients = ["{client}"]')
    assert (client,) == load(write(text), {}, {}).config.people["corp"].presenters[0].id_jag_clients


def test_the_guide_s(write: Write) -> None:
    """The table that docs/people.md shows for ID-JAGs is one."""
    page = (Path(__file__).parents[3] / "docs" / "people.md").read_text()
    shown = page.partition("## MCP: enterprise-managed authorization")[2].partition("```toml\n")[2].partition("```")[0]
    assert ("f53f191f9311af35",) == load(write(HEAD + shown), {}, {}).config.people["corp"].presenters[0].id_jag_clients


@pytest.mark.parametrize("name", ["a|b", "a/b", "A", "", "a b", "a" * 65, "-a"])
def test_names(write: Write, name: str) -> None:
    """A name goes into the names of people and groups, so it has nothing that parts those."""
    text = (HEAD + PRESENTER).replace("people.corp", f'people."{name}"')
    assert 1 == len(faults(write(text)))


def test_twice(write: Write) -> None:
    """No issuer is there twice: whose rules counted would not be said."""
    again = (HEAD + PRESENTER).replace("people.corp", "people.other")
    (fault,) = faults(write(HEAD + PRESENTER + again))
    assert "twice" in fault


def test_our_own(write: Write) -> None:
    """This agent's own issuer is none of people: a task's token would begin another task."""
    (fault,) = faults(
        write(HEAD.replace("https://idp.example.net/realms/corp", "https://sojourn.example.org") + PRESENTER)
    )
    assert "own" in fault


def test_ends(write: Write) -> None:
    """Tasks end with the token unless it is said that they end with the session, which somebody must hear the end of."""
    assert "token" == load(write(f"{HEAD}{PRESENTER}"), {}, {}).config.people["corp"].ends
    heard = '[listen]\npeople = "127.0.0.1:0"\n'
    table = load(write(f'{heard}{HEAD}ends = "session"\nsession_longest = "8h"\n{PRESENTER}'), {}, {}).config.people[
        "corp"
    ]
    assert ("session", timedelta(hours=8)) == (table.ends, table.session_longest)
    (fault,) = faults(write(f'{HEAD}ends = "session"\n{PRESENTER}'))
    assert "listen.people" in fault


def test_recheck(write: Write) -> None:
    """An issuer is asked about its tokens if that is said, by a client that is the agent itself."""
    table = load(write(f'{HEAD}recheck = "30s"\nclient_id = "node"\n{PRESENTER}'), {}, {}).config.people["corp"]
    assert (timedelta(seconds=30), timedelta(seconds=60), "node", "jwt-spiffe") == (
        table.recheck, table.recheck_grace, table.client_id, table.client_auth,
    )  # fmt: skip


class TestSeveral:
    """Issuers that may each have somebody with one and the same subject."""

    OTHER = '[people.other]\nissuer = "https://idp.example.net/realms/other"\n'

    def two(self, one: str, other: str) -> str:
        lines = [f'prefix = "{each}"\n' if each else "" for each in (one, other)]
        return f"{HEAD}{lines[0]}{PRESENTER}{self.OTHER}{lines[1]}{PRESENTER.replace('corp', 'other')}"

    def test_apart(self, write: Write) -> None:
        """Each of several has a prefix, by which services tell its people from the others'."""
        people = load(write(self.two("corp|", "other|")), {}, {}).config.people
        assert ["corp|", "other|"] == [each.prefix for each in people.values()]

    @pytest.mark.parametrize(
        ("one", "other"), [("", ""), ("a|", ""), ("", "a|"), ("a|", "a|"), ("a", "ab"), ("ab", "a")]
    )
    def test_not_apart(self, write: Write, one: str, other: str) -> None:
        """Without prefixes, or with one that begins with the other, two people might have one subject."""
        (fault,) = faults(write(self.two(one, other)))
        assert "prefix" in fault

    @pytest.mark.parametrize("prefix", ["spiffe://", "SPIFFE:x", "a b", "\u00e9", "x" * 65])
    def test_none_of_a_subject(self, write: Write, prefix: str) -> None:
        """A prefix is short and plain, and makes no subject look like a workload's."""
        (fault,) = faults(write(f'{HEAD}prefix = "{prefix}"\n{PRESENTER}'))
        assert "people.corp.prefix" in fault
