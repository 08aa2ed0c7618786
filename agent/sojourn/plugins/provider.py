"""What a provider of one's own is made of."""

from sojourn.errors import InvalidConfig, InvalidInput, SojournError
from sojourn.providers.errors import ProviderRefused, ProviderUnavailable
from sojourn.providers.http import Http, HttpResponse
from sojourn.providers.provider import Ended, Mint, Obtained, ProviderTable, Recall, Step, Wanted

__all__ = [
    "Ended",
    "Http",
    "HttpResponse",
    "InvalidConfig",
    "InvalidInput",
    "Mint",
    "Obtained",
    "ProviderRefused",
    "ProviderTable",
    "ProviderUnavailable",
    "Recall",
    "SojournError",
    "Step",
    "Wanted",
]
