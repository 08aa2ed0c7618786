"""A deny list of X.509-SVIDs that the test sets."""

from typing import Any


class FakeDenyList:
    """What doors ask of it. `serials` are on it; `hook` is called by the test when it has changed them."""

    def __init__(self) -> None:
        self.serials: set[str] = set()
        self.hook = lambda: None

    def on_change(self, hook: Any) -> None:
        self.hook = hook

    def denies(self, kind: str, svid_id: str, _spiffe_id: object) -> bool:
        return kind == "x509" and svid_id in self.serials
