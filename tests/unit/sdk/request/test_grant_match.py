"""Which grant a URL belongs to: byte for byte, and none in doubt."""

import pytest
from sojourn.errors import InvalidInput
from sojourn.sdk.request import grant_match
from sojourn.tasktoken.grants import Grant

ORIGIN = Grant.parse("https://tickets.example.org", ["ticket:read"])
BELOW = Grant.parse("https://tickets.example.org/v1", ["ticket:write"])
PORT = Grant.parse("https://api.example.org:8443/a/b", ["read"])
GRANTS = (ORIGIN, BELOW, PORT)


@pytest.mark.parametrize(
    ("url", "grant"),
    [
        ("https://tickets.example.org", ORIGIN),
        ("https://tickets.example.org/", ORIGIN),
        ("https://tickets.example.org?q=1", ORIGIN),
        ("https://tickets.example.org/v1", BELOW),
        ("https://tickets.example.org/v1?q=1", BELOW),
        ("https://tickets.example.org/v1/tickets/42", BELOW),
        ("https://tickets.example.org/v1/a%20b/%C3%A4?next=../..", BELOW),
        ("https://tickets.example.org/v10", ORIGIN),
        ("https://tickets.example.org/V1/x", ORIGIN),
        ("https://tickets.example.org/%76%31/x", ORIGIN),
        ("https://api.example.org:8443/a/b/c", PORT),
    ],
)
def test_belongs(url: str, grant: Grant) -> None:
    """A URL of a grant's origin, at or below its path, belongs to it: to the grant with the longest path."""
    assert grant is grant_match.find(GRANTS, url)


@pytest.mark.parametrize(
    "url",
    [
        "https://tickets.example.org.evil.example/",
        "https://tickets.example.orgevil/",
        "https://evil.example/https://tickets.example.org/",
        "https://tickets.example.org@evil.example/",
        "https://user@tickets.example.org/",
        "https://tickets.example.org:443/",
        "https://tickets.example.org:/",
        "https://TICKETS.example.org/",
        "HTTPS://tickets.example.org/",
        "http://tickets.example.org/",
        "https://tickets.example.org./",
        "https://tickets.example.org\\.evil.example/",
        "https://tickets.example.org%2eevil.example/",
        "https://tickets.example.org/#x",
        "https://tickets.example.org/a b",
        "https://tickets.example.org/a\r\nHost: evil",
        "https://tickets.example.org/\u00e4",
        "https:/tickets.example.org/",
        "//tickets.example.org/",
        "https://",
        "https://api.example.org:8443/a/bc",
        "https://api.example.org:8443/a",
        "https://api.example.org/a/b",
        "",
    ],
)
def test_belongs_to_none(url: str) -> None:
    """Another origin, however much it looks like the grant's, and another way to write the same one, belong to none."""
    assert grant_match.find(GRANTS, url) is None


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/..", "/v1/../admin", "/v1/./x", "/v1/%2e%2e/admin", "/v1/%2E%2E/admin", "/v1/.%2e/admin"),
        *("/v1/x%2f..%2f..%2fadmin", "/v1/..%5cadmin", "/v1/..;/admin", "/v1/..;x=1/admin", "/v1/%252e%252e/admin"),
        *("/v1/.%0d%0a./admin", "/v1/.%09./admin", "/v1/%7f../admin", "/v1/..%20/admin", "/v1/%20../admin"),
        *("/v1/%c0%ae%c0%ae/admin", "/v1/..%C0%AFadmin", "/v1/%e0%80%ae./admin", "/v1/%25c0%25ae./admin"),
        *("/v1/%25252e%25252e/admin", "/v1/a%00b", "/v1\\..\\admin", "/v1/%2525252525252e/x"),
    ],
)
def test_no_path_leads_upwards(path: str) -> None:
    """A path that some server may read as leading out of the grant's belongs to none, however it is encoded."""
    assert grant_match.find((BELOW,), f"https://tickets.example.org{path}") is None
    assert grant_match.find((ORIGIN,), f"https://tickets.example.org{path}") is None


class TestByEndpoint:
    def test_default_port(self) -> None:
        """Who knows HOST:PORT finds grants that do not say the scheme's own port, and those that do."""
        said = Grant.parse("https://tickets.example.org:443/v2", ["x"])
        assert BELOW is grant_match.find_at((*GRANTS, said), "https", "tickets.example.org:443", "/v1/x")
        assert said is grant_match.find_at((*GRANTS, said), "https", "tickets.example.org:443", "/v2/x")
        assert grant_match.find_at(GRANTS, "http", "tickets.example.org:443", "/v1/x") is None
        assert grant_match.find_at(GRANTS, "https", "Tickets.example.org:443", "/v1/x") is None

    def test_endpoints(self) -> None:
        """Endpoints are those of https grants, each once."""
        assert {"tickets.example.org:443", "api.example.org:8443"} == grant_match.endpoints(GRANTS, "https")
        assert frozenset() == grant_match.endpoints(GRANTS, "http")

    def test_addresses(self) -> None:
        """IPv6 addresses keep their brackets."""
        grant = Grant.parse("https://[::1]:8443", ["x"])
        assert grant is grant_match.find_at((grant,), "https", "[::1]:8443", "/")
        assert ("[::1]", "8443") == grant_match.split_port("[::1]:8443")
        assert {"[::1]:8443"} == grant_match.endpoints([grant], "https")

    def test_url(self) -> None:
        """A request's URL is the grant's origin, as written, and what the request names."""
        assert "https://tickets.example.org/v1/x?q=1" == grant_match.url_of(BELOW, "/v1/x?q=1")

    def test_other_resources(self) -> None:
        """Resources that are no http URLs are at no endpoint, and no URL belongs to them."""
        urn = Grant.parse("urn:tickets", ["x"])
        assert frozenset() == grant_match.endpoints([urn], "https")
        assert grant_match.find([urn], "urn:tickets") is None


class TestOrigins:
    @pytest.mark.parametrize(
        ("url", "origin"),
        [
            ("https://API.example.org", "https://api.example.org"),
            ("https://api.example.org/", "https://api.example.org"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ],
    )
    def test_good(self, url: str, origin: str) -> None:
        """An origin is a scheme, a host and perhaps a port; the host is written in small letters."""
        assert origin == grant_match.origin_of(url)

    @pytest.mark.parametrize(
        "url",
        [
            *("", "x.example", "ftp://x.example", "https://x.example/v1", "https://x.example?y", "https://x.example#y"),
            *("https://a@x.example", "https://", "https://:443", "http://x:0", "http://x:99999", "http://x:y"),
            *("https://[::1", "https://x.example\n", "https://ä.example", "HTTPS://x.example"),
        ],
    )
    def test_bad(self, url: str) -> None:
        """Whatever is more or less than that is refused."""
        with pytest.raises(InvalidInput, match="is no origin"):
            grant_match.origin_of(url)
