"""Whose names of users are told: those that the machine has, wherever the agent runs."""

from sojourn.attestation.account_files import name_in
from sojourn.attestation.machine import machine

from sojourn_attestors.asking.names import Kind, LookUp


def of_the_machine() -> LookUp | None:
    """How a name is looked up where the agent's own way would tell of others' users; None: the agent's own way."""
    if machine().has_its_files or names_doubt():
        return None
    return lambda kind, number: name_in(machine(), "passwd" if kind is Kind.USER else "group", number)


def names_doubt() -> str:
    """Why no name can be told, or ''."""
    if machine().has_its_files or not machine().doubt:
        return ""
    return f"the names of users that this agent sees need not be the machine's ({machine().doubt})"
