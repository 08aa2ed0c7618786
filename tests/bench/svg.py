"""Curves as SVG: both axes logarithmic, readable on light and dark pages, with what was seen least and most at each point."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 74, 150, 44, 46
COLOURS = ("#2f81f7", "#db6d28", "#2da44e", "#a371f7", "#bf8700")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-size:14px;font-weight:600}"
    ".grid{stroke:#8b949e;stroke-opacity:.3}"
    "@media(prefers-color-scheme:dark){text{fill:#adbac7}}"
)


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic scale between the powers of ten around all values, on so many pixels."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float) -> "Axis":
        """Raise ValueError for values that have no logarithm."""
        exponents = [math.log10(value) for value in values]
        low, high = math.floor(min(exponents)), math.ceil(max(exponents))
        return cls(low, max(high, low + 1), start, end)

    def at(self, value: float) -> float:
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        return [10.0**each for each in range(int(self.low), int(self.high) + 1)]


def plot(title: str, along: str, unit: str, curves: dict[str, list[tuple[float, Sequence[float]]]]) -> str:
    """A whole SVG document. Values that are not above zero are left out: they have no place on such an axis."""
    kept = {
        name: [(at, seen) for at, values in curve if at > 0 and (seen := [each for each in values if each > 0])]
        for name, curve in curves.items()
    }
    points = [point for curve in kept.values() for point in curve]
    if not points:
        raise ValueError(f"there is nothing to plot of {title!r}")
    across = Axis.of((at for at, _ in points), LEFT, WIDTH - RIGHT)
    up = Axis.of((each for _, values in points for each in values), HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        _text(LEFT, 22, title, "start", "title"),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, along),
        _text(LEFT - 8, TOP - 10, unit, "end"),
    ]
    for tick in across.ticks:
        parts += [_line(across.at(tick), TOP, across.at(tick), HEIGHT - BOTTOM)]
        parts += [_text(across.at(tick), HEIGHT - BOTTOM + 17, f"{tick:,g}")]
    for tick in up.ticks:
        parts += [_line(LEFT, up.at(tick), WIDTH - RIGHT, up.at(tick))]
        parts += [_text(LEFT - 8, up.at(tick) + 4, f"{tick:,g}", "end")]
    for number, (name, curve) in enumerate(kept.items()):
        parts += _curve(name, curve, across, up, COLOURS[number % len(COLOURS)], TOP + 14 + 20 * number)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _curve(
    name: str, curve: list[tuple[float, list[float]]], across: Axis, up: Axis, colour: str, legend: float
) -> list[str]:
    middle = [(across.at(at), up.at(median(values))) for at, values in curve]
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in middle)
    parts = [
        f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<rect x="{WIDTH - RIGHT + 14}" y="{legend - 9}" width="12" height="4" fill="{colour}"/>',
        _text(WIDTH - RIGHT + 32, legend - 3, name or "Sojourn", "start"),
    ]
    for (at, values), (x, y) in zip(curve, middle, strict=True):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>')
        parts.append(_line(x, up.at(min(values)), across.at(at), up.at(max(values)), f'stroke="{colour}"'))
    return parts


def _line(x: float, y: float, to_x: float, to_y: float, how: str = 'class="grid"') -> str:
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" {how}/>'


def _text(x: float, y: float, said: str, anchor: str = "middle", kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{shown}>{escape(said)}</text>'
