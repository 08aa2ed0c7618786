"""Which task was handed on from which. A living task stands here under its parent; nothing here decides anything."""

from sojourn.tasks.registry import LiveTasks
from sojourn.tasks.task import Task


class Family:
    """Living children by their parent's ID, in the order in which they began."""

    def __init__(self, tasks: LiveTasks) -> None:
        self._tasks = tasks
        self._children: dict[str, dict[str, Task]] = {}

    def add(self, task: Task) -> None:
        if task.parent_id:
            self._children.setdefault(task.parent_id, {})[task.id] = task

    def remove(self, task: Task) -> None:
        siblings = self._children.get(task.parent_id)
        if siblings is not None and siblings.pop(task.id, None) is not None and not siblings:
            del self._children[task.parent_id]

    def children(self, task: Task) -> list[Task]:
        return list(self._children.get(task.id, {}).values())

    def descendants(self, task: Task) -> list[Task]:
        """All that came of a task and lives, parents before their children."""
        found = self.children(task)
        for each in found:  # grows meanwhile
            found += self.children(each)
        return found

    def disown(self, task: Task) -> list[Task]:
        """Forget all that came of a task, and return it: whoever asks ends every one."""
        found = self.descendants(task)
        for each in (task, *found):
            self._children.pop(each.id, None)
        return found

    def parent(self, task: Task) -> Task | None:
        """The task that handed this one on, if it is still known; it may have ended."""
        return self._tasks.find(task.parent_id) if task.parent_id else None

    def line(self, task: Task) -> list[Task]:
        """The tasks that a task was handed on through, the first at its root."""
        found: list[Task] = []
        above = self.parent(task)
        while above is not None and len(found) < task.depth:
            found.append(above)
            above = self.parent(above)
        return found[::-1]
