"""The help of every command: whole, with examples that are right, and in the same words everywhere."""

import re
import shlex

import pytest
from sojourn.cli import root
from sojourn.cli.examples import EXAMPLES
from sojourn.cli.misuse import sentence


def _all():
    """Every command that can be run, by what is typed for it."""
    found = {}
    for name in (*root.COMMANDS, *root.NOUNS):
        made = root.load(name)
        verbs = getattr(made, "commands", None)
        found |= {name: made} if verbs is None else {f"{name} {verb}": each for verb, each in verbs.items()}
    return found


COMMANDS = _all()


def context(typed):
    command = COMMANDS[typed]
    return command.context_class(command, info_name=f"sojourn {typed}")


class TestExamples:
    def test_every_command_has_one(self):
        """No command is without an example, and no example is of a command that is not there."""
        assert set(COMMANDS) == set(EXAMPLES)

    @pytest.mark.parametrize("typed", EXAMPLES)
    def test_it_is_read_as_it_stands(self, typed):
        """Each example is a command line that its command takes: every option and argument of it is there."""
        lines = "\n".join(EXAMPLES[typed]).replace("\\\n", " ").splitlines()
        for line in lines:
            inner = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line).replace("$$", "1")
            words = shlex.split(re.sub(r" > \S+$", "", inner))
            assert ["sojourn", *typed.split()] == words[: 1 + len(typed.split())]
            COMMANDS[typed].make_context(typed, words[1 + len(typed.split()) :])

    @pytest.mark.parametrize("typed", EXAMPLES)
    def test_it_stands_in_the_help(self, typed):
        """The help shows the examples line by line as they are typed."""
        text = COMMANDS[typed].get_help(context(typed))
        assert all(f"  {line}\n" in text + "\n" for line in EXAMPLES[typed])


class TestWords:
    @pytest.mark.parametrize("typed", COMMANDS)
    def test_every_option_says_what_it_is(self, typed):
        """Each option and argument has a sentence, and a name for its value that is no word of Python's."""
        records = [each.get_help_record(context(typed)) for each in COMMANDS[typed].params]
        assert [] == [record for record in records if record is None or not record[1].strip(" []")]
        assert [] == [
            name for name, _ in records if re.match("--?[a-z]", name) and re.search(r"<(str|path|list.*)>", name)
        ]

    @pytest.mark.parametrize("noun", root.NOUNS)
    def test_lists_are_whole(self, noun):
        """A noun lists its verbs with their whole first sentence: nothing is cut to fit a line."""
        made = root.load(noun)
        text = made.get_help(made.context_class(made, info_name=f"sojourn {noun}"))
        words = " ".join(text.split())
        assert "..." not in text.replace("[ARGS]...", "")
        for verb, each in made.commands.items():
            first = " ".join(each.help.split("\n\n")[0].split()).partition(". ")[0].removesuffix(".")
            assert f"{verb} {first}" in words


class TestMisuse:
    @pytest.mark.parametrize(
        ("said", "becomes"),
        [
            ("Missing option '--type'.", "missing option '--type'"),
            ("No such command 'entri'. Did you mean 'entry'?", "no such command 'entri': did you mean 'entry'?"),
            ("No such option: --ouput (Possible options: --output)", "no such option: --ouput (there is: --output)"),
            (
                "Invalid value for '--output': Value error, 'yaml' is not one of 'pretty', 'json'.",
                "invalid value for '--output': 'yaml' is not one of 'pretty', 'json'",
            ),
            (
                "Invalid value for '--pid': Input should be a valid integer, unable to parse string as an integer",
                "invalid value for '--pid': must be a whole number",
            ),
            (
                "Missing option '--profile'. Choose from:\n\thttps_web,\n\thttps_spiffe\n",
                "missing option '--profile': https_web, https_spiffe",
            ),
            ("Got unexpected extra argument(s) (x)", "one argument too many (x)"),
        ],
    )
    def test_in_our_words(self, said, becomes):
        """What the library says of a command line is told as every other error: one sentence, no word of Python's."""
        assert becomes == sentence(said)
