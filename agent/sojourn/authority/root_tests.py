"""Whether each root's key signs, as operators ask it: by a text that is of no use to anybody."""

import asyncio
import secrets
import time
from dataclasses import dataclass

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from sojourn.authority.root_signer import RootSigner
from sojourn.authority.x509_profile import TEST_NONCE_BYTES, check_test, key_id
from sojourn.errors import KeysUnavailable, SojournError
from sojourn.limits import ROOT_SECONDS

log = structlog.get_logger()


@dataclass(frozen=True)
class RootTest:
    """How one root's key has signed. `fault`: why it has not, "" if it has; `code` is that of the fault."""

    authority_id: str
    status: str
    place: str
    seconds: float
    fault: str = ""
    code: str = ""


async def try_root(certificate: x509.Certificate, status: str, place: str, signer: RootSigner) -> RootTest:
    """Have the key of a root sign, and look whether its certificate verifies it."""
    root_id, begun = key_id(certificate), time.monotonic()
    fault: SojournError | None = None
    try:
        nonce = secrets.token_bytes(TEST_NONCE_BYTES)
        async with asyncio.timeout(ROOT_SECONDS):
            check_test(certificate, nonce, await signer.sign_test(root_id, nonce))
    except InvalidSignature:
        fault = KeysUnavailable("what was signed is not by the key of the root's certificate")
    except TimeoutError:
        fault = KeysUnavailable(f"nothing was signed within {ROOT_SECONDS:g} s")
    except SojournError as error:
        fault = error
    seconds = time.monotonic() - begun
    if fault is None:
        return RootTest(root_id, status, place, seconds)
    log.warning("root_test_failed", authority_id=root_id, reason=fault.public, code=fault.code)
    return RootTest(root_id, status, place, seconds, fault.public, fault.code)
