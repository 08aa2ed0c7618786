"""A root that a test has slow, silent or failing, and pauses that last as long as the test says."""

import asyncio

from cryptography import x509
from sojourn.authority.file_root import FileRoot
from sojourn.authority.root_signer import IntermediateRequest, SignedIntermediate
from sojourn.errors import Unavailable


class WaitingRoot:
    """The root that is a file, but it has to be waited for: each answer waits for `answers` to be set.

    While `failing` it refuses, with these words.
    """

    def __init__(self, own: FileRoot) -> None:
        self._own = own
        self.answers = asyncio.Event()
        self.answers.set()
        self.failing = ""
        self.asked: list[IntermediateRequest] = []
        self.lists = 0

    def at_once(self, asked: IntermediateRequest) -> SignedIntermediate | None:
        return None

    async def sign(self, asked: IntermediateRequest) -> SignedIntermediate:
        self.asked.append(asked)
        await self._answers()
        return self._own.at_once(asked)

    def stands(self, chain: tuple[x509.Certificate, ...]) -> bool:
        return self._own.stands(chain)

    def list_at_once(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes | None:
        return None

    async def sign_list(self, root_id: str, builder: x509.CertificateRevocationListBuilder) -> bytes:
        self.lists += 1
        await self._answers()
        return self._own.list_at_once(root_id, builder)

    async def sign_test(self, root_id: str, nonce: bytes) -> bytes:
        await self._answers()
        return await self._own.sign_test(root_id, nonce)

    async def _answers(self) -> None:
        await self.answers.wait()
        if self.failing:
            raise Unavailable(self.failing)


class Pauses:
    """What is given for `sleep`: it takes no time, and keeps how long each pause was. With `held` none ends."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.held = False

    async def __call__(self, seconds: float) -> None:
        self.taken.append(seconds)
        if self.held:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
