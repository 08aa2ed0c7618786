"""The command's nouns. Each is imported when it is asked for: all of them take longer than what most of them do."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from sojourn.cli.examples import epilog

# Commands without a noun, by the first line of their help.
COMMANDS: Final = {
    "validate": "Validate a JWT-SVID or a task token.",
    "explain": "Explain which identities a process gets, or would get, and what is missing for those",
    "status": "Show the agent: entries, streams, SVIDs, tasks, recent failures, and what it cannot do here.",
    "usage": "Show what tasks were granted against what was used of it, by task type, workload, resource and action.",
    "doctor": "Look for what is wrong with the agent and its machine, and say what to do about it.",
    "restore": "Restore a backup while the agent is stopped.",
}
_OWN_MODULES: Final = {"doctor", "restore", "usage"}  # of those: the others are in `inspect`
# Nouns: what they are about, and which modules beside the one of their name have commands of them.
NOUNS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "agent": (
        "Run the agent, ask whether it is ready, install it, have it join a server; of a server, see its nodes.",
        ("agent_health", "agent_install", "agent_join", "nodes"),
    ),
    "server": ("Run a server, which signs for agents of other machines, and see how it is.", ()),
    "token": ("Tokens by which agents of other machines join a server.", ()),
    "entry": ("Register which processes get which SPIFFE ID.", ("entry_adopt", "entry_export")),
    "svid": ("Fetch SVIDs as any workload would; as operator, rotate and revoke.", ("svid_revocation",)),
    "task": ("Begin, use, end and see tasks.", ("task_tokens", "task_admin", "history")),
    "approval": ("See which tasks wait for someone to agree, and decide.", ("approval_history",)),
    "review": ("Review what is held and used, and what was done behind broken glass.", ("review_csv",)),
    "fact": ("What is so in the world, for task types to read.", ("fact_deliver",)),
    "policy": ("Check, test, explain and reload task types.", ("policy_admin", "policy_replay", "policy_narrow")),
    "provider": ("See the providers outside that tasks have credentials of, and try them.", ("residuals",)),
    "person": ("People whom tasks are for, and their tokens.", ("person_admin", "person_check", "person_pseudonym")),
    "authority": (
        "The keys that sign: prepared, active, old, tainted, revoked. Old and new overlap in the bundle.",
        (),
    ),
    "keys": ("The process that alone uses the keys of roots, as a service of its own.", ()),
    "bundle": ("This trust domain's bundle, and those of foreign trust domains.", ("bundle_publish",)),
    "federation": ("Foreign trust domains whose bundles are fetched, and fetched again.", ()),
    "audit": (
        "The journal of issues, denials and task transitions.",
        ("audit_search", "audit_log", "audit_sinks", "audit_export", "audit_check", "audit_witness"),
    ),
    "evidence": ("What records say of the rows of published frameworks.", ()),
    "backup": ("Make backups of the agent's database and keys, and check them.", ()),
    "config": ("See the configuration, and where each value comes from.", ()),
}


class Summarised(TyperGroup):
    """Lists its commands with the whole first sentence of their help, and cuts none."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  # click names it
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(each)) for name, each in self.commands.items()])


def _summary(command: Any) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split()).partition(". ")[0].removesuffix(".")


def _metavar(parameter: Any) -> str | None:
    """What stands for a text in the help: the parameter's name. None for flags, numbers and choices."""
    kind = getattr(parameter, "type_descriptor", None)  # not every typer has it, and then its own words stand there
    if kind is None or kind.annotation not in _TEXTS:
        return None
    return "PATH" if "socket" in parameter.name else str(parameter.name).strip("_").upper()


class _Nouns(Summarised):
    """Knows its commands by name and help, and what they are made of when one is to run or to be completed."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        helps = COMMANDS | {noun: said for noun, (said, _) in NOUNS.items()}
        self.commands.update({name: TyperGroup(name=name, help=said) for name, said in helps.items()})

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, known, rest = super().resolve_command(ctx, args)
        return name, known if name is None else load(name), rest


def load(name: str) -> Any:
    """The command or noun itself."""
    one = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    one.callback()(lambda: None)  # so that it is a group, which makes it of the same form as the root's
    if name in COMMANDS:
        module = name if name in _OWN_MODULES else "inspect"
        one.command(name)(getattr(import_module(f"sojourn.cli.{module}"), name))
    else:
        noun = import_module(f"sojourn.cli.{name}").app
        said, others = NOUNS[name]
        for more in others:
            import_module(f"sojourn.cli.{more}").add_to(noun)
        one.add_typer(noun, name=name, cls=Summarised, help=said)
    made = typer.main.get_group(one).commands[name]
    for verb, command in {"": made, **getattr(made, "commands", {})}.items():
        command.epilog = epilog(f"{name} {verb}".rstrip())
        for each in command.params:
            each.metavar = each.metavar or _metavar(each)
    return made


_TEXTS: Final = (str, list[str], Path)
_EPILOG: Final = (
    "Begin with `sojourn agent run`, in a terminal of its own; `sojourn COMMAND --help` has examples of each. Durations"
    " are such as 500ms, 90s, 15m, 1h or 7d. What prints results takes --output json. Exit status: 0 done, 1"
    " refused, 2 usage, 3 no agent answers."
)
app = typer.Typer(
    cls=_Nouns,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A node-local SPIFFE agent: identities for processes, and access tokens that live as long as a task.",
    epilog=_EPILOG,
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        print(f"sojourn {installed('sojourn')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)
