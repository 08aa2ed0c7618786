"""For how long nobody has set the wall clock: for what must not be done by one that is about to be set right."""

from sojourn.runtime.clock import Clock

_STEP_SECONDS = 60.0  # less is no step here: it changes nothing of dates


class SettledWall:
    """The wall clock as it is seen from time to time, against the boot clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._offset = self._wall_offset()
        self._began = clock.boot()
        self._stepped: float | None = None

    def _wall_offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.boot()

    def look(self) -> None:
        """Notice whether it was set since the last look."""
        offset = self._wall_offset()
        if abs(offset - self._offset) >= _STEP_SECONDS:
            self._offset, self._stepped = offset, self._clock.boot()

    @property
    def watched_seconds(self) -> float:
        """For how long it was watched and not set."""
        return self._clock.boot() - max(self._began, self._stepped or self._began)

    def stepped_within(self, seconds: float) -> bool:
        """Whether it was seen to be set so lately."""
        return self._stepped is not None and self._clock.boot() - self._stepped < seconds
