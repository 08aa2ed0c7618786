"""What a provider's answers become when they are no credential."""

from typing import Literal

from sojourn.errors import SojournError

At = Literal["", "address", "tls"]


def wordless(error: Exception) -> Exception:
    """What a plugin raised, for the log: its type and where it was raised, without its words. They may be a token."""
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)


class ProviderRefused(SojournError):
    """A provider understood, and said no: asking again changes nothing. `step` is the call that it refused.

    `said`: the provider's own code for it, if it gave one. `left`: it had given something before that, which could not
    be taken back at once.
    """

    code = "provider_refused"
    grpc_status = "PERMISSION_DENIED"
    oauth_error = "invalid_target"

    def __init__(self, public: str, *, step: str = "", hint: str = "", said: str = "", detail: str = "") -> None:
        """`hint`: what to set at the provider, one sentence."""
        super().__init__(public, detail=detail)
        self.step = step
        self.hint = hint
        self.said = said
        self.left = False


class ProviderUnavailable(SojournError):
    """A provider could not be reached, or did not answer as it should: it may, later.

    `sent`: the request may have had its effect, though no answer came. `at`: what failed below HTTP, if that did: that
    there is an address that may be connected to, and answers, or its TLS.
    """

    code = "provider_unavailable"
    grpc_status = "UNAVAILABLE"
    oauth_error = "temporarily_unavailable"

    def __init__(
        self,
        public: str,
        *,
        step: str = "",
        hint: str = "",
        sent: bool = False,
        retry_after: float = 0.0,
        at: At = "",
        detail: str = "",
    ) -> None:
        """`retry_after`: seconds, as the provider said; 0: it did not."""
        super().__init__(public, detail=detail)
        self.step = step
        self.hint = hint
        self.sent = sent
        self.retry_after = retry_after
        self.at: At = at
