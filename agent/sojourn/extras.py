"""How a part of Sojourn is installed that is not here: from a checkout or a wheel, as no index has it."""


def how_to_install(extra: str) -> str:
    """What to run for one of the package's extras, for the end of a sentence."""
    return f"pip install './sojourn[{extra}]', with the path of its checkout or wheel (docs/install.md)"
