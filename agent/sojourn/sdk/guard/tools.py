"""Tools of an agent that do what their task allows, and nothing else."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, ParamSpec, TypeVar

from sojourn.errors import InvalidInput, InvalidToken, SojournError
from sojourn.errors.oauth import ParamNotBound, ToolRefused
from sojourn.jose.jws import parse_unverified
from sojourn.sdk.client.sync import SyncTask
from sojourn.sdk.request.flow import Call, Flow, drive, drive_async
from sojourn.sdk.task.current import current_task
from sojourn.sdk.task.task import Task
from sojourn.sdk.task.values import AccessToken, TaskView, TokenOptions
from sojourn.tasktoken import request_digest

Given = ParamSpec("Given")
Result = TypeVar("Result")
Called = TypeVar("Called", bound=Callable[..., Any])
_MARK = "__sojourn_guarded__"
_MANY = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}


def guarded(
    action: str,
    *,
    params: Iterable[str] | Mapping[str, str] = (),
    resource: str = "",
    unchecked: Collection[str] = (),
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Decorate a function, plain or a coroutine, so that it runs only if the present task allows this call of it.

    Before each call the agent is asked, under `sojourn.current_task()`, for the `action` at `resource` (none: the one
    where the task has it), for these arguments alone. Arguments that bear the name of one of the task's parameters must
    agree with it; so must the `params`, which say that of arguments by other names too, as `{"ticket_id": "ticket"}`. A
    parameter that concerns the action and is no argument is a refusal, but for those that are `unchecked`: the function
    does not have them. Otherwise, without a task and whenever anything fails, ToolRefused is raised, which says why.
    What it lets through counts as a token of the task, and as a use of the action if its type limits that.
    """
    if isinstance(unchecked, str):
        raise InvalidInput(f"unchecked is several names: write [{unchecked[:64]!r}]")
    renamed = dict(params) if isinstance(params, Mapping) else {name: name for name in params}

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        tool = _Tool(function, action, renamed, resource, unchecked)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def checked_first(*args: Given.args, **kwargs: Given.kwargs) -> Any:
                await tool.check(args, kwargs)
                return await function(*args, **kwargs)

            return _marked(checked_first)  # type: ignore[return-value]  # a coroutine function, as what it wraps

        @functools.wraps(function)
        def checked(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            tool.check_blocking(args, kwargs)
            return function(*args, **kwargs)

        return _marked(checked)

    return decorate


class _Tool:
    def __init__(
        self,
        function: Callable[..., Any],
        action: str,
        renamed: Mapping[str, str],
        resource: str,
        unchecked: Collection[str] = (),
    ) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidInput("a guarded function does its work when it is called: a generator does it later")
        self._signature = inspect.signature(function)
        self._name = function.__name__
        if _is_decorated(function, self._signature):
            raise InvalidInput(
                f"{self._name} is decorated, so that its arguments may not be those that it is called with: put"
                " @guarded below its other decorators"
            )
        self._action = action
        self._renamed = renamed
        self._resource = resource
        self._unchecked = frozenset(unchecked)
        # What is among `**more` is no name of the function's: who calls could put anything there.
        own = {name for name, each in self._signature.parameters.items() if each.kind not in _MANY}
        self._compared = own | set(renamed.values()) | self._unchecked
        unknown = set(renamed) - own
        if unknown and all(each.kind is not each.VAR_KEYWORD for each in self._signature.parameters.values()):
            raise InvalidInput(f"{self._name} has no argument {min(unknown)!r}")

    async def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise ToolRefused unless the present task allows this call."""
        with _Refusing(self._name, self._action):
            task = current_task()
            use = self._use(task, *self._ask(task, args, kwargs))
            await (drive_async(use) if isinstance(task, Task) else asyncio.to_thread(drive, use))

    def check_blocking(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """The same in a thread without an event loop."""
        with _Refusing(self._name, self._action):
            task = current_task(SyncTask)
            drive(self._use(task, *self._ask(task, args, kwargs)))

    def _use(self, task: Task | SyncTask, resource: str, options: TokenOptions) -> Flow[Call, None]:
        token = yield partial(task.token, resource, [self._action], **options)
        self._check_all_compared(task, token)
        yield partial(task.use, token, self._action, options["params_digest"])

    def _check_all_compared(self, task: TaskView, given: AccessToken) -> None:
        """Raise ParamNotBound for a parameter that no argument is. The token says which concern the action."""
        unbound = _concerning(given, self._action, task.status.params) - self._compared
        if unbound:
            raise ParamNotBound(
                f"its task's parameter {min(unbound)[:64]!r} is compared with nothing: say which argument it is"
                f" (params={{'ARGUMENT': {min(unbound)[:64]!r}}}), or that there is none (unchecked)"
            )

    def _ask(self, task: TaskView, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[str, TokenOptions]:
        arguments, params = self._arguments(args, kwargs), task.status.params
        for name, param in self._renamed.items():
            if param in params and name not in arguments:
                raise ParamNotBound(f"its task's parameter {param[:64]!r} is compared with nothing: it has no {name!r}")
        # Each argument that is one, by its own name or another, of which there may be several.
        stated = [(name, name) for name in params if name in arguments]
        stated += [(name, param) for name, param in self._renamed.items() if param in params]
        for name, param in stated:
            if param not in self._unchecked and _text(arguments[name]) != params[param]:
                raise InvalidInput(f"its task is for another {param[:64]!r}")
        places = [grant.resource for grant in task.grants if self._action in grant.actions]
        if not self._resource and len(places) != 1:
            said = "at several resources: say which" if places else "nowhere"
            raise InvalidInput(f"its task has the action {self._action[:64]!r} {said}")
        return self._resource or places[0], {"bound": "agent", "params_digest": self._digest(arguments)}

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        found = self._signature.bind(*args, **kwargs)  # TypeError, as the call itself would raise
        found.apply_defaults()
        arguments = dict(found.arguments)
        for name, each in self._signature.parameters.items():
            if each.kind is each.VAR_KEYWORD:
                more = arguments.pop(name)
                if not arguments.keys().isdisjoint(more):
                    raise InvalidInput(f"{self._name} is given {min(arguments.keys() & more.keys())[:64]!r} twice")
                arguments |= more
        return arguments

    def _digest(self, arguments: Mapping[str, Any]) -> str:
        try:
            return request_digest.of_tool(self._name, arguments)
        except InvalidInput:  # they are no JSON: then it is for the action alone, which class high does not allow
            return ""


def _marked(checked: Called) -> Called:
    """The same, known for a function of ours. Decorators copy the mark, but it names another function then."""
    setattr(checked, _MARK, checked)
    return checked


def _is_decorated(function: Callable[..., Any], signature: inspect.Signature) -> bool:
    """Whether a function calls another one, with arguments that may be others than its own."""
    if not hasattr(function, "__wrapped__") or getattr(function, _MARK, None) is function:
        return False
    try:
        return hasattr(function, "__signature__") or inspect.signature(function, follow_wrapped=False) != signature
    except ValueError:  # it does not tell
        return True


def _concerning(given: AccessToken, action: str, params: Collection[str]) -> set[str]:
    """Which parameters of a task concern an action, as its token says; all, where it is another's than the agent's."""
    try:
        claims = {} if given.provider else parse_unverified(given.token).unverified_claims
        detail, bind = claims["authorization_details"][0], claims["task"].get("bind", {})
        return set(detail.get("params", {})) & set(bind.get(action, params))
    except (InvalidToken, LookupError, TypeError, AttributeError):
        return set(params)


class _Refusing:
    """Turns whatever keeps a call from being allowed into a ToolRefused."""

    def __init__(self, tool: str, action: str) -> None:
        self._tool = tool
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SojournError):
            raise ToolRefused(self._tool, self._action, error) from error


def _text(value: object) -> str | None:
    """A value as a task's parameters have it. None for what none of them can be."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool | int) else None
