"""Small charts as SVG whose text the reader's browser sets: any script shows, and a style sheet
decides between light and dark. Drawing one takes milliseconds and no library."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from retrain.report.terminal import printable

# Colours of Okabe and Ito (2008), told apart by people who see no red or no green; what they stand
# for also has a mark or a dash of its own. The report sets the variables anew for dark screens.
STYLE = """
svg.chart text { font: 11px system-ui, sans-serif; fill: var(--ink, #222); }
svg.chart .title { font-weight: 600; font-size: 13px; }
svg.chart .axis { stroke: var(--muted, #888); fill: none; }
svg.chart .grid { stroke: var(--rule, #e2e2e2); fill: none; }
svg.chart .zero { stroke: var(--muted, #888); stroke-dasharray: 4 3; fill: none; }
svg.chart .challenger { --c: var(--challenger, #0072b2); }
svg.chart .incumbent { --c: var(--incumbent, #d55e00); }
svg.chart .before { --c: var(--before, #777777); }
svg.chart .after { --c: var(--after, #007a5a); }
svg.chart .line { stroke: var(--c); stroke-width: 1.8; fill: none; }
svg.chart .incumbent.line, svg.chart .before.line { stroke-dasharray: 6 3; }
svg.chart .mark, svg.chart .bar { fill: var(--c); stroke: var(--c); }
svg.chart .open { fill: var(--paper, #fff); stroke-width: 1.8; }
svg.chart .whisker { stroke: var(--c); stroke-width: 1.4; fill: none; }
svg.chart .band { fill: var(--rule, #e2e2e2); stroke: var(--paper, #fff); }
"""
LONGEST_LABEL = 34


def escape(text: str) -> str:
    """Text for SVG and HTML; control characters as Python writes them."""
    return html.escape(printable(text))


def shorten(text: str, most: int = LONGEST_LABEL) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}\u2026"


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers in a range, one, two or five times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def label(value: float) -> str:
    if abs(value) >= 1e6 or 0 < abs(value) < 1e-4:
        return f"{value:.2g}"
    return f"{round(value, 6) + 0:,.10g}"


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """The range of the finite ones among some values, and a little room."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


@dataclass
class Chart:
    """Axes with a title, on which marks are put in the data's units.

    Attributes
    ----------
    title, about
        What it is, and what it shows, for those who can't see it.
    x, y
        The ranges of the axes.
    names
        Labels of the places 0, 1, ... of the vertical axis, first at the top; None for numbers.
    places
        Labels of the places 0, 1, ... of the horizontal axis; None for numbers.
    """

    title: str
    about: str
    x: tuple[float, float]
    y: tuple[float, float]
    xlabel: str = ""
    ylabel: str = ""
    names: Sequence[str] | None = None
    places: Sequence[str] | None = None
    width: float = 440
    height: float = 280
    left: float = 62
    bottom: float = 44
    top: float = 44
    right: float = 16
    parts: list[str] = field(default_factory=list)
    legend: list[tuple[str, str]] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels."""
        share_x = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        share_y = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        across = self.width - self.left - self.right
        up = self.height - self.top - self.bottom
        return self.left + share_x * across, self.height - self.bottom - share_y * up

    def line(self, kind: str, x: Iterable[float], y: Iterable[float]) -> None:
        points = [
            self.at(*pair) for pair in zip(x, y, strict=True) if all(map(math.isfinite, pair))
        ]
        if points:
            path = " ".join(f"{across:.1f},{down:.1f}" for across, down in points)
            self.parts.append(f'<polyline class="{kind}" points="{path}"/>')

    def mark(self, kind: str, x: float, y: float, tip: str = "", opened: bool = False) -> None:
        """A circle, of the incumbent a square; open or full."""
        if not (math.isfinite(x) and math.isfinite(y)):
            return
        across, down = self.at(x, y)
        style = f"{kind} mark{' open' if opened else ''}"
        self.parts.append(_shape(style, across, down, tip))

    def interval(
        self, kind: str, ends: tuple[float, float], place: float, across: bool = False
    ) -> None:
        """A whisker, upright unless `across`."""
        points = [(end, place) if across else (place, end) for end in ends]
        self.line(f"{kind} whisker", *zip(*points, strict=True))

    def bar(self, kind: str, x: tuple[float, float], y: tuple[float, float], tip: str = "") -> None:
        (left, low), (right, high) = self.at(x[0], y[0]), self.at(x[1], y[1])
        self.parts.append(
            f'<rect class="{kind}" x="{min(left, right):.1f}" y="{min(low, high):.1f}" '
            f'width="{abs(right - left):.1f}" height="{abs(high - low):.1f}">'
            f"<title>{escape(tip)}</title></rect>"
        )

    def words(self, text: str, x: float, y: float, anchor: str = "middle") -> None:
        """Text in the middle of a line at a point in the data's units."""
        across, down = self.at(x, y)
        self.parts.append(_text(text, across, down + 4, anchor))

    def svg(self) -> str:
        """The chart, without its style."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" role="img" '
            f'viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" '
            f'height="{self.height:g}" aria-label="{escape(f"{self.title}. {self.about}")}">'
        )
        title = _text(self.title, 4, 16, "start", "title")
        return "\n".join([head, title, *self._axes(), *self.parts, *self._legend(), "</svg>"])

    def _axes(self) -> list[str]:
        bottom, right = self.height - self.bottom, self.width - self.right
        parts = []
        for value in ticks(*self.y, 5) if self.names is None else ():
            _, down = self.at(self.x[0], value)
            parts.append(_line("grid", self.left, down, right, down))
            parts.append(_text(label(value), self.left - 6, down + 4, "end"))
        for place, name in enumerate(self.names or ()):
            _, down = self.at(self.x[0], -place)
            parts.append(_line("grid", self.left, down, right, down))
            parts.append(_text(shorten(name), self.left - 6, down + 4, "end", tip=name))
        count = len(self.places or ())
        marks = [(float(place), shorten(name, 12)) for place, name in enumerate(self.places or ())]
        widest = 6.2 * max((len(text) for _, text in marks), default=0) + 12
        step = max(1, math.ceil(count * widest / max(1.0, right - self.left)))
        shown = marks[(count - 1) % step :: step] if count else []
        numbers = [(value, label(value)) for value in ticks(*self.x, 5)]
        for value, text in shown if self.places is not None else numbers:
            across, _ = self.at(value, self.y[0])
            parts.append(_line("axis", across, bottom, across, bottom + 4))
            parts.append(_text(text, across, bottom + 16))
        parts.append(_line("axis", self.left, bottom, right, bottom))
        parts.append(_text(self.xlabel, (self.left + right) / 2, bottom + 34))
        if self.ylabel:
            middle = (self.top + bottom) / 2
            parts.append(
                f'<text transform="translate(13 {middle:.1f}) rotate(-90)" text-anchor="middle">'
                f"{escape(self.ylabel)}</text>"
            )
        return parts

    def _legend(self) -> list[str]:
        """Each line, mark or both (`line mark`) with what it stands for, below the title."""
        parts, across, down = [], self.left, 31
        for kind, name in self.legend:
            model = kind.split()[0]
            if "line" in kind or kind == "zero":
                style = kind if kind == "zero" else f"{model} line"
                parts.append(_line(style, across, down, across + 22, down))
            if "mark" in kind:
                style = f"{model} mark{' open' if 'open' in kind else ''}"
                parts.append(_shape(style, across + 11, down, ""))
            parts.append(_text(name, across + 27, down + 4, "start"))
            across += 42 + 6.2 * len(name)
        return parts


def standalone(svg: str) -> str:
    """A chart as a document of its own, on white."""
    background = '<rect width="100%" height="100%" fill="#fff"/>'
    head, rest = svg.split("\n", 1)
    return f"{head}\n<style>{STYLE}</style>{background}\n{rest}\n"


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _shape(style: str, x: float, y: float, tip: str) -> str:
    title = f"<title>{escape(tip)}</title>" if tip else ""
    if style.startswith(("incumbent", "before")):
        place = f'x="{x - 3.5:.1f}" y="{y - 3.5:.1f}" width="7" height="7"'
        return f'<rect class="{style}" {place}>{title}</rect>'
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="4">{title}</circle>'


def _text(
    text: str, x: float, y: float, anchor: str = "middle", kind: str = "", tip: str = ""
) -> str:
    style = f' class="{kind}"' if kind else ""
    title = f"<title>{escape(tip)}</title>" if tip and tip != text else ""
    return (
        f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{title}{escape(text)}</text>'
    )
