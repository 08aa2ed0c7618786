"""The roots of an upstream authority that do not sign any more: operators taint and revoke them."""

from sojourn.authority.below import Below
from sojourn.authority.intermediates import Intermediates
from sojourn.errors import FailedPrecondition, NotFound


class UpstreamRoots:
    """Those of now. `below` is None if there is no upstream authority, and nothing is left of one."""

    def __init__(self, below: Below | None = None, issuers: Intermediates | None = None) -> None:
        self._below = below
        self._issuers = issuers

    def has(self, root_id: str) -> bool:
        """Whether the bundle has it, by its authority ID, and it is none of the agent's own."""
        return self._below is not None and self._below.is_upstream(root_id)

    @property
    def tainted(self) -> frozenset[str]:
        """The authority IDs of those whose SVIDs are not to be trusted."""
        return frozenset() if self._below is None else self._below.trust.tainted

    @property
    def replaceable(self) -> frozenset[str]:
        """Those of them whose SVIDs can be replaced: another root signs."""
        issuer, tainted = None if self._issuers is None else self._issuers.current, self.tainted
        return frozenset() if issuer is None or issuer.root_id in tainted else tainted

    def taint(self, root_id: str) -> None:
        """Mark one, so that what is below it is replaced. Raise FailedPrecondition if it signs, NotFound for none."""
        below = self._known(root_id)
        if root_id in self.tainted:
            raise FailedPrecondition("the root is tainted already")
        if self._signs(root_id):
            raise FailedPrecondition(
                "the root signs still: have the upstream authority sign by another, and wait until"
                " `sojourn authority show` says that this one does not"
            )
        below.trust.taint(root_id)

    def revoke(self, root_id: str) -> None:
        """Take a tainted one out of the bundle for good, whoever names it. Raise as `taint` does."""
        below = self._known(root_id)
        if root_id not in self.tainted or self._signs(root_id):
            raise FailedPrecondition("the root is not tainted: taint it first, so that all it signed is replaced")
        below.trust.revoke(root_id)

    def _signs(self, root_id: str) -> bool:
        return self._issuers is not None and root_id in self._issuers.under_roots

    def _known(self, root_id: str) -> Below:
        if self._below is None or self._below.upstream is None:
            raise FailedPrecondition("upstream authority is not configured")
        if not self.has(root_id):
            raise NotFound(f"the bundle has no root {root_id[:100]!r} of an upstream authority")
        return self._below
