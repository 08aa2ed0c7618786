"""An issuer's metadata: whose they are, how long they are kept, and what becomes of them when nobody answers."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest
from fakes.clock import FakeClock
from sojourn.limits import PROVIDER_METADATA_KEPT_SECONDS, PROVIDER_METADATA_MIN_SECONDS
from sojourn.providers.discovery import Discovery, well_known
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse

ISSUER = "https://idp.example.org/x"
DOCUMENT = {"issuer": ISSUER, "token_endpoint": "https://idp.example.org/token"}


class Pages:
    """An Http that has documents by their addresses."""

    def __init__(self, pages: dict[str, object]) -> None:
        self.pages = pages
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.down = False

    async def get(self, url: str, *, step: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
        self.asked.append(url)
        await asyncio.sleep(0)
        if self.down:
            raise ProviderUnavailable("down", step=step)
        page = self.pages.get(url)
        return (
            HttpResponse(404, {}, b"") if page is None else HttpResponse(200, self.headers, json.dumps(page).encode())
        )


def discovery(**changes: Any) -> tuple[Discovery, Pages, FakeClock]:
    document = {name: value for name, value in {**DOCUMENT, **changes}.items() if value is not ...}
    pages, clock = Pages({well_known(ISSUER)[0]: document}), FakeClock()
    return Discovery(ISSUER, pages, clock), pages, clock


class TestWhere:
    @pytest.mark.parametrize(
        ("issuer", "places"),
        [
            (
                "https://a.org",
                (
                    "https://a.org/.well-known/openid-configuration",
                    "https://a.org/.well-known/oauth-authorization-server",
                ),
            ),
            (
                "https://a.org:8443/r/x",
                (
                    "https://a.org:8443/r/x/.well-known/openid-configuration",
                    "https://a.org:8443/.well-known/oauth-authorization-server/r/x",
                ),
            ),
        ],
    )
    def test_both_forms(self, issuer: str, places: tuple[str, str]) -> None:
        """OpenID Connect appends the well-known part, RFC 8414 puts it before the path."""
        assert places == well_known(issuer)

    async def test_second_form(self) -> None:
        """Where the first is not there the second is asked."""
        found = Discovery(ISSUER, Pages({well_known(ISSUER)[1]: DOCUMENT}), FakeClock())
        assert DOCUMENT["token_endpoint"] == (await found.metadata()).token_endpoint


class TestWhose:
    @pytest.mark.parametrize(
        "said", ["https://idp.example.org/x/", "https://idp.example.org/X", "https://evil.org", None, 1, ...]
    )
    async def test_of_another_issuer(self, said: object) -> None:
        """Metadata that are not, byte for byte, of the issuer are not used."""
        with pytest.raises(ProviderUnavailable, match="another issuer"):
            await discovery(issuer=said)[0].metadata()

    @pytest.mark.parametrize(
        "endpoint", [..., "", 1, "ftp://x.org/", "https://u@x.org/", "https://x.org/#f", "javascript:1"]
    )
    async def test_bad_endpoint(self, endpoint: object) -> None:
        """An endpoint that is no plain URL makes the metadata useless."""
        with pytest.raises(ProviderUnavailable, match="token_endpoint"):
            await discovery(token_endpoint=endpoint)[0].metadata()


class TestKept:
    async def test_once_for_all(self) -> None:
        """Those who ask at once share one fetch, and later ones have what is kept."""
        found, pages, _ = discovery()
        await asyncio.gather(*(found.metadata() for _ in range(10)))
        await found.metadata()
        assert 1 == len(pages.asked)

    async def test_renewed_behind(self) -> None:
        """When its time is over it is used once more, and fetched anew meanwhile."""
        found, pages, clock = discovery()
        pages.headers = {"cache-control": "public, max-age=120"}
        await found.metadata()
        clock.advance(119)
        await found.metadata()
        assert 1 == len(pages.asked)
        clock.advance(2)
        pages.pages[well_known(ISSUER)[0]] = {**DOCUMENT, "token_endpoint": "https://idp.example.org/new"}
        assert DOCUMENT["token_endpoint"] == (await found.metadata()).token_endpoint
        await found._background.quiet()
        assert "https://idp.example.org/new" == (await found.metadata()).token_endpoint

    async def test_max_age_has_limits(self) -> None:
        """No document is fetched more often than once a minute, whatever it says."""
        found, pages, clock = discovery()
        pages.headers = {"cache-control": "max-age=0"}
        await found.metadata()
        clock.advance(PROVIDER_METADATA_MIN_SECONDS - 1)
        await found.metadata()
        await found._background.quiet()
        assert 1 == len(pages.asked)

    async def test_used_while_nobody_answers(self) -> None:
        """The last one is used while it cannot be renewed, for a day."""
        found, pages, clock = discovery()
        kept = await found.metadata()
        pages.down = True
        clock.advance(PROVIDER_METADATA_KEPT_SECONDS - 1)
        assert kept == await found.metadata()
        await found._background.quiet()
        assert kept == await found.metadata()
        clock.advance(1)
        with pytest.raises(ProviderUnavailable, match="down"):
            await found.metadata()

    async def test_comes_back(self) -> None:
        """A failure is not kept: the next who asks has what there is then."""
        found, pages, _ = discovery()
        pages.down = True
        with pytest.raises(ProviderUnavailable):
            await found.metadata()
        pages.down = False
        assert ISSUER == (await found.metadata()).issuer
