"""Print the alerts with every window and every wait divided: `rehearse.py FACTOR [ALERT ...]`.

For trying an alert out without waiting for hours: `rehearse.py 60` has AgentDown fire after two seconds. Conditions and
thresholds stay what they are, and nothing is shorter than a second. With names, only those alerts are printed. Needs
nothing but Python.
"""

import re
import sys
from pathlib import Path

RULES = Path(__file__).with_name("alerts.yaml")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_WAIT = re.compile(r"((?:^ +for: )|\[)(\d+)([smhd])(\]|$)", re.MULTILINE)
_RULE = re.compile(r"^ +- alert: (\w+)$", re.MULTILINE)


def divided(text: str, factor: float) -> str:
    """The rules with `for: 5m` and `[5m]` so many times shorter."""

    def shorter(found: re.Match[str]) -> str:
        seconds = max(1, round(int(found[2]) * _SECONDS[found[3]] / factor))
        return f"{found[1]}{seconds}s{found[4]}"

    return _WAIT.sub(shorter, text)


def only(text: str, names: set[str]) -> str:
    """The rules of these names. Raise ValueError if there is none of one."""
    starts = [*_RULE.finditer(text)]
    unknown = names - {each[1] for each in starts}
    if unknown:
        raise ValueError(f"there is no alert {', '.join(sorted(unknown))}")
    ends = [*(each.start() for each in starts[1:]), len(text)]
    return text[: starts[0].start()] + "".join(
        text[each.start() : end] for each, end in zip(starts, ends, strict=True) if each[1] in names
    )


def main() -> None:
    factor, names = float(sys.argv[1]), set(sys.argv[2:])
    text = RULES.read_text("utf-8")
    print(divided(only(text, names) if names else text, factor), end="")


if __name__ == "__main__":
    main()
