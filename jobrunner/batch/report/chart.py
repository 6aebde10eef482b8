"""The frame of a chart: an SVG with axes, round ticks and their labels.

An SVG scales its text with itself.  So that labels stay readable, `variants` draws a figure more than once, for screens
of different widths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from jobrunner.batch.report.markup import Child, Markup, element, join
from jobrunner.batch.report.scales import Scale

__all__ = ["MEDIUM", "NARROW", "WIDE", "Frame", "legend", "text_width", "variants"]

#: Widths in pixels that figures are drawn for: of the whole page, on a tablet, and on a phone.
WIDE = 1040
MEDIUM = 660
NARROW = 328

#: The mean width of a character of a label, in pixels; the style sheet sets its size.
_CHARACTER = 6.6


def text_width(text: str) -> float:
    """About how wide a label is, in pixels."""
    return len(text) * _CHARACTER


def variants(draw: Callable[[float], Markup], *widths: float) -> Markup:
    """One figure for each kind of screen; the style sheet shows the one that fits.

    Args:
        draw: makes the figure for a width in pixels.
        widths: these widths: for a wide screen and a phone, or with three for a tablet between them.
    """
    kinds = ("wide", "narrow") if len(widths) == 2 else ("wide", "medium", "narrow")
    figures = [element("div", draw(width), class_=kind) for kind, width in zip(kinds, widths, strict=True)]
    return element("div", *figures, class_="full" if len(widths) == 3 else "half")


@dataclasses.dataclass(frozen=True)
class Frame:
    """Where a chart's plot lies within its SVG, in pixels.

    Attributes:
        width, height: of the SVG.
        left, right, top, bottom: the margins around the plot.
    """

    width: float
    height: float
    left: float = 46
    right: float = 10
    top: float = 24
    bottom: float = 40

    @property
    def inner_width(self) -> float:
        """The plot's width."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> float:
        """The plot's height."""
        return self.height - self.top - self.bottom

    @property
    def floor(self) -> float:
        """The vertical place of the plot's lower edge."""
        return self.height - self.bottom

    def x(self, place: float) -> float:
        """The horizontal place of a position on the axis, 0 to 1."""
        return round(self.left + place * self.inner_width, 1)

    def y(self, place: float) -> float:
        """The vertical place of a position on the axis, 0 (the floor) to 1."""
        return round(self.floor - place * self.inner_height, 1)

    def svg(self, label: str, *children: Child) -> Markup:
        """The whole SVG.

        Args:
            label: what a screen reader says in its place; a table beside it has the numbers.
            children: what it shows.
        """
        return element(
            "svg",
            element("desc", label),
            *children,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            role="img",
            aria_label=label,
        )

    def y_axis(self, scale: Scale, show: Callable[[float], str], title: str = "") -> Markup:
        """Lines at the ticks of `scale`, their labels on the left, the title above."""
        parts: list[Child] = []
        for tick in scale.ticks:
            y = self.y(scale.at(tick))
            parts.append(element("path", d=f"M{self.left:g} {y:g}H{self.width - self.right:g}", class_="grid"))
            parts.append(element("text", show(tick), x=self.left - 6, y=y + 4, class_="tick end"))
        if title:
            parts.append(element("text", title, x=0, y=12, class_="axis-title"))
        return join(parts)

    def x_axis(self, places: Iterable[tuple[float, str]], title: str = "") -> Markup:
        """The floor with ticks, and their labels where these don't run into each other.

        Args:
            places: horizontal places in pixels, ascending, with their labels.
            title: stands below, at the right.
        """
        parts: list[Child] = [
            element("path", d=f"M{self.left:g} {self.floor:g}H{self.width - self.right:g}", class_="axis")
        ]
        reached = float("-inf")
        for x, text in places:
            half = text_width(text) / 2
            middle = min(max(x, half), self.width - half)
            parts.append(element("path", d=f"M{x:g} {self.floor:g}v4", class_="axis"))
            if middle - half > reached + 6:
                parts.append(element("text", text, x=round(middle, 1), y=self.floor + 17, class_="tick middle"))
                reached = middle + half
        if title:
            parts.append(element("text", title, x=self.width - self.right, y=self.height - 4, class_="axis-title end"))
        return join(parts)


def legend(entries: Sequence[tuple[str, str]], title: str = "") -> Markup:
    """What the colours mean.

    Args:
        entries: the class of each colour, and its meaning.
        title: what they have in common.
    """
    items: list[Child] = [element("li", title, class_="legend-title")] if title else []
    for class_, meaning in entries:
        swatch = element(
            "svg",
            element("rect", width=10, height=10, rx=2, class_=class_) if not class_.startswith("m") else _mark(class_),
            viewBox="0 0 10 10",
            class_="swatch",
            aria_hidden="true",
        )
        items.append(element("li", swatch, meaning))
    return element("ul", *items, class_="legend")


def mark(shape: int, x: float, y: float, radius: float = 3.6) -> str:
    """The path of a mark: series differ in shape as well as in colour."""
    r, d = radius, 1.3 * radius
    shapes = (
        f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z",
        f"M{x - r:.1f} {y - r:.1f}h{2 * r:g}v{2 * r:g}h{-2 * r:g}z",
        f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.2f} {2.1 * r:.2f}h{-2.4 * r:.2f}z",
        f"M{x:.1f} {y - d:.1f}l{d:.2f} {d:.2f}l{-d:.2f} {d:.2f}l{-d:.2f} {-d:.2f}z",
    )
    return shapes[shape % len(shapes)]


def _mark(class_: str) -> Markup:
    """The swatch of a series: `class_` is "m" and its number."""
    place = int(class_[1:])
    return element("path", d=mark(place, 5, 5, 3.8), class_=f"s{place} mark")
