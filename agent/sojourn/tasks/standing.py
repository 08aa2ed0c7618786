"""Whether anything may be done for somebody now: nobody has blocked them, and their session goes on."""

from collections.abc import Callable

from sojourn.errors.people import PersonRefused
from sojourn.people.ended_sessions import EndedSessions
from sojourn.people.person import Person
from sojourn.tasks.blocks import Blocks
from sojourn.tasks.pseudonyms import Pseudonyms


class Standing:
    """Asked when a person's token is verified, again in the step in which a task begins or is renewed, and of tasks
    that an earlier run has left.
    """

    def __init__(self, blocks: Blocks, pseudonyms: Pseudonyms) -> None:
        self._blocks = blocks
        self._pseudonyms = pseudonyms
        self.sessions: EndedSessions | None = None  # None: there are no people
        # Raises PersonRefused for a token, by its digest, if its issuer is to be asked about it again and again, and is
        # not.
        self.check_watched: Callable[[Person, str], None] = lambda _person, _token: None

    def check(self, person: Person, token: str | None = None) -> None:
        """Raise PersonRefused. `token`: the digest of that by which a task is about to begin or to be renewed."""
        block = self._blocks.of_person(self._pseudonyms.named(person.url, person.subject))
        if block is not None:
            raise PersonRefused("person_blocked", f"this person was blocked: {block.reason}")
        if self.sessions is not None:
            self.sessions.check(person)
        if token is not None:
            self.check_watched(person, token)
