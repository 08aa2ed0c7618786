"""Hooks: news goes up by them, to rooms that whoever tells it does not know."""

from collections.abc import Callable
from typing import Generic, ParamSpec

News = ParamSpec("News")


class Hooks(Generic[News]):
    """Those who want to hear of one thing, in the order in which they said so. Hooks neither block nor raise."""

    def __init__(self) -> None:
        self._hooks: list[Callable[News, object]] = []

    def __call__(self, hook: Callable[News, object]) -> None:
        """Call `hook` each time from now on."""
        self._hooks.append(hook)

    def tell(self, *news: News.args, **more: News.kwargs) -> None:
        for hook in self._hooks:
            hook(*news, **more)
