"""Who it is that operators and workloads name, and by which pseudonym they are known, as blocks and facts are kept."""

from collections.abc import Mapping
from typing import NamedTuple

from sojourn.errors import InvalidInput, NotFound
from sojourn.people.person import Person, is_pseudonym
from sojourn.tasks.pseudonyms import Pseudonyms
from sojourn.tasktoken.person_claims import check_subject


class Named(NamedTuple):
    """Who is named: the issuer by its name in the configuration, its `iss`, and the person's `sub` there."""

    issuer: str
    url: str
    subject: str


class PeopleNames:
    """Finds the pseudonyms of people of the issuers that are configured."""

    def __init__(self, pseudonyms: Pseudonyms, issuers: Mapping[str, str]) -> None:
        """`issuers`: the `iss` of each, by its name in the configuration."""
        self._pseudonyms = pseudonyms
        self._issuers = issuers
        self._by_url = {url: name for name, url in issuers.items()}

    def named(self, person: str) -> Named:
        """Who is named as ISSUER/SUBJECT or ISSUER|SUBJECT, the issuer by its name; or as ISS|SUBJECT, by its `iss`.

        Raise NotFound for another issuer, or InvalidInput for what nobody can be called. No error quotes a part: it
        goes to the log, and a person's name may stand where another thing should.
        """
        issuer, mark, subject = person.partition("/")
        if issuer not in self._issuers and "|" in person:
            issuer, mark, subject = person.partition("|")
        if not issuer or not mark or not subject:
            raise InvalidInput("a person is named as ISSUER/SUBJECT, the issuer by its name in the configuration")
        name = issuer if issuer in self._issuers else self._by_url.get(issuer, "")
        if not name:
            raise NotFound("the configuration has no [people.NAME] of the issuer's name that stands before the subject")
        return Named(name, self._issuers[name], check_subject(subject))

    def pseudonym_of(self, person: str) -> str:
        """The pseudonym of whoever is named so, or by the pseudonym itself. Raise NotFound or InvalidInput."""
        if is_pseudonym(person):
            return person
        named = self.named(person)
        return self._pseudonyms.named(named.url, named.subject)

    def find(self, person: str) -> str:
        """The same; empty for whom no issuer that is configured can name."""
        try:
            return self.pseudonym_of(person)
        except (InvalidInput, NotFound):
            return ""

    def plain_name(self, url: str, subject: str) -> str:
        """What audit records call somebody in the place of their pseudonym, if they do; else empty."""
        name = self._by_url.get(url, "")
        if not name or not self._pseudonyms.is_plain(name):
            return ""
        return self._pseudonyms.of(Person(name, url, subject, 0, 0, 0))
