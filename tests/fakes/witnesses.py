"""A witness in a test's folder, asked as over HTTP, whose answers may be others for a while."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fakes.signed_journals import SignedJournal
from sojourn.providers.errors import ProviderUnavailable
from sojourn.providers.http import HttpResponse
from sojourn.witness.cosigned_heads import CosignedHeads
from sojourn.witness.posting import AboutWitness, WitnessPosting
from sojourn.witness.witness import Witness, logs_of
from sojourn.witness.witness_key import signer_of


class FakeWitness:
    """`instead`: what it answers in the place of its own answer; None: nothing does. `down`: nobody answers."""

    def __init__(self, folder: Path, here: SignedJournal, name: str = "witness.example/w1") -> None:
        folder.mkdir(exist_ok=True)
        self.signer = signer_of(folder, name)
        self.key = self.signer.key
        self.witness = Witness(self.signer, {}, CosignedHeads(folder, self.key), here.clock)
        self.trust(here.vkey)
        self.instead: Callable[[HttpResponse], HttpResponse] | None = None
        self.down = False
        self.asked: list[bytes] = []

    def trust(self, *vkeys: str) -> None:
        self.witness.logs = logs_of(vkeys)

    async def post_content(
        self, url: str, content: bytes, *, step: str, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        assert (url, step) == ("https://witness.example/add-checkpoint", "witness")
        self.asked.append(content)
        if self.down:
            raise ProviderUnavailable("witness.example does not accept connections at port 443")
        answer = await self.witness.add(content)
        found = HttpResponse(answer.status, {"content-type": answer.content_type}, answer.body)
        return found if self.instead is None else self.instead(found)

    async def close(self) -> None:
        """There is nothing to let go of."""

    def posting(self, here: SignedJournal) -> WitnessPosting:
        """The agent's side, as a start makes it."""
        about = AboutWitness("w1", "witness.example", "https://witness.example", self.key, 10.0)
        http: Any = self
        return WitnessPosting(about, http, here.signed, here.audit, here.clock, lambda: 0.0)
