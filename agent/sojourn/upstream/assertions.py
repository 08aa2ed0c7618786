"""JWT-SVIDs for outside token endpoints, where a SPIRE server signs: by a workload's own entry, as the server has it.

A server does not let a node say more than the entry and the audience. So `iss` is the server's `jwt_issuer`, the
algorithm that of its key, `aud` an array, and the life what the entry or the server says; other claims cannot be had.
There is none for an ID that has no entry here, such as the node's own.
"""

from collections.abc import Callable

from sojourn.errors import HeldByServer
from sojourn.identity.entries import Entry
from sojourn.identity.svid_signers import Assertion, JwtSigner
from sojourn.jose.jws import parse_unverified
from sojourn.spiffe.ids import SpiffeId
from sojourn.spiffe.jwtsvid import VerifiedJwtSvid


class NodeAssertions:
    """Has each signed anew."""

    def __init__(self, signer: JwtSigner, entries: Callable[[SpiffeId], tuple[Entry, ...]]) -> None:
        """`entries`: those that this node serves for a SPIFFE ID, in the stated order."""
        self._signer = signer
        self._entries = entries

    def at_once(self, asked: Assertion) -> None:
        """It has to be waited for. Raise HeldByServer for what a server does not sign."""
        self._entry(asked)

    async def sign(self, asked: Assertion) -> VerifiedJwtSvid:
        """Raise HeldByServer for what a server does not sign, and what the signer raises."""
        svid = await self._signer.sign(self._entry(asked), (asked.audience,))
        if not svid.claims.get("iss"):
            raise HeldByServer(
                "the SPIRE server's JWT-SVIDs say no issuer, by which token endpoints know them: set jwt_issuer in the"
                " server's configuration"
            )
        algorithm = parse_unverified(svid.token).algorithm
        if asked.algorithm == "RS256" and algorithm != "RS256":
            raise HeldByServer(
                f"this token endpoint takes RS256 alone, and the SPIRE server signs by {algorithm}: set jwt_key_type ="
                ' "rsa-2048" in the server\'s configuration'
            )
        return svid

    def _entry(self, asked: Assertion) -> Entry:
        if asked.claims:
            raise HeldByServer(
                f"a SPIRE server signs no further claims ({', '.join(sorted(asked.claims))}) for its nodes' workloads"
            )
        for entry in self._entries(asked.spiffe_id):
            return entry
        raise HeldByServer(
            f"no entry of this node is for {str(asked.spiffe_id)!r}, and a SPIRE server signs JWT-SVIDs by entries"
            " alone: none for a node's own ID"
        )
