"""URLs of providers are read in one way or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sojourn.limits import PROVIDER_URL_MAX_BYTES
from sojourn.net.urls import Url, parse_url

BAD = [
    *("", "example.org", "//example.org/", "ftp://example.org/", "HTTPS://example.org/", "file:///etc/passwd"),
    *("https://", "https:///x", "https://user@example.org/", "https://user:pw@example.org/", "https://@example.org/"),
    *("https://example.org/#x", "https://example.org#", "https://example.org\\@evil.org/", "https://exa mple.org/"),
    *("https://example.org/\r\nHost: x", "https://example.org/\x00", "https://example.org/a b", "https://exämple.org/"),
    *("https://example.org:0/", "https://example.org:/", "https://example.org:070/", "https://example.org:65536/"),
    *("https://example.org:22/", "https://example.org:25/", "https://example.org:99999/", "https://example.org:+443/"),
    *("https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://1.2.3.4.5/"),
    *("https://[::1/", "https://[fe80::1%25eth0]/", "https://[127.0.0.1]/", "https://[]/", "https://::1/"),
    *("https://example.org./", "https://.example.org/", "https://a..b/", "https://-a.org/", "https://a-.org/"),
    *("https://example.org?x=1#y", "https://example.org/\n", " https://example.org/", "https://" + "a" * 64 + ".org/"),
    "https://example.org/" + "a" * PROVIDER_URL_MAX_BYTES,
]


class TestParseUrl:
    @pytest.mark.parametrize("text", BAD)
    def test_refused(self, text: str) -> None:
        """What has user information, a fragment, an odd port, host or character is refused."""
        with pytest.raises(ValueError):
            parse_url(text)

    @pytest.mark.parametrize(
        ("text", "parts", "authority"),
        [
            ("https://idp.example.org", Url("https", "idp.example.org", 443, "/"), "idp.example.org"),
            ("https://idp.example.org?a=b", Url("https", "idp.example.org", 443, "/?a=b"), "idp.example.org"),
            ("https://h:8443/a/b?c=d%20", Url("https", "h", 8443, "/a/b?c=d%20"), "h:8443"),
            ("http://127.0.0.1:8080/t", Url("http", "127.0.0.1", 8080, "/t"), "127.0.0.1:8080"),
            ("https://[2001:db8::1]:8443/", Url("https", "2001:db8::1", 8443, "/"), "[2001:db8::1]:8443"),
            ("https://example.org:80/", Url("https", "example.org", 80, "/"), "example.org:80"),
        ],
    )
    def test_taken_apart(self, text: str, parts: Url, authority: str) -> None:
        """A plain URL becomes its parts, with the port that it has or its scheme's own."""
        found = parse_url(text)
        assert parts == found
        assert authority == found.authority

    @given(st.text(max_size=60) | st.text("htps:/@#[]%.0127x?", max_size=60).map("https://".__add__))
    def test_ours_or_nothing(self, text: str) -> None:
        """Whatever is given, it is one URL without surprises, or ValueError."""
        try:
            found = parse_url(text)
        except ValueError:
            return
        assert found.scheme in {"http", "https"}
        assert not set(found.host) & set("@/?#\\[] ")
        assert found.target.startswith("/")
        assert found.target.isascii()
        assert found.target.isprintable()
