"""What is known of all items that are reviewed, in memory as on disk."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from sojourn.audit.journal import Event
from sojourn.oversight.review_rules import Shown
from sojourn.oversight.review_state import ReviewState

Change = Callable[[ReviewState], ReviewState]


class ReviewStore(Protocol):
    """Where dates and decisions are kept, each change with its records, and what was shown."""

    def load(self) -> dict[str, ReviewState]: ...

    async def save(self, states: Mapping[str, ReviewState], events: Sequence[Event] = ()) -> None: ...

    async def forget(self, items: Sequence[str]) -> None: ...

    async def show(self, shown: Sequence[Shown], now_ms: int) -> None: ...

    async def shown(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Shown]: ...


class ReviewStates(Mapping[str, ReviewState]):
    """By item. One write is made at a time; what is noted meanwhile is neither lost nor waits for it."""

    def __init__(self, store: ReviewStore) -> None:
        """Load what is kept."""
        self._store = store
        self._states = store.load()
        self._unkept: set[str] = set()  # items whose state is not on disk
        self._writing = asyncio.Lock()

    def __getitem__(self, item: str) -> ReviewState:
        return self._states[item]

    def __iter__(self) -> Iterator[str]:
        return iter(self._states)

    def __len__(self) -> int:
        return len(self._states)

    def note(self, item: str, state: ReviewState) -> None:
        """Put a state in the place of the one before; `keep` has it written."""
        self._states[item] = state
        self._unkept.add(item)

    async def keep(self) -> None:
        """Write what is not on disk. Raise what the store raises."""
        if self._unkept:
            await self.change(lambda: (dict.fromkeys(self._unkept, _as_it_is), []), 0)

    async def change(self, plan: Callable[[], tuple[Mapping[str, Change], Sequence[Event]]], now_ms: int) -> None:
        """Change some states with their records, on disk and then in memory; what has none is known since now.

        `plan` is asked when it is this write's turn, and may refuse. Raise what it and the store raise: all is as it
        was then. A state that another has noted during the write is changed as well, and written again by `keep`.
        """
        async with self._writing:
            changes, events = plan()
            before = {item: self._states.get(item) for item in changes}
            after = {item: change(before[item] or ReviewState(now_ms)) for item, change in changes.items()}
            if not after:
                return
            await self._store.save(after, events)
            for item, change in changes.items():
                noted = self._states.get(item)
                if noted is None or noted is before[item]:
                    self._states[item] = after[item]
                    self._unkept.discard(item)
                else:
                    self.note(item, change(noted))

    async def forget(self, which: Callable[[str, ReviewState], bool]) -> None:
        """Let go of some. Raise what the store raises."""
        async with self._writing:
            old = {item: state for item, state in self._states.items() if which(item, state)}
            if not old:
                return
            await self._store.forget([*old])
            for item, state in old.items():
                if self._states[item] is state:
                    del self._states[item]
                    self._unkept.discard(item)
                else:
                    self._unkept.add(item)


def _as_it_is(state: ReviewState) -> ReviewState:
    return state
