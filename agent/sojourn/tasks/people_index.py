"""Whose the live tasks are: by person, by session, and by the processes that hold them."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from sojourn.errors.people import PersonRefused
from sojourn.limits import PERSON_HOLDERS_KEPT
from sojourn.people.person import Person
from sojourn.policy.task_types import TaskType
from sojourn.quota.lru import Lru
from sojourn.runtime.hooks import Hooks
from sojourn.tasks.for_person import ForPerson
from sojourn.tasks.holders import NoProcess
from sojourn.tasks.task import Task

Key = tuple[str, str]
Place = tuple[int, int] | str  # a process by pid and start time, or a SPIFFE ID on another machine
_Filed = dict[str, Task]
_Held = dict[str, dict[Key, int]]  # how many tasks, by the name of their type and by person: there may be thousands
TypeOf = Callable[[Task], TaskType]
Under = TypeVar("Under")
Counted = TypeVar("Counted")


class _Places(NamedTuple):
    """Who holds a task, or will take it over; and what its holder descends from."""

    holders: tuple[Place, ...]
    above: tuple[tuple[int, int], ...]


class _Entry(NamedTuple):
    """As what a task is filed: the same for tasks that have a token and their places in common."""

    person: Person
    pseudonym: str
    token: str
    places: _Places


class PeopleIndex:
    """Finds the live tasks of a person in one step, however many there are of others."""

    def __init__(self) -> None:
        self._by_person: dict[Key, _Filed] = {}  # (iss, sub) -> ID
        self._by_session: dict[Key, _Filed] = {}  # (iss, sid) -> ID
        self._by_pseudonym: dict[str, Key] = {}
        self._by_holder: dict[Place, _Held] = {}
        # Holders that descend from a process, as they did when their tasks began, and how many tasks they have.
        self._below: dict[Place, dict[Place, int]] = {}
        self._entries: dict[str, _Entry] = {}
        self.on_left: Hooks[[str]] = Hooks()  # by the token with this digest one task less lives
        self._looked: tuple[str, _Places] | None = None  # of the last task that was looked at: it is filed next
        self._seen: Lru[tuple[Place, ...], _Places] = Lru(PERSON_HOLDERS_KEPT)  # by their holders

    def all(self) -> list[Key]:
        """Whom live tasks are for: `iss` and `sub`."""
        return [*self._by_person]

    def of_person(self, url: str, subject: str) -> list[Task]:
        """The live tasks of whoever has this `sub` at the issuer with this `iss`."""
        return [*self._by_person.get((url, subject), {}).values()]

    def of_pseudonym(self, pseudonym: str) -> list[Task]:
        """The live tasks of whoever is called so."""
        key = self._by_pseudonym.get(pseudonym)
        return [] if key is None else self.of_person(*key)

    def of_session(self, url: str, session: str) -> list[Task]:
        """The live tasks of a session: those whose person's token has this `sid`."""
        return [*self._by_session.get((url, session), {}).values()]

    def add(self, task: Task) -> None:
        """File a live task, if it is for somebody."""
        if task.whom is None:
            return
        entry = self._entries[task.id] = self._entry(task.whom, self._places(task))
        key = self._file_person(entry.person, task)
        self._by_pseudonym[entry.pseudonym] = key
        for place in entry.places.holders:
            _count(self._by_holder.setdefault(place, {}), task.type.name, key)
        for place in entry.places.above:
            _count(self._below, place, entry.places.holders[0])

    def remove(self, task: Task) -> None:
        entry = self._entries.pop(task.id, None)
        if entry is None:
            return
        key = _key(entry.person)
        self._unfile_person(entry.person, task)
        if key not in self._by_person:
            self._by_pseudonym.pop(entry.pseudonym, None)
        for place in entry.places.holders:
            _unhold(self._by_holder, place, task, key)
        for place in entry.places.above:
            _uncount(self._below, place, entry.places.holders[0])
        self.on_left.tell(entry.token)

    def renewed(self, task: Task) -> None:
        """A task has a newer word of its person, who is the same; the session may be known by now."""
        entry = self._entries.get(task.id)
        if entry is None or task.whom is None:
            return
        self._unfile_person(entry.person, task)
        self._entries[task.id] = self._entry(task.whom, entry.places)
        self._file_person(task.whom.person, task)
        if entry.token != task.whom.token:
            self.on_left.tell(entry.token)

    def check_alone(self, task: Task) -> None:
        """Raise PersonRefused if the process that is to hold a task, one that it descends from, or a descendant holds
        another person's: a process would mix up what it does for whom. Both types may let it.
        """
        if not self.is_alone(task):
            raise PersonRefused(
                "other_person_here",
                "this process, or one that it descends from or that descends from it, has a task for somebody"
                " else: end that first, or begin the task in a process of its own",
            )

    def is_alone(self, task: Task, type_of: TypeOf = lambda each: each.type) -> bool:
        """Whether none of those holds one of another person's, but where both types, as `type_of` says, let it."""
        person = task.person
        if person is None:
            return True
        entry = self._entries.get(task.id)
        holders, above = self._places(task) if entry is None else entry.places
        below = [place for each in holders for place in self._below.get(each, ())]
        key = _key(person)
        for place in (*holders, *above, *below):
            for kind, people in self._by_holder.get(place, {}).items():
                other = next((each for each in people if each != key), None)
                if other is not None and not _may_share(type_of, task, self._one_of(other, kind)):
                    return False
        return True

    def _one_of(self, key: Key, kind: str) -> Task:
        """One of a person's tasks of a type. All have the same type."""
        return next(task for task in self._by_person[key].values() if task.type.name == kind)

    def _entry(self, whom: ForPerson, places: _Places) -> _Entry:
        """As what a task is to be filed: the entry of the task of theirs that was filed last, if it is the same."""
        entry = _Entry(whom.person, whom.pseudonym, whom.token, places)
        last = next(reversed(self._by_person.get(_key(whom.person), {})), "")
        known = self._entries.get(last)
        return known if known is not None and known == entry else entry

    def _places(self, task: Task) -> _Places:
        if self._looked is None or self._looked[0] != task.id:
            self._looked = task.id, self._places_of(task)
        return self._looked[1]

    def _places_of(self, task: Task) -> _Places:
        """What the holders of live tasks descend from never becomes more. That of others that were seen before is
        looked up again if they have another parent by now.
        """
        holders = _holders(task)
        places = self._seen.get(holders)
        if places is None or holders[0] not in self._by_holder:
            above, is_all = _above(task, () if places is None else places.above)
            if places is None or places.above != above:
                places = _Places(holders, above)
                if is_all:
                    self._seen.put(holders, places)
        return places

    def _file_person(self, person: Person, task: Task) -> Key:
        key = _key(person)
        _file(self._by_person, key, task)
        if person.session:
            _file(self._by_session, (person.url, person.session), task)
        return key

    def _unfile_person(self, person: Person, task: Task) -> None:
        _unfile(self._by_person, _key(person), task)
        if person.session:
            _unfile(self._by_session, (person.url, person.session), task)


def _key(person: Person) -> Key:
    return person.url, person.subject


def _may_share(type_of: TypeOf, *tasks: Task) -> bool:
    """Whether the types of all let one process have tasks for several people."""
    rules = [type_of(each).person for each in tasks]
    return all(rule is not None and rule.several for rule in rules)


def _holders(task: Task) -> tuple[Place, ...]:
    process = task.holder.process
    if isinstance(process, NoProcess):
        # Which process it is there nobody can say: all of the workload count as one.
        return (str(task.spiffe_id),)
    held = [process] if task.heir is None else [process, task.heir.process]
    return tuple(each.key for each in held)


def _above(task: Task, before: tuple[tuple[int, int], ...]) -> tuple[tuple[tuple[int, int], ...], bool]:
    process = task.holder.process
    return ((), True) if isinstance(process, NoProcess) else process.ancestors(before)


def _file(index: dict[Key, _Filed], under: Key, task: Task) -> None:
    index.setdefault(under, {})[task.id] = task


def _unfile(index: dict[Key, _Filed], under: Key, task: Task) -> None:
    filed = index.get(under)
    if filed is not None and filed.pop(task.id, None) is not None and not filed:
        del index[under]


def _count(index: dict[Under, dict[Counted, int]], under: Under, what: Counted) -> None:
    counted = index.setdefault(under, {})
    counted[what] = counted.get(what, 0) + 1


def _uncount(index: dict[Under, dict[Counted, int]], under: Under, what: Counted) -> None:
    counted = index[under]
    counted[what] -= 1
    if not counted[what]:
        del counted[what]
    if not counted:
        del index[under]


def _unhold(index: dict[Place, _Held], place: Place, task: Task, key: Key) -> None:
    held = index.get(place, {})
    if task.type.name in held:
        _uncount(held, task.type.name, key)
    if not held:
        index.pop(place, None)
